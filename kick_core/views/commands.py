"""The commands that lead to what is measured: every option spelled out, so that the same keys come out again.

A key holds how something was made and asked, never how many examples; `--limit` is told all the same, because the
numbers stand on so many.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import pandas as pd

from kick_core import methods, tasks
from kick_core.records import Card
from kick_core.spec import Calibration, parse
from kick_core.store import Store, results
from kick_core.views import artifact_tables, load, recipe_labels
from kick_core.views.fidelity import fidelity, texts
from kick_core.views.noise import noise


class _How(NamedTuple):
    """What one `kick sweep` can only have one of; `calibration` None where the method looks at no data."""

    limit: int | None
    protocol: str
    data: str
    dtype: str
    device: str
    calibration: tuple[str, ...] | None


def sweeps(store: Store, frame: pd.DataFrame, model: str | None = None) -> list[str]:
    """The sweeps behind the rows of a `current` frame, or the same ones for another `model`; few and long.

    Rows whose artifact was collected since say no calibration: `unknown_calibrations` counts them.
    """
    cards = {card.key: card for card in artifact_tables.known_cards(store)}
    rows = [(row, _how(store, row, cards)) for row in frame.to_dict("records")]
    limited = {how for _, how in rows if how.limit is not None}
    grid: dict[tuple[_How, str], list[str]] = {}
    for row, how in rows:
        grid.setdefault((_within(how, row["total"], limited), str(row["recipe"])), []).append(str(row["task"]))
    lines: dict[tuple[_How, tuple[str, ...]], list[str]] = {}
    for (how, recipe), names in grid.items():
        lines.setdefault((how, tuple(dict.fromkeys(names))), []).append(recipe)
    name = model or (load.asked_name(str(frame["model"].iloc[0])) if len(frame) else "")
    return [_line(name, how, recipes, names) for (how, names), recipes in _joined(lines).items()]


def unknown_calibrations(store: Store, frame: pd.DataFrame) -> list[str]:
    """The recipes of a `current` frame that looked at data which nothing tells any more."""
    known = {card.key for card in artifact_tables.known_cards(store)}
    gone = frame[~frame["weights"].isin(known)]
    return [recipe for recipe in dict.fromkeys(gone["recipe"]) if methods.needs(parse(recipe)) != "nothing"]


def _how(store: Store, row: Mapping[Any, Any], cards: Mapping[str, Card]) -> _How:
    measured = results.measured(store, row["run"])
    looks = methods.needs(parse(row["recipe"])) != "nothing"
    card = cards.get(row["weights"])
    return _How(
        measured if measured < row["total"] else None,
        row["protocol"],
        row["data"],
        row["dtype"],
        row["device"],
        calibration_flags(card.calibration if card else None) if looks else None,
    )


def _within(how: _How, total: int, limited: Iterable[_How]) -> _How:
    """A task that was asked whole goes with those asked under a limit that it does not reach."""
    fits = [one for one in limited if one._replace(limit=None) == how and (one.limit or 0) >= total]
    return min(fits, key=lambda one: one.limit or 0, default=how)


def calibration_flags(facts: Mapping[str, Any] | None) -> tuple[str, ...]:
    """A card's calibration as options; none where nothing is known of it."""
    names = {"source": "--calibration"}
    known = [field.name for field in fields(Calibration) if field.name in (facts or {})]
    return tuple(word for name in known for word in (names.get(name, f"--{name}"), str((facts or {})[name])))


def _joined(
    lines: Mapping[tuple[_How, tuple[str, ...]], Sequence[str]],
) -> dict[tuple[_How, tuple[str, ...]], list[str]]:
    """Recipes that look at no data go with others of the same tasks and limit: any calibration is theirs too."""
    found = {place: list(recipes) for place, recipes in lines.items() if place[0].calibration is not None}
    for (how, names), recipes in lines.items():
        if how.calibration is None:
            host = next((p for p in found if p[1] == names and p[0]._replace(calibration=None) == how), (how, names))
            found[host] = [*recipes, *found.get(host, [])]
    return {
        place: sorted(recipes, key=lambda text: recipe_labels.order(parse(text))) for place, recipes in found.items()
    }


def _line(model: str, how: _How, recipes: Iterable[str], names: Iterable[str]) -> str:
    recipes = list(recipes)
    named = [recipe for recipe in recipes if recipe != "dense"] or recipes  # a sweep asks dense in any case
    words = ["kick", "sweep", model]
    words += [word for recipe in named for word in ("--recipe", recipe)]
    words += [word for task in names for word in ("--task", task)]
    words += [] if how.limit is None else ["--limit", str(how.limit)]
    words += [] if how.protocol == "strict" else ["--protocol", how.protocol]
    words += [] if how.data == load.POCKET else ["--data", how.data]
    words += [*(how.calibration or ()), "--dtype", how.dtype, "--device", how.device]
    return shlex.join(words)


def closer(store: Store, frame: pd.DataFrame) -> list[str]:
    """The commands behind fidelity, dense's texts and the noise floor of the rows of a `current` frame."""
    if frame.empty:
        return []
    mine = str(frame["fingerprint"].iloc[0])
    close, read, floor = (view(store, mine) for view in (fidelity, texts, noise))
    close = close[close["weights"].isin(frame["weights"])]
    read = read[read["weights"].isin(frame["weights"])]
    lines = []
    if len(close):
        rows = frame[frame["recipe"].isin(close["recipe"])]
        wanted = rows[rows["task"].isin([tasks.running_text(), *read["task"]])]
        lines += [f"{line} --fidelity" for line in sweeps(store, wanted if len(wanted) else rows)]
    if len(floor):
        rows = frame[(frame["recipe"] == "dense") & frame["task"].isin(floor["task"])]
        lines += [f"{line} --noise-floor" for line in sweeps(store, rows)]
    return lines


def wrapped(line: str, width: int = 96) -> str:
    """A long command over several lines, as a shell reads it."""
    lines = [""]
    for word in shlex.split(line):
        told = shlex.quote(word)
        if lines[-1] and len(lines[-1]) + len(told) > width:
            lines.append("   ")
        lines[-1] += f" {told}" if lines[-1] else told
    return " \\\n".join(lines)


def report(model: str, protocol: str, data: str) -> str:
    """The command that writes the report on a model."""
    words = ["kick", "report", "report.html", "--model", model]
    words += [] if protocol == "strict" else ["--protocol", protocol]
    return shlex.join([*words, *([] if data == load.POCKET else ["--data", data])])
