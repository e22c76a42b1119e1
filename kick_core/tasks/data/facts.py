"""The world facts as examples: closed book, with options (by words or letters), with a passage that answers, and with
one that says something else."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from kick_core import world_facts
from kick_core.records import Example
from kick_core.tasks.data.hub import in_random_order
from kick_core.tasks.scorers import stands_in
from kick_core.tasks.wording import LETTERS
from kick_core.tasks.wording import choice as choice_in_words
from kick_core.world_facts import Fact

_PROMPT = "Question: {question}\nAnswer:"


def _meta(fact: Fact) -> dict[str, Any]:
    return {
        "question": fact.question,
        "subject": fact.relation.replace("_", " "),
        "about": fact.subject,
        "popularity": fact.popularity,
        "popularity_unit": fact.unit,
        "tier": fact.tier,
    }


def _examples(form: str) -> tuple[Example, ...]:
    build = {"closed": _closed, "choice": _choice, "passage": _with_passage, "letters": _lettered}[form]
    return in_random_order("world facts", map(build, world_facts.rows()))  # one order, so that forms can be paired


def _closed(fact: Fact) -> Example:
    prompt = _PROMPT.format(question=fact.question)
    return Example(fact.id, (prompt,), answers=(fact.answer, *fact.aliases), meta=_meta(fact))


def _with_passage(fact: Fact) -> Example:
    prompt = f"{fact.passage}\n\n{_PROMPT.format(question=fact.question)}"
    meta = _meta(fact) | {"passage": fact.passage}
    return Example(fact.id, (prompt,), answers=(fact.answer, *fact.aliases), meta=meta)


def _choice(fact: Fact) -> Example:
    options = [fact.answer, *fact.distractors]
    random.Random(f"kick options 1 {fact.id}").shuffle(options)
    return Example(
        fact.id,
        (_PROMPT.format(question=fact.question),),
        choices=tuple(f" {option}" for option in options),
        answers=("ABCD"[options.index(fact.answer)],),
        meta=_meta(fact) | {"options": options},
    )


_SHOTS = 5


def _lettered(fact: Fact) -> Example:
    """The same options with letters, after worked examples of that form; the model answers with a letter."""
    example = _choice(fact)
    prompt = (*_shots(), _with_letters(example))
    return replace(example, prompt=prompt, choices=tuple(f" {letter}" for letter in LETTERS))


@cache
def _shots() -> tuple[str, ...]:
    """What stands before every question with letters."""
    shown = world_facts.worked_examples()
    shots = [_choice(fact) for fact in shown[:: len(shown) // _SHOTS]][:_SHOTS]
    parts = (f"{_with_letters(shot)} {shot.answers[0]}\n\n" for shot in shots)
    return ("The following are multiple choice questions (with answers).\n\n", *parts)


def _with_letters(example: Example) -> str:
    return choice_in_words(str(example.meta["question"]), example.meta["options"])


@cache
def letters(data: str) -> tuple[Example, ...]:
    """Every fact with four lettered options."""
    return _examples("letters")


@cache
def closed(data: str) -> tuple[Example, ...]:
    """Every fact without help; the data's name says nothing, for the facts ship with the package."""
    return _examples("closed")


@cache
def choice(data: str) -> tuple[Example, ...]:
    """Every fact with three wrong answers of its kind."""
    return _examples("choice")


@cache
def passage(data: str) -> tuple[Example, ...]:
    """Every fact after a passage that holds its answer."""
    return _examples("passage")


@cache
def counterfactual(data: str) -> tuple[Example, ...]:
    """Facts after a passage in which a wrong answer stands in place of the right one."""
    return in_random_order("world facts", _counterfactuals())


def _counterfactuals() -> Iterator[Example]:
    spellings, articles = _spellings(), _with_article()
    for fact in world_facts.rows():
        true = (fact.answer, *fact.aliases)
        for wrong in fact.distractors:
            names = (wrong, *(name for name in spellings.get((fact.relation, wrong), ()) if name not in true))
            words = f"the {wrong}" if (fact.relation, wrong) in articles else wrong
            passage = re.sub(rf"(\bthe )?{_whole(fact.answer)}", words, fact.passage)
            # another sentence may name the wrong answer too, or a second right one (a country's other neighbours)
            if not stands_in(fact.passage, names) and not stands_in(passage, true):
                example = _with_passage(replace(fact, answer=wrong, aliases=names[1:], passage=passage))
                example.meta["true_answers"] = list(true)
                yield example
                break


def _spellings() -> dict[tuple[str, str], tuple[str, ...]]:
    """(relation, answer) -> its other spellings; none that is the answer to another question of the relation."""
    answers: dict[str, set[str]] = defaultdict(set)
    aliases: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for fact in world_facts.rows():
        answers[fact.relation].add(fact.answer)
        aliases[fact.relation, fact.answer] |= dict.fromkeys(fact.aliases)
    return {key: tuple(name for name in names if name not in answers[key[0]]) for key, names in aliases.items()}


def _with_article() -> set[tuple[str, str]]:
    """(relation, answer) of the answers that stand behind an article: the Netherlands."""
    behind = (fact for fact in world_facts.rows() if f"the {fact.answer}" in fact.passage)
    return {(fact.relation, fact.answer) for fact in behind if re.search(f"the {_whole(fact.answer)}", fact.passage)}


def _whole(name: str) -> str:
    """A pattern of the name as whole words."""
    return rf"\b{re.escape(name)}(?!\w)"


def tier(example: Example) -> str:
    """How well known the subject is, for the details of a run."""
    return f"tier {example.meta['tier']}" if "tier" in example.meta else ""


GROUPS = {"tier": tier}
