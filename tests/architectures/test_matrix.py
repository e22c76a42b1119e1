"""Every causal architecture of the library against the committed table: right, or refused with a reason.

A new release of transformers, or a change here, shows up as a row that differs.
"""

from __future__ import annotations

import pytest
import transformers

from tests.architectures import table, tiny_models
from tests.architectures.examine import Outcome

USUAL = 24
"""Architectures that every run examines: each so many-th of the library's list; the rest is marked slow."""


def _outcomes(names: list[str]) -> dict[str, Outcome]:
    return {outcome.name: outcome for outcome in table.examined(names, workers=2)}


def _differences(outcomes: dict[str, Outcome]) -> list[str]:
    committed = table.written()
    return [
        f"now {table.row(outcome).strip()}, committed {committed.get(name, 'nothing').strip()}"
        for name, outcome in outcomes.items()
        if _result(table.row(outcome)) != _result(committed.get(name, ""))
    ]


def _result(row: str) -> tuple[str, ...]:
    """What a row says came out, without the remarks."""
    return tuple(part.strip() for part in row.split("|")[2:4])


def _some() -> list[str]:
    names = tiny_models.architectures()
    return names[:: max(1, len(names) // USUAL)]


def test_some_architectures_are_as_the_table_says():
    outcomes = _outcomes(_some())
    assert [name for name, outcome in outcomes.items() if not outcome.right] == []
    assert _differences(outcomes) == []


@pytest.mark.slow
def test_all_architectures_are_as_the_table_says():
    outcomes = _outcomes(tiny_models.architectures())
    assert [name for name, outcome in outcomes.items() if not outcome.right] == []
    assert _differences(outcomes) == []


def test_the_table_is_of_every_architecture_of_the_installed_library():
    assert f"transformers {transformers.__version__}," in table.PAGE.read_text(encoding="utf-8")
    assert list(table.written()) == tiny_models.architectures()
