"""FreebaseQA as LLM-KICK's GPTQ script asks it: without the line break that the scripts for pruned models have.

The paper's 8-bit numbers (table 2) were asked in these words, its dense and pruned ones in those of `factoid_qa`, so a
difference between them may be the prompt's. Asked of dense and of quantized recipes here, it tells.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from kick_core.tasks import factoid_qa
from kick_core.tasks.wording import FACTOID_QUANTIZED_AS_PUBLISHED

_PAPER = factoid_qa.OFFICIAL.asking("paper")
_AS_PUBLISHED = replace(
    _PAPER, load=partial(factoid_qa.as_published, wording=FACTOID_QUANTIZED_AS_PUBLISHED), faults=(
        *_PAPER.faults, "no line break in the prompt"
    )
)  # fmt: skip

OFFICIAL = replace(
    factoid_qa.OFFICIAL,
    name="factoid_qa_quantized",
    title="Factoid QA (GPTQ script)",
    about="FreebaseQA in the words of the released GPTQ script; share of answers whose first sentence names a gold",
    version=1,
    order=21,
    colour="#a65c00",
    in_paper=False,
    demo_examples=None,
    listed=False,
    strict=_AS_PUBLISHED,
    paper=None,
)
