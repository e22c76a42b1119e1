"""The answers of all runs on one set of questions as one table, question by question, and back to columns of a run.

Answers to one question stand beside each other, because they are alike. Verdicts stand beside what they judge:
`extracted` is mostly the beginning of the answer, or what the scorer before extracted, and is written as that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kick_core import tasks
from kick_core.errors import BadRequest
from kick_core.packs.columns import Column, from_bytes, to_bytes
from kick_core.records import Example, Output, RunCard, Verdict
from kick_core.store import Store, results

RIGHT = 0.5
"""From this score on an answer counts as right, as on the pages."""

SAME, BEGINNING, OTHER = 0, 1, 2
"""How `extracted` is written: as the scorer's before, as the answer's first characters, or as it is."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One output with its verdicts, in the scorers' order; `kept`: its answer goes along."""

    run: int
    example: int
    output: Output
    verdicts: tuple[Verdict, ...]
    kept: bool


def answers(
    store: Store, task: tasks.Task, runs: Sequence[RunCard], examples: Sequence[Example], limit: int | None,
    first: int | None,
) -> tuple[bytes, dict[str, int]]:  # fmt: skip
    """All outputs and verdicts of some runs on the same questions.

    Args:
        store: the cache.
        task: the task as this program knows it.
        runs: cards of runs with these examples.
        examples: the questions in the task's order.
        limit: of every run the first outputs; None: all.
        first: keep the answers to so many questions, and further ones where the verdict differs from dense's; None:
            keep all.

    Returns:
        The table's bytes, and how many outputs it has of every run.
    """
    places = {example.id: at for at, example in enumerate(examples)}
    by_run = [_rows(store, task, card, number, examples, places, limit) for number, card in enumerate(runs)]
    if first is not None:
        by_run = _thinned(by_run, runs, first, task)
    rows = sorted((row for rows in by_run for row in rows), key=lambda row: (row.example, row.run))
    scorers = _scorers(task, thin=first is not None)
    counts = {card.key: len(rows) for card, rows in zip(runs, by_run, strict=True)}
    columns = _output_columns(rows, task) | _verdict_columns(rows, task, scorers)
    columns["key"] = [card.key for card in runs]
    columns["version"] = np.array([task.version])
    columns["scorer"] = [name for name in task.scorers if name in scorers]
    return to_bytes(columns), counts


def _rows(
    store: Store, task: tasks.Task, card: RunCard, number: int, examples: Sequence[Example],
    places: Mapping[str, int], limit: int | None,
) -> list[_Row]:  # fmt: skip
    outputs = [output for output in results.outputs(store, card.key) if output.example in places][:limit]
    stored: dict[str, dict[str, Verdict]] = {}
    for verdict in results.verdicts(store, card.key, task.version) or ():
        stored.setdefault(verdict.example, {})[verdict.scorer] = verdict
    rows = []
    for output in outputs:
        verdicts_of = stored.get(output.example, {})
        if set(verdicts_of) != set(task.scorers):  # of an older version of the scorers, or none
            verdicts_of = {one.scorer: one for one in tasks.judge(task, examples[places[output.example]], output)}
        verdicts = tuple(verdicts_of[name] for name in task.scorers)
        rows.append(_Row(number, places[output.example], output, verdicts, True))
    return rows


def _thinned(by_run: Sequence[list[_Row]], runs: Sequence[RunCard], first: int, task: tasks.Task) -> list[list[_Row]]:
    """The same rows; an answer is kept of dense, of the first questions, and where it is right and dense's wrong or the
    other way round. Options are never kept: a sample of changed answers alone would tell a false confidence."""
    at = list(task.scorers).index(task.headline)
    right = {
        _asked(card): {row.example: _right(row.verdicts[at]) for row in rows}
        for card, rows in zip(runs, by_run, strict=True)
        if card.recipe == "dense"
    }

    def kept(row: _Row) -> bool:
        if row.example < first or runs[row.run].recipe == "dense":
            return True
        return right.get(_asked(runs[row.run]), {}).get(row.example) != _right(row.verdicts[at])

    free = task.kind != "choose"
    return [[replace(row, kept=free and kept(row)) for row in rows] for rows in by_run]


def _asked(card: RunCard) -> str:
    """What two runs on the same questions share when their answers can be compared."""
    return json.dumps([card.protocol, card.dtype, card.settings], sort_keys=True)


def _right(verdict: Verdict) -> bool | None:
    return None if verdict.score is None else verdict.score >= RIGHT


def _scorers(task: tasks.Task, *, thin: bool) -> set[str]:
    """The scorers whose verdicts go along; of a compact pack those that the protocols report."""
    return {task.headline, task.headline_of("paper")} if thin else set(task.scorers)


