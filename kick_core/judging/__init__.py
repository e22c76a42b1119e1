"""Judges: a language model behind an OpenAI-compatible endpoint rates stored answers, compressed beside dense.

Never needed: every task has scorers of its own. A judge's word is kept raw, its verdicts are read out of it
again, controls and the judge's own noise stand beside each result. Nothing here opens a model.

`prompts` (words, attacks) · `styles` (ways to judge, one file each) · `reading` (verdicts from words) · `questions`
(questions, keys, cost) · `provider` (who answers: a Protocol) · `openai` (the network, the key) · `results` (numbers).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kick_core.judging.openai import Caller, Endpoint, endpoint, judge_name
from kick_core.judging.provider import Failure, Provider, replies
from kick_core.judging.questions import Judge, JudgeCost, Pair, Price, Style, forecast, judging_card, left, pairs, spent
from kick_core.judging.questions import questions as questions_of
from kick_core.judging.results import Control, Outcome, outcome
from kick_core.records import JudgingCard, Question, Reply
from kick_core.store import Store, judgments

__all__ = [
    "Caller",
    "Control",
    "Endpoint",
    "Failure",
    "Judge",
    "JudgeCost",
    "Judging",
    "Outcome",
    "Pair",
    "Price",
    "Provider",
    "Style",
    "ask",
    "endpoint",
    "forecast",
    "judge_name",
    "judging_card",
    "left",
    "outcome",
    "pairs",
    "questions_of",
    "spent",
]


@dataclass(frozen=True, slots=True)
class Judging:
    """One judging, ready to run.

    Attributes:
        card: Who judges what, and how.
        questions: All of it, whether answered or not.
    """

    card: JudgingCard
    questions: tuple[Question, ...]


def ask(store: Store, judgings: list[Judging], provider: Provider, threads: int) -> Iterator[Reply | Failure]:
    """Ask every question without a stored reply, keep each reply as it arrives, and yield it.

    Args:
        store: The cache.
        judgings: Those to be completed, all of one judge.
        provider: The judge.
        threads: Calls at once.

    Yields:
        Replies and failures in the order of their arrival.
    """
    for judging in judgings:
        judgments.keep_questions(store, judging.card, judging.questions)
    (judge,) = {judging.card.replies for judging in judgings}
    with judgments.recorder(store, judge) as recorder:
        questions = [question for judging in judgings for question in judging.questions]
        for reply in replies(provider, left(questions, recorder.known), threads):
            if isinstance(reply, Reply):
                recorder.record(reply)
            yield reply
