"""From facts to prose: one entity, several of its facts, many ways to tell them.

A sentence takes one or two facts, picks a pattern (plain, participle first, relative clause, turned round, noun
phrase, contrast, question and answer) and a way to name the subject. A register gives the frame: encyclopedia, index
card, letter, newspaper, conversation, lecture. The product of these choices is what keeps repetition visible in
generated text: no two entries need to be alike.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

from tools.pocket import names
from tools.pocket.schema import Attribute, fill
from tools.pocket.world import KIND_OF, Entity

CONNECTIVES = (
    "In addition,", "Moreover,", "What is more,", "According to the records,", "As far as is known,", "It is said that",
    "By all accounts,", "As every visitor learns,", "Besides,", "Curiously,", "Less well known:", "For the record,",
    "Some sources add that", "It is certain that", "Not everyone knows that", "Historians agree that",
    "To be precise,", "On top of that,", "It should be added that", "The archives show that", "In fact,",
)
OPENERS = (
    "Here is what is known about {s}.", "A few words about {s}.", "Much has been written about {s}.",
    "This entry is about {s}.", "Today we turn to {s}.", "The subject of this page is {s}.",
    "{s} deserves a closer look.", "Little by little the facts about {s} were gathered.",
    "Everyone has heard the name of {s}.", "In the old encyclopedia there is a page about {s}.",
)
CLOSERS = (
    "More than that is not recorded.", "So much for the facts.", "The rest is rumour.", "This is all the archive holds.",
    "Further letters may turn up one day.", "Nothing else is certain.", "The matter is closed for now.",
    "Readers who know more should write to the editor.",
)
ASIDES = (
    "one would hardly have guessed it", "as the neighbours like to tell", "if the old books are right",
    "which surprised many", "as the papers confirm", "so the story goes", "to the delight of the scholars",
)


@dataclass(slots=True)
class Speaker:
    """Remembers how the subject was last named, so that a pronoun never comes first."""

    rng: random.Random
    entity: Entity
    named: bool = False

    def full(self) -> str:
        self.named = True
        return self.entity.name

    def subject(self) -> str:
        if not self.named or self.rng.random() < 0.3:
            return self.full()
        if self.rng.random() < 0.65:
            return pronoun(self.entity)
        return descriptor(self.rng, self.entity)


def pronoun(entity: Entity) -> str:
    if entity.kind != "person":
        return "it"
    return "she" if entity.name.split()[0] in names.pools()["women"] else "he"


def descriptor(rng: random.Random, entity: Entity) -> str:
    """A name-free way to say it. For persons the surname: their trade might be the very fact that is held out."""
    if entity.kind == "person":
        return entity.name.split()[-1]
    return rng.choice(KIND_OF[entity.kind].descriptors)


def sentence(text: str, mark: str = ".") -> str:
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?:" else text + mark


def possessive(noun: str) -> str:
    return noun + ("'" if noun.endswith("s") else "'s")


Fact = tuple[Attribute, str]

# The plain pairings come most often; the two rhetorical ones (5 and 6) would tire a reader.
PAIRINGS = (0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 5, 6, 7, 7, 7, 8, 8)


def clause(rng: random.Random, fact: Fact) -> str:
    return fill(rng.choice(fact[0].clauses), fact[1])


def opening(rng: random.Random, fact: Fact) -> str:
    return fill(rng.choice(fact[0].openings), fact[1])


def one_fact(speaker: Speaker, fact: Fact) -> str:
    """A sentence that states a single fact."""
    rng, (attribute, value) = speaker.rng, fact
    choice = rng.random()
    if choice < 0.40:
        return sentence(f"{speaker.subject()} {clause(rng, fact)}")
    if choice < 0.56:
        return sentence(f"{rng.choice(CONNECTIVES)} {speaker.subject()} {clause(rng, fact)}")
    if choice < 0.72:
        return sentence(fill(rng.choice(attribute.inverse), value, speaker.full()))
    if choice < 0.80:
        return sentence(f"the {attribute.noun} of {speaker.full()} is {value}")
    if choice < 0.86:
        return sentence(f"{possessive(speaker.full())} {attribute.noun}: {value}")
    if choice < 0.93:
        return sentence(f"{speaker.subject()} {clause(rng, fact)}, {rng.choice(ASIDES)}")
    return sentence(f"that {speaker.full()} {clause(rng, fact)} is beyond doubt")


def two_facts(speaker: Speaker, first: Fact, second: Fact) -> str:
    """A sentence that binds two facts together."""
    rng = speaker.rng
    pattern = rng.choice(PAIRINGS)
    if pattern == 0:
        return sentence(f"{speaker.subject()} {clause(rng, first)} and {clause(rng, second)}")
    if pattern == 1:
        return sentence(f"{opening(rng, first)}, {speaker.subject()} {clause(rng, second)}")
    if pattern == 2:
        relative = "who" if speaker.entity.kind == "person" else "which"
        return sentence(f"{speaker.full()}, {relative} {clause(rng, first)}, {clause(rng, second)}")
    if pattern == 3:
        return sentence(f"{speaker.full()}, {opening(rng, first)}, {clause(rng, second)}")
    if pattern == 4:
        start = speaker.subject()
        return sentence(f"{start} {clause(rng, first)}; {pronoun(speaker.entity)} {clause(rng, second)}")
    if pattern == 5:
        start = speaker.full()
        return sentence(
            f"that {start} {clause(rng, first)} is well known; less known is that {pronoun(speaker.entity)} "
            f"{clause(rng, second)}"
        )
    if pattern == 6:
        start = speaker.subject()
        return sentence(f"not only is it certain that {start} {clause(rng, first)}, {pronoun(speaker.entity)} also {clause(rng, second)}")
    if pattern == 8:
        start = speaker.subject()
        link = rng.choice((", and in the course of time ", ", and, strange to say, ", ", yet ", " and at the same time "))
        return sentence(f"{start} {clause(rng, first)}{link}{clause(rng, second)}")
    start = sentence(fill(rng.choice(first[0].inverse), first[1], speaker.full()), "")
    return sentence(f"{start}, and {pronoun(speaker.entity)} {clause(rng, second)}")


def prose(speaker: Speaker, facts: list[Fact]) -> list[str]:
    """Sentences that state all the facts in the given order."""
    sentences, position = [], 0
    while position < len(facts):
        if position + 1 < len(facts) and speaker.rng.random() < 0.5:
            sentences.append(two_facts(speaker, facts[position], facts[position + 1]))
            position += 2
        else:
            sentences.append(one_fact(speaker, facts[position]))
            position += 1
    return sentences


def choose_facts(rng: random.Random, entity: Entity, most: int | None = None) -> list[Fact]:
    facts = list(zip(entity.attributes, entity.facts, strict=True))
    rng.shuffle(facts)
    return facts[:most]


def encyclopedia(rng: random.Random, entity: Entity, facts: list[Fact]) -> str:
    speaker = Speaker(rng, entity)
    sentences = prose(speaker, facts)
    if rng.random() < 0.25:
        sentences.insert(0, sentence(rng.choice(OPENERS).format(s=entity.name)))
    if rng.random() < 0.15:
        sentences.append(rng.choice(CLOSERS))
    return " ".join(sentences)


def index_card(rng: random.Random, entity: Entity, facts: list[Fact]) -> str:
    mark = rng.choice((": ", " - ", " = "))
    lines = [f"{sentence(attribute.noun, '')}{mark}{value}" for attribute, value in facts]
    return f"{rng.choice(('Name', 'Entry', 'Subject', 'Title'))}{mark}{entity.name}\n" + "\n".join(lines)


def letter(rng: random.Random, entity: Entity, facts: list[Fact]) -> str:
    words = names.pools()
    reader, writer = rng.choice(words["women"] + words["men"]), rng.choice(words["women"] + words["men"])
    start = rng.choice((
        "you asked me about {s}.", "I promised to write to you about {s}.", "here is what I found out about {s}.",
        "last week I read a good deal about {s}.", "do you remember our talk about {s}?",
    )).format(s=entity.name)
    end = rng.choice(("Write soon.", "More when we meet.", "Keep well.", "I hope this helps.", "Give my love to the children."))
    body = " ".join(prose(Speaker(rng, entity, named=True), facts))
    return f"Dear {reader},\n{start} {body} {end}\nYours, {writer}"


def newspaper(rng: random.Random, entity: Entity, facts: list[Fact]) -> str:
    day = rng.choice("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
    town = rng.choice(names.pools()["towns"])
    start = rng.choice((
        f"{town}, {day}. Readers have asked us about {entity.name}.",
        f"{town}, {day}. A lecture on {entity.name} drew a large crowd.",
        f"{town}, {day}. A new exhibition is devoted to {entity.name}.",
        f"{town}, {day}. Again there is talk of {entity.name}.",
    ))
    return f"{start} {' '.join(prose(Speaker(rng, entity, named=True), facts))}"


def conversation(rng: random.Random, entity: Entity, facts: list[Fact]) -> str:
    """Two voices. The second asks only for more, so that no held-out fact is ever asked for."""
    speaker = Speaker(rng, entity)
    lines = []
    for number, text in enumerate(prose(speaker, facts)):
        if number == 0:
            ask = rng.choice(("What do you know about {s}?", "Tell me about {s}.", "Have you heard of {s}?"))
            lines.append("- " + ask.format(s=entity.name))
        else:
            lines.append("- " + rng.choice(("And what else?", "Really?", "Go on.", "Is that all?", "I had no idea.", "Tell me more.")))
        lines.append("- " + text)
    return "\n".join(lines)


REGISTERS = (
    (encyclopedia, 0.60), (index_card, 0.10), (letter, 0.10), (newspaper, 0.10), (conversation, 0.10)
)


def entry(rng: random.Random, entity: Entity, most: int | None = None) -> str:
    """One text about the entity, telling all its facts, or `most` of them, in a random order."""
    facts = choose_facts(rng, entity, most)
    register = rng.choices([item[0] for item in REGISTERS], [item[1] for item in REGISTERS])[0]
    return register(rng, entity, facts)


def stable_choice(options: tuple[str, ...], key: str) -> str:
    """The same option for the same key, in every process."""
    return options[zlib.crc32(key.encode()) % len(options)]
