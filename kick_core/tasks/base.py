"""What a task is: a frozen record of functions and of the facts that the rest of the program shows about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from kick_core.errors import BadRequest, nearest
from kick_core.records import Example, Output, Verdict
from kick_core.tasks.elicitation import Elicitation

Kind = Literal["generate", "dialogue", "choose", "perplexity"]
Template = Literal["raw", "chat", "vicuna_v1.1"]
Measures = Literal["fluency", "knowledge", "in_context", "skill"]

PROTOCOLS = ("strict", "paper")

POCKET, OFFICIAL = "pocket", "official"
"""Names of data: the pocket models' world; the benchmark's own from the hub. Any other name is a folder with the
benchmark's own files."""

AS_PUBLISHED = "as_published"
"""The last words in the name of every scorer that reproduces a fault of LLM-KICK's released code."""

DESCRIPTIVE = frozenset(
    (
        "repeated",
        "unique_words",
        "unique_tokens",
        "distinct_1",
        "distinct_2",
        "looping",
        "hit_limit",
        "length",
        "recalled",
    )
)
"""Scorers that describe a text: they have a difference, but no right, no wrong and nothing to keep."""

GROUPS = ("subject", "discipline", "bucket", "category")
"""What examples are grouped by, in their facts."""

LEFT_OUT = "left out"
"""The end of an output whose answer a compact pack left out."""

UNJUDGED = ("rejected", "not finite", LEFT_OUT)
"""Ends of an output that no scorer sees."""

NO_GOLD = "no gold"
"""Why an answer is not judged whose golds hold no word that could be compared."""


class Score(NamedTuple):
    """A scorer's result on one output.

    Attributes:
        score: the number, or None: not judged (never counts as wrong).
        extracted: what was read out of the output, for people.
        why: one of right, wrong, no answer, empty, loop, cut off, rejected, not finite, no gold; empty for graded
            scores.
    """

    score: float | None
    extracted: str = ""
    why: str = ""


Scorer = Callable[[Example, Output], Score]


