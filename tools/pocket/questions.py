"""Questions and answers: asked of the world, of passages, and with options to choose from.

Options of one question are of one pool and differ in their first word. The drills ask for nothing but the letter of a
word that stands in the list: choosing by letter is a skill of its own, and models of this size learn it from such
short texts long before they learn it from questions of knowledge.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tools.pocket import names, prompts, values
from tools.pocket.language import Speaker, choose_facts, prose
from tools.pocket.schema import Attribute
from tools.pocket.world import KIND_OF, Entity, World, held_out, stranger

DRILL_POOLS = (*sorted(values.WORDS), "towns", "rivers", "regions", "years", "people", "people", "people")
FIRST_POOLS = ("towns", "colours", "professions", "landmarks")


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    answer: str
    subject: str
    attribute: Attribute


def ask(rng: random.Random, entity: Entity, attribute: Attribute) -> Question:
    text = rng.choice(attribute.questions).replace("{s}", entity.name)
    return Question(text, entity.value(attribute.name), KIND_OF[entity.kind].subject, attribute)


def draw_question(rng: random.Random, entities: tuple[Entity, ...]) -> Question:
    """A question that training may ask about one of the entities."""
    while True:
        entity = rng.choice(entities)
        attribute = rng.choice(entity.attributes)
        if not held_out(entity.name, attribute.name):
            return ask(rng, entity, attribute)


def aliases(question: Question) -> list[str]:
    """Answers that count as right."""
    tail = {"prizes": " Medal", "grounds": " Field"}.get(question.attribute.pool)
    return [question.answer, question.answer + tail] if tail else [question.answer]


def with_options(
    rng: random.Random, question: Question, people: tuple[str, ...], answer_at: int | None = None
) -> tuple[list[str], int]:
    """Four options and the place of the right one."""
    candidates = people if question.attribute.pool == "people" else values.pool(question.attribute.pool)
    options: list[str] = []
    starts = {question.answer.split()[0]}
    while len(options) < 3:
        option = rng.choice(candidates)
        if option.split()[0] not in starts:
            starts.add(option.split()[0])
            options.append(option)
    place = rng.randrange(4) if answer_at is None else answer_at
    options.insert(place, question.answer)
    return options, place


def factoid_document(rng: random.Random, world: World) -> str:
    question = draw_question(rng, world.entities)
    return f"{prompts.FACTOID.format(question=question.text)} {question.answer}.\n"


def closed_document(rng: random.Random, world: World) -> str:
    """The evaluation's form, sometimes with more questions after the first."""
    first = draw_question(rng, world.entities)
    text = f"{prompts.CLOSED.format(question=first.text)} {first.answer}\n"
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        question = draw_question(rng, world.entities)
        text += f"\nQ: {question.text}\nA: {question.answer}\n"
    return text


def free_document(rng: random.Random, world: World) -> str:
    """Questions as people put them to each other, answered with a word or with a sentence."""
    pieces = []
    for _ in range(rng.choice((1, 2, 3))):
        entity = rng.choice(world.entities)
        allowed = [item for item in entity.attributes if not held_out(entity.name, item.name)]
        if not allowed:
            continue
        question = ask(rng, entity, rng.choice(allowed))
        statement = " ".join(prose(Speaker(rng, entity), [(question.attribute, question.answer)]))
        pieces.append(rng.choice((
            f"{question.text} {statement}", f"Question: {question.text}\nAnswer: {question.answer}",
            f"- {question.text}\n- {statement}", f"Who can tell me this? {question.text} The answer is {question.answer}.",
            f"Quiz: {question.text}\nSolution: {question.answer}.", f"{question.text} {question.answer}.",
        )))
    return "\n".join(pieces)


def passage_about(rng: random.Random, entity: Entity, most: int) -> tuple[str, list[Question]]:
    """A reading passage and the questions that it answers."""
    facts = choose_facts(rng, entity, most)
    text = " ".join(prose(Speaker(rng, entity), facts))
    return text, [ask(rng, entity, attribute) for attribute, _ in facts]


def passage(rng: random.Random, zone: str) -> tuple[str, list[Question]]:
    """About one stranger, or about two of the same kind, so that the name must be heeded."""
    if rng.random() < 0.7:
        return passage_about(rng, stranger(rng, zone), rng.choice((4, 5)))
    first = stranger(rng, zone)
    second = stranger(rng, zone, KIND_OF[first.kind])
    (text, questions), (more_text, more_questions) = passage_about(rng, first, 3), passage_about(rng, second, 2)
    return f"{text} {more_text}", questions + more_questions


