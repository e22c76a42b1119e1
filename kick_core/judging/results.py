"""From raw replies to the numbers of one judging: scores, wins and losses, noise, controls.

Everything is per example first: its turns, orders and repeats are not independent, so intervals are over
examples. An example counts when every turn of it has a verdict on both answers; the others are counted as not
judged. In both orders a winner must win twice, else it is a tie (Zheng et al. 2023, section 3.4).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import NamedTuple

from kick_core import stats
from kick_core.judging import prompts, styles
from kick_core.judging.questions import Style
from kick_core.judging.styles import ALONE, FIRST
from kick_core.records import JudgingCard, Question, Reply

NOT_MEASURED = "not measured"
WITHIN_NOISE = "within the judge's noise"
NO_DIFFERENCE = "no difference shown"


class ParsedReply(NamedTuple):
    """A question with its verdict.

    Attributes:
        question: As it was asked.
        mine: Values of the judged answer, one per criterion.
        dense: Values of dense's beside it; empty when judged alone.
    """

    question: Question
    mine: tuple[float, ...]
    dense: tuple[float, ...]

    @property
    def value(self) -> float:
        return fmean(self.mine)

    @property
    def sign(self) -> int:
        """1 when the judged answer is better than dense, -1 when worse, 0 for a tie."""
        return (fmean(self.mine) > fmean(self.dense)) - (fmean(self.mine) < fmean(self.dense))


class Compared(NamedTuple):
    """One example, compressed against dense.

    Attributes:
        score: Mean score of the compressed answer.
        dense: Mean score of the dense answer.
        outcome: 1 is a win for compressed, 0 a loss, 0.5 a tie.
        metrics: Mean scores of the compressed answer by criterion.
    """

    score: float
    dense: float
    outcome: float
    metrics: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Control:
    """One control.

    Attributes:
        name: "null", "injection" or "same".
        about: What it checks, for people.
        n: Comparisons.
        hits: Null or injected answers that were judged at least as good as the dense one (should be at most 5 %), or
            equal answers that were judged alike (should be at least 95 %).
        share: hits / n with its interval.
        score: Mean score of the control's answers; nan where it has none.
        holds: Whether the share is as it should be; None without comparisons.
    """

    name: str
    about: str
    n: int
    hits: int
    share: stats.Interval
    score: float
    holds: bool | None


@dataclass(frozen=True, slots=True)
class Published:
    """The published code's own reading of the same replies.

    Attributes:
        score: Mean of the compressed answers; LLM-KICK's is over the replies in which that answer is second.
        n: Replies that it could read.
        unparsed: Replies that it could not.
    """

    score: float
    n: int
    unparsed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one judging. Scores are from 1 to 10; pairwise they are shares of wins, ties counted half.

    Attributes:
        examples: Examples with a question.
        asked: Questions.
        answered: Those with a reply.
        unparsed: Replies without a verdict.
        cut: Questions with a shortened answer.
        defused: Questions in whose answers tokens of chat templates were broken up.
        repeats: How often each was asked.
        score: Of the compressed model, over examples.
        dense: Of the dense model, over the same examples.
        difference: Compressed minus dense, paired.
        win: Examples on which the compressed model is better.
        tie: Examples on which neither is.
        loss: Examples on which it is worse.
        win_rate: The share of wins, ties counted half.
        consistent: The share of comparisons in which both orders agree.
        noise: The mean difference between two verdicts on the same answer, measured in this judging.
        verdict: What may be said of the difference.
        metrics: Mean scores of the compressed answers by criterion, where there are several.
        published: The published code's reading, where it prints an average.
        controls: What the judge is worth.
        served: The names that the endpoint gave itself: a judge may change behind one name.
    """

    examples: int
    asked: int
    answered: int
    unparsed: int
    cut: int
    defused: int
    repeats: int
    score: stats.Interval
    dense: stats.Interval
    difference: stats.Interval
    win: int
    tie: int
    loss: int
    win_rate: stats.Interval
    consistent: stats.Interval
    noise: float
    verdict: str
    metrics: dict[str, float]
    published: Published | None
    controls: tuple[Control, ...]
    served: tuple[str, ...]


