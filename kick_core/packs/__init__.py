"""Packs: results that travel without weights, in one compressed file that is checked like every foreign file.

A pack holds one model's runs (cards, answers, verdicts), the questions where their licence allows it, and the cards of
the artifacts that were measured. `container` is the file, `columns` how tables become bytes, `packing` goes from a
cache to a pack, `unpacking` back into a cache, `gallery` shows the packs that ship. docs/packs.md says what is left
out.
"""

from kick_core.packs.container import SUFFIX, Header, read_header
from kick_core.packs.packing import Selection, build
from kick_core.packs.unpacking import Unpacked, unpack

__all__ = ["SUFFIX", "Header", "Selection", "Unpacked", "build", "read_header", "unpack"]
