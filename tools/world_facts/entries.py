"""What the build scripts share: an entry before it has distractors, texts compared as a reader would, hashed order."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from functools import cache


@dataclass(frozen=True)
class Relation:
    """A kind of question. `question` has one `{}` for the subject.

    `first` is the tier of its best known facts. A code in a register (a domain, an ISO code, a postal abbreviation) and
    an ordinal number (of an element, a president) are looked up and not known, however well known is what they stand
    for: such relations begin at tier 2.
    """

    name: str
    question: str
    unit: str
    tiers: str
    sources: tuple[str, ...]
    family: str = ""
    first: int = 1


QUARTERS = "quarters of the relation by popularity"
LOOKED_UP = "thirds of the relation by popularity, from tier 2 on: a code or an ordinal number is looked up, not known"


@dataclass
class Entry:
    """One fact. `sentences`: the passage's candidates, the one with the answer first."""

    relation: str
    subject: str
    answer: str
    aliases: list[str]
    popularity: float
    sentences: list[str]
    entity: str = ""
    also_right: set[str] = field(default_factory=set)
    pool: list[str] | None = None
    tier: int = 0


@cache
def plain(text: str) -> str:
    """`text` in lower-case ASCII letters and digits, words parted by one space.

    Args:
        text: Any text.

    Returns:
        The text without diacritics, case, punctuation and leading articles.
    """
    text = text.translate(str.maketrans("øØłŁđĐıßæÆœŒ₀₁₂₃₄₅₆₇₈₉", "oOlLdDisaAoO0123456789"))
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", " ", ascii_text).split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in {"the", "a", "an"} else words)


def contains(text: str, phrase: str) -> int:
    """How often `phrase` stands in `text` as whole words, both made plain."""
    return f" {plain(text)} ".replace(" ", "  ").count(f" {plain(phrase)} ".replace(" ", "  "))


def ranked(names: list[str], salt: str) -> list[str]:
    """`names` in an order that depends on each name and `salt` only: a name more or less moves no other."""
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{salt}\0{name}".encode()).hexdigest())


def slug(text: str) -> str:
    """`text` as a part of an id."""
    return plain(text).replace(" ", "-")


def spellings(answer: str, aliases: list[str]) -> list[str]:
    """The aliases without repetition; a spelling without diacritics is added where the answer has some."""
    bare = unicodedata.normalize("NFKD", answer).encode("ascii", "ignore").decode()
    extra = [bare] if bare != answer and len(bare) == len(answer) else []
    return [name for name in dict.fromkeys([*aliases, *extra]) if name and name != answer]
