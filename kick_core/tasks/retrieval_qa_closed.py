"""Question answering without the text that holds the answer (LLM-KICK setting 2, closed book; TriviaQA)."""

from __future__ import annotations

from dataclasses import replace

from kick_core.records import Example
from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data import trivia
from kick_core.tasks.data.pocket import meta, rows
from kick_core.tasks.elicitation import SHORT_ANSWER
from kick_core.tasks.scorers import stated
from kick_core.tasks.wording import CLOSED


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
    version=3,
    licence="Apache-2.0",
    measures="knowledge",
    order=40,
    colour="#c0392b",
    noun="closed-book knowledge",
    in_paper=True,
    demo_examples=200,
    strict=PromptSpec("generate", _load, new_tokens=12, stop=("\n",)),
    scorers=trivia.SCORERS,
    headline="exact_match",
    published="exact_match_as_published",
)

OFFICIAL = replace(
    TASK,
    about="TriviaQA without evidence; share of answers whose first sentence names a gold",
    licence="",
    version=4,
    scorers={"stated": stated, **trivia.SCORERS},
    headline="stated",
    strict=PromptSpec("generate", trivia.closed, new_tokens=32, stop=("\n",), elicitation=SHORT_ANSWER),
    # the released code writes on to 32 tokens and then reads the first line: the same prediction
    paper=PromptSpec(
        "generate", trivia.closed_as_published, new_tokens=32, stop=("\n",), faults=("first 2,000 of the file",)
    ),
)
