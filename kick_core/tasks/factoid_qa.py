"""Factoid question answering, closed book (LLM-KICK setting 1; FreebaseQA in the paper).

The model must know the answer. Strict scoring looks at the continuation only, as whole words, and takes any
answer of any parse; the published code searches prompt and continuation together, without word boundaries, for
the first parse's first answer. Official data, strict: the eval split, 3,996 questions. Paper: the first 1,000 of
the *train* split in file order. (The released loop asks 1,001 and divides by 1,000 or the other way round; that
miscount is not reproduced.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from kick_core.records import Example
from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data.hub import Hub, Row, answered, find, folder, hub_rows, in_random_order, json_of, require
from kick_core.tasks.data.pocket import meta, rows
from kick_core.tasks.elicitation import SHORT_ANSWER
from kick_core.tasks.scorers import contains, exact_match, f1, stated, substring, substring_as_published
from kick_core.tasks.wording import FACTOID, FACTOID_AS_PUBLISHED

HUB = Hub("microsoft/freebase_qa", "refs/convert/parquet")
"""The set's script no longer loads; the hub's own conversion does. It is a branch: no commit of it is known."""

PAPER_COUNT = 1000


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


def _official(data: str, split: str) -> Iterator[Row]:
    if (root := folder(data)) is None:
        yield from hub_rows(HUB, {"eval": "test"}.get(split, split), "Question-ID", "RawQuestion", "Parses")
        return
    name = f"FreebaseQA-{split}.json"
    path = find(root, "FreebaseQA", f"freebase_qa/{name}", f"FreebaseQA/{name}", f"freebaseqa/{name}", name)
    document = json_of(path)
    require(document, ("Questions",), path)
    for number, row in enumerate(document["Questions"], 1):
        require(row, ("Question-ID", "RawQuestion", "Parses"), f"{path}, question {number}")
        yield row


def _records(value: Any) -> list[dict[str, Any]]:
    """A list of records, also where the hub's conversion made a record of lists of it."""
    if isinstance(value, dict):
        return [dict(zip(value, values, strict=True)) for values in zip(*value.values(), strict=True)]
    return list(value)


def _answers(row: Row) -> list[tuple[str, ...]]:
    """The names of every answer of every parse, in order."""
    answers = []
    for parse in _records(row["Parses"]):
        require(parse, ("Answers",), f"FreebaseQA question {row['Question-ID']}")
        for answer in _records(parse["Answers"]):
            require(answer, ("AnswersName",), f"FreebaseQA question {row['Question-ID']}")
            answers.append(tuple(answer["AnswersName"]))
    return answers


def _examples(asked: Iterable[Row], wording: str) -> Iterator[Example]:
    for row in asked:
        answers = _answers(row)
        yield Example(
            str(row["Question-ID"]),
            (wording.format(question=row["RawQuestion"]),),
            answers=tuple(dict.fromkeys(name for names in answers for name in names)),
            meta={"question": row["RawQuestion"], "first_answer": list(answers[0]) if answers else []},
        )


def _strict(data: str) -> tuple[Example, ...]:
    return in_random_order("factoid_qa", _examples(_official(data, "eval"), FACTOID))


def as_published(data: str, wording: str = FACTOID_AS_PUBLISHED) -> tuple[Example, ...]:
    """The questions of the released code in one of its two wordings."""
    first = (row for _, row in zip(range(PAPER_COUNT), _official(data, "train"), strict=False))
    return answered(_examples(first, wording))


_SCORERS = {
    "contains": contains,
    "exact_match": exact_match,
    "f1": f1,
    "substring": substring,
    "substring_as_published": substring_as_published,
}

TASK = Task(
    name="factoid_qa",
    title="Factoid QA",
    about="closed-book questions about facts; share of answers that contain the gold as whole words",
    version=3,
    licence="Apache-2.0",
    measures="knowledge",
    order=20,
    colour="#e07b00",
    noun="factoid knowledge",
    in_paper=True,
    demo_examples=200,
    strict=PromptSpec("generate", _load, new_tokens=12, stop=("\n",)),
    scorers=_SCORERS,
    headline="contains",
    published="substring_as_published",
)

OFFICIAL = replace(
    TASK,
    about="FreebaseQA, closed book; share of answers whose first sentence names a gold",
    licence="",
    version=4,
    scorers={"stated": stated, **_SCORERS},
    headline="stated",
    strict=PromptSpec("generate", _strict, new_tokens=32, stop=("\n",), elicitation=SHORT_ANSWER),
    paper=PromptSpec(
        "generate",
        as_published,
        times_prompt=2,
        fills_context=True,
        verbatim=True,
        faults=(
            "first 1,000 of the train split",
            "prompt ends in a space",
            "twice the prompt's tokens, no stop",
            "line breaks before an answer stay",
        ),
    ),
)
