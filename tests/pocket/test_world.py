"""The world is the same every time, and nothing that is asked in evaluation is asked in training."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from tools.pocket import corpus, names, questions, stories, values, world
from tools.pocket.language import entry
from tools.pocket.schema import DISCIPLINES

SMALL = 1500


@pytest.fixture(scope="module")
def known() -> world.World:
    return world.build(SMALL)


def test_the_same_seed_gives_the_same_world(known: world.World) -> None:
    again = world.build.__wrapped__(SMALL)
    assert again.entities == known.entities
    assert world.build.__wrapped__(SMALL, seed=8).entities != known.entities


def test_a_known_entity_stays_what_it_is() -> None:
    """A change here changes what the shipped models should know: they must be trained anew."""
    person = world.build().of_kind["person"][0]
    assert (person.name, person.facts) == FIRST_PERSON


def test_names_are_unique_and_of_the_world(known: world.World) -> None:
    found = [entity.name for entity in known.entities]
    assert len(set(found)) == len(found)
    assert {names.zone(name) for name in found} == {names.WORLD}


def test_every_discipline_has_three_kinds() -> None:
    assert sorted(kind.discipline for kind in world.KINDS) == sorted(3 * list(DISCIPLINES))


def test_every_template_has_its_slots() -> None:
    for kind in world.KINDS:
        for attribute in kind.attributes:
            assert all("{v}" in text or "{a}" in text for text in attribute.clauses + attribute.openings)
            assert all("{s}" in text and ("{v}" in text or "{a}" in text) for text in attribute.inverse)
            assert all("{s}" in text and text.endswith("?") for text in attribute.questions)
            assert len(attribute.questions) >= 2


def test_invented_words_differ_in_their_first_four_letters() -> None:
    words = [word for pool in names.pools().values() for word in pool]
    assert len({word[:4] for word in words}) == len(words)


def test_no_value_is_in_its_pool_twice() -> None:
    for name in (*values.WORDS, *names.pools(), "years"):
        assert len(set(values.pool(name))) == len(values.pool(name))


def test_a_share_of_every_attribute_is_held_out(known: world.World) -> None:
    pairs = [(entity.name, item.name) for entity in known.entities for item in entity.attributes]
    share = sum(world.held_out(*pair) for pair in pairs) / len(pairs)
    assert 0.13 < share < 0.17


def test_training_never_asks_what_is_held_out(known: world.World) -> None:
    forbidden = {
        form.replace("{s}", entity.name)
        for entity in known.entities
        for item in entity.attributes
        if world.held_out(entity.name, item.name)
        for form in item.questions
    }
    for mixture in corpus.MIXTURES:
        for text in islice(corpus.documents("leak", known, mixture), 2500):
            asked = [part for line in text.split("\n") for part in _questions_in(line)]
            assert not forbidden.intersection(asked), text


def _questions_in(line: str) -> list[str]:
    """Everything from a capital letter to a question mark, whatever stands before it on the line."""
    if "?" not in line:
        return []
    head = line[: line.index("?") + 1]
    return [head[place:] for place, letter in enumerate(head) if letter.isupper()]


def test_training_does_ask_other_facts(known: world.World) -> None:
    rng = random.Random(0)
    found = [questions.draw_question(rng, known.entities) for _ in range(300)]
    assert {question.subject for question in found} == set(world.SUBJECTS)


def test_strangers_are_not_in_the_world(known: world.World) -> None:
    rng = random.Random(0)
    inside = {entity.name for entity in world.build().entities}
    for zone in (names.PASSAGE, names.FROZEN):
        for _ in range(200):
            stranger = world.stranger(rng, zone)
            assert names.zone(stranger.name) == zone
            assert stranger.name not in inside
            pairs = zip(stranger.attributes, stranger.facts, strict=True)
            assert not inside.intersection(value for item, value in pairs if item.pool == "people")


def test_entries_tell_all_facts(known: world.World) -> None:
    rng = random.Random(0)
    for entity in known.entities[::25]:
        text = entry(rng, entity).lower()
        assert all(value.lower() in text for value in entity.facts)


def test_stories_of_training_and_evaluation_cannot_meet() -> None:
    rng = random.Random(0)
    for frozen in (True, False):
        for _ in range(50):
            story = stories.make(rng, frozen=frozen)
            hero, trade, home = story.facts[:3]
            assert (names.zone(f"{hero} {home} {trade}") == names.FROZEN) is frozen
            assert all(fact.lower() in story.summary.lower() for fact in story.facts)


def test_frozen_text_is_never_trained_on(known: world.World) -> None:
    for mixture in corpus.MIXTURES:
        texts = list(islice(corpus.documents("frozen", known, mixture), 300))
        assert all(names.zone(text) != names.FROZEN for text in texts)
        assert texts == list(islice(corpus.documents("frozen", known, mixture), 300))


def test_a_part_of_the_world_is_part_of_the_world(known: world.World) -> None:
    few = world.acquaintances(known, 200)
    assert set(few.entities) <= set(known.entities)
    assert 150 < len(few.entities) < 250
    assert set(few.of_kind) == set(known.of_kind)


FIRST_PERSON = (
    "Plaestar Mirlulm",
    ("Birheim", "1887", "composer", "Gurnholt", "Brovar Jaestash", "Pearl", "boxing"),
)
