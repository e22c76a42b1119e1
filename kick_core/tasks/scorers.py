"""Scorers of short answers: exact match, containment, token F1, as published; and why an answer failed.

Answers are normalised as in the official TriviaQA evaluation (Joshi et al. 2017, triviaqa_evaluation.py):
underscores to spaces, lower case, punctuation to spaces, articles dropped, spaces collapsed. An empty answer
is wrong; the published LLM-KICK code counts it as right. Golds of which nothing is left ("The", "!!!") are ignored, and
an example that has no other is not judged.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from kick_core.records import Example, Output
from kick_core.stats import find_loop
from kick_core.tasks.base import NO_GOLD, Score

_MARKS = re.compile("[" + re.escape(string.punctuation) + "\u2018\u2019\u00b4`]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@lru_cache(maxsize=65536)
def normalise(text: str) -> str:
    """The official TriviaQA normal form of an answer."""
    return " ".join(_ARTICLES.sub(" ", _MARKS.sub(" ", text.replace("_", " ").lower())).split())


_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)
_THOUGHT_END = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL)


def without_thoughts(text: str) -> str:
    """A reasoning model's text without what it thought first; empty where the thought had no end.

    Templates may open the thought themselves, so an end may come without a beginning.
    """
    return _THOUGHT_END.sub("", _THOUGHT.sub("", text))


def answer_of(output: Output) -> str:
    """The answer proper: the first line that is not empty, thoughts left out."""
    text = without_thoughts("\n".join(output.text))
    return next((line.strip() for line in text.split("\n") if line.strip()), "")


_SENTENCE_END = re.compile(
    r"(?<!\b[A-Z])(?<!\bSt)(?<!\bMt)(?<!\bDr)(?<!\bMr)(?<!\bMs)(?<!\bMrs)(?<!\bJr)(?<!\bSr)(?<!\bNo)"
    r"[.!?][\"')\]]*(?=\s+[\"'(\[]?[A-Z]|\s*\Z)"
)
"""An end mark before a capital or the text's end, but not after an initial or a common abbreviation."""


def first_sentence(text: str) -> str:
    """The first sentence of a text: what a person takes for the answer where a model goes on talking."""
    end = _SENTENCE_END.search(text)
    return text[: end.end()] if end else text


def _folded(text: str) -> str:
    """Without diacritics: Sao Paulo is São Paulo."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _why(output: Output, answer: str) -> str:
    """Why an answer that is not right failed, by its form."""
    if not normalise(answer):
        return "empty"
    if find_loop(answer.split()):
        return "loop"
    return "cut off" if output.stop == "limit" else "wrong"


def _judged(output: Output, answer: str, score: float) -> Score:
    return Score(score, answer, "right" if score >= 1 else _why(output, answer))


def comparable(golds: Iterable[str]) -> bool:
    """Whether the normal form of any gold holds a word."""
    return any(map(normalise, golds))


def _compared(example: Example, output: Output, answer: str, score: float) -> Score:
    """The score of an answer by the example's golds, if any of them could be met."""
    return _judged(output, answer, score) if comparable(example.answers) else Score(None, answer, NO_GOLD)


def exact_match(example: Example, output: Output) -> Score:
    """1 when the normalised answer equals a normalised gold."""
    answer = answer_of(output)
    golds = {normalise(gold) for gold in example.answers}
    return _compared(example, output, answer, float(bool(normalise(answer)) and normalise(answer) in golds))


def contains(example: Example, output: Output) -> Score:
    """1 when a normalised gold stands in the normalised answer as whole words."""
    answer = answer_of(output)
    return _compared(example, output, answer, float(stands_in(answer, example.answers)))


def stated(example: Example, output: Output) -> Score:
    """1 when the first sentence of the answer names a gold answer or an alias, as whole words.

    Read as a person would: "The capital of France is Paris." is right. Thoughts, case, punctuation, articles and
    diacritics do not count.
    """
    sentence, right = stated_names(output, example.answers)
    return _compared(example, output, sentence, float(right))


def stated_names(output: Output, names: Iterable[str]) -> tuple[str, bool]:
    """The first sentence of an answer, and whether any of the names stands in it as `stated` reads it."""
    sentence = first_sentence(answer_of(output))
    return sentence, stands_in(_folded(sentence), [_folded(name) for name in names])


def stands_in(text: str, golds: Sequence[str]) -> bool:
    """Whether any gold stands in the text as whole words, both normalised."""
    words = f" {normalise(text)} "
    return any(f" {gold} " in words for gold in map(normalise, golds) if gold)


def f1(example: Example, output: Output) -> Score:
    """Token F1 of the normalised answer, the best over the golds."""
    answer = answer_of(output)
    answer_tokens = Counter(normalise(answer).split())
    best = 0.0
    for gold in example.answers:
        gold_tokens = Counter(normalise(gold).split())
        shared = (answer_tokens & gold_tokens).total()
        if shared:
            best = max(best, 2 * shared / (answer_tokens.total() + gold_tokens.total()))
    return _compared(example, output, answer, best)


def substring(example: Example, output: Output) -> Score:
    """1 when a normalised gold stands anywhere in the normalised answer, within a word too."""
    answer = answer_of(output)
    words = normalise(answer)
    inside = any(gold in words for gold in map(normalise, example.answers) if gold)
    return _compared(example, output, answer, float(inside))


def exact_match_as_published(example: Example, output: Output) -> Score:
    """As published: 1 when gold and answer contain each other either way, so an empty answer or one letter is right.

    The released code's TriviaQA "EM": `norm(gold) in norm(pred) or norm(pred) in norm(gold)` on the first line, over
    the normalised aliases alone, without the answers of people. `''`, `the`, `!!!` and `s` all score 1.
    """
    answer = "\n".join(output.text).strip().split("\n")[0]
    words, golds = normalise(answer), example.meta.get("normalized_aliases") or example.answers
    right = any(gold in words or words in gold for gold in map(normalise, golds))
    return _judged(output, answer, float(right))


def substring_as_published(example: Example, output: Output) -> Score:
    """As published: 1 when a gold, spaces deleted, stands anywhere in prompt and generation, spaces deleted.

    The released code's FreebaseQA metric. It finds answers that the question itself names, parts of words and one of
    many guesses; of a question's answers it knows only those of the first parse.
    """
    text = _without_spaces("".join((*example.prompt, *output.text)))
    golds = example.meta.get("first_answer") or example.answers
    right = any(_without_spaces(gold) in text for gold in golds)
    return _judged(output, "\n".join(output.text), float(right))


def _without_spaces(text: str) -> str:
    return text.strip().replace(" ", "").lower()


STATED = {"stated": stated, "contains": contains, "exact_match": exact_match, "f1": f1}
"""How answers to questions about facts are scored, whatever form they were asked in."""
