"""Many examples with their texts: what was asked, what is right, what every recipe answered.

Light for the table on a page (texts cut short), whole for files. All of it is untrusted text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import pandas as pd

from kick_core import tasks
from kick_core.errors import BadRequest, nearest
from kick_core.records import Example
from kick_core.store import Store
from kick_core.views import load, recipe_labels
from kick_core.views.as_sent import as_sent
from kick_core.views.load import Asked

WIDTH = 80
"""Characters of a text in the table."""


def example_texts(store: Store, run_key: str, other_key: str, width: int = WIDTH) -> pd.DataFrame:
    """The examples of a run with the answers of it and of another, each on one line and cut to `width`.

    Args:
        store: the cache.
        run_key: the run whose examples are listed.
        other_key: the run that it is compared with.
        width: characters per text.

    Returns:
        One row per example of the run: id, question, gold, before (the other run's answer), after.
    """
    run, other = load.one(store, run_key), load.one(store, other_key)
    examples = load.examples(store, run.card.examples)
    before, after = (answers(store, one, examples) for one in (other, run))
    rows = [
        (name, *(one_line(text, width) for text in (
            question(example), gold_words(example), before.get(name, ""), after.get(name, "")
        )))
        for name, example in examples.items() if name in after
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["id", "question", "gold", "before", "after"], dtype="str")


def samples(store: Store, key: str, ids: Sequence[str] = (), subject: str | None = None) -> list[dict[str, Any]]:
    """What one run was asked and answered, for printing.

    Args:
        store: the cache.
        key: the run's.
        ids: only these examples; empty: all.
        subject: only examples of this subject, discipline, bucket or category.

    Returns:
        One record per example in the task's order: id, subject, prompt, question, gold, answer, score and why by the
        headline scorer, and all scores.

    Raises:
        BadRequest: an id or a subject that the run does not have, with the nearest ones.
    """
    run = load.one(store, key)
    examples = load.examples(store, run.card.examples)
    texts, verdicts = answers(store, run, examples), load.verdicts(store, run)
    shots = _shots(store, run)
    scores = {name: dict(zip(one.ids, one.score, strict=True)) for name, one in verdicts.items()}
    headline = verdicts.get(run.task.headline)
    why = dict(zip(headline.ids, headline.why, strict=True)) if headline else {}
    if missing := [name for name in ids if name not in texts]:
        near = get_close_matches(missing[0], list(texts), n=5, cutoff=0.0)
        raise BadRequest(f"run {key} has no example {missing[0][:60]!r}; the nearest are {', '.join(near)}")
    groups = {
        name: [str(examples[name].meta[kind]) for kind in tasks.GROUPS if kind in examples[name].meta] for name in texts
    }
    if subject is not None and not any(subject in own for own in groups.values()):
        raise nearest(subject, sorted({group for own in groups.values() for group in own}), "subject")
    return [
        {
            "id": name,
            "subject": groups[name][0] if groups[name] else "",
            "prompt": _prompt(run, examples[name], shots.get(name)),
            "question": question(examples[name]),
            "gold": gold_words(examples[name]),
            "answer": texts[name],
            "score": _number(scores.get(run.task.headline, {}).get(name)),
            "why": why.get(name, ""),
            "scores": {scorer: _number(own.get(name)) for scorer, own in scores.items()},
        }
        for name in texts
        if (not ids or name in ids) and (subject is None or subject in groups[name])
    ]


def _number(score: float | None) -> float | None:
    return None if score is None or score != score else float(score)


def exported(store: Store, frame: pd.DataFrame, row: pd.Series, against: str) -> pd.DataFrame:
    """An `examples` frame for export: full texts, every recipe's answer, and on every line where it came from.

    Args:
        store: the cache.
        frame: rows of `views.examples`.
        row: their `scores` row.
        against: the recipe that they are compared with.

    Returns:
        The frame with prompt, gold, one column of answers per recipe evaluated alike, and provenance.
    """
    run, ids = load.one(store, row["run"]), frame["id"].tolist()
    examples, shots = load.examples(store, run.card.examples), _shots(store, run)
    texts = {
        "prompt": [_prompt(run, examples[name], shots.get(name)) if name in examples else "" for name in ids],
        "gold": [gold_words(examples[name]) if name in examples else "" for name in ids],
    }
    for other in alike(store, run):
        given = answers(store, other, examples)
        texts[f"answer of {other.recipe.text}"] = [given.get(name, "") for name in ids]
    names = ("model", "recipe", "task", "scorer", "protocol", "data", "dtype", "device", "created", "run", "dense_run")
    facts = {name: str(row[name]) for name in names}
    return frame.assign(**texts, against=against, n=len(frame), **facts).astype(dict.fromkeys(texts, "str"))


def alike(store: Store, run: Asked) -> list[Asked]:
    """The runs that answered the same questions in the same way, one per recipe, dense first."""
    among = [other for other in load.asked(store) if load.alike(other) == load.alike(run)]
    newest = {other.recipe.text: other for other in sorted(among, key=lambda other: other.card.created)}
    return sorted({**newest, run.recipe.text: run}.values(), key=lambda other: recipe_labels.order(other.recipe))


def answers(store: Store, run: Asked, examples: Mapping[str, Example]) -> dict[str, str]:
    """What a run answered, by example; for a choice the option taken, with its words."""
    if run.task.kind == "choose":
        scored = load.verdicts(store, run).get(run.task.headline)
        if scored is None:
            return {}
        taken = scored.extracted()
        return {
            str(name): lettered(examples[name], taken[at]) for at, name in enumerate(scored.ids) if name in examples
        }
    table = load.answers(store, run.key)
    rows = zip(*(table.column(name).to_pylist() for name in ("example", "text", "stop")), strict=True)
    return {
        name: load.NOT_IN_PACK if stop == tasks.LEFT_OUT else "\n\n".join(turns or ()) for name, turns, stop in rows
    }


def _shots(store: Store, run: Asked) -> dict[str, int | None]:
    """How many worked examples stood before each question."""
    table = load.answers(store, run.key)
    return dict(zip(*(table.column(name).to_pylist() for name in ("example", "shots_used")), strict=True))


def _prompt(run: Asked, example: Example, shots: int | None) -> str:
    """A prompt as it was sent; of a dialogue the user's turns."""
    return as_sent(run, example, shots) or "\n\n".join(example.prompt)


def question(example: Example) -> str:
    """The question alone where the data names it, else the last paragraph of the prompt."""
    known = example.meta.get("question")
    return str(known) if known else "\n\n".join(example.prompt).strip().split("\n\n")[-1]


def gold_words(example: Example) -> str:
    """The accepted answers; for a choice the letter with its words."""
    return " · ".join(lettered(example, answer) if len(answer) == 1 else answer for answer in example.answers)


def lettered(example: Example, answer: str) -> str:
    """A letter with the words of its option, where there is such an option."""
    options: Sequence[object] = example.meta.get("options") or example.choices
    at = ord(answer[0]) - ord("A") if answer else -1
    return f"{answer}. {str(options[at]).strip()}" if 0 <= at < len(options) else answer


def one_line(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"
