"""Facts about the real world after a passage that says otherwise: reading, for which no memory can stand in.

The answer in the passage is exchanged for a wrong one of its kind (entity substitution of Longpre et al. 2021,
arXiv 2109.05052). Right is what the passage says.
"""

from __future__ import annotations

from kick_core.records import Example, Output
from kick_core.tasks.base import PromptSpec, Score, Task
from kick_core.tasks.data import facts
from kick_core.tasks.elicitation import FROM_PASSAGE
from kick_core.tasks.scorers import STATED, stated_names


def recalled(example: Example, output: Output) -> Score:
    """1 when the first sentence names the true answer, which the passage does not hold: memory instead of reading."""
    sentence, named = stated_names(output, example.meta["true_answers"])
    return Score(float(named), sentence)


OFFICIAL = Task(
    name="world_facts_counterfactual",
    title="World facts, counterfactual",
    about="questions about the real world after a passage whose answer was exchanged for a wrong one; share of answers "
    "whose first sentence names what the passage says",
    version=1,
    measures="in_context",
    order=19,
    colour="#1f6f8b",
    shipped=True,
    licence="Apache-2.0",
    strict=PromptSpec("generate", facts.counterfactual, new_tokens=32, stop=("\n",), elicitation=FROM_PASSAGE),
    scorers=STATED | {"recalled": recalled},
    headline="stated",
    groups=facts.GROUPS,
)
