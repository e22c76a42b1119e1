"""Question answering with the text that holds the answer (LLM-KICK setting 2, open book; TriviaQA).

In the pocket world the passages are about things the models never read of, so a right answer can only come
from the passage: this measures reading, where the closed-book tasks measure knowing.
"""

from __future__ import annotations

from kick_core.records import Example
from kick_core.tasks import Task
from kick_core.tasks._pocket import meta, rows
from kick_core.tasks._scorers import contains, exact_match, f1
from kick_core.wording import OPEN


def _load(data: str) -> tuple[Example, ...]:
    return tuple(
        Example(
            row["id"],
            (OPEN.format(passage=row["passage"], question=row["question"]),),
            answers=tuple(row["answers"]),
            meta=meta(row, "question", "passage", "subject", "discipline"),
        )
        for row in rows("retrieval_qa_open", data)
    )


TASK = Task(
    name="retrieval_qa_open",
    title="Open-book QA",
    about="questions with evidence in the prompt; share of exact matches after the official normalisation",
    version=1,
    kind="generate",
    load=_load,
    scorers={"exact_match": exact_match, "contains": contains, "f1": f1},
    headline="exact_match",
    new_tokens=12,
    stop=("\n",),
)
