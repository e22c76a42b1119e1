"""What the documents say is so: commands parse, the example runs, links lead somewhere, the API page is current."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kick_core
from kick_core import methods, spec
from kick_core.cli.arguments import parser
from tools import api

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "cache" / "README.md"])
FENCED = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`(kick [^`]+)`")
RECIPES = ("recipes", "recipe")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands(text: str) -> Iterator[list[str]]:
    """Every line of a shell block that starts with `kick`, without its comment."""
    for language, block in FENCED.findall(text):
        if language in ("", "sh", "bash", "console"):
            for line in block.splitlines():
                if line.startswith("kick "):
                    yield shlex.split(line, comments=True)[1:]


def subcommands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_commands_in_blocks_parse(path: Path) -> None:
    for words in commands(path.read_text(encoding="utf-8")):
        try:
            args = parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{name(path)}: kick {shlex.join(words)} does not parse")
        for attribute in RECIPES:
            values = getattr(args, attribute, None) or []
            for recipe in [values] if isinstance(values, str) else values:
                methods.resolve(spec.parse(recipe))


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_commands_in_sentences_exist(path: Path) -> None:
    """A sentence may leave arguments out, but its command and flags must exist."""
    known = subcommands()
    for text in INLINE.findall(path.read_text(encoding="utf-8")):
        for part in text.split(" && "):
            command, *words = part.removeprefix("kick ").split()
            if command == "COMMAND" or command.startswith("-"):
                continue
            assert command in known, f"{name(path)}: kick {part}"
            flags = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert flags <= set(known[command]._option_string_actions) | {"--help"}, f"{name(path)}: kick {part}"


def test_the_documents_have_commands_to_check() -> None:
    everything = [words for path in PAGES for words in commands(path.read_text(encoding="utf-8"))]
    assert {"compress", "evaluate", "sweep", "reproduce", "export", "report", "judge", "app"} <= {
        w[0] for w in everything
    }


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_make_targets_exist(path: Path) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make (\w+)`", path.read_text(encoding="utf-8"))) <= set(targets)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
        assert target.startswith(("https://", "http://")) or (path.parent / target).exists(), f"{name(path)}: {target}"


def test_the_readmes_example_runs(tmp_path: Path) -> None:
    (code,) = (block for language, block in FENCED.findall((ROOT / "README.md").read_text()) if language == "python")
    environment = {**os.environ, "KICK_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(fq-\d{4} \('.*',\)\n){4}", done.stdout)


def test_every_room_is_on_the_map() -> None:
    rooms = [path.parent.name for path in (ROOT / "kick_core").glob("*/__init__.py")]
    tree, map_ = (ROOT / "README.md").read_text(), (ROOT / "ARCHITECTURE.md").read_text()
    assert len(rooms) > 10
    assert [room for room in rooms if f"  {room}/" not in tree] == []
    assert [room for room in rooms if f"`{room}`" not in map_] == []


def test_the_api_page_is_current() -> None:
    assert api.PAGE.read_text(encoding="utf-8") == api.page(), "run `make docs`"


@pytest.mark.parametrize("public", [n for n in kick_core.__all__ if inspect.isfunction(getattr(kick_core, n))])
def test_public_functions_document_every_argument(public: str) -> None:
    function = getattr(kick_core, public)
    text = inspect.getdoc(function) or ""
    assert [p for p in inspect.signature(function).parameters if f"\n    {p}: " not in text] == []
    assert "\nRaises:\n" in text and ("\nReturns:\n" in text or "\nYields:\n" in text)


def test_the_version_is_the_same_everywhere() -> None:
    released = re.findall(r"^## (\d[\d.]*) – (\d{4}-\d{2}-\d{2})$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text()
    assert released[0][0] == kick_core.__version__
    assert f"version: {released[0][0]}\n" in citation and f"date-released: {released[0][1]}\n" in citation
