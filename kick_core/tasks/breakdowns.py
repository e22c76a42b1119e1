"""What a whole task shows and no single example does: from (examples, outputs, verdicts) to small tables.

Pure: no model, no store. Every table is a list of rows with the same names; a share of nothing is None.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kick_core import stats
from kick_core.records import Example, Output, Verdict
from kick_core.tasks.base import AS_PUBLISHED, LEFT_OUT, UNJUDGED, Task
from kick_core.tasks.option_scorers import chosen, letters_of, shares
from kick_core.tasks.scorers import stands_in

Row = dict[str, Any]
Table = list[Row]

BINS = 10
"""Equal bins of confidence in the calibration error (Guo et al. 2017)."""


def details(
    task: Task,
    examples: Sequence[Example],
    outputs: Sequence[Output],
    verdicts: Sequence[Verdict],
    closed: Mapping[str, bool] | None = None,
) -> dict[str, Table]:
    """All tables of one run. `closed` says which questions the same model answers without the evidence."""
    by_id = {example.id: example for example in examples}
    shown = [by_id[output.example] for output in outputs]
    scores = {v.example: v.score for v in verdicts if v.scorer == task.headline and v.score is not None}
    tables = {"failures": failures(task, verdicts), "protocols": protocols(task, verdicts)}
    if not (thinned := any(output.stop == LEFT_OUT for output in outputs)):  # those that are left are no sample
        tables["health"] = [health(outputs)]
    for name in ("subject", "discipline", "bucket", "category"):
        tables[f"by_{name}"] = by_group(shown, scores, _named(name))
    if task.kind == "choose" and not thinned:
        judged = [output for output in outputs if output.stop not in UNJUDGED]
        tables["letters"] = letters(shown, judged)
        tables["calibration"] = [calibration_error(by_id, judged)]
        tables["shots"] = shots(outputs)
        tables["ties"] = ties([output.logprobs for output in judged])
    for name, group in task.groups.items():
        tables[f"by_{name}"] = by_group(shown, scores, group)
    if task.strict.unit == "word":
        tables["bytes"] = [by_bytes(by_id, outputs)]
    if any("passage" in example.meta for example in shown):
        tables["context"] = context_use(shown, scores, closed)
    return {name: table for name, table in tables.items() if table}


def _named(name: str) -> Callable[[Example], str]:
    """The group of an example by one of its facts; "" where it has none."""
    return lambda example: str(example.meta.get(name, ""))


def health(outputs: Sequence[Output]) -> Row:
    """How the outputs ended, whatever they say."""
    ends = Counter(output.stop for output in outputs)
    written = [output for output in outputs if output.text]
    return {
        "n": len(outputs),
        "rejected": ends["rejected"],
        "not_finite": ends["not finite"],
        "empty": sum(not any(text.strip() for text in output.text) for output in written),
        "hit_limit": ends["limit"],
        "tokens_a_text": _share(sum(output.tokens for output in written), len(written)),
    }


def failures(task: Task, verdicts: Iterable[Verdict]) -> Table:
    """How many answers were right, wrong, no answer, empty, a loop, cut off … by the headline scorer."""
    counts = Counter(v.why for v in verdicts if v.scorer == task.headline and v.why)
    return [{"why": why, "count": count} for why, count in counts.most_common()]


def protocols(task: Task, verdicts: Iterable[Verdict]) -> Table:
    """Strict against as published, on the very same outputs: how often they agree, and where they do not."""
    if not task.published.endswith(AS_PUBLISHED):
        return []
    outcomes: dict[str, dict[str, bool]] = {}
    for verdict in verdicts:
        if verdict.scorer in (task.headline, task.published) and verdict.score is not None:
            outcomes.setdefault(verdict.example, {})[verdict.scorer] = verdict.score >= 1
    pairs = {e: (one[task.headline], one[task.published]) for e, one in outcomes.items() if len(one) == 2}
    return [
        {
            "strict": "right" if strict else "wrong",
            "as_published": "right" if published else "wrong",
            "count": sum(pair == (strict, published) for pair in pairs.values()),
            "examples": [e for e, pair in pairs.items() if pair == (strict, published)] if strict != published else [],
        }
        for strict in (True, False)
        for published in (True, False)
        if pairs
    ]


def by_group(examples: Iterable[Example], scores: Mapping[str, float], group: Callable[[Example], str]) -> Table:
    """The mean score of every group, then over questions ("micro") and over groups ("macro")."""
    groups: dict[str, list[float]] = {}
    for example in examples:
        if (name := group(example)) and example.id in scores:
            groups.setdefault(name, []).append(scores[example.id])
    if not groups:
        return []
    rows: Table = [_mean(name, values) for name, values in sorted(groups.items())]
    means = [row["mean"] for row in rows]
    macro = {"group": "macro", "n": len(rows), "mean": sum(means) / len(means)}
    micro = _mean("micro", [score for values in groups.values() for score in values])
    return [*rows, micro, macro | dict.fromkeys(("stderr", "low", "high"))]


def _mean(group: str, scores: Sequence[float]) -> Row:
    """A group's mean with its standard error and 95 % interval, as of independent questions."""
    mean = stats.score(scores)
    error = stats.clustered_error(scores, np.arange(len(scores)))
    bounds = {"stderr": error, "low": mean.low, "high": mean.high}
    own = {name: value if math.isfinite(value) else None for name, value in bounds.items()}
    return {"group": group, "n": mean.n, "mean": sum(scores) / len(scores), **own}


