"""`kick reproduce families`: other architectures made small, asked alike; scores are at chance, the table is whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from kick_core.cli import main
from kick_core.store import lineage, open_store
from kick_core.sweeps.request import PRESETS
from kick_core.views import paired
from tests.tiny import save_tiny

SMALL = ("--limit", "4", "--calibration", "pocket", "--windows", "2", "--length", "16", "--workers", "1")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny Llama and a tiny Qwen 2, both with the pocket tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    llama = save_tiny(folder / "llama")
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=4096, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    other = folder / "qwen"
    Qwen2ForCausalLM(config).save_pretrained(other)
    for path in llama.iterdir():
        if path.suffix == ".jinja" or "token" in path.name:
            shutil.copy(path, other)
    return llama, other


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS["families"], "recipes", ("dense", "wanda@0.5", "rtn@4bit"))
    monkeypatch.setitem(PRESETS["families"], "tasks", ("factoid_qa", "multiple_choice"))


@pytest.mark.usefixtures("short")
def test_two_architectures_stand_in_one_table(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # the tiny models guess, and what is at chance stands in no table: here the table is meant
    monkeypatch.setattr(paired.stats, "anything_to_lose", lambda score, guess: True)
    names = [str(folder) for folder in models]
    words = [*SMALL, "--cache", str(tmp_path)]
    assert main(["reproduce", "families", "--model", names[0], "--model", names[1], *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    cells = {(row["recipe"], row["task"], row["model"]) for row in found["rows"]}
    choices = {(recipe, "multiple_choice", name) for recipe in ("wanda@0.5", "rtn@4bit") for name in names}
    assert choices <= cells and {model for _, _, model in cells} == set(names)
    choice = [row for row in found["rows"] if row["task"] == "multiple_choice"]
    assert len(choice) == 4 and all(row["paired"] == 4 and row["run"] and row["weights"] for row in choice)
    assert found["calibrations"]["rtn@4bit"] == "no calibration needed" and found["pairs"] == []

    assert main(["reproduce", "families", "--model", names[1], "--tuned-from", names[0], *words, "--json"]) == 0
    (pair,) = json.loads(capsys.readouterr().out)["pairs"]
    assert (pair["tuned"], pair["base"], pair["known_by"]) == (names[1], names[0], "said")
    assert all(cell["shared"] == 4 for cell in pair["cells"])
    assert len(lineage.tuned_from(open_store(tmp_path))) == 1
    assert main(["reproduce", "families", "--model", names[0], "--model", names[1], *words]) == 0
    out = capsys.readouterr().out
    assert "you said so" in out and "together:" in out and "each in its own tokenizer's tokens" in out


WRONG = [
    (["families", "--model", "pocket"], "name several"),
    (["families", "--model", "pocket", "--model", "pocket-11m"], "the same files"),
    (["families", "--model", "pocket", "--model", "pocket-4m", "--tuned-from", "pocket"], "with one --model"),
    (["table2", "--model", "pocket", "--model", "pocket-4m"], "is about one model"),
    (["table2", "--tuned-from", "pocket-4m"], "is about one model"),
]


@pytest.mark.parametrize("words, said", WRONG)
def test_what_cannot_be_compared_is_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *words, "--cache", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("short")
def test_a_plan_names_every_model(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for folder in models for word in ("--model", str(folder))]
    assert main(["reproduce", "families", *words, *SMALL, "--plan", "--json", "--cache", str(tmp_path)]) == 0
    assert len(json.loads(capsys.readouterr().out)["plans"]) == 2
