"""The fictional world: who and what exists, what is true of it, and which facts are never asked in training.

Everything follows from a seed through `random.Random`, in list order; nothing depends on hashes or on set order. A
fact is held out by its own name (a checksum), so any module can tell without a list at hand. Held-out facts occur in
training in running text alone; the same attribute of other entities is asked there, so the question is no news.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from functools import cache

from tools.pocket import kinds_humanities, kinds_other, kinds_social, kinds_stem, names, values
from tools.pocket.schema import Attribute, Kind

SEED = 7
SIZE = 28_000
HELD_OUT_PERCENT = 15

KINDS: tuple[Kind, ...] = (
    *kinds_humanities.KINDS, *kinds_social.KINDS, *kinds_stem.KINDS, *kinds_other.KINDS
)
KIND_OF = {kind.name: kind for kind in KINDS}
SUBJECTS = tuple(kind.subject for kind in KINDS)


@dataclass(frozen=True, slots=True)
class Entity:
    """A thing with a name and one value for each attribute of its kind, in the kind's order."""

    name: str
    kind: str
    facts: tuple[str, ...]

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        return KIND_OF[self.kind].attributes

    def value(self, attribute: str) -> str:
        for position, candidate in enumerate(self.attributes):
            if candidate.name == attribute:
                return self.facts[position]
        raise KeyError(f"a {self.kind} has no attribute {attribute!r}")


@dataclass(frozen=True, slots=True)
class World:
    entities: tuple[Entity, ...]
    of_kind: dict[str, tuple[Entity, ...]]
    people: tuple[str, ...]


def held_out(name: str, attribute: str) -> bool:
    """Whether the fact is told in training but never asked there."""
    return zlib.crc32(f"{name}/{attribute}".encode()) % 100 < HELD_OUT_PERCENT


def choose_value(rng: random.Random, attribute: Attribute, people: tuple[str, ...]) -> str:
    return rng.choice(people if attribute.pool == "people" else values.pool(attribute.pool))


def make_entity(rng: random.Random, kind: Kind, name: str, people: tuple[str, ...]) -> Entity:
    """Values are drawn evenly and independently, except that nobody is their own mentor."""
    facts: list[str] = []
    for attribute in kind.attributes:
        value = choose_value(rng, attribute, people)
        while value == name or value in facts:
            value = choose_value(rng, attribute, people)
        facts.append(value)
    return Entity(name, kind.name, tuple(facts))


def distinct_names(rng: random.Random, kind: Kind, count: int, wanted: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[names.draw(kind.make_name, rng, wanted)] = None
    return tuple(found)


@cache
def build(size: int = SIZE, seed: int = SEED) -> World:
    """The world with about `size` entities."""
    rng = random.Random(seed)
    roster = {
        kind.name: distinct_names(rng, kind, size * kind.share // 1000, names.WORLD) for kind in KINDS
    }
    people = roster["person"]
    of_kind = {
        kind.name: tuple(make_entity(rng, kind, name, people) for name in roster[kind.name]) for kind in KINDS
    }
    return World(tuple(entity for group in of_kind.values() for entity in group), of_kind, people)


def acquaintances(known: World, size: int) -> World:
    """The first entities of each kind, about `size` in all: the part of the world that a model meets first."""
    share = size / len(known.entities)
    of_kind = {kind: group[: max(1, round(len(group) * share))] for kind, group in known.of_kind.items()}
    return World(tuple(entity for group in of_kind.values() for entity in group), of_kind, known.people)


def stranger(rng: random.Random, zone: str, kind: Kind | None = None) -> Entity:
    """An entity that is not in the world; even the persons it mentions are not."""
    kind = kind or rng.choice(KINDS)
    crowd = tuple(names.draw(names.person, rng, zone) for _ in range(3))
    return make_entity(rng, kind, names.draw(kind.make_name, rng, zone), crowd)
