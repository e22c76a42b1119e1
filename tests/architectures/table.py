"""The table of architectures: measured in parallel, written to docs/architectures.md, and read back to be compared.

python -m tests.architectures.table            write it
python -m tests.architectures.table NAME...    examine these alone and print what comes out
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import transformers

from tests.architectures import tiny_models
from tests.architectures.examine import Outcome, examine

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
_BEGIN = "| architecture | compression | answers | remarks |\n|---|---|---|---|\n"
_TEXT = """# Architectures

Every causal language model of the installed transformers library, made tiny by rules on its config (four blocks, hidden
size 64, random weights) and tried by `tests/architectures`. transformers {transformers}, torch {torch}, float32, CPU.

- **compression**: `wanda@0.5`, `sparsegpt@2:4` and `gptq@4bit,group=8` on 12 windows of 40 tokens. *exact*: masks equal
  those computed from plain forwards, and the output errors of the other two are those of the same method on inputs
  taken from plain forwards.
- **answers**: log-probabilities of options, greedy texts and perplexity. *equal*: to plain forwards without a cache,
  one text at a time.
- *refused*: one line, with the reason that is given here.

{counts}

{time}

"""


def examined(names: Sequence[str], workers: int | None = None) -> Iterator[Outcome]:
    """Outcomes in the order of the names, made in parallel processes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context, initializer=_quiet) as pool:
        yield from pool.map(examine, names)


def _quiet() -> None:
    import warnings

    warnings.filterwarnings("ignore")
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)


def page(outcomes: Sequence[Outcome], duration: str) -> str:
    """The page's text; `duration` says how long the run took."""
    torch_version = torch.__version__.split("+")[0]
    head = _TEXT.format(
        transformers=transformers.__version__, torch=torch_version, counts=counts(outcomes), time=duration
    )
    return head + _BEGIN + "".join(_row(outcome) for outcome in outcomes)


def counts(outcomes: Sequence[Outcome]) -> str:
    """How many architectures came out how, in a sentence."""
    made = [o for o in outcomes if not o.compression.startswith("not made")]
    parts = []
    for column, kinds in (("compression", ("exact", "refused")), ("answers", ("equal", "approximate", "refused"))):
        words = [getattr(o, column) for o in made]
        numbers = [sum(w.startswith(kind) for w in words) for kind in kinds]
        known = [f"{number} {kind}" for number, kind in zip(numbers, kinds, strict=True)]
        parts.append(f"{column}: {', '.join(known)}, {len(words) - sum(numbers)} wrong")
    return f"{len(outcomes)} architectures, {len(made)} made tiny; {'; '.join(parts)}."


def _row(outcome: Outcome) -> str:
    return f"| {outcome.name} | {outcome.compression} | {outcome.answers} | {'; '.join(outcome.remarks)} |\n"


def written() -> dict[str, str]:
    """The rows of the committed page by architecture."""
    rows = PAGE.read_text(encoding="utf-8").partition(_BEGIN)[2].splitlines(keepends=True)
    return {row.split("|")[1].strip(): row for row in rows if row.startswith("| ")}


def row(outcome: Outcome) -> str:
    """An outcome as the page has it."""
    return _row(outcome)


if __name__ == "__main__":
    names, began = sys.argv[1:], time.perf_counter()
    outcomes = list(examined(names or tiny_models.architectures()))
    if names:
        print(*map(_row, outcomes), sep="", end="")
    else:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = f"{time.perf_counter() - began:,.0f} s on {os.cpu_count()} cores"
        processor = f"{spent.ru_utime + spent.ru_stime:,.0f} s of processor time"
        PAGE.write_text(page(outcomes, f"The run took {seconds}, {processor}."), encoding="utf-8")
        print(counts(outcomes))
