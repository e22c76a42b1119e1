"""Can a task measure this model? What dense answers to its prompts, and whether that is more than a guess."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kick_core import stats
from kick_core.records import Example, Output, SentPrompt
from kick_core.store import Store, results
from kick_core.tasks.base import NO_GOLD
from kick_core.views import load, paired
from kick_core.views.example_table import gold_words, lettered
from kick_core.views.example_table import question as question_of
from kick_core.views.load import Asked
from kick_core.views.verdict_columns import VerdictColumns

SMALL = 100
"""Examples below which a check says that it is a first look."""

_ALL_LOST = 6
"""Right answers that must break, none being fixed, before the exact McNemar test is below 5 % (2 / 2^6)."""

_SAME, _ENOUGH = 0.8, 12
"""Share of equal answers from which a model is said to answer one thing whatever it is asked; among how many."""


@dataclass(frozen=True, slots=True)
class CheckedAnswer:
    """One of dense's answers, and the prompt that it answers.

    Attributes:
        question: The question alone.
        gold: What would be right.
        raw: The answer as it was written; of a choice the option taken.
        extracted: What the scorer read in it.
        right: None: not judged.
        sent: The prompt as it was sent; None where the run of an earlier version did not keep it.
    """

    question: str
    gold: str
    raw: str
    extracted: str
    right: bool | None
    sent: SentPrompt | None


@dataclass(frozen=True, slots=True)
class TaskCheck:
    """Whether a model can be measured on a task.

    Attributes:
        task: The task's name.
        title: Its title.
        run: Key of the dense run.
        form: How questions are put: `raw`, `chat` or `shots:K`.
        reason: Why they are put so.
        n: Judged examples.
        total: Examples that the task has.
        unjudged: Examples without room in the context, with logits that are not finite, or without a usable gold.
        scorer: Whose number counts.
        score: Dense's, with its interval.
        floor: The score of a blind guess; nan for perplexity, which has none.
        measurable: The verdict.
        because: The verdict's reason, in one or two sentences.
        answers: The first ones.
    """

    task: str
    title: str
    run: str
    form: str
    reason: str
    n: int
    total: int
    unjudged: int
    scorer: str
    score: stats.Interval
    floor: float
    measurable: bool
    because: str
    answers: tuple[CheckedAnswer, ...]

    @property
    def verdict(self) -> str:
        """For people."""
        return f"{'can' if self.measurable else 'cannot'} be measured on this task"

    @property
    def size(self) -> str:
        """How far the numbers can be trusted, in words."""
        first = ": a first look, the interval is wide" if self.n < SMALL else ""
        return f"n = {self.n:,} of {self.total:,}{first}"


def checks(store: Store, runs: Iterable[str]) -> list[TaskCheck]:
    """Check tasks by their dense runs.

    Args:
        store: The cache.
        runs: Keys of dense runs.

    Returns:
        One check per run that has answers, in the order of `runs`.
    """
    return [_check(store, load.one(store, key)) for key in runs if results.measured(store, key)]


def _check(store: Store, run: Asked) -> TaskCheck:
    scorer = run.task.headline_of(run.card.protocol)
    columns = load.verdicts(store, run)[scorer]
    numbers = paired.numbers(store, run, scorer, columns, None)
    score = stats.Interval(numbers["score"], numbers["low"], numbers["high"], numbers["n"])
    floor = math.nan if run.task.aggregate == "exp" else paired.floor(store, run, scorer)
    total = max(run.card.total, results.measured(store, run.key))
    sent = results.prompts(store, run.key)
    measurable, because = _verdict(run, columns, score, floor, total, sent.context if sent else 0)
    return TaskCheck(
        run.card.task, run.task.title, run.key,
        sent.form if sent else str(run.card.settings.get("prompting", "raw")), sent.reason if sent else "",
        score.n, total, numbers["unjudged"], scorer, score, floor, measurable, because,
        _answers(store, run, columns, sent.prompts if sent else ()),
    )  # fmt: skip


def _verdict(
    run: Asked, columns: VerdictColumns, score: stats.Interval, floor: float, total: int, context: int
) -> tuple[bool, str]:
    """Whether there is something to lose, and why."""
    if not score.n and (columns.why == NO_GOLD).all():
        return False, "no question has a gold that could be compared: give other golds"
    if not score.n:
        return False, (
            f"no question could be asked: each needs more room than the model's context of {context:,} tokens, or its "
            "logits are not finite" if context else "no question could be asked"
        )  # fmt: skip
    if math.isnan(floor):
        return True, "perplexity has no floor: every change of the text's probability shows"
    dense = f"dense scores {_percent(score.value)} (95 % interval {_percent(score.low)} to {_percent(score.high)})"
    guess = f"a blind guess {_percent(floor)}"
    if not stats.anything_to_lose(score, floor):
        lost = paired.AT_CHANCE
        if score.value > floor and score.n < min(SMALL, total):
            lost = "so few answers cannot tell dense from chance; --limit asks more"
        return False, f"{dense}, {guess}: {lost}{_form(run, columns)}"
    needed = math.ceil(_ALL_LOST / score.value)
    if not floor and needed > total:
        return False, f"{dense}: even if all of that were lost, the task's {total:,} examples could not show it"
    few = f"; to show that all of it is lost takes about {needed:,} examples" if not floor and needed > score.n else ""
    return True, f"{dense}, {guess}{few}"


def _form(run: Asked, columns: VerdictColumns) -> str:
    """What the answers at chance have in common, where it is their form; else nothing."""
    judged = np.flatnonzero(~np.isnan(columns.score))
    if judged.size < _ENOUGH:
        return ""
    (most, count), *_ = Counter(columns.extracted_at(int(at)) for at in judged).most_common(1)
    formless = sum(str(columns.why[at]) in ("loop", "empty", "no answer") for at in judged)
    if count < _SAME * judged.size and formless < _SAME * judged.size:
        return ""
    equal = f"{count} of {judged.size} answers are {most!r}"
    other = "task, of options by their words," if "letter_given" in run.task.scorers else "--prompting"
    return f"; {equal if count > formless else 'its answers are loops or empty'}: another {other} may suit it"


def _answers(
    store: Store, run: Asked, columns: VerdictColumns, sent: Sequence[SentPrompt], count: int = 3
) -> tuple[CheckedAnswer, ...]:
    about = load.examples(store, run.card.examples)
    prompts = {one.example: one for one in sent}
    answers = []
    for at, name in enumerate(columns.ids[:count]):
        example, output = about[name], load.answer(store, run.key, name)
        assert output is not None
        score, read = columns.score[at], columns.extracted_at(at)
        judged = run.task.aggregate == "mean" and not math.isnan(score)
        answers.append(
            CheckedAnswer(
                question_of(example), gold_words(example), _raw(example, output, read), read,
                bool(score >= paired.RIGHT) if judged else None, prompts.get(name),
            )
        )  # fmt: skip
    return tuple(answers)


def _raw(example: Example, output: Output, taken: str) -> str:
    return lettered(example, taken) if example.choices else "\n\n".join(output.text)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
