"""How a question is put to a model: as the task writes it, in the model's chat template, or after worked examples.

LLM-KICK's raw prompts suit the models of its time. An instruction-tuned model answers nothing to them (": France" to
"What is the capital of France?"), so what they measure on it is the prompt's form. `auto` takes the form that suits the
model; what it took is recorded with every run and is part of its key, because another form is another measurement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypeVar

from transformers import PreTrainedTokenizerBase

from kick_core.errors import BadRequest, KickError
from kick_core.models import chat_template
from kick_core.models.tokenization import encode_all
from kick_core.records import Example
from kick_core.tasks import PromptSpec
from kick_core.tasks.elicitation import Elicitation, drawn, parse_prompting, shot_frame

USUAL_SHOTS = 5
_MARK = "\u2063Question\u2063"
"""Stands for the question when a template is read once for all; invisible separators, so that no template has it, and
both cases, so that one which changes them is seen."""


@dataclass(frozen=True, slots=True)
class Prompting:
    """One form, and why it was taken.

    Attributes:
        form: `raw`, `chat` or `shots`.
        shots: worked examples before the question; 0 but for `shots`.
        reason: one sentence for people.
    """

    form: Literal["raw", "chat", "shots"]
    shots: int = 0
    reason: str = ""

    @property
    def text(self) -> str:
        """As the command line writes it."""
        return f"shots:{self.shots}" if self.form == "shots" else self.form


RAW = Prompting("raw", reason="the task has one form")


def settle(requested: str, spec: PromptSpec, tokenizer: PreTrainedTokenizerBase) -> Prompting:
    """The form that a request comes to for one task and one model.

    Args:
        requested: auto, raw, chat or shots:K.
        spec: how the task is put under the run's protocol. Without an elicitation (perplexity, dialogues, few-shot
            prompts, the pocket world, LLM-KICK's own protocol) it has one form, whatever is requested.
        tokenizer: of the model; it holds the chat template.

    Returns:
        The form. A run is shared by all requests that come to its form, so the reason is `auto`'s wherever `auto` takes
        the same one.

    Raises:
        BadRequest: a form that is unknown, a chat template that is missing, or more worked examples than there are.
    """
    requested = parse_prompting(requested)
    elicitation = spec.elicitation
    if elicitation is None:
        return RAW
    usual = _usual(elicitation, tokenizer)
    prompting = usual if requested == "auto" else _requested(requested, elicitation, tokenizer)
    return usual if prompting.text == usual.text else prompting


def _usual(elicitation: Elicitation, tokenizer: PreTrainedTokenizerBase) -> Prompting:
    """What `auto` takes."""
    shots = min(USUAL_SHOTS, len(elicitation.worked()))
    if elicitation.completes:
        return Prompting("shots", shots, "options are scored as completions of worked examples")
    if tokenizer.chat_template:
        return Prompting("chat", reason="the model has a chat template")
    return Prompting("shots", shots, "the model has no chat template")


def _requested(requested: str, elicitation: Elicitation, tokenizer: PreTrainedTokenizerBase) -> Prompting:
    """A form that a user names."""
    if requested == "raw":
        return Prompting("raw", reason="it was requested")
    if requested == "chat":
        if not tokenizer.chat_template:
            raise BadRequest(
                f"prompting chat: the tokenizer of {tokenizer.name_or_path} has no chat template; "
                f"use --prompting shots:{USUAL_SHOTS}, or auto"
            )
        return Prompting("chat", reason="it was requested")
    count, most = int(requested.removeprefix("shots:")), len(elicitation.worked())
    if count > most:
        raise BadRequest(f"prompting {requested}: there are {most} worked examples, so 0 to {most} can be shown")
    return Prompting("shots", count, "it was requested")


def elicited(spec: PromptSpec, prompting: Prompting, tokenizer: PreTrainedTokenizerBase) -> PromptSpec:
    """The spec under a settled form: how long an answer may be, and where it ends."""
    if prompting.form == "raw" or spec.elicitation is None:
        return spec
    if prompting.form == "shots":
        return replace(spec, prompting=prompting.text, new_tokens=spec.elicitation.shot_tokens, stop=("\n",))
    with _way_out():
        thought = chat_template.THINKING if chat_template.thinks(tokenizer) else 0
    return replace(spec, prompting=prompting.text, new_tokens=thought + spec.elicitation.chat_tokens, stop=())


@contextmanager
def _way_out() -> Iterator[None]:
    """Whatever is wrong with a chat template, worked examples need none."""
    try:
        yield
    except KickError as error:
        raise KickError(f"{error}; ask with --prompting shots:{USUAL_SHOTS}") from error


_OPEN_THOUGHT = re.compile(r"<think(?:ing)?>\s*\Z")


def open_thought(tokenizer: PreTrainedTokenizerBase, spec: PromptSpec) -> str:
    """The tag with which a chat prompt ends where the template begins the model's thought; else nothing."""
    tag = _OPEN_THOUGHT.search(frame(tokenizer, spec)[1]) if spec.prompting == "chat" else None
    return tag[0] if tag else ""


