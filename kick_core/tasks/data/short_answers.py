"""Short answers under an open licence: NQ-open (Lee et al. 2019) and XQuAD in English (Artetxe et al. 2020).

XQuAD's 1,190 questions stand on 240 passages of Wikipedia, so that the same question can be asked with and without the
text that holds its answer. A folder holds `nq_open/NQ-open.dev.jsonl` and `xquad/xquad.en.json`.
"""

from __future__ import annotations

from collections.abc import Iterator

from kick_core.keys import sha256_text
from kick_core.records import Example
from kick_core.tasks.data.hub import Hub, find, folder, hub_rows, in_random_order, json_lines, json_of, require
from kick_core.tasks.wording import CLOSED, OPEN

NQ_LICENCE, XQUAD_LICENCE = "CC-BY-SA-3.0", "CC-BY-SA-4.0"

_NQ = Hub("google-research-datasets/nq_open", "refs/convert/parquet")
_XQUAD = Hub("google/xquad", "refs/convert/parquet", "xquad.en")
"""The hub's own conversions are branches: no commit of them is known."""


def natural_questions(data: str) -> tuple[Example, ...]:
    """NQ-open's 3,610 development questions: what people typed into a search engine, with all accepted answers."""
    return in_random_order("nq_open", _natural_questions(data))


def without_passage(data: str) -> tuple[Example, ...]:
    """XQuAD's questions alone."""
    return in_random_order("xquad", (_example(*row, shown=False) for row in _xquad(data)))


def with_passage(data: str) -> tuple[Example, ...]:
    """XQuAD's questions, each after the passage that holds its answer, in the same order."""
    return in_random_order("xquad", (_example(*row, shown=True) for row in _xquad(data)))


def _natural_questions(data: str) -> Iterator[Example]:
    if (root := folder(data)) is None:
        rows = list(hub_rows(_NQ, "validation", "question", "answer"))
    else:
        path = find(root, "NQ-open", "nq_open/NQ-open.dev.jsonl", "NQ-open.dev.jsonl")
        rows = json_lines(path, "question", "answer")
    for number, row in enumerate(rows):
        question = f"{row['question'].strip()}?"
        prompt = CLOSED.format(question=question)
        yield Example(f"nq-{number:04d}", (prompt,), answers=tuple(row["answer"]), meta={"question": question})


def _example(name: str, question: str, passage: str, answers: tuple[str, ...], *, shown: bool) -> Example:
    if shown:
        prompt, text = OPEN.format(passage=passage, question=question), {"passage": passage}
    else:  # closed book too, questions on one passage are not independent of each other
        prompt, text = CLOSED.format(question=question), {"cluster": sha256_text(passage)[:16]}
    return Example(name, (prompt,), answers=answers, meta={"question": question, **text})


def _xquad(data: str) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """(id, question, passage, answers)."""
    if (root := folder(data)) is None:
        for row in hub_rows(_XQUAD, "validation", "id", "question", "context", "answers"):
            yield row["id"], row["question"], row["context"], tuple(dict.fromkeys(row["answers"]["text"]))
        return
    path = find(root, "XQuAD", "xquad/xquad.en.json", "xquad.en.json")
    document = json_of(path)
    require(document, ("data",), path)
    for article in document["data"]:
        require(article, ("paragraphs",), path)
        for paragraph in article["paragraphs"]:
            require(paragraph, ("context", "qas"), path)
            for row in paragraph["qas"]:
                require(row, ("id", "question", "answers"), path)
                answers = tuple(dict.fromkeys(answer["text"] for answer in row["answers"]))
                yield row["id"], row["question"], paragraph["context"], answers
