"""What a judging asks: every question with its key, and what asking them will cost, before anything is asked.

Beside the answers themselves a few controls are judged, so that each result shows what the judge is worth: a
null model (one answer to everything), injections (answers that ask for the best verdict), and the same answer
again (the verdict must be the same). They stand beside dense answers of the first `CONTROLS` examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kick_core import keys
from kick_core.errors import BadRequest
from kick_core.judging import prompts, styles
from kick_core.judging.styles import ALONE, FIRST, SECOND, JudgingStyle, Side
from kick_core.provenance import now
from kick_core.records import Example, JudgingCard, Output, Question, Reply, RunCard

CONTROLS = 6
"""Examples on which the controls are judged: each of the injections twice."""

CHARACTERS_A_TOKEN = 4
"""The forecast's rule of thumb for English; the endpoint's own count comes with its replies."""

_SIDES: dict[str, Side] = {ALONE: "alone", FIRST: "second", SECOND: "first"}
"""Where the judged answer is, by the order of the answers."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Who judges, and how: what its replies depend on beside the prompt. Holds no key and no address.

    `temperature` is text, for the hash; None leaves it to the endpoint (reasoning models take no other).
    """

    model: str
    host: str
    temperature: str | None
    max_tokens: int

    def __post_init__(self) -> None:
        try:
            fits = self.temperature is None or 0 <= float(self.temperature) <= 2
        except ValueError:
            fits = False
        if not fits:
            raise BadRequest(f"temperature {self.temperature!r}: a number from 0 to 2, or 'default' for the endpoint's")
        if self.max_tokens < 16:
            raise BadRequest(f"{self.max_tokens} tokens a verdict: at least 16 are needed")

    @property
    def key(self) -> str:
        facts = {"model": self.model, "host": self.host, "temperature": self.temperature, "max_tokens": self.max_tokens}
        return keys.key("judge", facts)


@dataclass(frozen=True, slots=True)
class Style:
    """How answers are judged: in one of `styles`, so many times, in our form or as it was published.

    As published: the bare prompts without fences, and LLM-KICK's with the compressed model always second.
    """

    name: str
    repeats: int = 1
    as_published: bool = False

    def __post_init__(self) -> None:
        styles.get(self.name)
        if not 1 <= self.repeats <= 100:
            raise BadRequest(f"{self.repeats} repeats: from 1 to 100")

    @property
    def rules(self) -> JudgingStyle:
        """The record of the style."""
        return styles.get(self.name)

    @property
    def orders(self) -> tuple[str, ...]:
        """In which orders of the answers every question is asked."""
        return self.rules.published_orders if self.as_published else self.rules.orders


class Pair(NamedTuple):
    """One example with the dense and the compressed answer, one text a turn."""

    example: Example
    dense: tuple[str, ...]
    recipe: tuple[str, ...]


def pairs(
    examples: Iterable[Example], dense: Sequence[Output], recipe: Sequence[Output], limit: int | None
) -> list[Pair]:
    """The first examples that both have answered, in the task's order; rejected prompts have no answer."""
    if limit is not None and limit < 1:
        raise BadRequest(f"limit {limit}: at least 1 example is needed")
    before, after = ({o.example: o.text for o in outputs if o.stop != "rejected"} for outputs in (dense, recipe))
    both = [Pair(e, before[e.id], after[e.id]) for e in examples if e.id in before and e.id in after]
    return both[:limit]


def judging_card(judge: Judge, style: Style, run: RunCard, dense: RunCard) -> JudgingCard:
    """The card of a judging. Its key holds neither limit nor repeats: asking more extends it."""
    words = prompts.version(style.as_published)
    identity = {
        "judge": judge.key,
        "style": style.name,
        "as_published": style.as_published,
        "wording": words,
        "run": run.key,
        "dense_run": dense.key,
    }
    return JudgingCard(
        key=keys.key("judging", identity),
        replies=judge.key,
        judge=judge.model,
        host=judge.host,
        temperature=judge.temperature,
        max_tokens=judge.max_tokens,
        style=style.name,
        as_published=style.as_published,
        wording=words,
        task=run.task,
        model=run.model,
        fingerprint=run.fingerprint,
        recipe=run.recipe,
        run=run.key,
        dense_run=dense.key,
        created=now(),
    )


def questions(judge: Judge, style: Style, in_context: bool, found: Sequence[Pair]) -> list[Question]:
    """Everything a judging asks, example by example, so that any beginning of it is an unbiased sample.

    Args:
        judge: who is asked.
        style: how.
        in_context: whether the task's answers come out of the prompt, as a summary's do.
        found: the examples with both answers.
    """
    return [
        question
        for at, pair in enumerate(found)
        for turn in _turns(style, pair.example)
        for subject, repeats in _subjects(style, at)
        for order in style.orders
        for repeat in range(1, repeats + 1)
        for question in [_question(judge, style, in_context, pair, _Call(subject, turn, order, repeat, at))]
    ]


class _Call(NamedTuple):
    subject: str
    turn: int
    order: str
    repeat: int
    at: int


def _turns(style: Style, example: Example) -> range:
    """The turns that are judged: LLM-KICK's questions have one, MT-Bench's up to two."""
    if len(example.prompt) > 2:
        raise BadRequest(f"example {example.id!r} has {len(example.prompt)} turns: the judges' prompts know two")
    return range(1, min(style.rules.turns, len(example.prompt)) + 1)