def frame(tokenizer: PreTrainedTokenizerBase, spec: PromptSpec, shots: int | None = None) -> tuple[str, str]:
    """What stands before and after every question.

    Args:
        tokenizer: of the model.
        spec: as `elicited` gives it; not raw.
        shots: worked examples to show, where fewer than the form's number fit the context.

    Returns:
        (before, after): a prompt is before + question + after.
    """
    assert spec.elicitation is not None
    if spec.prompting == "chat":
        return _chat_frame(tokenizer, spec.elicitation)
    most = shots_of(spec)
    return shot_frame(spec.elicitation, most, most if shots is None else shots, spec.fewshot_seed)


@lru_cache(maxsize=64)
def _chat_frame(tokenizer: PreTrainedTokenizerBase, elicitation: Elicitation) -> tuple[str, str]:
    content = elicitation.chat_format.format(question=_MARK)
    with _way_out():
        text = chat_template.render(tokenizer, [{"role": "user", "content": content}])
        if text.count(_MARK) != 1:
            name = tokenizer.name_or_path
            raise KickError(f"the chat template of {name} does not write the user's message once and as it is")
    before, _, after = text.partition(_MARK)
    return before, after


def shots_of(spec: PromptSpec) -> int:
    """Worked examples of an elicited spec."""
    return int(spec.prompting.removeprefix("shots:")) if spec.prompting.startswith("shots:") else 0


def settings(tokenizer: PreTrainedTokenizerBase, spec: PromptSpec) -> dict[str, Any]:
    """What a run's settings say of an elicited spec; nothing for a raw one."""
    if spec.prompting == "raw":
        return {}
    before, after = frame(tokenizer, spec)
    facts = {"prompting": spec.prompting, "before_question": before, "after_question": after}
    if spec.prompting == "chat" and chat_template.thinks(tokenizer):
        facts["thinking"] = f"up to {chat_template.THINKING} tokens, left out of the answer"
    return facts


def text(tokenizer: PreTrainedTokenizerBase, spec: PromptSpec, example: Example, shots: int) -> str:
    """One prompt as text.

    Args:
        tokenizer: of the model.
        spec: raw, or as `elicited` gives it.
        example: the question.
        shots: worked examples to show; of a raw few-shot prompt the first ones of its own.
    """
    if spec.prompting != "raw":
        assert spec.elicitation is not None
        before, after = frame(tokenizer, spec, shots)
        return f"{before}{spec.elicitation.question(example)}{after}"
    if len(example.prompt) < 3:
        return "".join(example.prompt)
    head, *own, question = example.prompt
    return "".join((head, *drawn(own, most_shots(spec, example), spec.fewshot_seed)[:shots], question))


def most_shots(spec: PromptSpec, example: Example) -> int:
    """Worked examples that a prompt may show: the form's, or those of a raw few-shot prompt that the run keeps."""
    if spec.prompting != "raw":
        return shots_of(spec)
    own = max(0, len(example.prompt) - 2)
    return own if spec.shots is None else min(own, spec.shots)


def prompts(
    tokenizer: PreTrainedTokenizerBase, spec: PromptSpec, examples: Sequence[Example], room: int
) -> list[tuple[list[int], int | None]]:
    """Prompts as token ids, with the number of worked examples that are shown.

    Args:
        tokenizer: of the model.
        spec: raw, or as `elicited` gives it.
        examples: the questions.
        room: tokens that a prompt may have; worked examples are dropped one by one while it is longer.

    Returns:
        Per example its ids, and how many worked examples were left (None where the form has none).
    """

    def encode(pending: Sequence[int], shots: Sequence[int]) -> list[list[int]]:
        return encode_all(
            tokenizer, [text(tokenizer, spec, examples[i], count) for i, count in zip(pending, shots, strict=True)]
        )

    most = [most_shots(spec, example) for example in examples]
    few = [spec.prompting.startswith("shots:") or len(example.prompt) > 2 for example in examples]
    fitting = fitted(most, room, encode, len)
    return [(ids, shots if own else None) for (ids, shots), own in zip(fitting, few, strict=True)]


Encoded = TypeVar("Encoded")


def fitted(
    most: Sequence[int],
    room: int,
    encode: Callable[[Sequence[int], Sequence[int]], Sequence[Encoded]],
    length: Callable[[Encoded], int],
) -> list[tuple[Encoded, int]]:
    """Drop worked examples one by one until every prompt fits; the first ones stay.

    Args:
        most: worked examples that each prompt may show.
        room: tokens that a prompt may have; one that is longer without any worked example stays as it is.
        encode: (prompt numbers, worked examples of each) -> what the prompts are as tokens, for many in one call.
        length: tokens of an encoded prompt.

    Returns:
        Per prompt what it is as tokens, and how many worked examples are left.
    """
    left = list(most)
    encoded: dict[int, Encoded] = {}
    while pending := [number for number in range(len(left)) if number not in encoded]:
        for number, own in zip(pending, encode(pending, [left[number] for number in pending]), strict=True):
            if length(own) <= room or not left[number]:
                encoded[number] = own
            else:
                left[number] -= 1
    return [(encoded[number], left[number]) for number in range(len(left))]
