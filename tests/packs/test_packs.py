"""Packs: everything that pages read travels, nothing is overwritten, and foreign files are refused in one line."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kick_core import packs, tasks, views
from kick_core.cli import main
from kick_core.errors import BadRequest, KickError
from kick_core.explorer import open_pack
from kick_core.packs import columns, gallery, tables
from kick_core.packs.container import assemble, read, read_header
from kick_core.records import RunCard
from kick_core.store import Store, open_store, results, weight_artifacts
from kick_core.views import load
from tests import harness

QUESTIONS = "question,answer,subject\n" + "".join(f"What is {n} and {n}?,{2 * n},sums\n" for n in range(12))
TEXTS = "factoid_qa"


@pytest.fixture(scope="module")
def own_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "sums.csv"
    path.write_text(QUESTIONS)
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, own_file: Path) -> Store:
    """Real runs: two recipes on four kinds of task, and on a file of one's own questions."""
    root = tmp_path_factory.mktemp("measured")
    place = ["pocket-4m", "dense", "magnitude@0.7", "--cache", str(root), "--json"]
    named = [word for name in (TEXTS, "multiple_choice", "perplexity") for word in ("--task", name)]
    assert main(["evaluate", *place, *named, "--limit", "24"]) == 0
    assert main(["evaluate", *place, "--task", "summarization", "--limit", "4"]) == 0
    assert main(["evaluate", *place, "--data", str(own_file)]) == 0
    return open_store(root)


