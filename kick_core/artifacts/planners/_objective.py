"""What a search is for, measured on the model as it is now: perplexity on calibration windows, or a task's score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kick_core import engine, evaluation, methods, tasks
from kick_core.artifacts.planners import PlannerContext, searched_on
from kick_core.errors import BadRequest
from kick_core.evaluation import EvalSession

WINDOWS = 16
"""Calibration windows that a perplexity is measured on; a candidate takes seconds."""


@dataclass(slots=True)
class Objective:
    """What a search minimizes.

    Attributes:
        name: "perplexity" or a task's.
        measure: Evaluates the model as it is now.
        higher_is_better: Of its number.
        facts: The data that it evaluates, for the card.
        evaluations: How often it was measured.
    """

    name: str
    measure: Callable[[], float]
    higher_is_better: bool
    facts: dict[str, Any] = field(default_factory=dict)
    evaluations: int = 0

    def loss(self) -> float:
        """The number as it is now, negated where more is better; infinite where there is none."""
        self.evaluations += 1
        value = self.measure()
        if math.isnan(value):
            return math.inf
        return -value if self.higher_is_better else value

    def in_own_unit(self, loss: float) -> float:
        """A loss in the objective's own unit.

        Args:
            loss: As `loss` gave it.
        """
        return -loss if self.higher_is_better else loss


def objective(context: PlannerContext) -> Objective:
    """The objective of a recipe's search.

    Args:
        context: The model and the recipe.

    Raises:
        BadRequest: The task is unknown or has too few examples, or the model's blocks are on disk only.
    """
    name = methods.objective(context.recipe) or methods.ERROR
    if context.opened.streamed:
        raise BadRequest(f"objective={name} asks the model, which must be in memory as a whole: use objective=error")
    if name == methods.PERPLEXITY:
        windows = context.ids[:WINDOWS]
        return Objective(name, lambda: _perplexity(context, windows), False, {"windows": len(windows)})
    session = evaluation.open_session(context.opened.model, context.opened.tokenizer)
    return _of_task(session, context, name)


def _perplexity(context: PlannerContext, windows: Any) -> float:
    sums = [one for _, some in engine.window_logprobs(context.opened.model, windows, rows=4) for one in some]
    mean = -sum(sums) / (len(sums) * (windows.shape[1] - 1))
    return math.exp(mean) if mean < 700 else math.inf  # nan, of logits that are not finite, is no number to beat


def _of_task(session: EvalSession, context: PlannerContext, name: str) -> Objective:
    data = str(dict(context.recipe.options)["search_data"])
    task = tasks.get(name, data)
    if task.kind == "perplexity":
        raise BadRequest(f"objective={name}: a search is for perplexity, or for a task that is answered")
    examples = searched_on(context.recipe, task, data)
    among = evaluation.examples(task, session, data)
    by_id = {example.id: example for example in examples}

    def score() -> float:
        scores = [
            verdict.score or 0.0  # what cannot be judged earns nothing
            for batch in evaluation.outputs(session, task.strict, examples, among)
            for output in batch
            for verdict in tasks.judge(task, by_id[output.example], output)
            if verdict.scorer == task.headline
        ]
        return sum(scores) / len(examples)

    facts = {"data": data, "scorer": task.headline, "examples": [example.id for example in examples]}
    return Objective(name, score, True, facts)
