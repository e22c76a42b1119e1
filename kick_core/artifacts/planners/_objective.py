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
"""Calibration windows that a perplexity is measured on; a candidate is judged in seconds."""


@dataclass(slots=True)
class Objective:
    """`measure` looks at the model and gives a number; `facts` say on what. `asked` counts the looks."""

    name: str
    measure: Callable[[], float]
    higher_is_better: bool
    facts: dict[str, Any] = field(default_factory=dict)
    asked: int = 0

    def loss(self) -> float:
        """The number as it is now, turned so that less is better; infinite where there is none."""
        self.asked += 1
        found = self.measure()
        if math.isnan(found):
            return math.inf
        return -found if self.higher_is_better else found

    def shown(self, loss: float) -> float:
        """A loss in the objective's own unit."""
        return -loss if self.higher_is_better else loss


def objective(context: PlannerContext) -> Objective:
    """What a recipe's search is for. Raises BadRequest for an unknown task, one with too few examples, or a model whose
    blocks are on disk only."""
    name = methods.objective(context.recipe) or methods.ERROR
    if context.opened.streamed:
        raise BadRequest(f"objective={name} asks the model, which must be in memory as a whole: use objective=error")
    if name == methods.PERPLEXITY:
        windows = context.ids[:WINDOWS]
        return Objective(name, lambda: _perplexity(context, windows), False, {"windows": len(windows)})
    ask = evaluation.open_session(context.opened.model, context.opened.tokenizer)
    return _of_task(ask, context, name)


def _perplexity(context: PlannerContext, windows: Any) -> float:
    sums = [one for _, some in engine.window_logprobs(context.opened.model, windows, rows=4) for one in some]
    mean = -sum(sums) / (len(sums) * (windows.shape[1] - 1))
    return math.exp(mean) if mean < 700 else math.inf  # nan, of logits that are not finite, is no number to beat


def _of_task(ask: EvalSession, context: PlannerContext, name: str) -> Objective:
    data = str(dict(context.recipe.options)["search_data"])
    task = tasks.get(name, data)
    if task.kind == "perplexity":
        raise BadRequest(f"objective={name}: a search is for perplexity, or for a task that is answered")
    wanted = searched_on(context.recipe, task, data)
    among = evaluation.examples(task, ask, data)
    by_id = {example.id: example for example in wanted}

    def score() -> float:
        found = [
            verdict.score or 0.0  # what cannot be judged earns nothing
            for batch in evaluation.outputs(ask, task.strict, wanted, among)
            for output in batch
            for verdict in tasks.judge(task, by_id[output.example], output)
            if verdict.scorer == task.headline
        ]
        return sum(found) / len(wanted)

    facts = {"data": data, "scorer": task.headline, "examples": [example.id for example in wanted]}
    return Objective(name, score, True, facts)
