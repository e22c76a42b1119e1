"""Every causal architecture of the library against the committed table: right, or refused with a reason.

A new release of transformers, or a change here, shows up as a row that differs.
"""

from __future__ import annotations

import re

import pytest
import transformers
from transformers import CONFIG_MAPPING

from tests.architectures import table, tiny_models
from tests.architectures.examine import Outcome


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


def _traits(name: str, row: str) -> set[str]:
    """What kind of architecture one is: the sizes and kinds of layers that its config has, and what came out for it."""
    config = tiny_models.default(name)
    inner = [config[own] for own in CONFIG_MAPPING[name].sub_configs if isinstance(config.get(own), dict)]
    values = [value for own in (config, *inner) for value in own.values() if isinstance(value, list)]
    sizes = {p for p, _ in tiny_models.RULES if any(re.search(p, field) for own in (config, *inner) for field in own)}
    layers = {f"layer {value}" for own in values for value in own if isinstance(value, str)}
    results = {f"{number} {result.split()[0].rstrip(':,')}" for number, result in enumerate(_result(row))}
    return sizes | layers | results


def _some() -> list[str]:
    """The fewest architectures, about, that have every trait which one of the table has."""
    traits = {name: _traits(name, row) for name, row in table.written().items()}
    missing = set().union(*traits.values())
    chosen: list[str] = []
    while missing:
        chosen.append(max(traits, key=lambda name: len(traits[name] & missing)))
        missing -= traits[chosen[-1]]
    return chosen


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