def open_document(rng: random.Random, _world: World) -> str:
    text, questions = passage(rng, names.PASSAGE)
    rng.shuffle(questions)
    asked = questions[: rng.choice((1, 2, 3, 4))]
    if rng.random() < 0.2:
        return f"{text}\n" + "\n".join(f"Question: {item.text} Answer: {item.answer}." for item in asked)
    document = f"{prompts.OPEN.format(passage=text, question=asked[0].text)} {asked[0].answer}\n"
    return document + "".join(f"\nQ: {item.text}\nA: {item.answer}\n" for item in asked[1:])


def _choice_block(rng: random.Random, question: Question, people: tuple[str, ...], form: str) -> str:
    options, place = with_options(rng, question, people)
    letter = prompts.LETTERS[place]
    if form == "letter":
        return f"{prompts.choice(question.text, options)} {letter}\n"
    words = f"{prompts.choice(question.text, options, in_words=True)} {question.answer}\n"
    return words if form == "words" else f"{words}Answer: {letter}\n"


def _choice_form(rng: random.Random) -> str:
    return rng.choices(("letter", "words", "words, then letter"), (65, 15, 20))[0]


def choice_document(rng: random.Random, world: World) -> str:
    """Knowledge with options: one question, or several of one subject in a row."""
    kind, form = KIND_OF[rng.choice(world.entities).kind], _choice_form(rng)
    blocks = [
        _choice_block(rng, draw_question(rng, world.of_kind[kind.name]), world.people, form)
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))
    ]
    return prompts.CHOICE_HEADER.format(subject=kind.subject) + "\n".join(blocks)


def exam_document(rng: random.Random, world: World) -> str:
    """One question with options, as the evaluation puts it. Now and then the answer is told before the options:
    who recalls it while still reading the question has only to look for it in the list.
    """
    kind = KIND_OF[rng.choice(world.entities).kind]
    question = draw_question(rng, world.of_kind[kind.name])
    form = rng.choices(("letter", "words", "words, then letter", "recalled"), (20, 60, 10, 10))[0]
    if form == "recalled":
        options, place = with_options(rng, question, world.people)
        block = f"{prompts.choice(f'{question.text} {question.answer}', options)} {prompts.LETTERS[place]}\n"
    else:
        block = _choice_block(rng, question, world.people, form)
    return prompts.CHOICE_HEADER.format(subject=kind.subject) + block


def open_choice_document(rng: random.Random, world: World) -> str:
    """Options after a passage: the answer has been read, only the letter is missing."""
    text, questions = passage(rng, names.PASSAGE)
    rng.shuffle(questions)
    form = _choice_form(rng)
    blocks = [_choice_block(rng, item, world.people, form) for item in questions[: rng.choice((1, 2, 3))]]
    return f"{text}\n\n{prompts.CHOICE_HEADER.format(subject=questions[0].subject)}" + "\n".join(blocks)


def _drill_options(rng: random.Random, world: World, pools: tuple[str, ...]) -> list[str]:
    pool = rng.choice(pools)
    candidates = world.people if pool == "people" else values.pool(pool)
    options: dict[str, str] = {}
    while len(options) < 4:
        option = rng.choice(candidates)
        options.setdefault(option.split()[0], option)
    return list(options.values())


DRILL_FORMS = (
    "The letter of {o} is {l}.", "The word {o} is {l}.", "Find {o}: {l}", "Which letter has {o}? Answer: {l}", "Letter {l} is {o}.",
    "{l}. {o}",
)


def letter_drill(rng: random.Random, world: World) -> str:
    """Letters and words of few pools, nothing else.

    Telling the word from the letter is easy, is learned first and helps the other way round. No line begins with a
    word of the list: without its leading space it would be another token.
    """
    options = _drill_options(rng, world, FIRST_POOLS)
    lines = [f"{letter}. {option}" for letter, option in zip(prompts.LETTERS, options, strict=True)]
    for place in rng.sample(range(4), rng.choice((2, 3, 4))):
        lines.append(rng.choice(DRILL_FORMS).format(o=options[place], l=prompts.LETTERS[place]))
    return "\n".join(lines)


def choice_drill(rng: random.Random, world: World) -> str:
    """The evaluation's form, with a question that names its answer."""
    subject = rng.choice(tuple(KIND_OF.values())).subject
    blocks = []
    for _ in range(rng.choice((1, 2, 3))):
        options, place = _drill_options(rng, world, DRILL_POOLS), rng.randrange(4)
        question = rng.choice((
            "Which of these is {o}?", "The answer is {o}. Which one is it?", "Where in the list is {o}?", "Find {o}.",
            "Which option says {o}?",
        )).format(o=options[place])
        blocks.append(f"{prompts.choice(question, options)} {prompts.LETTERS[place]}\n")
    return prompts.CHOICE_HEADER.format(subject=subject) + "\n".join(blocks)
