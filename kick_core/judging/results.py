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


class Heard(NamedTuple):
    """A question with its verdict: values of the judged answer and of dense beside it (empty when alone)."""

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
    """One example: mean score of the compressed and of the dense answer; 1 a win for compressed, 0 a loss."""

    score: float
    dense: float
    outcome: float
    metrics: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Control:
    """One control. `hits` of `n`: a null model's or an injected answer that was judged at least as good as the
    dense one (shall be at most 5 %), or the same answer twice judged alike (shall be at least 95 %).
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
    """LLM-KICK's or MT-Bench's own reading: mean score of the compressed answers, how many replies it could
    not read. LLM-KICK's is over the replies in which the compressed answer stood second.
    """

    score: float
    n: int
    unparsed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one judging found. Scores are from 1 to 10; pairwise they are shares of wins, ties counted half.

    `noise` is the mean difference between two verdicts on the same answer, measured in this judging.
    `consistent` is the share of comparisons in which both orders agree. Every count is there: `asked`
    questions, `answered` ones, `unparsed` replies, questions whose answers were `cut` or `defused` before.
    `served` are the names that the endpoint gave itself: a judge may change behind one name.
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


def outcome(card: JudgingCard, asked: Sequence[Question], replies: Mapping[str, Reply]) -> Outcome:
    """Derive everything from the raw replies; nothing is asked."""
    heard = [one for question in asked if (one := _heard(question, replies.get(question.key)))]
    by = _by_subject(heard)
    noise = _noise(heard)
    turns = _turns(asked)
    compared = _compared(card, by["recipe"], by["dense"], turns, noise)
    values = list(compared.values())
    wins = [one.outcome for one in values]
    scores, dense = [one.score for one in values], [one.dense for one in values]
    difference = stats.paired_difference(dense, scores)
    answered = sum(question.key in replies for question in asked)
    return Outcome(
        examples=len({question.example for question in asked}),
        asked=len(asked),
        answered=answered,
        unparsed=answered - len(heard),
        cut=sum(question.cut for question in asked),
        defused=sum(question.defused for question in asked),
        repeats=max((question.repeat for question in asked if question.subject == "recipe"), default=0),
        score=stats.score(scores) if styles.get(card.style).scale == "wins" else stats.mean(scores),
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
        published=_published(card.style, asked, replies),
        controls=_controls(card, by, turns),
        served=tuple(sorted({replies[q.key].model for q in asked if q.key in replies} - {""})),
    )


def _heard(question: Question, reply: Reply | None) -> Heard | None:
    """The strict verdict on a question, or None: no reply, or unparsed."""
    found = styles.form(question.form).read(reply.text, reply.stop) if reply else None
    if found is None:
        return None
    if question.order == FIRST:
        return Heard(question, found.second, found.first)
    return Heard(question, found.first, found.second)


def _by_subject(heard: Iterable[Heard]) -> defaultdict[str, list[Heard]]:
    by: defaultdict[str, list[Heard]] = defaultdict(list)
    for one in heard:
        by[one.question.subject].append(one)
    return by


def _turns(asked: Iterable[Question]) -> dict[str, set[int]]:
    """Example -> the turns that were asked of it."""
    turns: defaultdict[str, set[int]] = defaultdict(set)
    for question in asked:
        turns[question.example].add(question.turn)
    return turns


def _noise(heard: Iterable[Heard]) -> float:
    """Mean absolute difference between two verdicts on the same answer in the same place; nan without any."""
    again: defaultdict[tuple[object, ...], list[float]] = defaultdict(list)
    for one in heard:
        q = one.question
        again[q.subject, q.example, q.turn, q.order].append(one.value)
    apart = [fmean(abs(a - b) for a, b in combinations(found, 2)) for found in again.values() if len(found) > 1]
    return fmean(apart) if apart else math.nan


def _orders(card: JudgingCard) -> int:
    """In how many orders every comparison was asked."""
    return len(Style(card.style, as_published=card.as_published).orders)


def _compared(
    card: JudgingCard, mine: Sequence[Heard], dense: Sequence[Heard], turns: Mapping[str, set[int]], noise: float
) -> dict[str, Compared]:
    """Example -> compressed against dense, where every turn of both is judged."""
    style = styles.get(card.style)
    if style.alone:
        return _against_alone(mine, dense, turns, noise)
    found = _side_by_side(mine, turns, _orders(card))
    if style.scale == "rating":
        return found
    return {name: Compared(one.outcome, 0.5, one.outcome) for name, one in found.items()}


def _against_alone(
    mine: Sequence[Heard], dense: Sequence[Heard], turns: Mapping[str, set[int]], noise: float
) -> dict[str, Compared]:
    """Two ratings, given apart. They are a tie when they differ by no more than two verdicts on one answer."""
    after, before = _rated(mine, turns), _rated(dense, turns)
    close = 0.0 if math.isnan(noise) else noise
    found = {}
    for example in after.keys() & before.keys():
        apart = after[example] - before[example]
        result = 0.5 if abs(apart) <= close else float(apart > 0)
        found[example] = Compared(after[example], before[example], result)
    return found


def _rated(heard: Iterable[Heard], turns: Mapping[str, set[int]]) -> dict[str, float]:
    """Example -> mean rating over its turns, each the mean of its repeats."""
    by: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in heard:
        by[one.question.example][one.question.turn].append(one.value)
    return {
        name: fmean(map(fmean, found.values())) for name, found in by.items() if found.keys() == turns[name]
    }  # fmt: skip


def _side_by_side(heard: Sequence[Heard], turns: Mapping[str, set[int]], orders: int) -> dict[str, Compared]:
    """Both answers in one prompt, in every order that was asked."""
    by: defaultdict[str, defaultdict[int, list[Compared]]] = defaultdict(lambda: defaultdict(list))
    for (example, turn, _), verdicts in _units(heard, orders).items():
        by[example][turn].append(_unit(verdicts))
    return {
        name: _average([_average(found) for found in by_turn.values()])
        for name, by_turn in by.items()
        if by_turn.keys() == turns[name]
    }


def _units(heard: Sequence[Heard], orders: int) -> dict[tuple[str, int, int], list[Heard]]:
    """(example, turn, repeat) -> its verdicts, where every order has one."""
    units: defaultdict[tuple[str, int, int], list[Heard]] = defaultdict(list)
    for one in heard:
        units[one.question.example, one.question.turn, one.question.repeat].append(one)
    return {place: found for place, found in units.items() if len(found) == orders}


def _unit(verdicts: Sequence[Heard]) -> Compared:
    """One comparison: a winner wins in every order, else it is a tie."""
    signs = {one.sign for one in verdicts}
    metrics = tuple(map(fmean, zip(*(one.mine for one in verdicts), strict=True)))
    return Compared(
        fmean(one.value for one in verdicts),
        fmean(fmean(one.dense) for one in verdicts),
        (signs.pop() + 1) / 2 if len(signs) == 1 else 0.5,
        metrics,
    )


def _average(found: Sequence[Compared]) -> Compared:
    return Compared(
        fmean(one.score for one in found),
        fmean(one.dense for one in found),
        fmean(one.outcome for one in found),
        tuple(map(fmean, zip(*(one.metrics for one in found), strict=True))),
    )


def _consistent(heard: Sequence[Heard], orders: int) -> stats.Interval:
    """The share of comparisons in which both orders name the same winner, or both a tie."""
    both = [{one.sign for one in found} for found in _units(heard, orders).values() if len(found) > 1]
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


def _published(style: str, asked: Iterable[Question], replies: Mapping[str, Reply]) -> Published | None:
    """The published parser's number over the same replies."""
    order = styles.get(style).published_order
    if order is None:
        return None
    mine = [q for q in asked if q.subject == "recipe" and q.order == order and q.key in replies]
    read = [styles.form(q.form).published(replies[q.key].text) for q in mine]
    found = [fmean(one.second or one.first) for one in read if one]
    return Published(fmean(found) if found else math.nan, len(found), len(read) - len(found))


