"""The prompts of the evaluation, as exact strings, and the chat format.

The models are trained on these very strings (and on freer ones), and the tasks of the project send them to real
models too. Every answer begins with the space that follows the prompt's last word.
"""

from __future__ import annotations

FACTOID = "Please give answer to this question: {question}\nThe answer is"
CLOSED = "Answer these questions:\n\nQ: {question}\nA:"
OPEN = "{passage}\n\nBased on these texts, answer these questions:\n\nQ: {question}\nA:"
CHOICE_HEADER = "The following are multiple choice questions (with answers) about {subject}.\n\n"
CHOICE = "{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer:"
CHOICE_IN_WORDS = "{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer in words:"
SUMMARY = (
    "Summarize the given story in less than 150 words while preserving high coherence, consistency, fluency, "
    "and relevance.\n\n{story}"
)

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

LETTERS = ("A", "B", "C", "D")


def choice(question: str, options: tuple[str, ...] | list[str], *, in_words: bool = False) -> str:
    """One multiple-choice question, without the header."""
    a, b, c, d = options
    return (CHOICE_IN_WORDS if in_words else CHOICE).format(question=question, a=a, b=b, c=c, d=d)


def chat(*turns: str) -> str:
    """User and assistant in turns, in the form of the chat template."""
    parts: list[str] = []
    for number, content in enumerate(turns):
        parts += [USER, content] if number % 2 == 0 else [ASSISTANT, content, END_OF_TURN]
    if len(turns) % 2:
        parts.append(ASSISTANT)
    return "".join(parts)