def _few(rows: Sequence[_Row], at: int) -> bool:
    """Whether a scorer gives few different scores: right or wrong, or shares of a few words."""
    return len({row.verdicts[at].score for row in rows}) <= max(16, len(rows) // 16)


def _output_columns(rows: Sequence[_Row], task: tasks.Task) -> dict[str, Column]:
    outputs = [
        row.output if row.kept else Output(row.output.example, "", stop=tasks.LEFT_OUT, prompt_tokens=0) for row in rows
    ]
    numbers = {
        "run": [row.run for row in rows],
        "example": [row.example for row in rows],
        "tokens": [output.tokens for output in outputs],
        "prompt_tokens": [output.prompt_tokens for output in outputs],
        "shots_used": [-1 if output.shots_used is None else output.shots_used for output in outputs],
        "turns": [len(output.text) for output in outputs],
        "options": [len(output.logprobs) for output in outputs],
        "named": [int(output.argmax is not None) for output in outputs],
    }
    columns: dict[str, Column] = {name: np.array(values, dtype=np.int64) for name, values in numbers.items()}
    columns["stop"] = [output.stop for output in outputs]
    columns["argmax"] = [output.argmax for output in outputs if output.argmax is not None]
    columns["text"] = [turn for output in outputs for turn in output.text]
    columns["logprobs"] = np.array([value for output in outputs for value in output.logprobs], dtype=np.float64)
    return columns


def _verdict_columns(rows: Sequence[_Row], task: tasks.Task, scorers: set[str]) -> dict[str, Column]:
    columns = _judged_columns(rows, task, scorers)
    before = [""] * len(rows)
    for at, name in enumerate(task.scorers):
        if name not in scorers:
            continue
        verdicts = [row.verdicts[at] for row in rows]
        texts = [
            verdict.extracted if row.kept or task.kind == "choose" else ""
            for row, verdict in zip(rows, verdicts, strict=True)
        ]
        forms, lengths, others = [], [], []
        for row, text, last in zip(rows, texts, before, strict=True):
            if text == last:
                forms.append(SAME)
            elif row.kept and len(row.output.text) == 1 and row.output.text[0].startswith(text):
                forms.append(BEGINNING)
                lengths.append(len(text))
            else:
                forms.append(OTHER)
                others.append(text)
        columns[f"form {name}"] = np.array(forms, dtype=np.int64)
        columns[f"length {name}"] = np.array(lengths, dtype=np.int64)
        columns[f"extracted {name}"] = others
        before = texts
    return columns


def _judged_columns(rows: Sequence[_Row], task: tasks.Task, scorers: set[str]) -> dict[str, Column]:
    """Scores and reasons. What scorers with few scores say together is one code a row, because they mostly agree."""
    together = [at for at, name in enumerate(task.scorers) if name in scorers and _few(rows, at)]
    outcomes = [tuple((row.verdicts[at].score, row.verdicts[at].why) for at in together) for row in rows]
    places = {words: code for code, words in enumerate(dict.fromkeys(outcomes))}
    columns: dict[str, Column] = {"judged": np.array([places[words] for words in outcomes], dtype=np.int64)}
    for at, name in enumerate(task.scorers):
        if name not in scorers:
            continue
        if at in together:
            pairs = [words[together.index(at)] for words in places]
        else:
            pairs = [(row.verdicts[at].score, row.verdicts[at].why) for row in rows]
        columns[f"score {name}"] = np.array([np.nan if score is None else score for score, _ in pairs], dtype=float)
        columns[f"why {name}"] = [why for _, why in pairs]
    columns["together"] = [list(task.scorers)[at] for at in together]
    return columns


# --- and back ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunColumns:
    """One run of a table: columns of its outputs, and of its verdicts by scorer, as the store's files name them."""

    outputs: dict[str, pa.Array]
    verdicts: dict[str, dict[str, pa.Array]]
    version: int


def runs_of(data: bytes, ids: Sequence[str], what: str) -> dict[str, RunColumns]:
    """The runs of a table that `answers` wrote, by key.

    Args:
        data: the table's bytes.
        ids: of the questions, in the task's order.
        what: the table's name, for messages.

    Raises:
        BadRequest: the table does not hold together.
    """
    columns = from_bytes(data, what)
    try:
        return _runs_of(columns, ids)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise BadRequest(f"{what} does not hold together ({type(error).__name__}: {str(error)[:100]})") from error


def _runs_of(columns: Mapping[str, Any], ids: Sequence[str]) -> dict[str, RunColumns]:
    keys, run, example = columns["key"], columns["run"], columns["example"]
    turns, options, named = columns["turns"], columns["options"], columns["named"]
    count = len(run)
    whole = ("run", "example", "tokens", "prompt_tokens", "shots_used", "turns", "options", "named")
    for name in (*whole, "stop"):
        if len(columns[name]) != count or (name != "stop" and columns[name].dtype.kind not in "iu"):
            raise ValueError(f"column {name!r}")
    sums = ((turns, "text"), (options, "logprobs"), (named, "argmax"))
    if any(int(sizes.sum()) != len(columns[name]) or (sizes < 0).any() for sizes, name in sums):
        raise ValueError("answers are missing")
    if len(set(ids)) < len(ids):
        raise ValueError("a question stands twice")
    order = np.argsort(run, kind="stable")  # the rows of a run beside each other, so that it is a slice
    starts = np.searchsorted(run[order], np.arange(len(keys) + 1)).tolist()
    table = _sorted(_outputs(columns, ids), order)
    judged = {name: _sorted(verdicts, order) for name, verdicts in _verdicts(columns, count).items()}
    runs = {}
    for key, start, end in zip(keys, starts, starts[1:], strict=False):
        if np.unique(example[order[start:end]]).size < end - start:
            raise ValueError(f"run {key} answers a question twice")
        outputs = _between(table, start, end)
        verdicts = {name: _between(verdicts, start, end) for name, verdicts in judged.items()}
        runs[str(key)] = RunColumns(outputs, verdicts, int(columns["version"][0]))
    return runs


def _outputs(columns: Mapping[str, Any], ids: Sequence[str]) -> dict[str, pa.Array]:
    """The outputs of all runs. Arrow holds them: as lists, one a row, most of the time would go into those."""
    example, shots, named = columns["example"], columns["shots_used"], columns["named"]
    at = np.cumsum(named.astype(np.int64)) - named
    return {
        "example": pa.array(ids, pa.string()).take(pa.array(example)),
        "prompt_hash": pa.repeat("", len(example)),
        "text": _nested(pa.array(columns["text"], pa.string()), columns["turns"]),
        "logprobs": _nested(pa.array(columns["logprobs"]), columns["options"]),
        "stop": pa.array(columns["stop"], pa.string()),
        "tokens": pa.array(columns["tokens"]).cast(pa.int32()),
        "prompt_tokens": pa.array(columns["prompt_tokens"]).cast(pa.int32()),
        "ids": _nested(pa.array([], pa.list_(pa.int32())), np.zeros(len(example), np.int64)),
        "argmax": pa.array(columns["argmax"], pa.string()).take(pa.array(at, mask=named < 1)),
        "top": pa.nulls(len(example), pa.float64()),
        "entropy": pa.nulls(len(example), pa.float64()),
        "shots_used": pa.array(shots, mask=shots < 0).cast(pa.int32()),
    }


def _sorted(columns: Mapping[str, pa.Array], order: NDArray[np.intp]) -> dict[str, pa.Array]:
    return {name: column.take(pa.array(order)) for name, column in columns.items()}


def _between(columns: Mapping[str, pa.Array], start: int, end: int) -> dict[str, pa.Array]:
    return {name: column.slice(start, end - start) for name, column in columns.items()}


def _nested(flat: pa.Array, sizes: NDArray[Any]) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(sizes.astype(np.int64))])
    return pa.ListArray.from_arrays(pa.array(offsets).cast(pa.int32()), flat)


