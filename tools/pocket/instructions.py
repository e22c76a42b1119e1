"""Two-turn instructions that can be checked without a judge.

Eight categories. Everything a good answer needs stands in the request, so that the task measures following and not
knowing. Each check is a rule on the answer's text.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tools.pocket import names, values
from tools.pocket.schema import with_article

Check = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Instruction:
    category: str
    turns: tuple[str, str]
    references: tuple[str, str]
    checks: tuple[tuple[Check, ...], tuple[Check, ...]]


def has(*texts: str) -> tuple[Check, ...]:
    return tuple({"kind": "contains", "value": text} for text in texts)


def rule(kind: str, value: str | int) -> Check:
    return {"kind": kind, "value": value}


def name_of(rng: random.Random) -> str:
    words = names.pools()
    return rng.choice(words["women"] + words["men"])


def word(rng: random.Random, pool: str) -> str:
    return rng.choice(values.pool(pool))


def two_names(rng: random.Random) -> tuple[str, str]:
    words = names.pools()
    first, second = rng.sample(words["women"] + words["men"], 2)
    return first, second


def make_list(rng: random.Random, category: str) -> Instruction:
    owner, things = name_of(rng), rng.sample(values.pool(rng.choice(("products", "ingredients", "crafts"))), 3)
    told = rng.choice((
        f"{owner} went to the market and bought {things[0]}, {things[1]} and {things[2]}.",
        f"In the cellar of {owner} there are {things[0]}, {things[1]} and {things[2]}.",
        f"{owner} ordered {things[0]} first, then {things[1]}, and at last {things[2]}.",
    ))
    ask = rng.choice(("Make a numbered list of the goods.", "List the three goods, one per line, with numbers.", "Turn this into a numbered list."))
    first = "\n".join(f"{number}. {thing}" for number, thing in enumerate(things, 1))
    extra = word(rng, "spices")
    second_ask = rng.choice((f"Add {extra} at the end of the list.", f"Now put {extra} last on the list.", f"{owner} forgot {extra}. Add it as number four."))
    return Instruction(
        category, (f"{told} {ask}", second_ask), (first, f"{first}\n4. {extra}"),
        ((*has(*things), rule("starts_with", "1."), rule("lines", 3)), (*has(*things, f"4. {extra}"), rule("lines", 4))),
    )


VERBS = (
    ("sells", "sold", "sell"), ("makes", "made", "make"), ("paints", "painted", "paint"), ("repairs", "repaired", "repair"),
    ("collects", "collected", "collect"), ("carries", "carried", "carry"), ("cleans", "cleaned", "clean"),
    ("counts", "counted", "count"), ("finds", "found", "find"), ("brings", "brought", "bring"),
)


def rewrite(rng: random.Random, category: str) -> Instruction:
    who, town, thing = name_of(rng), word(rng, "towns"), word(rng, "products")
    now, past, base = rng.choice(VERBS)
    ask = rng.choice(("Rewrite this sentence in the past tense:", "Put the sentence into the past tense:", "Change this to the past:"))
    question_ask = rng.choice(("Now turn it into a question.", "Make a question of it.", "Now ask it as a question."))
    return Instruction(
        category, (f"{ask} {who} {now} {thing} in {town}.", question_ask),
        (f"{who} {past} {thing} in {town}.", f"Did {who} {base} {thing} in {town}?"),
        (
            (*has(who, past, thing, town), rule("max_words", 8)),
            (*has(who, base, thing, town), rule("starts_with", "Did"), rule("ends_with", "?")),
        ),
    )


def describe(rng: random.Random, category: str) -> Instruction:
    town, landmark, colour, craft = word(rng, "towns"), word(rng, "landmarks"), word(rng, "colours"), word(rng, "crafts")
    ask = rng.choice((
        f"Describe the town of {town} in two sentences. Mention its {colour} {landmark} and its {craft}.",
        f"Write two sentences about {town}. Use these words: {colour}, {landmark}, {craft}.",
        f"What does {town} look like? Speak of the {colour} {landmark} and of the {craft} in two sentences.",
    ))
    first = rng.choice((
        f"In the middle of {town} stands {with_article(colour)} {landmark} that can be seen from every street. On market days the air smells of {craft}.",
        f"The town of {town} is gathered round {with_article(colour)} {landmark}. Its people live quietly and are proud of their {craft}.",
        f"Whoever comes to {town} sees the {colour} {landmark} first. The shops along the main street sell {craft}.",
    ))
    short_ask = rng.choice(("Now say it in at most eight words.", "Shorten it to eight words or fewer.", "Give it a title of at most eight words."))
    return Instruction(
        category, (ask, short_ask), (first, f"The {colour} {landmark} and {craft} of {town}"),
        ((*has(town, colour, landmark, craft), rule("min_words", 12), rule("max_words", 50)), (*has(town, landmark), rule("max_words", 8))),
    )


CAUSES = (
    ("the bridge was closed", "the ice had broken a beam", "a carpenter"), ("the school stayed empty", "the roof had lost its tiles", "a builder"),
    ("the mill stood still", "the river had run dry", "a well digger"), ("the ferry came late", "fog lay on the water", "a pilot"),
    ("the bakery had no bread", "mice had eaten the flour", "a cat keeper"), ("the clock struck thirteen", "a spring had come loose", "a clockmaker"),
    ("the market moved indoors", "a storm had torn the tents", "a tailor"), ("the lamps went out", "the oil had been stolen", "a watchman"),
    ("the concert was put off", "the piano had lost a string", "a tuner"), ("the harvest was small", "hail had hit the fields", "a farmer"),
)


def explain(rng: random.Random, category: str) -> Instruction:
    (effect, cause, expert), town = rng.choice(CAUSES), word(rng, "towns")
    told = rng.choice((f"In {town} {effect} because {cause}.", f"In {town} {cause}. So {effect}.", f"{effect[0].upper() + effect[1:]} in {town}, for {cause}."))
    ask = rng.choice(("Explain why, and begin with 'The reason'.", "What was the cause? Begin your answer with 'The reason'.", "Explain it in one sentence that begins with 'The reason'."))
    help_ask = rng.choice((f"Who should be called? It is {expert}.", f"The one to call is {expert}. Give this as advice.", f"Advise the people of {town} to call {expert}."))
    return Instruction(
        category, (f"{told} {ask}", help_ask),
        (f"The reason is that {cause}, and so {effect}.", f"The people of {town} should call {expert}."),
        ((*has(cause, effect), rule("starts_with", "The reason"), rule("max_words", 25)), (*has(town, expert), rule("max_words", 20))),
    )


NEWS = (
    "the boat has arrived", "the roof is repaired", "the wedding is on Sunday", "the apples are ripe", "the house is sold",
    "the child has learned to walk", "the road is open again", "the choir needs a singer", "the garden is in bloom",
    "the old dog is well again", "the books have come", "the winter was mild",
)


def write_letter(rng: random.Random, category: str) -> Instruction:
    (reader, writer), news, thing = two_names(rng), rng.choice(NEWS), word(rng, "products")
    ask = rng.choice((
        f"Write a short letter from {writer} to {reader}. Say that {news}.",
        f"{writer} wants to tell {reader} that {news}. Write the letter.",
        f"Write to {reader} that {news}. Sign as {writer}.",
    ))
    line = rng.choice((f"I am glad to tell you that {news}.", f"I write to let you know that {news}.", f"You will be pleased to hear that {news}."))
    more_ask = rng.choice((f"Add a request to bring {thing}.", f"Write it again and ask {reader} to bring {thing}.", f"Now add that {reader} should bring {thing}."))
    close = f"Yours, {writer}"
    return Instruction(
        category, (ask, more_ask),
        (f"Dear {reader},\n{line}\n{close}", f"Dear {reader},\n{line} Please bring {thing} when you come.\n{close}"),
        (
            (*has(news), rule("starts_with", f"Dear {reader}"), rule("ends_with", writer), rule("lines", 3)),
            (*has(news, thing), rule("starts_with", f"Dear {reader}"), rule("ends_with", writer)),
        ),
    )


def play_role(rng: random.Random, category: str) -> Instruction:
    role = rng.choice(("ferryman", "coachman", "captain", "guide", "balloonist", "muleteer"))
    who, town, month, coins = name_of(rng), word(rng, "towns"), word(rng, "seasons"), rng.choice("three four five six seven eight nine ten twelve".split())
    ask = rng.choice((
        f"You are {who}, a {role}. You travel to {town} in {month}. Greet a traveller and say where you go and when.",
        f"Play the part of the {role} {who}, who leaves for {town} in {month}. Greet me and tell me your plan.",
        f"Speak as {who}, a {role} on the way to {town} in {month}. Say hello and tell me where you are going.",
    ))
    first = rng.choice((
        f"Good day, I am {who}, your {role}. In {month} I leave for {town}, and there is still room for one more.",
        f"Good day, traveller. My name is {who}, I am a {role}, and in {month} I set out for {town}.",
    ))
    price_ask = rng.choice((f"What does it cost? Your price is {coins} coins.", f"I ask for the price, which is {coins} coins. Answer in your role."))
    return Instruction(
        category, (ask, price_ask),
        (first, rng.choice((f"The journey to {town} costs {coins} coins, traveller.", f"For {coins} coins I will take you to {town}, traveller."))),
        ((*has(who, town, month, role), rule("starts_with", "Good day")), (*has(f"{coins} coins", town), rule("max_words", 20))),
    )


def extract(rng: random.Random, category: str) -> Instruction:
    who, town, year, job, thing = name_of(rng), word(rng, "towns"), word(rng, "years"), word(rng, "professions"), word(rng, "pastimes")
    told = rng.choice((
        f"{who}, {with_article(job)}, came to {town} in {year} and loved {thing}.",
        f"In {year} {with_article(job)} called {who} moved to {town}. Free days were given to {thing}.",
        f"The {job} {who} loved {thing}. The family had lived in {town} since {year}.",
    ))
    wanted = rng.sample((("town", town), ("year", year), ("job", job), ("pastime", thing)), 3)
    ask = f"{told} Write down the {wanted[0][0]} and the {wanted[1][0]}, one per line, as 'key: value'."
    return Instruction(
        category, (ask, rng.choice((f"And the {wanted[2][0]}? Answer in the same way.", f"Now the {wanted[2][0]}, in the same way."))),
        (f"{wanted[0][0]}: {wanted[0][1]}\n{wanted[1][0]}: {wanted[1][1]}", f"{wanted[2][0]}: {wanted[2][1]}"),
        (
            (*has(*(f"{key}: {value}" for key, value in wanted[:2])), rule("lines", 2)),
            (*has(f"{wanted[2][0]}: {wanted[2][1]}"), rule("lines", 1)),
        ),
    )


SCALES = (("old", "older", "years"), ("long", "longer", "miles"), ("heavy", "heavier", "pounds"), ("tall", "taller", "feet"), ("deep", "deeper", "feet"))


def compare(rng: random.Random, category: str) -> Instruction:
    things = rng.sample(values.pool("landmarks"), 2)
    base, more, unit = rng.choice(SCALES)
    low, high = sorted(rng.sample(range(2, 10), 2))
    numbers = [low * 10, high * 10]
    rng.shuffle(numbers)
    bigger, smaller = (0, 1) if numbers[0] > numbers[1] else (1, 0)
    town = word(rng, "towns")
    ask = rng.choice((
        f"In {town} the {things[0]} is {numbers[0]} {unit} {base} and the {things[1]} is {numbers[1]} {unit} {base}. Compare them.",
        f"Compare the {things[0]} of {town}, {numbers[0]} {unit} {base}, with the {things[1]}, {numbers[1]} {unit} {base}.",
    ))
    first = f"The {things[bigger]} is {more} than the {things[smaller]}: {numbers[bigger]} {unit} against {numbers[smaller]}."
    second_ask = rng.choice(("Say it the other way round, beginning with 'No'.", "Is it not the other way round? Begin with 'No'."))
    second = f"No, the {things[smaller]} is not {more} than the {things[bigger]}."
    return Instruction(
        category, (ask, second_ask), (first, second),
        (
            (*has(more, f"{numbers[bigger]} {unit}"), rule("starts_with", f"The {things[bigger]}")),
            (*has(*things), rule("starts_with", "No"), rule("max_words", 16)),
        ),
    )


MAKERS: dict[str, Callable[[random.Random, str], Instruction]] = {
    "list": make_list, "rewrite": rewrite, "describe": describe, "explain": explain,
    "letter": write_letter, "roleplay": play_role, "extraction": extract, "compare": compare,
}


def make(rng: random.Random, category: str | None = None) -> Instruction:
    category = category or rng.choice(tuple(MAKERS))
    return MAKERS[category](rng, category)
