"""Scorers of long texts: repetition, diversity, length, form, and ROUGE against a reference.

Definitions (evaluation of repetition: Welleck et al. 2020; distinct-n: Li et al. 2016): seq-rep-4 is 1 - different
4-grams / 4-grams over words; distinct-n different n-grams / n-grams of one text (not of a corpus); a loop is a
period of at most 64 words that fills the end of a text three times at least. Longer texts repeat more, so the
length always stands beside. ROUGE is rouge-score's (lower case, Porter stemmer, F1), as in lm-eval and HELM; only
Lsum, which papers report, knows sentences: the reference's lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

from kick_core.records import Example, Output
from kick_core.stats import repetition
from kick_core.tasks.base import Score, Scorer


def form_of(output: Output) -> str:
    """How a long text failed by its form: empty, loop, cut off; or nothing."""
    for text in output.text:
        if not text.strip():
            return "empty"
        if repetition(text.split()).loop:
            return "loop"
    return "cut off" if output.stop == "limit" else ""


def well_formed(example: Example, output: Output) -> Score:
    """1 when every turn says something, ends by itself and does not end in a loop; what it says needs a judge."""
    why = form_of(output) if output.text else "empty"
    return Score(float(not why), "", why or "right")


def repeated(example: Example, output: Output) -> Score:
    """seq-rep-4 over words (Welleck et al. 2020): 1 - different 4-grams / 4-grams, the mean over the turns."""
    repetitions = [repetition(text.split()) for text in output.text]
    score = sum(item.repeated for item in repetitions) / len(repetitions) if repetitions else None
    return Score(score, "", "loop" if any(item.loop for item in repetitions) else "")


def unique_words(example: Example, output: Output) -> Score:
    """Different words over all turns (LLM-KICK's "unique token count", which the paper leaves undefined)."""
    return Score(float(len({word for text in output.text for word in text.split()})))


def unique_tokens(example: Example, output: Output) -> Score:
    """Different token ids over all turns; not judged where only the text was kept."""
    return Score(float(len({token for turn in output.ids for token in turn})) if output.ids else None)


def _distinct(n: int) -> Scorer:
    def scorer(example: Example, output: Output) -> Score:
        shares = [repetition(text.split()).distinct[n - 1] for text in output.text]
        shares = [share for share in shares if share == share]  # a text shorter than n has none
        return Score(sum(shares) / len(shares) if shares else None)

    scorer.__doc__ = f"distinct-{n}: different {n}-grams / {n}-grams over words, the mean over the turns."
    return scorer


distinct_1, distinct_2 = _distinct(1), _distinct(2)


def looping(example: Example, output: Output) -> Score:
    """1 when a turn ends in a loop; where it begins and how long one round is stands in `extracted`."""
    for turn, text in enumerate(output.text, 1):
        if loop := repetition(text.split()).loop:
            where = f"turn {turn}: from word {loop.onset + 1} on, {loop.period} words, {loop.times} times"
            return Score(1.0, where, "loop")
    return Score(0.0)


def hit_limit(example: Example, output: Output) -> Score:
    """1 when the answer ended only because the token limit was reached."""
    return Score(float(output.stop == "limit"))


def length(example: Example, output: Output) -> Score:
    """Generated tokens over all turns."""
    return Score(float(output.tokens))


SHAPE: dict[str, Scorer] = {
    "repeated": repeated,
    "unique_words": unique_words,
    "unique_tokens": unique_tokens,
    "distinct_1": distinct_1,
    "distinct_2": distinct_2,
    "looping": looping,
    "hit_limit": hit_limit,
    "length": length,
}
"""What every long text is described by."""


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)


@lru_cache(maxsize=65536)
def _rouge(golds: Sequence[str], text: str) -> dict[str, float]:
    """F1 of each variant, the best over the references."""
    scores = [_rouge_scorer().score(gold, text) for gold in golds]
    return {name: max(each[name].fmeasure for each in scores) for name in scores[0]}


def _rouge_of(name: str, about: str) -> Scorer:
    def scorer(example: Example, output: Output) -> Score:
        text = "\n".join(output.text)
        score = _rouge(example.answers, text)[name]
        return Score(score, "", form_of(output))

    scorer.__doc__ = about
    return scorer


ROUGE: dict[str, Callable[[Example, Output], Score]] = {
    "rouge_1": _rouge_of("rouge1", "ROUGE-1: F1 of the words shared with the reference."),
    "rouge_2": _rouge_of("rouge2", "ROUGE-2: F1 of the pairs of words shared with the reference."),
    "rouge_l": _rouge_of("rougeL", "ROUGE-L: F1 of the longest common subsequence over the whole text."),
    "rouge_lsum": _rouge_of("rougeLsum", "ROUGE-Lsum: F1 of the common subsequences sentence by sentence (lines)."),
}