def _verdicts(columns: Mapping[str, Any], count: int) -> dict[str, dict[str, pa.Array]]:
    turns, texts = columns["turns"], columns["text"]
    firsts = np.cumsum(turns.astype(np.int64)) - turns  # where a row's answer begins in the texts
    verdicts: dict[str, dict[str, pa.Array]] = {}
    before = [""] * count
    for name in columns["scorer"]:
        score, why, forms = (columns[f"{part} {name}"] for part in ("score", "why", "form"))
        if name in columns["together"]:
            score, why = score[columns["judged"]], [why[code] for code in columns["judged"].tolist()]
        if not len(score) == len(why) == len(forms) == count:
            raise ValueError(f"verdicts of {name!r}")
        extracted = list(before)
        begun, other = np.flatnonzero(forms == BEGINNING), np.flatnonzero((forms != BEGINNING) & (forms != SAME))
        if (turns[begun] < 1).any():
            raise ValueError(f"answers that {name!r} read")
        places, lengths = firsts[begun].tolist(), columns[f"length {name}"].tolist()
        for at, place, length in zip(begun.tolist(), places, lengths, strict=True):
            extracted[at] = texts[place][:length]
        for at, text in zip(other.tolist(), columns[f"extracted {name}"], strict=True):
            extracted[at] = text
        words = {"extracted": extracted, "why": why}
        verdicts[str(name)] = {"score": pa.array(score, pa.float64())} | {
            part: pa.array(values, pa.string()) for part, values in words.items()
        }
        before = extracted
    return verdicts
