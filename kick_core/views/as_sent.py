"""A prompt as the model got it, from what a run's settings say: no tokenizer is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kick_core.records import Example
from kick_core.tasks.elicitation import drawn, shot_frame
from kick_core.views.load import Asked


def as_sent(run: Asked, example: Example, shots: int | None) -> str:
    """A prompt as the model got it: with the beginning-of-sequence token, the chat template or the worked examples.

    Args:
        run: whose settings say what stands around every question.
        example: the question.
        shots: worked examples that were shown, where some were dropped for room.

    Returns:
        The text; "" where the settings do not tell (dialogues).
    """
    settings = run.card.settings
    spec = run.task.asking(run.card.protocol)
    form, begin = str(settings.get("prompting", "raw")), str(settings.get("bos", ""))
    if spec.kind not in ("generate", "choose"):
        return ""
    if form == "raw":
        return begin + "".join(_raw_parts(example.prompt, settings, shots))
    if spec.elicitation is None:
        return ""
    before, after = str(settings["before_question"]), str(settings["after_question"])
    if shots is not None and form != f"shots:{shots}":  # some were dropped for room
        most = int(form.removeprefix("shots:"))
        before, after = shot_frame(spec.elicitation, most, shots, settings.get("fewshot_seed"))
    text = f"{before}{spec.elicitation.question(example)}{after}"
    return text if begin and text.startswith(begin) else begin + text


def _raw_parts(parts: Sequence[str], settings: Mapping[str, Any], shots: int | None) -> Sequence[str]:
    """A raw prompt's parts with the worked examples that were shown."""
    if shots is None or len(parts) < 3:
        return parts
    head, *own, question = parts
    most = min(len(own), settings.get("shots", len(own)))
    return head, *drawn(own, most, settings.get("fewshot_seed"))[:shots], question