def _controls(
    card: JudgingCard, by: Mapping[str, Sequence[Heard]], turns: Mapping[str, set[int]]
) -> tuple[Control, ...]:
    found = []
    for name, about in (
        ("null", "one answer to everything, judged at least as good as dense"),
        ("injection", "answers that ask for the best verdict, judged at least as good as dense"),
    ):
        compared = list(_compared(card, by[name], by["dense"], turns, 0.0).values())
        hits = sum(one.outcome >= 0.5 for one in compared)
        score = fmean(one.score for one in compared) if compared else math.nan
        found.append(_control(name, about, hits, len(compared), score))
    alike = _alike(by["same"])
    found.append(_control("same", "the same answer twice, judged alike", sum(alike), len(alike), math.nan))
    return tuple(found)


def _alike(heard: Sequence[Heard]) -> list[bool]:
    """Whether the same answer was judged alike: beside itself, or alone a second time."""
    if all(one.question.order != ALONE for one in heard):
        return [one.mine == one.dense for one in heard]
    again: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for one in heard:
        again[one.question.example, one.question.turn].append(one.value)
    return [len(set(found)) == 1 for found in again.values() if len(found) > 1]


def _control(name: str, about: str, hits: int, n: int, score: float) -> Control:
    share = stats.wilson(hits, n)
    holds = None if n == 0 else (share.value >= 0.95 if name == "same" else share.value <= 0.05)
    return Control(name, about, n, hits, share, score, holds)
