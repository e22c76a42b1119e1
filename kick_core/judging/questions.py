"""The questions of a judging, each with its key, and what they will cost.

Beside the answers themselves a few controls are judged, so that each result shows what the judge is worth: a
null model (one answer to everything), injections (answers that ask for the best verdict), and the same answer
again (the verdict must be the same). They are judged beside dense answers of the first `CONTROLS` examples.
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
    """A judge and its settings: what its replies depend on beside the prompt. Holds no key and no address.

    Attributes:
        model: Its name, as the endpoint takes it.
        host: Of the endpoint.
        temperature: As text, for the hash; None leaves it to the endpoint (reasoning models take no other).
        max_tokens: Of a reply.

    Raises:
        BadRequest: The temperature or the number of tokens is out of range.
    """

    model: str
    host: str
    temperature: str | None
    max_tokens: int

    def __post_init__(self) -> None:
        try:
            valid = self.temperature is None or 0 <= float(self.temperature) <= 2
        except ValueError:
            valid = False
        if not valid:
            raise BadRequest(f"temperature {self.temperature!r}: a number from 0 to 2, or 'default' for the endpoint's")
        if self.max_tokens < 16:
            raise BadRequest(f"{self.max_tokens} tokens a verdict: at least 16 are needed")

    @property
    def key(self) -> str:
        facts = {"model": self.model, "host": self.host, "temperature": self.temperature, "max_tokens": self.max_tokens}
        return keys.key("judge", facts)


@dataclass(frozen=True, slots=True)
class Style:
    """How answers are judged.

    Attributes:
        name: One of `styles`.
        repeats: How often every question is asked, from 1 to 100.
        as_published: The bare prompts without fences, and LLM-KICK's with the compressed model always second.

    Raises:
        BadRequest: The style is unknown or the number out of range.
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
    """One example with both models' answers.

    Attributes:
        example: The question.
        dense: The dense model's texts, one per turn.
        recipe: The compressed model's.
    """

    example: Example
    dense: tuple[str, ...]
    recipe: tuple[str, ...]


def pairs(
    examples: Iterable[Example], dense: Sequence[Output], recipe: Sequence[Output], limit: int | None
) -> list[Pair]:
    """The first examples that both models have answered, in the task's order.

    Args:
        examples: Of the task.
        dense: Outputs of the dense model; rejected prompts have no answer.
        recipe: Outputs of the compressed one.
        limit: How many at most; None: all.

    Raises:
        BadRequest: The limit is below 1.
    """
    if limit is not None and limit < 1:
        raise BadRequest(f"limit {limit}: at least 1 example is needed")
    before, after = ({o.example: o.text for o in outputs if o.stop != "rejected"} for outputs in (dense, recipe))
    both = [Pair(e, before[e.id], after[e.id]) for e in examples if e.id in before and e.id in after]
    return both[:limit]


def judging_card(judge: Judge, style: Style, run: RunCard, dense: RunCard) -> JudgingCard:
    """The card of a judging. Its key holds neither limit nor repeats: more of either extends it.

    Args:
        judge: The model and its settings.
        style: How answers are judged.
        run: The compressed model's run.
        dense: The dense model's run.
    """
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


def questions(judge: Judge, style: Style, in_context: bool, pairs: Sequence[Pair]) -> list[Question]:
    """All questions of a judging, example by example, so that any beginning of them is an unbiased sample.

    Args:
        judge: The model and its settings.
        style: How answers are judged.
        in_context: Whether the task's answers come out of the prompt, as a summary's do.
        pairs: The examples with both answers.
    """
    return [
        question
        for at, pair in enumerate(pairs)
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
    sanitize = prompts.verbatim if style.as_published else prompts.sanitized
    answers_shown = [sanitize(text) for text in _answers(pair, call, form)]
    dense = [sanitize(_at(pair.dense, turn)) for turn in range(call.turn)]
    fields = {"question": example.prompt[0]}
    for turn in range(call.turn):
        fields |= {f"question_{turn + 1}": example.prompt[turn], f"ref_answer_{turn + 1}": _at(example.answers, turn)}
    answer_fields = _placed(call, [one.text for one in answers_shown], [one.text for one in dense])
    words = prompts.filled(form, fields, answer_fields, f"{call.order} {call.repeat}", style.as_published)
    answers = answers_shown if call.order == ALONE else [*answers_shown, *dense]
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
        cut=any(one.cut for one in answers),
        defused=any(one.defused for one in answers),
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
    """Prices per million tokens, in the user's own currency.

    Attributes:
        read: Of tokens in prompts.
        written: Of tokens in replies.
    """

    read: float
    written: float

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Price | None:
        """The prices in KICK_JUDGE_PRICE_IN and KICK_JUDGE_PRICE_OUT; None when neither is set.

        Args:
            environment: As `os.environ`.

        Raises:
            BadRequest: One is missing or no number.
        """
        names = ("KICK_JUDGE_PRICE_IN", "KICK_JUDGE_PRICE_OUT")
        prices = [environment.get(name, "").strip() for name in names]
        if not any(prices):
            return None
        for name, text in zip(names, prices, strict=True):
            if not text.replace(".", "", 1).isdecimal():
                raise BadRequest(f"{name}={text!r}: give the price of a million tokens, e.g. 2.5 (both, or neither)")
        return cls(float(prices[0]), float(prices[1]))

    def cost(self, read: float, written: float) -> float:
        """The cost of some tokens.

        Args:
            read: Tokens in prompts.
            written: Tokens in replies.
        """
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


def left(questions: Iterable[Question], known: Iterable[str]) -> list[Question]:
    """The questions without a reply, each key once.

    Args:
        questions: Of one or several judgings.
        known: Keys with a reply.
    """
    done = set(known)
    return list({question.key: question for question in questions if question.key not in done}.values())


def forecast(judge: Judge, questions: Sequence[Question], known: Iterable[str], price: Price | None) -> JudgeCost:
    """What a judging will cost.

    Args:
        judge: The model and its settings.
        questions: Of the judging.
        known: Keys that have a reply already.
        price: Of its tokens, where known.
    """
    unanswered = left(questions, known)
    read = sum(-(-(len(question.system) + len(question.user)) // CHARACTERS_A_TOKEN) for question in unanswered)
    written = len(unanswered) * judge.max_tokens
    distinct = len({question.key for question in questions})
    cost = price.cost(read, written) if price else None
    return JudgeCost(distinct, distinct - len(unanswered), len(unanswered), read, written, cost)


def spent(replies: Iterable[Reply], price: Price | None) -> tuple[int, int, float | None]:
    """Tokens read and written by the endpoint's own count, and what they cost.

    Args:
        replies: All that count.
        price: Of its tokens, where known.
    """
    counts = [(reply.prompt_tokens, reply.tokens) for reply in replies]
    read, written = sum(r for r, _ in counts), sum(w for _, w in counts)
    return read, written, price.cost(read, written) if price else None