def outcome(card: JudgingCard, questions: Sequence[Question], replies: Mapping[str, Reply]) -> Outcome:
    """Derive everything from the stored replies; no question is sent.

    Args:
        card: Of the judging.
        questions: All of it.
        replies: Key of a question -> reply, where there is one.
    """
    parsed = [one for question in questions if (one := _parse(question, replies.get(question.key)))]
    by = _by_subject(parsed)
    noise = _noise(parsed)
    turns = _turns(questions)
    compared = _compared(card, by["recipe"], by["dense"], turns, noise)
    values = list(compared.values())
    wins = [one.outcome for one in values]
    scores, dense = [one.score for one in values], [one.dense for one in values]
    of_wins = styles.get(card.style).scale == "wins"
    score = stats.score(scores) if of_wins else stats.mean(scores)
    # two answers share one win, so dense's part is a half and no sample
    from_half = stats.Interval(score.value - 0.5, score.low - 0.5, score.high - 0.5, score.n)
    difference = from_half if of_wins else stats.paired_difference(dense, scores)
    answered = sum(question.key in replies for question in questions)
    return Outcome(
        examples=len({question.example for question in questions}),
        asked=len(questions),
        answered=answered,
        unparsed=answered - len(parsed),
        cut=sum(question.cut for question in questions),
        defused=sum(question.defused for question in questions),
        repeats=max((question.repeat for question in questions if question.subject == "recipe"), default=0),
        score=score,
        dense=stats.mean(dense),
        difference=difference,
        win=sum(one > 0.5 for one in wins),
        tie=sum(one == 0.5 for one in wins),
        loss=sum(one < 0.5 for one in wins),
        win_rate=stats.score(wins),
        consistent=_consistent(by["recipe"], _orders(card)),
        noise=noise,
        verdict=_verdict(difference, noise),
        metrics=_metrics(values),
        published=_published(card.style, questions, replies),
        controls=_controls(card, by, turns),
        served=tuple(sorted({replies[q.key].model for q in questions if q.key in replies} - {""})),
    )


def _parse(question: Question, reply: Reply | None) -> ParsedReply | None:
    """The strict verdict on a question, or None: no reply, or unparsed."""
    reading = styles.form(question.form).read(reply.text, reply.stop) if reply else None
    if reading is None:
        return None
    if question.order == FIRST:
        return ParsedReply(question, reading.second, reading.first)
    return ParsedReply(question, reading.first, reading.second)


def _by_subject(parsed: Iterable[ParsedReply]) -> defaultdict[str, list[ParsedReply]]:
    by: defaultdict[str, list[ParsedReply]] = defaultdict(list)
    for one in parsed:
        by[one.question.subject].append(one)
    return by


def _turns(questions: Iterable[Question]) -> dict[str, set[int]]:
    """Example -> the turns that were asked of it."""
    turns: defaultdict[str, set[int]] = defaultdict(set)
    for question in questions:
        turns[question.example].add(question.turn)
    return turns


def _noise(parsed: Iterable[ParsedReply]) -> float:
    """Mean absolute difference between two verdicts on the same answer in the same place; nan without any."""
    repeats: defaultdict[tuple[object, ...], list[float]] = defaultdict(list)
    for one in parsed:
        q = one.question
        repeats[q.subject, q.example, q.turn, q.order].append(one.value)
    differences = [
        fmean(abs(a - b) for a, b in combinations(values, 2)) for values in repeats.values() if len(values) > 1
    ]
    return fmean(differences) if differences else math.nan


def _orders(card: JudgingCard) -> int:
    """In how many orders every comparison was asked."""
    return len(Style(card.style, as_published=card.as_published).orders)


def _compared(
    card: JudgingCard,
    mine: Sequence[ParsedReply],
    dense: Sequence[ParsedReply],
    turns: Mapping[str, set[int]],
    noise: float,
) -> dict[str, Compared]:
    """Example -> compressed against dense, where every turn of both is judged."""
    style = styles.get(card.style)
    if style.alone:
        return _against_alone(mine, dense, turns, noise)
    comparisons = _side_by_side(mine, turns, _orders(card))
    if style.scale == "rating":
        return comparisons
    return {name: Compared(one.outcome, 0.5, one.outcome) for name, one in comparisons.items()}


def _against_alone(
    mine: Sequence[ParsedReply], dense: Sequence[ParsedReply], turns: Mapping[str, set[int]], noise: float
) -> dict[str, Compared]:
    """Two ratings, given apart. They are a tie when they differ by no more than two verdicts on one answer."""
    after, before = _rated(mine, turns), _rated(dense, turns)
    close = 0.0 if math.isnan(noise) else noise
    comparisons = {}
    for example in after.keys() & before.keys():
        difference = after[example] - before[example]
        result = 0.5 if abs(difference) <= close else float(difference > 0)
        comparisons[example] = Compared(after[example], before[example], result)
    return comparisons


def _rated(parsed: Iterable[ParsedReply], turns: Mapping[str, set[int]]) -> dict[str, float]:
    """Example -> mean rating over its turns, each the mean of its repeats."""
    by: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in parsed:
        by[one.question.example][one.question.turn].append(one.value)
    return {
        name: fmean(map(fmean, by_turn.values())) for name, by_turn in by.items() if by_turn.keys() == turns[name]
    }  # fmt: skip


