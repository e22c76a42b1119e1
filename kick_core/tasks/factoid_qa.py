"""Factoid question answering, closed book (LLM-KICK setting 1; FreebaseQA in the paper).

The model must know the answer. Strict scoring looks at the continuation only, as whole words; the published
code searches prompt and continuation together, without word boundaries.
"""

from __future__ import annotations

from kick_core.records import Example
from kick_core.tasks import Task
from kick_core.tasks._pocket import meta, rows
from kick_core.tasks._scorers import contains, exact_match, f1
from kick_core.wording import FACTOID


def _load(data: str) -> tuple[Example, ...]:
    return tuple(
        Example(
            row["id"],
            (FACTOID.format(question=row["question"]),),
            answers=tuple(row["answers"]),
            meta=meta(row, "question", "subject", "discipline"),
        )
        for row in rows("factoid_qa", data)
    )


TASK = Task(
    name="factoid_qa",
    title="Factoid QA",
    about="closed-book questions about facts; share of answers that contain the gold as whole words",
    version=1,
    kind="generate",
    load=_load,
    scorers={"contains": contains, "exact_match": exact_match, "f1": f1},
    headline="contains",
    new_tokens=12,
    stop=("\n",),
)