def letters(examples: Sequence[Example], outputs: Sequence[Output]) -> Table:
    """Letter bias: how often each place is chosen, how often it is right, and how often it is found when right.

    `free` is how often the letter is the likeliest of all tokens; None where the options are words.
    """
    gold = {example.id: example.answers[0] for example in examples}
    alphabet = max(map(letters_of, examples), key=len, default=())
    lettered = {e.id for e in examples if tuple(map(str.strip, e.choices)) == letters_of(e)}
    choices = [(gold[output.example], chosen(output)) for output in outputs if output.logprobs]
    free = [o.argmax.strip() for o in outputs if o.argmax is not None and o.example in lettered]
    return [
        {
            "letter": letter,
            "chosen": _share(sum(choice == letter for _, choice in choices), len(choices)),
            "gold": _share(sum(right == letter for right, _ in choices), len(choices)),
            "found": _share(
                sum(right == choice == letter for right, choice in choices),
                sum(right == letter for right, _ in choices),
            ),
            "free": _share(sum(token == letter for token in free), len(free)),
        }
        for letter in alphabet
        if choices
    ]


def calibration_error(examples: Mapping[str, Example], outputs: Sequence[Output]) -> Row:
    """Expected calibration error: Σ share · |accuracy - confidence| over ten equal bins of the confidence.

    The confidence is the largest of the options' probabilities among themselves.
    """
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for output in outputs:
        if output.logprobs:
            confidence = max(shares(output))
            right = chosen(output) in examples[output.example].answers
            bins[min(int(confidence * BINS), BINS - 1)].append((confidence, right))
    count = sum(map(len, bins))
    gaps = [abs(sum(right for _, right in members) - sum(confidence for confidence, _ in members)) for members in bins]
    confidences = [confidence for members in bins for confidence, _ in members]
    return {
        "n": count,
        "bins": BINS,
        "expected_calibration_error": _share(sum(gaps), count),
        "mean_confidence": _share(sum(confidences), count),
    }


def ties(logprobs: Iterable[Sequence[float]]) -> Table:
    """How many questions have no single likeliest option: in half precision log-probabilities are often equal.

    The first of them counts as chosen, so ties look like flips and like a preference for A. None: no row.
    """
    scored = [values for values in logprobs if values]
    count = sum(values.count(max(values)) > 1 for values in scored)
    return [{"n": len(scored), "ties": count, "share": count / len(scored)}] if count else []


def by_bytes(examples: Mapping[str, Example], outputs: Sequence[Output]) -> Row:
    """lm-eval's two other readings of the same log-probabilities."""
    judged = [output for output in outputs if output.logprobs]
    total = -sum(output.logprobs[0] for output in judged)
    size = sum(examples[output.example].meta["bytes"] for output in judged)
    rate = total / size if size else math.nan
    return {"bytes": size, "byte_perplexity": math.exp(rate), "bits_per_byte": rate / math.log(2)}


def shots(outputs: Sequence[Output]) -> Table:
    """How many examples were shown before the question: fewer where the prompt would not have fit."""
    counts = Counter(output.shots_used for output in outputs if output.shots_used is not None)
    return [{"shots": number, "count": counts[number]} for number in sorted(counts, reverse=True)]


def context_use(examples: Sequence[Example], scores: Mapping[str, float], closed: Mapping[str, bool] | None) -> Table:
    """Open-book answers by whether the answer stands in the evidence shown, and where they came from.

    Right with it: "remembered" if the model also knows it closed-book, else "retrieved" (all of them where the
    closed book was not asked). Wrong with it: "lost". Right without it: "remembered" too. The mean of the first
    two rows is the score where it could be read, and where it could not.
    """
    known = closed or {}
    rows = []
    for inside in (True, False):
        members = [e for e in examples if e.id in scores and stands_in(e.meta["passage"], e.answers) == inside]
        right = [e for e in members if scores[e.id] >= 1]
        remembered = [e for e in right if not inside or known.get(e.id)]
        rows.append(
            {
                "answer_in_context": inside,
                "n": len(members),
                "mean": _share(sum(scores[e.id] for e in members), len(members)),
                "retrieved": len(right) - len(remembered),
                "remembered": len(remembered),
                "lost": len(members) - len(right),
                "closed_book_asked": closed is not None,
            }
        )
    return rows


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None
