"""TriviaQA's reading-comprehension data (Joshi et al. 2017): questions, aliases, and the evidence's first pages.

A folder holds `qa/web-dev.json` and `qa/wikipedia-dev.json` with `evidence/{wikipedia,web}/…`, or one file in
that schema. LLM-KICK's evidence is the first Wikipedia page and the first search result, glued together without a
separator and cut at 3,072 characters, whether or not the answer is still inside; both protocols show it, and
`answer_in_context` tells the two cases apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kick_core.errors import BadRequest
from kick_core.records import Example
from kick_core.tasks.data.hub import (
    Hub,
    Row,
    answered,
    find,
    folder,
    hub_rows,
    in_random_order,
    inside,
    json_of,
    require,
    text_of,
)
from kick_core.tasks.scorers import contains, exact_match, exact_match_as_published, f1, stands_in, substring
from kick_core.tasks.wording import CLOSED, OPEN

SCORERS = {
    "exact_match": exact_match,
    "contains": contains,
    "f1": f1,
    "substring": substring,
    "exact_match_as_published": exact_match_as_published,
}
"""How short answers are judged, closed and open book alike."""

PAPER_COUNT = 2000
EVIDENCE = 3072
"""Characters of evidence in an open-book prompt."""

_REPO, _REVISION = "mandarjoshi/trivia_qa", "0f7faf33a3908546c6fd5b73a660e0f8ff173c2f"
_CLOSED, _OPEN = Hub(_REPO, _REVISION, "rc.nocontext"), Hub(_REPO, _REVISION, "rc")
_PARTS = ("web-dev.json", "wikipedia-dev.json")


def closed(data: str) -> tuple[Example, ...]:
    """Every question once, in random order; without evidence."""
    return in_random_order("trivia_qa", _each_once(_closed(data)))


def closed_as_published(data: str) -> tuple[Example, ...]:
    """The first 2,000 of the validation split in file order; a question stands there once per evidence domain."""
    return answered(_numbered(_first(_closed(data))))


def open_book(data: str) -> tuple[Example, ...]:
    """Every question that has evidence once, in random order."""
    return in_random_order("trivia_qa", _each_once(e for e in _open(data) if e.meta["passage"]))


def open_as_published(data: str) -> tuple[Example, ...]:
    """The first 2,000 of the validation split in file order, evidence or not."""
    return answered(_numbered(_first(_open(data))))


def _closed(data: str) -> Iterator[Example]:
    for name, question, answer, _ in _questions(data, evidence=False):
        yield _example(name, CLOSED.format(question=question), question, answer)


def _open(data: str) -> Iterator[Example]:
    for name, question, answer, passage in _questions(data, evidence=True):
        shown = passage[:EVIDENCE]
        # the released code strips every prompt before it is tokenised
        example = _example(name, OPEN.format(passage=shown, question=question).strip(), question, answer)
        example.meta.update(passage=shown, answer_in_context=stands_in(shown, example.answers))
        yield example


def _example(name: str, prompt: str, question: str, answer: Row) -> Example:
    golds = tuple(dict.fromkeys((*answer["normalized"], *answer["human"])))
    meta = {"question": question, "answer": answer["value"]}
    if answer["human"]:  # the released code does not know them
        meta["normalized_aliases"] = list(answer["normalized"])
    return Example(name, (prompt,), answers=golds, meta=meta)


def _first(examples: Iterable[Example]) -> Iterator[Example]:
    return (example for _, example in zip(range(PAPER_COUNT), examples, strict=False))


def _each_once(examples: Iterable[Example]) -> Iterator[Example]:
    """The web and the Wikipedia part share questions; the first counts."""
    return iter({e.id: e for e in reversed(list(examples))}.values())


def _numbered(examples: Iterable[Example]) -> Iterator[Example]:
    counts: dict[str, int] = {}
    for example in examples:
        count = counts[example.id] = counts.get(example.id, 0) + 1
        name = example.id if count == 1 else f"{example.id}#{count}"
        yield Example(name, example.prompt, answers=example.answers, meta=example.meta)


def _questions(data: str, *, evidence: bool) -> Iterator[tuple[str, str, Row, str]]:
    """(id, question, answer, evidence) in the order of the files."""
    if (root := folder(data)) is not None:
        for path in _files(root):
            yield from _local(path, evidence)
        return
    columns = ("question_id", "question", "answer", *(("entity_pages", "search_results") if evidence else ()))
    for row in hub_rows(_OPEN if evidence else _CLOSED, "validation", *columns):
        answer = row["answer"]
        require(answer, ("normalized_aliases", "value"), f"TriviaQA question {row['question_id']}")
        known = {"normalized": answer["normalized_aliases"], "human": (), "value": answer["value"]}
        shown = _first_of(row, "entity_pages", "wiki_context") + _first_of(row, "search_results", "search_context")
        yield row["question_id"], row["question"], known, shown if evidence else ""


def _first_of(row: Row, pages: str, text: str) -> str:
    field = row.get(pages) or {}
    pages_of = field.get(text) if isinstance(field, dict) else [page.get(text) for page in field]
    return str(pages_of[0]) if pages_of else ""


def _files(root: Path) -> list[Path]:
    for base in ("triviaqa", "triviaqa-rc", "."):
        if paths := [path for name in _PARTS if (path := inside(root, f"{base}/qa/{name}")).exists()]:
            return paths
    sample = "triviaqa_sample.json"
    candidates = (f"{base}/qa/{name}" for base in ("triviaqa", "triviaqa-rc", ".") for name in _PARTS)
    try:
        return [find(root, "TriviaQA", f"triviaqa/{sample}", f"samples/{sample}", sample)]
    except BadRequest as error:
        raise BadRequest(f"{error}, {', '.join(candidates)}") from None


def _local(path: Path, evidence: bool) -> Iterator[tuple[str, str, Row, str]]:
    document = json_of(path)
    require(document, ("Data",), path)
    for number, row in enumerate(document["Data"], 1):
        where = f"{path}, question {number}"
        require(row, ("QuestionId", "Question", "Answer"), where)
        require(row["Answer"], ("NormalizedAliases", "Value"), f"{where}, Answer")
        answer = {
            "normalized": row["Answer"]["NormalizedAliases"],
            "human": row["Answer"].get("HumanAnswers", ()),
            "value": row["Answer"]["Value"],
        }
        yield row["QuestionId"], row["Question"], answer, _evidence(path, row) if evidence else ""


def _evidence(path: Path, row: dict[str, Any]) -> str:
    """The first Wikipedia page and the first search result, as far as the question has them."""
    base = path.parent.parent if path.parent.name == "qa" else path.parent
    evidence = ""
    for pages, domain in (("EntityPages", "wikipedia"), ("SearchResults", "web")):
        for page in row.get(pages, ())[:1]:
            require(page, ("Filename",), f"{path}, question {row['QuestionId']}, {pages}")
            name = f"evidence/{domain}/{page['Filename']}"
            file = inside(base / "evidence" / domain, page["Filename"], links=False)
            if not file.exists():
                raise BadRequest(f"{base} lacks the evidence of question {row['QuestionId']}: looked for {name}")
            evidence += text_of(file)
    return evidence
