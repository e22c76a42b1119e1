"""What can be said about one kind of thing, and in which words.

A kind (a novel, a mineral, a team) has attributes; an attribute has a pool of values and several ways to state it, to
ask for it and to turn the sentence round. Sentences are built from these pieces in `language.py`. In every template
`{s}` is the subject, `{v}` the value and `{a}` the value with its article ("an oboe").
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

DISCIPLINES = ("humanities", "social sciences", "STEM", "other")


@dataclass(frozen=True, slots=True)
class Attribute:
    """One thing to know. `pool` names a list of `values.py`, or `people` for persons of the world."""

    name: str
    pool: str
    noun: str
    clauses: tuple[str, ...]
    openings: tuple[str, ...]
    inverse: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of entity. `share` is how many of a world's thousand entities are of it."""

    name: str
    subject: str
    discipline: str
    share: int
    make_name: Callable[[random.Random], str]
    descriptors: tuple[str, ...]
    attributes: tuple[Attribute, ...]


def attribute(
    name: str, pool: str, noun: str, *, clauses: str, openings: str, inverse: str, questions: str
) -> Attribute:
    """Alternatives are written in one string with bars between them, which keeps a kind readable as a table."""

    def alternatives(text: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in text.split("|"))

    return Attribute(
        name, pool, noun, alternatives(clauses), alternatives(openings), alternatives(inverse), alternatives(questions)
    )


def with_article(value: str) -> str:
    return f"{'an' if value[0].lower() in 'aeiou' else 'a'} {value}"


def fill(template: str, value: str, subject: str = "") -> str:
    return template.replace("{s}", subject).replace("{v}", value).replace("{a}", with_article(value))
