"""Facts about the real world that any language model can be asked; makers and licences: data/sources.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

VERSION = "2026-11-28"
_DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Fact:
    """A question about the real world in its three forms.

    Attributes:
        id: `relation/subject`, stable between versions of the data.
        relation: The kind of question, such as `capital_of_country`.
        subject: What is asked about.
        question: The question as a person would put it.
        answer: The right answer as it is shown.
        aliases: Other right answers and spellings.
        distractors: Three wrong answers of the same kind.
        passage: Two to four true sentences that hold the answer once.
        popularity: How well known the fact is, in `unit`.
        unit: What `popularity` counts.
        tier: 1 (best known) to 4 (least known) within the relation.
        sources: Keys of `sources()`.
    """

    id: str
    relation: str
    subject: str
    question: str
    answer: str
    aliases: tuple[str, ...]
    distractors: tuple[str, ...]
    passage: str
    popularity: float
    unit: str
    tier: int
    sources: tuple[str, ...]


def _table(name: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((_DATA / name).read_text("utf-8"))
    return table


def _facts(name: str) -> tuple[Fact, ...]:
    relations = _table("relations.json")
    facts = []
    for line in (_DATA / name).read_text("utf-8").splitlines():
        row = json.loads(line)
        relation = row["id"].split("/")[0]
        about = relations[relation]
        extra = {
            "relation": relation,
            "question": about["question"].replace("{}", row["subject"]),
            "unit": about["unit"],
            "sources": about["sources"],
        }
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in (row | extra).items()}
        facts.append(Fact(**fields))
    return tuple(facts)


@cache
def rows() -> tuple[Fact, ...]:
    """The questions, by relation and within it from the best known to the least."""
    return _facts("facts.jsonl")


@cache
def worked_examples() -> tuple[Fact, ...]:
    """Facts for prompts with worked examples: three per relation, none of which is asked."""
    return _facts("worked_examples.jsonl")


def sources() -> dict[str, dict[str, str]]:
    """Name, version, licence and address of each source, by the keys that facts carry."""
    return _table("sources.json")