@pytest.fixture(scope="module")
def pack(measured: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / f"pocket{packs.SUFFIX}"
    path.write_bytes(packs.build(measured, packs.Selection("pocket-4m", commit="0123456789ab"))[1])
    return path


def files(root: Path) -> dict[str, bytes]:
    """Every file of a cache but locks."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "locks" not in path.parts
    }


# --- there and back ------------------------------------------------------------------------------------------


def test_scores_and_answers_come_back_as_they_were(measured: Store, pack: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    done = packs.unpack(pack, store)
    runs = results.runs(measured)
    assert (done.added, done.same) == (len(runs), 0) and len(runs) == 10
    ours, theirs = (views.scores(one).drop(columns="data") for one in (measured, store))
    assert ours.equals(theirs)
    left_out = {"prompt_hash": "", "ids": (), "top": None, "entropy": None}
    for card in runs:
        assert results.outputs(store, card.key) == [
            replace(output, **left_out) for output in results.outputs(measured, card.key)
        ]
        assert results.timings(store, card.key)[0].examples == results.measured(store, card.key)
    assert [card.recipe for card in views.artifact_tables.known_cards(store)] == ["magnitude@0.7"]
    assert not weight_artifacts.cards(store), "an artifact without weights is none"
    assert main(["verify", "--deep", "--cache", str(tmp_path)]) == 0


def test_the_same_results_are_the_same_bytes(measured: Store, pack: Path, tmp_path: Path) -> None:
    selection = packs.Selection("pocket-4m", commit="0123456789ab", own_questions=True)
    whole = packs.build(measured, selection)[1]
    assert whole == packs.build(measured, selection)[1]
    path = tmp_path / f"whole{packs.SUFFIX}"
    path.write_bytes(whole)
    packs.unpack(path, open_store(tmp_path / "cache"))
    assert packs.build(open_store(tmp_path / "cache"), selection)[1] == whole


def test_a_second_time_nothing_changes(pack: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    first, before = packs.unpack(pack, store), files(tmp_path)
    again = packs.unpack(pack, store)
    assert (again.added, again.same) == (0, first.added) and files(tmp_path) == before


def test_a_compact_pack_keeps_every_verdict_and_invents_no_answer(
    measured: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kick_core.packs.packing.FIRST", 5)
    path, store = tmp_path / f"small{packs.SUFFIX}", open_store(tmp_path / "cache")
    path.write_bytes(packs.build(measured, packs.Selection("pocket-4m", compact=True))[1])
    packs.unpack(path, store)
    same = ["run", "scorer", "score", "low", "n", "share_kept", "broke", "fixed", "verdict"]
    kept = views.scores(store)[same].reset_index(drop=True)
    ours = views.scores(measured)
    reported = ours[ours["headline"] | ours["published"]]
    assert kept.equals(reported[same].reset_index(drop=True))
    written = [frame[(frame["task"] == TEXTS) & (frame["kind"] != "dense")] for frame in (views.scores(store), ours)]
    assert written[0]["changed"].isna().all() and written[1]["changed"].notna().any(), "not known of what is left out"
    runs = {(card.recipe, card.task): card for card in results.runs(store)}
    outputs = results.outputs(store, runs["magnitude@0.7", TEXTS].key)
    gone = [at for at, output in enumerate(outputs) if output.stop == tasks.LEFT_OUT]
    assert gone and min(gone) >= 5 and not any(outputs[at].text for at in gone)
    task = tasks.get(TEXTS)
    example = results.examples(store, runs["dense", TEXTS].examples)[gone[0]]
    assert {one.score for one in tasks.judge(task, example, outputs[gone[0]])} == {None}, "unknown is not wrong"
    shown = views.example(store, runs["magnitude@0.7", TEXTS].key, outputs[gone[0]].example)
    assert [answer.text for answer in shown.answers] != [load.NOT_IN_PACK] * 2
    assert shown.answers[1].text == load.NOT_IN_PACK and shown.answers[1].right == shown.answers[0].right
    details = views.details(store, runs["magnitude@0.7", TEXTS].key)
    assert not len(details.get("health", ())), "what is left is no sample"


def test_questions_that_may_not_be_passed_on_stay_here_and_are_filled_in_from_the_data(
    measured: Store, pack: Path, own_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert b"What is 7 and 7" not in b"".join(read(pack)[1].values())
    store = open_store(tmp_path)
    (sentence,) = (note for note in packs.unpack(pack, store).notes if "Your questions" in note)
    assert "may not be passed on" in sentence
    (card,) = (card for card in results.runs(store) if card.task == "own_questions" and card.recipe == "dense")
    shown = results.examples(store, card.examples)
    assert {example.meta["subject"] for example in shown} == {"sums"} and not any(e.answers for e in shown)
    assert main(["unpack", str(pack), "--data", str(tmp_path), "--cache", str(tmp_path)]) == 0
    assert "stay left out" in capsys.readouterr().out
    assert main(["unpack", str(pack), "--data", str(own_file), "--cache", str(tmp_path)]) == 0
    assert "were filled in" in capsys.readouterr().out
    assert results.examples(store, card.examples) == results.examples(measured, card.examples)


# --- what is there stays -----------------------------------------------------------------------------------


def test_other_answers_under_the_same_key_stay(pack: Path, measured: Store, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    card = next(card for card in results.runs(measured) if card.task == TEXTS and card.recipe == "dense")
    results.keep_examples(store, card.examples, results.examples(measured, card.examples))
    mine = [replace(output, text=("mine",)) for output in results.outputs(measured, card.key)]
    with results.recorder(store, card) as recorder:
        recorder.record(mine)
        recorder.seal([output.example for output in mine])
    done = packs.unpack(pack, store)
    assert any("there already with other answers: yours stays" in note for note in done.notes)
    assert results.outputs(store, card.key) == mine and done.added == 9


def test_a_model_that_is_there_under_other_settings_is_kept_beside(pack: Path, measured: Store, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    card = next(card for card in results.runs(measured) if card.task == TEXTS and card.recipe == "dense")
    other = replace(card, key="run1-" + "0" * 40, settings={**card.settings, "new_tokens": 3}, dtype="bfloat16")
    outputs = results.outputs(measured, card.key)[:5]
    with results.recorder(store, other) as recorder:
        recorder.record(outputs)
        recorder.seal([output.example for output in outputs])
    done = packs.unpack(pack, store)
    assert any("under other settings: both are kept" in note for note in done.notes)
    assert results.measured(store, other.key) == 5 and done.added == 10


# --- hostile and damaged files -------------------------------------------------------------------------------


def _with_run(path: Path, change: Callable[[dict[str, object]], None]) -> bytes:
    header, sections = read(path)
    rows = json.loads(sections["runs"])
    change(rows[0])
    return assemble(header, sections | {"runs": json.dumps(rows).encode()})


def _resealed(path: Path, change: Callable[[dict[str, object]], None]) -> bytes:
    """A pack whose header was changed, with the sum that it then has."""
    first, _, rest = path.read_bytes().partition(b"\n")
    length = int(first.split()[2])
    head = json.loads(rest[:length])
    change(head)
    text = json.dumps(head).encode()
    return f"kick-pack 1 {len(text)} {hashlib.sha256(text).hexdigest()}\n".encode() + text + rest[length:]


def _into(row: dict[str, object], **more: object) -> None:
    card = row["card"]
    assert isinstance(card, dict)
    card.update(more)


def _flipped(path: Path, at: int) -> bytes:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    return bytes(data)


HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "newer": (lambda p: p.read_bytes().replace(b"kick-pack 1 ", b"kick-pack 2 ", 1), "newer version"),
    "cut": (lambda p: p.read_bytes()[:-100], "is cut"),
    "cut in the header": (lambda p: p.read_bytes()[:150], "cut inside its header"),
    "longer": (lambda p: p.read_bytes() + b"x", "longer than it says"),
    "no pack": (lambda p: b"PK\x03\x04" + bytes(400), "is no pack"),
    "other sums": (lambda p: _flipped(p, -1), "sum of its section"),
    "a flipped header": (lambda p: _flipped(p, 200), "sum of its header"),
    "a key leads out": (lambda p: _with_run(p, lambda row: _into(row, key="../../../evil")), "lead out of the cache"),
    "weights lead out": (lambda p: _with_run(p, lambda row: _into(row, weights="/etc/evil")), "lead out of the cache"),
    "unknown field": (lambda p: _with_run(p, lambda row: _into(row, surprise=1)), "not of this program"),
    "a number for a text": (lambda p: _with_run(p, lambda row: _into(row, recipe=5)), "not of this program"),
    "no recipe": (lambda p: _with_run(p, lambda row: _into(row, recipe="rm -rf@9")), "rm -rf"),
    "another model": (lambda p: _with_run(p, lambda row: _into(row, fingerprint="f" * 64)), "another model"),
    "too few answers": (lambda p: _with_run(p, lambda row: row.update(measured=1)), "do not fit its card"),
    "a bomb": (
        lambda p: _resealed(p, lambda head: head["sections"][0].update(bytes=1 << 40)),  # type: ignore[index]
        "would unpack to",
    ),
    "a section outside": (
        lambda p: _resealed(p, lambda head: head["sections"][0].update(name="../runs")),  # type: ignore[index]
        "not one of this program",
    ),
    "a wrong size": (
        lambda p: _resealed(p, lambda head: head["sections"][0].update(bytes=3)),  # type: ignore[index]
        "cannot be unpacked",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_wrong_with_a_pack_is_one_line_and_nothing_is_written(
    name: str, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = HOSTILE[name]
    path = tmp_path / f"bad{packs.SUFFIX}"
    path.write_bytes(make(pack))
    cache = tmp_path / "cache"
    before = files(open_store(cache).root)
    assert main(["unpack", str(path), "--cache", str(cache)]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and files(cache) == before


def test_ten_gigabytes_are_refused_without_reading_them(pack: Path, tmp_path: Path) -> None:
    path = tmp_path / f"huge{packs.SUFFIX}"
    path.write_bytes(pack.read_bytes())
    os.truncate(path, 10 << 30)
    with pytest.raises(BadRequest, match=r"has 10\.7 GB, at most"):
        packs.unpack(path, open_store(tmp_path / "cache"))


def test_no_damaged_table_gets_past_the_checks(pack: Path) -> None:
    """Sums protect against accidents, not against a pack that was built to harm: tables are checked themselves."""
    _, sections = read(pack)
    table = next(data for name, data in sections.items() if name.startswith("answers/"))
    chance = np.random.default_rng(0)
    for _ in range(100):
        data = bytearray(table)
        data[int(chance.integers(min(len(data), 3000)))] ^= 1 << int(chance.integers(8))
        try:
            columns.from_bytes(bytes(data), "table")
            tables.runs_of(bytes(data), [f"e{n}" for n in range(400)], "table")
        except BadRequest:
            continue


def test_columns_come_back_bit_for_bit() -> None:
    chance = np.random.default_rng(1)
    table: dict[str, columns.Column] = {
        "whole": np.array([-1, 0, 1 << 40]),
        "single": chance.normal(size=5000).astype(np.float32).astype(float),
        "double": chance.normal(size=5000),
        "few": np.array([0.1, -0.0, np.nan, np.inf] * 50),
        "texts": [f"text {n} \ud800 ü" for n in range(99)],
        "words": ["a", "", "b\n"] * 70,
        "nothing": [],
        "no numbers": np.array([], dtype=float),
    }
    data = columns.to_bytes(table)
    back = columns.from_bytes(data, "table")
    assert list(back) == list(table) and columns.to_bytes(back) == data
    for name, column in table.items():
        if isinstance(column, list):
            assert back[name] == column
        else:
            found = np.asarray(back[name])
            assert np.array_equal(found.astype(float).view(np.uint64), column.astype(float).view(np.uint64)), name


def test_what_the_cache_has_no_results_of_is_named(measured: Store) -> None:
    with pytest.raises(BadRequest, match="unknown measured model 'pocket-5m'"):
        packs.build(measured, packs.Selection("pocket-5m"))
    with pytest.raises(BadRequest, match="unknown measured recipe"):
        packs.build(measured, packs.Selection("pocket-4m", recipes=("wanda@0.5",)))


# --- the gallery and the button ------------------------------------------------------------------------------


@pytest.fixture
def page(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KICK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KICK_GALLERY", str(pack.parent))
    return tmp_path / "cache"


def test_an_empty_cache_opens_on_the_gallery(page: Path, pack: Path) -> None:
    header = read_header(pack)
    app = harness.run()
    said = "".join(element.proto.body for element in app.get("html"))
    assert "From the gallery, read only: pocket-4m" in said and "commit 0123456789ab" in said
    assert header.measured[0] in said and harness.charts(app)
    assert not (page / "results").exists(), "the cache stays the user's"


def test_the_first_page_waits_for_one_model_and_the_others_follow(
    page: Path, pack: Path, measured: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = page.parent / "two"
    folder.mkdir()
    (folder / pack.name).write_bytes(pack.read_bytes())
    _, dense = packs.build(measured, packs.Selection("pocket-4m", recipes=("dense",)))
    (folder / f"a-small{packs.SUFFIX}").write_bytes(dense)
    monkeypatch.setenv("KICK_GALLERY", str(folder))
    (header,) = gallery.shown(gallery.with_gallery(open_store(page), first=""))
    assert header.runs == read_header(pack).runs, "the largest"
    harness.run()
    assert len(gallery.shown(gallery.with_gallery(open_store(page), first=""))) == 2, "the page opened the rest"


def test_own_results_come_first_and_are_never_written_beside(page: Path, measured: Store, pack: Path) -> None:
    plain = open_store(page)
    store = gallery.with_gallery(plain)
    assert gallery.shown(store)[0].model == "pocket-4m"
    card: RunCard = next(card for card in results.runs(store) if card.task == TEXTS and card.recipe == "dense")
    outputs = results.outputs(measured, card.key)[:7]
    with results.recorder(plain, card) as recorder:
        recorder.record(outputs)
        recorder.seal([output.example for output in outputs])
    assert results.measured(store, card.key) == 7 and store.own("results", card.key)
    assert len(results.runs(store)) == 10


def test_a_damaged_gallery_shows_the_cache_alone(page: Path, pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = page.parent / "packs"
    folder.mkdir()
    (folder / pack.name).write_bytes(pack.read_bytes()[:-5])
    monkeypatch.setenv("KICK_GALLERY", str(folder))
    assert gallery.with_gallery(open_store(page)).beside == ()
    monkeypatch.setenv("KICK_GALLERY", "0")
    assert gallery.packs() == []


def test_a_page_opens_a_pack_or_says_what_is_wrong_with_it(pack: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert open_pack._unpack(store, pack.read_bytes())[0] == "pocket-4m is the chosen model now: 10 runs were added."
    (sentence,) = open_pack._unpack(store, pack.read_bytes()[:-9])
    assert sentence.startswith("This file is cut")


def test_the_packs_that_ship_can_be_read() -> None:
    for path in gallery.PACKED.glob("*"):
        header = read_header(path)
        assert path.suffix == packs.SUFFIX and path.stat().st_size <= 4_000_000, header.model
        assert header.commit
        for task in (name for name, licence in header.licences.items() if not licence):
            title = tasks.get(task, "official").title
            assert any(s.startswith(title) and "may not be passed on" in s for s in header.left_out), task


def test_an_unreadable_pack_fails(tmp_path: Path) -> None:
    with pytest.raises(KickError, match="cannot be read"):
        read_header(tmp_path / "missing.kickpack")