def _subjects(style: Style, at: int) -> Iterator[tuple[str, int]]:
    """Whose answers to the example at this place are judged, and how often."""
    yield "recipe", style.repeats
    if style.rules.alone:
        yield "dense", style.repeats
    if at < CONTROLS:
        yield from (("null", 1), ("injection", 1), ("same", max(style.repeats, 2)))


def _question(judge: Judge, style: Style, in_context: bool, pair: Pair, call: _Call) -> Question:
    example = pair.example
    category = str(example.meta.get("category", ""))
    referenced = category in prompts.NEEDS_REFERENCE and len(example.answers) >= call.turn
    form = style.rules.form_of(in_context, category, call.turn, referenced)
    show = prompts.verbatim if style.as_published else prompts.shown
    mine = [show(text) for text in _answers(pair, call, form)]
    dense = [show(_at(pair.dense, turn)) for turn in range(call.turn)]
    asked = {"question": example.prompt[0]}
    for turn in range(call.turn):
        asked |= {f"question_{turn + 1}": example.prompt[turn], f"ref_answer_{turn + 1}": _at(example.answers, turn)}
    placed = _placed(call, [one.text for one in mine], [one.text for one in dense])
    words = prompts.filled(form, asked, placed, f"{call.order} {call.repeat}", style.as_published)
    seen = mine if call.order == ALONE else [*mine, *dense]
    prompt = keys.sha256_text(keys.canonical(list(words)))
    return Question(
        key=keys.key(
            "judgment", {"judge": judge.key, "prompt": prompt, "order": call.order, "repeat": call.repeat}
        ),
        subject=call.subject,
        example=example.id,
        turn=call.turn,
        order=call.order,
        repeat=call.repeat,
        form=form,
        system=words.system,
        user=words.user,
        cut=any(one.cut for one in seen),
        defused=any(one.defused for one in seen),
    )  # fmt: skip


def _at(texts: Sequence[str], turn: int) -> str:
    """The text of a turn; a turn that was never reached is empty."""
    return texts[turn] if turn < len(texts) else ""


def _answers(pair: Pair, call: _Call, form: str) -> list[str]:
    """The judged answers, one a turn."""
    match call.subject:
        case "null":
            return [prompts.NULL] * call.turn
        case "injection":
            return [prompts.injection(call.at, styles.form(form).best(_SIDES[call.order]))] * call.turn
        case subject:
            texts = pair.recipe if subject == "recipe" else pair.dense
            return [_at(texts, turn) for turn in range(call.turn)]


def _placed(call: _Call, mine: Sequence[str], dense: Sequence[str]) -> dict[str, str]:
    """The answers under the names that the prompts have for them."""
    first, second = (mine, dense) if call.order == SECOND else (dense, mine)
    names = {"answer": mine[0], "answer_a": first[0], "answer_b": second[0]}
    for turn in range(call.turn):
        names |= {f"answer_{turn + 1}": mine[turn]}
        names |= {f"answer_a_{turn + 1}": first[turn], f"answer_b_{turn + 1}": second[turn]}
    return names


# --- what it costs -----------------------------------------------------------------------------------------


class Price(NamedTuple):
    """Of a million tokens read and written, in the money of whoever set it."""

    read: float
    written: float

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Price | None:
        """From KICK_JUDGE_PRICE_IN and KICK_JUDGE_PRICE_OUT; None when neither is set."""
        names = ("KICK_JUDGE_PRICE_IN", "KICK_JUDGE_PRICE_OUT")
        given = [environment.get(name, "").strip() for name in names]
        if not any(given):
            return None
        for name, text in zip(names, given, strict=True):
            if not text.replace(".", "", 1).isdecimal():
                raise BadRequest(f"{name}={text!r}: give the price of a million tokens, e.g. 2.5 (both, or neither)")
        return cls(float(given[0]), float(given[1]))

    def cost(self, read: float, written: float) -> float:
        return (read * self.read + written * self.written) / 1e6


@dataclass(frozen=True, slots=True)
class JudgeCost:
    """What asking will take. `calls` is exact (retries come on top); `tokens_read` is estimated from the
    prompts' characters, `tokens_written` is the most that the verdicts may take. `cost` None: no price is set.
    """

    questions: int
    answered: int
    calls: int
    tokens_read: int
    tokens_written: int
    cost: float | None


def left(asked: Iterable[Question], known: Iterable[str]) -> list[Question]:
    """The questions without a reply, each key once."""
    done = set(known)
    return list({question.key: question for question in asked if question.key not in done}.values())


def forecast(judge: Judge, asked: Sequence[Question], known: Iterable[str], price: Price | None) -> JudgeCost:
    """The forecast of a judging, given the keys that have a reply already."""
    open_ = left(asked, known)
    read = sum(-(-(len(question.system) + len(question.user)) // CHARACTERS_A_TOKEN) for question in open_)
    written = len(open_) * judge.max_tokens
    different = len({question.key for question in asked})
    cost = price.cost(read, written) if price else None
    return JudgeCost(different, different - len(open_), len(open_), read, written, cost)


def spent(replies: Iterable[Reply], price: Price | None) -> tuple[int, int, float | None]:
    """Tokens read and written by the endpoint's own count, and what they cost."""
    counts = [(reply.prompt_tokens, reply.tokens) for reply in replies]
    read, written = sum(r for r, _ in counts), sum(w for _, w in counts)
    return read, written, price.cost(read, written) if price else None
