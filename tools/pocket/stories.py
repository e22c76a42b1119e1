"""Short stories in three lengths, each with the summary that keeps its main facts.

What is told between the beats (weather, clothes, thoughts) is true to life and beside the point: a good summary
leaves it out. The words that a summary must keep are known by construction, so it can be scored without a judge.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tools.pocket import names, prompts, values
from tools.pocket.plots import PLOTS, Plot
from tools.pocket.schema import with_article

BUCKETS = ("small", "medium", "large")
FILLERS_FOR = {"small": (1, 2), "medium": (2, 3), "large": (4, 6)}

TROUBLES = ("a flood", "a thunderstorm", "a heavy snowfall", "a landslide", "a thick fog", "a forest fire", "a strike", "an earthquake", "a gale", "a plague of mice")
TREASURES = (
    "silver flute", "copper kettle", "golden ring", "carved chest", "blue vase", "old map", "glass eye", "painted clock", "pearl necklace",
    "leather book", "ivory comb", "bronze bell",
)
CLUES = ("feathers", "crumbs", "muddy footprints", "wax drops", "straw", "ashes", "red threads", "fish bones", "candle ends", "wet leaves")
ANIMALS = ("a goat", "a magpie", "a young fox", "a tame bear", "a lame donkey", "a stray dog", "a grey goose", "a monkey", "a white cat", "a hedgehog", "a crow", "an old horse")
SHELTERS = ("barn", "chapel", "cellar", "attic", "boathouse", "stable", "hayloft", "greenhouse", "woodshed", "forge", "bell tower", "smokehouse")
REWARDS = ("a purse of gold", "a new coat", "a fine horse", "a barrel of wine", "a silver cup", "a piece of land", "a box of spices", "a letter of thanks", "a pair of boots", "a free passage by sea")
FILLERS = (
    "The wind was cold and the leaves were falling.", "It rained, and the rain did not stop for days.", "The sun had hardly risen above the roofs.",
    "Children ran along the street and asked a hundred questions.", "Somebody was playing a tune behind a window.", "There was a smell of fresh bread in the air.",
    "Nobody spoke for a long while.", "An old woman shook her head and went back to her knitting.", "The stars came out one by one.",
    "All this time the church clock went on striking.", "It is hard to say who was more surprised.", "There was soup in the evening, and it was far too salty.",
    "The neighbours had a good deal to say about it.", "A dog barked somewhere in the distance.", "No one slept well that night.",
    "Things like this did not happen often.", "The road was long and full of stones.", "In those days one still had time for such things.",
    "A little later there was laughter again.", "Old songs were sung, and the fire burned low.", "It seemed wiser to wait until the morning.",
    "The moon hung over the fields like a lamp.", "Everyone remembered a similar case from long ago.", "There was no letter and no sign.",
    "The shutters rattled and the lamp went out twice.", "Later nobody could say how long it had taken.", "Fear is a poor adviser, as the saying goes.",
    "The geese in the yard made a terrible noise.", "One step followed the other.", "And yet there was some hope left.",
)
ENDINGS = ("And that is how it was.", "They still talk about it today.", "So the story ends.", "Nothing so strange has happened since.", "")


@dataclass(frozen=True, slots=True)
class Story:
    text: str
    bucket: str
    facts: tuple[str, ...]
    summary: str


def _slots(rng: random.Random) -> dict[str, str]:
    words = names.pools()
    people = rng.sample(words["women"] + words["men"], 4)
    home, town = rng.sample(words["towns"], 2)
    trade = rng.choice(values.pool("professions"))
    return {
        "hero": people[0], "friend": people[1], "rival": people[2], "suspect": people[3], "home": home, "town": town,
        "trade": trade, "a_trade": with_article(trade), "thing": rng.choice(values.pool("products")),
        "place": rng.choice(values.pool("landmarks")), "sport": rng.choice(values.pool("sports")),
        "food": rng.choice(values.pool("foods")), "month": rng.choice(values.pool("seasons")),
        "trouble": rng.choice(TROUBLES), "treasure": rng.choice(TREASURES), "clue": rng.choice(CLUES),
        "animal": rng.choice(ANIMALS), "shelter": rng.choice(SHELTERS), "reward": rng.choice(REWARDS),
    }


def _told_beats(plot: Plot, bucket: str) -> list[int]:
    if bucket == "large":
        return list(range(len(plot.beats)))
    return sorted(plot.core if bucket == "small" else plot.core + plot.medium)


def key(slots: dict[str, str]) -> str:
    """What tells one story from another when training and evaluation are kept apart."""
    return " ".join((slots["hero"], slots["home"], slots["trade"]))


def tell(rng: random.Random, slots: dict[str, str], plot: Plot, bucket: str) -> Story:
    sentences, summary, facts = [], [], []
    for number in _told_beats(plot, bucket):
        beat = plot.beats[number]
        sentences.append(rng.choice(beat.tellings).format(**slots))
        summary.append(rng.choice(beat.summary).format(**slots))
        facts += [word.format(**slots) for word in beat.kept]
    for filler in rng.sample(FILLERS, rng.randint(*FILLERS_FOR[bucket])):
        sentences.insert(rng.randint(1, len(sentences)), filler)
    text = " ".join((*sentences, rng.choice(ENDINGS))).strip()
    short = " ".join(line[0].upper() + line[1:] for line in summary if line)
    kept = tuple(dict.fromkeys(fact for fact in facts if fact.lower() in short.lower()))
    return Story(text, bucket, kept, short)


def make(rng: random.Random, bucket: str | None = None, *, frozen: bool = False) -> Story:
    """A story for the evaluation if `frozen`, else one for training; the two can never be the same."""
    while True:
        slots = _slots(rng)
        if (names.zone(key(slots)) == names.FROZEN) is frozen:
            return tell(rng, slots, rng.choice(PLOTS), bucket or rng.choice(BUCKETS))


def document(rng: random.Random) -> str:
    """Story and summary in the chat form, or as running text."""
    story = make(rng)
    if rng.random() < 0.75:
        return prompts.chat(prompts.SUMMARY.format(story=story.text), story.summary)
    return rng.choice((
        f"{story.text}\n\nIn short: {story.summary}", f"Story: {story.text}\nSummary: {story.summary}", story.text,
    ))
