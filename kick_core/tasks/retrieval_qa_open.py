"""Question answering with the text that holds the answer (LLM-KICK setting 2, open book; TriviaQA).

In the pocket world the passages are about things the models never read of, so a right answer can only come
from the passage: this measures reading, where the closed-book tasks measure knowing.
"""

from __future__ import annotations

from dataclasses import replace

from kick_core.records import Example
from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data import trivia
from kick_core.tasks.data.pocket import meta, rows
from kick_core.tasks.elicitation import FROM_PASSAGE
from kick_core.tasks.scorers import stated
from kick_core.tasks.wording import OPEN


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
    version=3,
    licence="Apache-2.0",
    measures="in_context",
    order=50,
    colour="#1b9e77",
    context_partner="retrieval_qa_closed",
    in_paper=True,
    demo_examples=200,
    strict=PromptSpec("generate", _load, new_tokens=12, stop=("\n",)),
    scorers=trivia.SCORERS,
    headline="exact_match",
    published="exact_match_as_published",
)

OFFICIAL = replace(
    TASK,
    about="TriviaQA with evidence in the prompt; share of answers whose first sentence names a gold",
    licence="",
    version=4,
    scorers={"stated": stated, **trivia.SCORERS},
    headline="stated",
    strict=PromptSpec("generate", trivia.open_book, new_tokens=32, stop=("\n",), elicitation=FROM_PASSAGE),
    # the released code writes on to 32 tokens and then reads the first line: the same prediction
    paper=PromptSpec(
        "generate", trivia.open_as_published, new_tokens=32, stop=("\n",), faults=("first 2,000 of the file",)
    ),
)
