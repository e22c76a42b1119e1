"""The frozen evaluation data, made from the seed: what training never asks, never tells and never shows.

Rows stand in a fixed random order, balanced where a task has groups, so that the first n rows are a fair sample of
all. Every file is a pure function of the world, the seed and (for distinct first tokens) the tokenizer.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import partial

from tokenizers import Tokenizer

from kick_core.pocket import DOCUMENT_MARK
from tools.pocket import corpus, instructions, names, questions, stories
from tools.pocket.language import entry
from tools.pocket.questions import Question, aliases, ask
from tools.pocket.world import KIND_OF, KINDS, Entity, World, held_out

ROWS = {"factoid": 600, "closed": 600, "open": 600, "choice": 720, "summarization": 240, "instructions": 128}
PERPLEXITY_TOKENS, CALIBRATION_TOKENS = 40_000, 200_000
SEED = "evaluation 1"

Row = dict[str, object]
DISCIPLINE_OF = {kind.subject: kind.discipline for kind in KINDS}


def held_out_facts(world: World, wanted: Callable[[Entity, str], bool]) -> list[tuple[Entity, str]]:
    """All facts of this sort that training tells and never asks, as (entity, attribute name)."""
    return [
        (entity, attribute.name)
        for entity in world.entities
        for attribute in entity.attributes
        if held_out(entity.name, attribute.name) and wanted(entity, attribute.pool)
    ]


def is_factoid(entity: Entity, pool: str) -> bool:
    """Persons, and the persons behind works, firms and finds: what trivia questions are about."""
    return entity.kind == "person" or pool == "people"


def _is_of_kind(kind: str, entity: Entity, _pool: str) -> bool:
    return entity.kind == kind


def _question(rng: random.Random, fact: tuple[Entity, str]) -> Question:
    entity, name = fact
    return ask(rng, entity, next(item for item in entity.attributes if item.name == name))


def _asked(prefix: str, asked: list[Question], passages: list[str] | None = None) -> Iterator[Row]:
    for number, question in enumerate(asked, 1):
        row: Row = {"id": f"{prefix}-{number:04d}", "question": question.text, "answers": aliases(question)}
        row |= {"subject": question.subject, "discipline": DISCIPLINE_OF[question.subject]}
        if passages is not None:
            row["passage"] = passages[number - 1]
        yield row


def closed_book(world: World) -> dict[str, list[Row]]:
    """`factoid_qa` and `retrieval_qa_closed`: two sorts of facts, no fact in both."""
    rng = random.Random(f"{SEED} closed book")
    factoid = rng.sample(held_out_facts(world, is_factoid), ROWS["factoid"])
    places = rng.sample(held_out_facts(world, lambda *fact: not is_factoid(*fact)), ROWS["closed"])
    return {
        "factoid_qa": list(_asked("fq", [_question(rng, fact) for fact in factoid])),
        "retrieval_qa_closed": list(_asked("rc", [_question(rng, fact) for fact in places])),
    }


def open_book() -> list[Row]:
    """One question on each passage; nobody and nothing in a passage exists elsewhere."""
    rng = random.Random(f"{SEED} open book")
    passages, asked = [], []
    for _ in range(ROWS["open"]):
        text, group = questions.passage(rng, names.FROZEN)
        passages.append(text)
        asked.append(rng.choice(group))
    return list(_asked("ro", asked, passages))


def _distinct_options(
    rng: random.Random, world: World, question: Question, tokenizer: Tokenizer, place: int
) -> list[str]:
    while True:
        options, _ = questions.with_options(rng, question, world.people, place)
        firsts = {tokenizer.encode(f" {option}", add_special_tokens=False).ids[0] for option in options}
        if len(firsts) == len(options):
            return options


def multiple_choice(world: World, tokenizer: Tokenizer, used: set[tuple[str, str]]) -> list[Row]:
    """Rounds of twelve subjects; the place of the answer goes round evenly within each subject."""
    rng = random.Random(f"{SEED} multiple choice")
    rounds = ROWS["choice"] // len(KINDS)
    facts, places = {}, {}
    for kind in KINDS:
        found = held_out_facts(world, partial(_is_of_kind, kind.name))
        facts[kind.name] = rng.sample([(e, a) for e, a in found if (e.name, a) not in used], rounds)
        places[kind.name] = rng.sample([number % 4 for number in range(rounds)], rounds)
    rows: list[Row] = []
    for turn in range(rounds):
        for kind in rng.sample(KINDS, len(KINDS)):
            question, place = _question(rng, facts[kind.name][turn]), places[kind.name][turn]
            options = _distinct_options(rng, world, question, tokenizer, place)
            row: Row = {"id": f"mc-{len(rows) + 1:04d}", "question": question.text, "choices": options, "answer": place}
            rows.append(row | {"subject": kind.subject, "discipline": kind.discipline})
    return rows


def summarization() -> list[Row]:
    rng = random.Random(f"{SEED} summarization")
    rows: list[Row] = []
    for number in range(1, ROWS["summarization"] + 1):
        story = stories.make(rng, stories.BUCKETS[number % 3], frozen=True)
        rows.append({
            "id": f"su-{number:04d}", "story": story.text, "bucket": story.bucket,
            "facts": [[fact.removeprefix("an ").removeprefix("a ")] for fact in story.facts], "reference": story.summary,
        })
    return rows


def instruction_rows() -> list[Row]:
    rng = random.Random(f"{SEED} instructions")
    rows: list[Row] = []
    while len(rows) < ROWS["instructions"]:
        category = tuple(instructions.MAKERS)[len(rows) % len(instructions.MAKERS)]
        made = instructions.make(rng, category)
        if names.zone(made.turns[0]) != names.FROZEN:
            continue
        rows.append({
            "id": f"in-{len(rows) + 1:04d}", "category": made.category, "turns": list(made.turns),
            "references": list(made.references), "checks": [list(turn) for turn in made.checks],
        })
    return rows


def _up_to(texts: Iterator[str], tokens: int, tokenizer: Tokenizer) -> str:
    taken, seen = [], 0
    for text in texts:
        taken.append(text.strip("\n"))
        seen += len(tokenizer.encode(text).ids)
        if seen >= tokens:
            break
    return f"\n\n{DOCUMENT_MARK}\n\n".join(taken) + "\n"


def _new_paraphrases(world: World) -> Iterator[str]:
    """Entries that training has thrown away, and now and then a story."""
    rng = random.Random(f"{SEED} perplexity")
    while True:
        for _ in range(9):
            text = entry(rng, rng.choice(world.entities))
            while names.zone(text) != names.FROZEN:
                text = entry(rng, rng.choice(world.entities))
            yield text
        yield stories.make(rng, frozen=True).text


def as_lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def make(world: World, tokenizer: Tokenizer) -> dict[str, str]:
    """File name to content, for every data file but `meta.json`."""
    asked = closed_book(world)
    texts = {row["question"] for rows in asked.values() for row in rows}
    used = {
        (entity.name, attribute.name)
        for entity in world.entities
        for attribute in KIND_OF[entity.kind].attributes
        if held_out(entity.name, attribute.name)
        and any(form.replace("{s}", entity.name) in texts for form in attribute.questions)
    }
    rows = asked | {
        "retrieval_qa_open": open_book(),
        "multiple_choice": multiple_choice(world, tokenizer, used),
        "summarization": summarization(),
        "instructions": instruction_rows(),
    }
    calibration = corpus.documents(f"{SEED} calibration", world, "main")
    return {f"{name}.jsonl": as_lines(content) for name, content in rows.items()} | {
        "perplexity.txt": _up_to(_new_paraphrases(world), PERPLEXITY_TOKENS, tokenizer),
        "calibration.txt": _up_to(calibration, CALIBRATION_TOKENS, tokenizer),
    }
