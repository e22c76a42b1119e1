"""Question answering without the text that holds the answer (LLM-KICK setting 2, closed book; TriviaQA)."""

from __future__ import annotations

from kick_core.records import Example
from kick_core.tasks import Task
from kick_core.tasks._pocket import meta, rows
from kick_core.tasks._scorers import contains, exact_match, f1
from kick_core.wording import CLOSED


def _load(data: str) -> tuple[Example, ...]:
    return tuple(
        Example(
            row["id"],
            (CLOSED.format(question=row["question"]),),
            answers=tuple(row["answers"]),
            meta=meta(row, "question", "subject", "discipline"),
        )
        for row in rows("retrieval_qa_closed", data)
    )


TASK = Task(
    name="retrieval_qa_closed",
    title="Closed-book QA",
    about="questions without evidence; share of exact matches after the official TriviaQA normalisation",
    version=1,
    kind="generate",
    load=_load,
    scorers={"exact_match": exact_match, "contains": contains, "f1": f1},
    headline="exact_match",
    new_tokens=12,
    stop=("\n",),
)
