"""Many recipes on the same examples: a row per example, a column per recipe, right or wrong and what was said."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from kick_core.store import Store
from kick_core.views import load
from kick_core.views.example_table import answers, gold_words, one_line, question
from kick_core.views.scores import RIGHT

WIDTH = 48
"""Characters of an answer in the matrix."""

SIGNS = {True: "✓", False: "✗", None: "?"}
"""Right, wrong, not judged."""


def answer_matrix(store: Store, runs: Mapping[str, str], scorer: str, width: int = WIDTH) -> pd.DataFrame:
    """The examples that the first run has judged, with the answer of every run.

    Args:
        store: the cache.
        runs: column name to run, all asked the same examples; the first one gives the order.
        scorer: whose verdicts count.
        width: characters per answer.

    Returns:
        One row per example: id, question, gold, one column per run (a sign and the answer on one line), then rights
        (one letter per run: y, n, or ? where it is not judged) and wrong (how many runs are wrong).
    """
    opened = {name: load.one(store, run) for name, run in runs.items()}
    first = next(iter(opened.values()))
    examples = load.examples(store, first.card.examples)
    judged = {name: load.verdicts(store, run)[scorer] for name, run in opened.items()}
    ids = [str(name) for name in next(iter(judged.values())).ids if name in examples]
    frame = pd.DataFrame({
        "id": ids,
        "question": [one_line(question(examples[name]), 2 * width) for name in ids],
        "gold": [one_line(gold_words(examples[name]), width) for name in ids],
    }, dtype="str")  # fmt: skip
    letters: list[list[str]] = []
    for name, run in opened.items():
        texts, scores = answers(store, run, examples), dict(zip(judged[name].ids, judged[name].score, strict=True))
        rights = [_right(scores.get(one, math.nan)) for one in ids]
        frame[name] = [
            f"{SIGNS[right]} {one_line(texts.get(one, ''), width)}" for one, right in zip(ids, rights, strict=True)
        ]
        letters.append(["?" if right is None else "y" if right else "n" for right in rights])
    frame["rights"] = pd.Series(["".join(row) for row in zip(*letters, strict=True)], dtype="str")
    frame["wrong"] = frame["rights"].str.count("n")
    return frame


def _right(score: float) -> bool | None:
    return None if math.isnan(score) else score >= RIGHT
