"""The prompts of the evaluation, as exact strings, and the chat format.

The models are trained on these very strings (and on freer ones), and the tasks of the project send them to real
models too. Every answer begins with the space that follows the prompt's last word.
"""

from __future__ import annotations

from kick_core.tasks.wording import CHOICE_HEADER, CLOSED, FACTOID, LETTERS, OPEN, SUMMARY, choice

__all__ = ["CHOICE_HEADER", "CLOSED", "FACTOID", "LETTERS", "OPEN", "SUMMARY", "chat", "choice"]

BEGIN, END, PADDING = "<s>", "</s>", "<pad>"
USER, ASSISTANT, END_OF_TURN = "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL_TOKENS = (PADDING, BEGIN, END, USER, ASSISTANT, END_OF_TURN)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<|assistant|>' + message['content'] + '<|end|>' }}"
    "{% elif message['role'] == 'user' %}{{ '<|user|>' + message['content'] }}"
    "{% else %}{{ raise_exception('Only the roles user and assistant are known.') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def chat(*turns: str) -> str:
    """User and assistant in turns, in the form of the chat template."""
    parts: list[str] = []
    for number, content in enumerate(turns):
        parts += [USER, content] if number % 2 == 0 else [ASSISTANT, content, END_OF_TURN]
    if len(turns) % 2:
        parts.append(ASSISTANT)
    return "".join(parts)