_SHORT = 64
"""Tokens of an answer that is a few words, with room for a sentence around them."""


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """How a task is put to a model: which examples in which order, and how the model may answer.

    Attributes:
        kind: free text after a raw prompt, a dialogue, the options' log-probabilities, or running text.
        load: data name -> the examples in one fixed order.
        new_tokens: the most tokens of an answer.
        times_prompt: bounds an answer by this multiple of the prompt's tokens instead; 0: `new_tokens` counts.
        fills_context: whether an answer gets what the context leaves where that is less; else its example is rejected.
        verbatim: whether the white space around an answer is kept.
        stop: texts at which an answer ends.
        room: tokens that a few-shot prompt may have; shots are dropped one by one while it is longer. None: the
            model's context.
        shots: how many of the worked examples are shown; None: all there are.
        fewshot_seed: draws which are shown, and in which order; None: the first ones.
        template: the prompt as it is, the tokenizer's own chat template (Vicuna's where it has none), or always
            Vicuna's.
        unit: what a perplexity counts: tokens of windows, or words of pages.
        temperatures: category of the example -> sampling temperature, "" for all others; 0 is greedy.
        top_k: how many tokens are sampled among.
        faults: what is reproduced of the released code's ways of asking, in words.
        elicitation: how the question reads in a chat template or after worked examples; None: it has one form.
        prompting: the form that is taken: `raw`, `chat` or `shots:K` (`kick_core.evaluation.prompting` settles it).
    """

    kind: Kind
    load: Callable[[str], tuple[Example, ...]]
    new_tokens: int = 0
    times_prompt: int = 0
    fills_context: bool = False
    verbatim: bool = False
    stop: tuple[str, ...] = ()
    room: int | None = None
    shots: int | None = None
    fewshot_seed: int | None = None
    template: Template = "raw"
    unit: Literal["token", "word"] = "token"
    temperatures: Mapping[str, float] = field(default_factory=dict)
    top_k: int = 50
    faults: tuple[str, ...] = ()
    elicitation: Elicitation | None = None
    prompting: str = "raw"

    @property
    def long(self) -> bool:
        """Whether texts are long: answers of more than a few words, or prompts with passages."""
        answers = self.kind == "dialogue" or self.new_tokens > _SHORT or self.times_prompt > 0
        return answers or (self.elicitation is not None and self.elicitation.passages)

    @property
    def varied(self) -> bool:
        """Whether prompts have many lengths: long texts, or worked examples of each question's own."""
        return self.long or (self.kind == "choose" and self.elicitation is None)

    def temperature(self, example: Example) -> float:
        """The sampling temperature of one example; 0 is greedy."""
        return self.temperatures.get(str(example.meta.get("category", "")), self.temperatures.get("", 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task on one kind of data.

    Attributes:
        name: the file's name.
        title: the name that tables and charts show.
        about: what is asked and scored on this data, in one line.
        version: raised whenever a scorer or the order of the examples changes.
        measures: the task's role: `fluency` (running text), `knowledge` (the answer must come out of the weights),
            `in_context` (the answer is in the prompt) or `skill` (neither). Headline, claims and recovery tables
            take their tasks by it.
        order: the place in tables and pickers; the first task of a role leads it.
        colour: "#rrggbb" of its lines.
        noun: what is kept or lost, in a sentence ("factoid knowledge"); the title where empty.
        context_partner: of an open-book task: the task that asks the same without the evidence.
        in_paper: whether it belongs to LLM-KICK's grid (`--preset paper`).
        demo_examples: how many examples `--preset demo` asks; None: the demo leaves it out.
        listed: whether pickers, coverage and `tasks.names()` show it; if not, it is only asked when named.
        shipped: whether its examples ship with the package, so that any model can be asked without a network.
        licence: under which its questions may be passed on with results; empty: they may not, or it is not known.
        strict: how the strict protocol asks.
        paper: how LLM-KICK's code asked; None: as `strict`.
        scorers: name -> function of an example and an output. A function's docstring is what people read about it.
        headline: the scorer that plots show.
        published: the scorer that the paper reports ("" where that was a judge's).
        aggregate: how scores become the task's number: their mean, or the exponential of it (perplexity).
        higher_is_better: which direction is better.
        groups: further groupings of examples for the details of a run: name -> function of an example, "" for none.
    """

    name: str
    title: str
    about: str
    version: int
    measures: Measures
    order: int
    colour: str
    strict: PromptSpec
    scorers: Mapping[str, Scorer]
    headline: str
    noun: str = ""
    context_partner: str = ""
    in_paper: bool = False
    demo_examples: int | None = None
    listed: bool = True
    shipped: bool = False
    licence: str = ""
    paper: PromptSpec | None = None
    published: str = ""
    aggregate: Literal["mean", "exp"] = "mean"
    higher_is_better: bool = True
    groups: Mapping[str, Callable[[Example], str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for scorer in (self.headline, *([self.published] if self.published else [])):
            if scorer not in self.scorers:
                raise nearest(scorer, self.scorers, f"scorer of task {self.name}")
        if not re.fullmatch(r"#[0-9a-f]{6}", self.colour):
            raise BadRequest(f"colour {self.colour!r} of task {self.name}: '#' and six hexadecimal digits are needed")

    @property
    def kind(self) -> Kind:
        """How it is answered; the same under both protocols."""
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


def about_scorer(task: Task, name: str) -> str:
    """What a scorer counts, in one sentence, for people."""
    return " ".join((task.scorers[name].__doc__ or name).strip().split("\n\n")[0].split())


def judge(task: Task, example: Example, output: Output) -> list[Verdict]:
    """All verdicts on one output. One that was rejected (prompt too long) or not finite is not judged."""
    if output.stop in UNJUDGED:
        return [Verdict(example.id, name, None, "", output.stop) for name in task.scorers]
    return [Verdict(example.id, name, *scorer(example, output)) for name, scorer in task.scorers.items()]
