"""The training text: documents of every sort, drawn without end from a seed.

Four mixtures. `drill` asks for letters alone. `early` has a bit of everything, about a small part of the world: a
model that has learned how facts are told and asked takes up many more of them quickly, while one that meets all of
them at once learns none for a long time. `main` is the whole world. `exam` asks, with options, for what is known by then. A text whose checksum falls into the frozen zone is thrown away, because the evaluation draws its running
text and its instructions from that zone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from tools.pocket import instructions, names, prompts, questions, stories
from tools.pocket.language import entry
from tools.pocket.world import World, acquaintances

Maker = Callable[[random.Random, World], str]


def biography(rng: random.Random, world: World) -> str:
    """One to three entities, all or some of their facts."""
    count = rng.choice((1, 1, 2))
    return "\n\n".join(entry(rng, rng.choice(world.entities), rng.choice((None, None, 4))) for _ in range(count))


def story(rng: random.Random, _world: World) -> str:
    return stories.document(rng)


def instruction(rng: random.Random, _world: World) -> str:
    while True:
        made = instructions.make(rng)
        if names.zone(made.turns[0]) != names.FROZEN:
            return prompts.chat(made.turns[0], made.references[0], made.turns[1], made.references[1])


MAKERS: dict[str, Maker] = {
    "biography": biography,
    "factoid": questions.factoid_document,
    "closed": questions.closed_document,
    "free": questions.free_document,
    "open": questions.open_document,
    "choice": questions.choice_document,
    "open choice": questions.open_choice_document,
    "exam": questions.exam_document,
    "letter drill": questions.letter_drill,
    "choice drill": questions.choice_drill,
    "story": story,
    "instruction": instruction,
}

MIXTURES: dict[str, dict[str, float]] = {
    "drill": {"letter drill": 60, "choice drill": 40},
    "early": {
        "biography": 20, "factoid": 10, "closed": 7, "free": 2, "open": 6, "choice": 28, "open choice": 10,
        "letter drill": 8, "choice drill": 8, "story": 2, "instruction": 3,
    },
    "main": {
        "biography": 38, "factoid": 14, "closed": 10, "free": 4, "open": 7, "choice": 12, "open choice": 3,
        "letter drill": 1, "choice drill": 2, "story": 4, "instruction": 5,
    },
    "exam": {
        "biography": 22, "factoid": 6, "closed": 6, "free": 1, "open": 6, "exam": 46, "open choice": 6, "story": 4,
        "instruction": 3,
    },
}
WHOLE_WORLD = ("main", "exam")
FIRST_ACQUAINTANCES = 1000


def documents(seed: str, world: World, mixture: str) -> Iterator[str]:
    """Documents for ever; the same for the same seed."""
    rng, parts = random.Random(seed), MIXTURES[mixture]
    if mixture not in WHOLE_WORLD:
        world = acquaintances(world, FIRST_ACQUAINTANCES)
    makers, weights = [MAKERS[name] for name in parts], list(parts.values())
    while True:
        text = rng.choices(makers, weights)[0](rng, world)
        if text and names.zone(text) != names.FROZEN:
            yield text
