"""The tasks: one file each, and the file's name is the task's name.

A task is a frozen record of functions: where its examples come from, how they are asked, how an output is
judged. The engine owns the model, the task owns data, prompt and scorers. Importing a task never imports
torch or datasets, so that stored outputs can be scored anywhere.

A file holds two records: `TASK` on the pocket world's data and `OFFICIAL` on the benchmark's own (from the hub
or a folder). Each is asked in the way of two protocols: `strict`, and `paper`, which is LLM-KICK's released code
fault for fault. Where both ask alike they share one run, and only the scorers differ; every output is judged by
the scorers of both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Literal, NamedTuple

from kick_core.errors import BadRequest, nearest
from kick_core.records import Example, Output, Verdict

Kind = Literal["generate", "dialogue", "choose", "perplexity"]
Template = Literal["raw", "chat", "vicuna_v1.1"]

PROTOCOLS = ("strict", "paper")

EXTRA = ("word_perplexity",)
"""Tasks that are not LLM-KICK's: asked when named, in no preset and no coverage."""

POCKET = "pocket"
"""The data of the pocket models' world; any other name means the benchmarks' own data."""

AS_PUBLISHED = "as_published"
"""The last words in the name of every scorer that reproduces a fault of LLM-KICK's released code."""

MEASURES = frozenset(
    ("repeated", "unique_words", "unique_tokens", "distinct_1", "distinct_2", "looping", "hit_limit", "length")
)
"""Scorers that describe a text: they have a difference, but no right, no wrong and nothing to keep."""


class Score(NamedTuple):
    """A scorer's word on one output. `score` None: not judged (never counts as wrong).

    `why` is one of: right, wrong, no answer, empty, loop, cut off, rejected, not finite; or empty for graded
    scores.
    """

    score: float | None
    extracted: str = ""
    why: str = ""


Scorer = Callable[[Example, Output], Score]


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """How a task is asked: which examples in which order, and how the model may answer.

    `kind`: free text after a raw prompt, a dialogue, the options' log-probabilities, or running text.
    `load(data)` gives the examples in one fixed order. `new_tokens` bounds an answer; `times_prompt` instead
    bounds it by a multiple of the prompt's tokens. `room` bounds a few-shot prompt, whose shots are dropped one by
    one while it is longer (None: the model's context); `shots` keeps fewer than there are (None: all).
    `template`: the prompt as it is, the tokenizer's own
    chat template (Vicuna's where it has none), or always Vicuna's. `unit` is what a perplexity counts: tokens of
    windows, or words of pages. `temperatures` samples instead of decoding
    greedily: category of the example -> temperature, "" for all others; 0 is greedy. `faults` names what is
    reproduced of the released code's ways of asking.
    """

    kind: Kind
    load: Callable[[str], tuple[Example, ...]]
    new_tokens: int = 0
    times_prompt: int = 0
    stop: tuple[str, ...] = ()
    room: int | None = None
    shots: int | None = None
    template: Template = "raw"
    unit: Literal["token", "word"] = "token"
    temperatures: Mapping[str, float] = field(default_factory=dict)
    top_k: int = 50
    faults: tuple[str, ...] = ()

    def temperature(self, example: Example) -> float:
        """The sampling temperature of one example; 0 is greedy."""
        return self.temperatures.get(str(example.meta.get("category", "")), self.temperatures.get("", 0.0))


@dataclass(frozen=True, slots=True)
class Task:
    """One task on one kind of data.

    `strict` says how it is asked, `paper` how LLM-KICK's code asked it (None: alike). `headline` names the scorer
    that plots show, `published` the one that the paper reports ("" where that was a judge's). `aggregate` says
    how scores become the task's number: their mean, or the exponential of it (perplexity).
    """

    name: str
    title: str
    about: str
    version: int
    strict: PromptSpec
    scorers: Mapping[str, Scorer]
    headline: str
    paper: PromptSpec | None = None
    published: str = ""
    aggregate: Literal["mean", "exp"] = "mean"
    higher_is_better: bool = True

    @property
    def kind(self) -> Kind:
        return self.strict.kind

    def asking(self, protocol: str) -> PromptSpec:
        """How a protocol asks. Raises BadRequest for an unknown protocol."""
        return self.paper if protocol_of(protocol) == "paper" and self.paper else self.strict

    def headline_of(self, protocol: str) -> str:
        """The scorer that a protocol reports."""
        return self.published if protocol_of(protocol) == "paper" and self.published else self.headline


def protocol_of(protocol: str) -> str:
    """The protocol, if there is one of this name. Raises BadRequest otherwise."""
    if protocol not in PROTOCOLS:
        raise nearest(protocol, PROTOCOLS, "protocol")
    return protocol


@cache
def _files() -> tuple[str, ...]:
    """Files that hold a task's record; the others here are shared parts."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return tuple(path.stem for path in files if re.search(r"^(TASK|OFFICIAL)\b", path.read_text("utf-8"), re.MULTILINE))


def names() -> tuple[str, ...]:
    """The tasks of LLM-KICK, found by looking at file names."""
    return tuple(name for name in _files() if name not in EXTRA)


def get(name: str, data: str = POCKET) -> Task:
    """One task by name, on the pocket world's data or on the benchmark's own.

    Raises BadRequest with the nearest known names, or when the task has no such data.
    """
    if name not in (known := (*names(), *EXTRA)):
        raise nearest(name, known, "task")
    task: Task | None = getattr(
        import_module(f"kick_core.tasks.{name}"), "TASK" if data == POCKET else "OFFICIAL", None
    )
    if task is None:
        raise BadRequest(f"task {name!r} cannot be asked on data {data!r}: it knows the other kind of data only")
    return task


def about_scorer(task: Task, name: str) -> str:
    """What a scorer counts, in one sentence, for people."""
    return " ".join((task.scorers[name].__doc__ or name).strip().split("\n\n")[0].split())


def judge(task: Task, example: Example, output: Output) -> list[Verdict]:
    """All verdicts on one output. One that was rejected (prompt too long) or not finite is not judged."""
    if output.stop in UNJUDGED:
        return [Verdict(example.id, name, None, "", output.stop) for name in task.scorers]
    return [Verdict(example.id, name, *scorer(example, output)) for name, scorer in task.scorers.items()]


UNJUDGED = ("rejected", "not finite")
"""Ends of an output that no scorer sees."""
