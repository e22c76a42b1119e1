"""The report on a real (tiny) model: the numbers of `kick evaluate --json`, and commands that give its keys again."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from pathlib import Path

import pytest

from kick_core.cli import main
from kick_core.store import Store, open_store, results

CALIBRATED = ("--windows", "2", "--length", "16", "--seed", "3", "--propagate", "dense")
RECIPES = ("magnitude@0.3", "wanda@0.5", "gptq@4bit,group=16")


@pytest.fixture(scope="module")
def cache(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sweeps of different sizes and one closer comparison."""
    root = tmp_path_factory.mktemp("report") / "cache"
    words = [word for recipe in RECIPES for word in ("--recipe", recipe)]
    name, rest = str(tiny_folder), [*CALIBRATED, "--workers", "1", "--cache", str(root)]
    assert main(["sweep", name, *words, "--task", "multiple_choice", "--limit", "6", *rest]) == 0
    tasks = ["--task", "perplexity", "--task", "retrieval_qa_closed", "--limit", "3"]
    assert main(["sweep", name, *words[:4], *tasks, "--fidelity", "--noise-floor", *rest]) == 0
    return root


@pytest.fixture(scope="module")
def page(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("page") / "r.html"
    assert main(["report", str(file), "--cache", str(cache)]) == 0
    return file.read_text()


def rows(page: str, title: str) -> dict[str, list[str]]:
    """The rows of a table of the appendix by their recipe."""
    table = next(part for part in page.split("<table") if f"<caption>{title}</caption>" in part)
    cells = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[2:])
    return {unescape(row[0]): [unescape(re.sub("<.*?>", "", cell)) for cell in row[1:]] for row in cells}


def test_the_numbers_are_those_of_evaluate(
    tiny_folder: Path, cache: Path, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(tiny_folder), "dense", *RECIPES, "--task", "multiple_choice", "--limit", "6"]
    assert main([*words, *CALIBRATED, "--cache", str(cache), "--json"]) == 0
    labels = {"magnitude@0.3": "magnitude 30 %", "wanda@0.5": "wanda 50 %", "dense": "dense"}
    labels["gptq@4bit,group=16"] = "gptq 4 bit (group=16)"
    told = rows(page, "Multiple choice")
    found = json.loads(capsys.readouterr().out)["results"]
    assert len(found) == len(told) == 4
    for one in found:
        scorer, (n, score, kept, *_, verdict, run) = one["scorers"][one["headline"]], told[labels[one["recipe"]]]
        low, high = (f"{100 * bound:.1f} %" for bound in scorer["interval"])
        assert (n, score) == (str(one["n"]), f"{100 * scorer['mean']:.1f} % [{low} to {high}]")
        assert one["run"].startswith(run)
        if against := scorer["against_dense"]:
            assert verdict == against["matching"]
            assert against["share_kept"] is None or kept.startswith(f"{100 * against['share_kept']:.0f} % [")


def keys(store: Store) -> dict[str, dict[str, int]]:
    """Every artifact, and every run with how many examples it has."""
    return {
        "weights": dict.fromkeys(store.keys("weights"), 0),
        "fidelity": dict.fromkeys(store.keys("fidelity"), 0),
        "results": {key: results.measured(store, key) for key in store.keys("results")},
    }


def test_its_commands_give_its_keys_again(cache: Path, page: str, tmp_path: Path) -> None:
    block = unescape(re.findall(r"<pre>(.*?)</pre>", page, re.S)[-1])
    *lines, last = block.replace("\\\n", " ").splitlines()
    assert shlex.split(last)[:2] == ["kick", "report"] and len(lines) == 4
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "kick" and main([*words, "--workers", "1", "--cache", str(tmp_path / "again")]) == 0
    wanted = keys(open_store(cache))
    assert all(wanted.values()) and keys(open_store(tmp_path / "again")) == wanted