def _side_by_side(parsed: Sequence[ParsedReply], turns: Mapping[str, set[int]], orders: int) -> dict[str, Compared]:
    """Both answers in one prompt, in every order that was asked."""
    by: defaultdict[str, defaultdict[int, list[Compared]]] = defaultdict(lambda: defaultdict(list))
    for (example, turn, _), verdicts in _units(parsed, orders).items():
        by[example][turn].append(_unit(verdicts))
    return {
        name: _average([_average(comparisons) for comparisons in by_turn.values()])
        for name, by_turn in by.items()
        if by_turn.keys() == turns[name]
    }


def _units(parsed: Sequence[ParsedReply], orders: int) -> dict[tuple[str, int, int], list[ParsedReply]]:
    """(example, turn, repeat) -> its verdicts, where every order has one."""
    units: defaultdict[tuple[str, int, int], list[ParsedReply]] = defaultdict(list)
    for one in parsed:
        units[one.question.example, one.question.turn, one.question.repeat].append(one)
    return {place: verdicts for place, verdicts in units.items() if len(verdicts) == orders}


def _unit(verdicts: Sequence[ParsedReply]) -> Compared:
    """One comparison: a winner wins in every order, else it is a tie."""
    signs = {one.sign for one in verdicts}
    metrics = tuple(map(fmean, zip(*(one.mine for one in verdicts), strict=True)))
    return Compared(
        fmean(one.value for one in verdicts),
        fmean(fmean(one.dense) for one in verdicts),
        (signs.pop() + 1) / 2 if len(signs) == 1 else 0.5,
        metrics,
    )


def _average(comparisons: Sequence[Compared]) -> Compared:
    return Compared(
        fmean(one.score for one in comparisons),
        fmean(one.dense for one in comparisons),
        fmean(one.outcome for one in comparisons),
        tuple(map(fmean, zip(*(one.metrics for one in comparisons), strict=True))),
    )


def _consistent(parsed: Sequence[ParsedReply], orders: int) -> stats.Interval:
    """The share of comparisons in which both orders name the same winner, or both a tie."""
    both = [{one.sign for one in verdicts} for verdicts in _units(parsed, orders).values() if len(verdicts) > 1]
    return stats.wilson(sum(len(signs) == 1 for signs in both), len(both))


def _metrics(values: Sequence[Compared]) -> dict[str, float]:
    """Mean scores of the compressed answers by criterion, where there are several."""
    columns = list(zip(*(one.metrics for one in values), strict=True))
    return dict(zip(prompts.METRICS, map(fmean, columns), strict=True)) if len(columns) > 1 else {}


def _verdict(difference: stats.Interval, noise: float) -> str:
    """A difference is one when it is larger than the judge's noise and its interval leaves nothing out."""
    if difference.n == 0:
        return NOT_MEASURED
    if abs(difference.value) <= noise:
        return WITHIN_NOISE
    if difference.high < 0:
        return "worse"
    return "better" if difference.low > 0 else NO_DIFFERENCE


def _published(style: str, questions: Iterable[Question], replies: Mapping[str, Reply]) -> Published | None:
    """The published parser's number over the same replies."""
    order = styles.get(style).published_order
    if order is None:
        return None
    mine = [q for q in questions if q.subject == "recipe" and q.order == order and q.key in replies]
    read = [styles.form(q.form).published(replies[q.key].text) for q in mine]
    scores = [fmean(one.second or one.first) for one in read if one]
    return Published(fmean(scores) if scores else math.nan, len(scores), len(read) - len(scores))


def _controls(
    card: JudgingCard, by: Mapping[str, Sequence[ParsedReply]], turns: Mapping[str, set[int]]
) -> tuple[Control, ...]:
    controls = []
    for name, about in (
        ("null", "one answer to everything, judged at least as good as dense"),
        ("injection", "answers that ask for the best verdict, judged at least as good as dense"),
    ):
        compared = list(_compared(card, by[name], by["dense"], turns, 0.0).values())
        hits = sum(one.outcome >= 0.5 for one in compared)
        score = fmean(one.score for one in compared) if compared else math.nan
        controls.append(_control(name, about, hits, len(compared), score))
    alike = _alike(by["same"])
    controls.append(_control("same", "the same answer twice, judged alike", sum(alike), len(alike), math.nan))
    return tuple(controls)


def _alike(parsed: Sequence[ParsedReply]) -> list[bool]:
    """Whether the same answer was judged alike: beside itself, or alone a second time."""
    if all(one.question.order != ALONE for one in parsed):
        return [one.mine == one.dense for one in parsed]
    repeats: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for one in parsed:
        repeats[one.question.example, one.question.turn].append(one.value)
    return [len(set(values)) == 1 for values in repeats.values() if len(values) > 1]


def _control(name: str, about: str, hits: int, n: int, score: float) -> Control:
    share = stats.wilson(hits, n)
    holds = None if n == 0 else (share.value >= 0.95 if name == "same" else share.value <= 0.05)
    return Control(name, about, n, hits, share, score, holds)
