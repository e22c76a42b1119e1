"""Artifacts that share the files of their nested masks: each stays whole by itself, whatever becomes of the others."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kick_core.cli import main
from kick_core.store import Store, staging, weight_artifacts
from kick_core.store.locks import locked
from kick_core.store.nested_masks import bit_planes, sharing
from tests.reliability import scenarios
from tests.reliability.scenarios import BLOCKS, SERIES, mask_file

Kick = Callable[..., dict[str, Any]]


@pytest.fixture
def kick(store: Store, capsys: pytest.CaptureFixture[str]) -> Kick:
    def run(*words: str, status: int = 0) -> dict[str, Any]:
        assert main([*words, "--json", "--cache", str(store.root)]) == status
        return dict(json.loads(capsys.readouterr().out))

    return run


@pytest.fixture
def five(store: Store) -> Store:
    """Five artifacts, in files that they share."""
    scenarios.series(store)
    assert [step.block for step in sharing.share(store)] == [*range(BLOCKS)]
    return store


def inodes(store: Store) -> dict[str, tuple[int, ...]]:
    paths = {key: [weight_artifacts.block_path(store, key, block) for block in range(BLOCKS)] for key in SERIES}
    return {key: tuple(path.stat().st_ino for path in mine) for key, mine in paths.items() if mine[0].exists()}


def on_disk(store: Store) -> int:
    files = {path.stat().st_ino: path.stat().st_size for path in store.root.rglob("block-*.safetensors")}
    return sum(files.values())


def sound(store: Store, *keys: str) -> bool:
    """Whether artifacts are whole, and read as they were made."""
    for key in keys:
        assert weight_artifacts.verify(store, key, deep=False) == weight_artifacts.verify(store, key, deep=True) == []
        for block in range(BLOCKS):
            made = mask_file(SERIES.index(key), block)
            assert weight_artifacts.as_made(store, key, block) == made
            found = weight_artifacts.tensors(store, key, block, "np")
            data = b"".join(found[name].tobytes() for name in sorted(found))
            assert made.endswith(data) and sorted(found) == ["mlp.up.mask", "self_attn.q.mask"]
    return True


def test_five_masks_are_one_file_of_three_bits(five: Store, tmp_path: Path) -> None:
    assert len(set(inodes(five).values())) == 1 and sound(five, *SERIES)
    alone = sum(len(mask_file(number, block)) for number in range(5) for block in range(BLOCKS))
    assert on_disk(five) < 0.75 * alone
    before = inodes(five)
    assert len([*sharing.share(five)]) == BLOCKS and inodes(five) == before, "what is shared is left alone"
    assert not [path for path in five.root.rglob(".*") if path.is_file()], "nothing half made is left"


def test_manifests_and_cards_do_not_tell_how_masks_are_kept(five: Store, tmp_path: Path) -> None:
    plain = scenarios.open_store(tmp_path / "plain")
    scenarios.series(plain)
    for key in SERIES:
        for name in ("manifest.json", "card.json"):
            there, here = (store.folder("weights", key) / name for store in (five, plain))
            assert there.read_bytes() == here.read_bytes()


def test_sizes_count_a_shared_file_once(five: Store, kick: Kick) -> None:
    listed = kick("list")["artifacts"]
    assert abs(sum(row["bytes"] for row in listed) - on_disk(five)) <= len(SERIES)
    assert len({row["bytes"] for row in listed}) == 1
    shown = kick("show", SERIES[2])
    assert shown["stored_bytes"] == listed[2]["bytes"] < 0.75 * shown["bytes"]


def test_one_more_joins_and_one_that_goes_leaves_the_others(five: Store, kick: Kick) -> None:
    assert weight_artifacts.remove(five, SERIES[1])
    others = [key for key in SERIES if key != SERIES[1]]
    assert sound(five, *others) and len(set(inodes(five).values())) == 1
    weight_artifacts.quarantine(five, SERIES[0])
    assert sound(five, *others[1:]) and kick("verify", "--deep")["faults"] == []
    scenarios.series(five)  # both are made again, with files of their own
    assert len(set(inodes(five).values())) == 3
    assert [*sharing.share(five)] and len(set(inodes(five).values())) == 1 and sound(five, *SERIES)


def test_the_last_of_a_series_has_its_own_mask_again(five: Store) -> None:
    for key in SERIES[1:]:
        weight_artifacts.remove(five, key)
    assert [*sharing.share(five)]
    for block in range(BLOCKS):
        assert weight_artifacts.block_path(five, SERIES[0], block).read_bytes() == mask_file(0, block)
    assert weight_artifacts.sizes(five) == {SERIES[0]: weight_artifacts.card(five, SERIES[0]).bytes}


def test_collecting_goes_by_what_is_on_the_disk(five: Store, kick: Kick) -> None:
    """The files of four bits go with the last artifact that needs them; what must stay gets a mask of its own."""
    kick("pin", SERIES[3])
    said = kick("gc", "--max-size", str(on_disk(five)))
    assert said["removed"] == [] and said["saved"] == 0
    said = kick("gc", "--max-size", "1")
    assert len(said["removed"]) == 4 and "is pinned" in said["kept"][0]
    assert sound(five, SERIES[3]) and on_disk(five) == weight_artifacts.card(five, SERIES[3]).bytes


@pytest.mark.parametrize("left", range(1, 5))
def test_collecting_ends_at_the_size_that_was_asked_for(five: Store, kick: Kick, left: int) -> None:
    size = sum(weight_artifacts.card(five, key).bytes for key in SERIES[:left])
    kick("gc", "--max-size", str(size))
    there = [key for key in SERIES if weight_artifacts.has(five, key)]
    assert on_disk(five) <= size and len(there) >= left and sound(five, *there)


def test_what_had_to_stay_is_told_also_when_there_was_room_elsewhere(five: Store, kick: Kick) -> None:
    kick("pin", SERIES[0])
    said = kick("gc", "--max-size", str(2 * weight_artifacts.card(five, SERIES[0]).bytes))
    assert len(said["removed"]) == 3 and len(said["kept"]) == 1 and "is pinned" in said["kept"][0]


def test_gc_shares_what_a_sweep_left(store: Store, kick: Kick) -> None:
    scenarios.series(store)
    before = on_disk(store)
    said = kick("gc")
    assert said["saved"] == before - on_disk(store) > 0 and said["removed"] == [] and sound(store, *SERIES)


@pytest.mark.parametrize("reason", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_a_disk_without_hard_links_keeps_masks(store: Store, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    scenarios.series(store)
    before = inodes(store), on_disk(store)

    def refuse(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", refuse)
        assert [*sharing.share(store)]
    assert (inodes(store), on_disk(store)) == before and sound(store, *SERIES)


def test_a_copy_that_lost_its_links_is_whole_and_links_again(five: Store, tmp_path: Path) -> None:
    copy = scenarios.open_store(shutil.copytree(five.root, tmp_path / "copy"))
    assert len(set(inodes(copy).values())) == 5 and sound(copy, *SERIES)
    assert on_disk(copy) == sum(weight_artifacts.sizes(copy).values()) > 4 * on_disk(five)
    assert [*sharing.share(copy)] and on_disk(copy) == on_disk(five) and sound(copy, *SERIES)


def test_no_room_for_a_block_more_leaves_everything(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    scenarios.series(store)
    before = inodes(store)
    monkeypatch.setattr(sharing, "free_bytes", lambda _: 100)
    assert [*sharing.share(store)] and inodes(store) == before


def test_a_cache_of_somebody_else_is_left_as_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    scenarios.series(store)
    before = inodes(store)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(sharing, "replace_file", refuse)
    assert [*sharing.share(store)] == [] and inodes(store) == before and sound(store, *SERIES)


def test_every_flipped_bit_is_found_where_it_changes_a_mask(five: Store) -> None:
    """Each artifact is checked by the sum of what it was made of: never worn wrongly, never set aside needlessly."""
    path = weight_artifacts.block_path(five, SERIES[0], 1)
    whole, found = path.read_bytes(), 0
    for bit in [*range(0, 8 * len(whole), 211), 8 * len(whole) - 1]:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)  # in place: all of them see it
        for number, key in enumerate(SERIES):
            try:
                right = bit_planes.unfold(bytes(data), key) == mask_file(number, 1)
            except weight_artifacts.Damaged:
                right = False
            faults = weight_artifacts.verify(five, key, deep=True)
            assert right or faults, (bit, key)
            found += bool(faults)
    assert found > 100


def test_damage_is_set_aside_made_again_and_shared_again(five: Store, kick: Kick) -> None:
    path = weight_artifacts.block_path(five, SERIES[0], 1)
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    assert all(
        f"{len(data) - 9} bytes, {len(data)} expected" in weight_artifacts.verify(five, k, deep=False)[0]
        for k in SERIES
    )
    assert len(kick("verify", status=1)["faults"]) == 10 and kick("verify")["faults"] == []
    scenarios.series(five)
    assert [*sharing.share(five)] and sound(five, *SERIES)


def test_a_damaged_mask_is_never_packed(store: Store, kick: Kick) -> None:
    scenarios.series(store)
    path = weight_artifacts.block_path(store, SERIES[2], 1)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert [step.block for step in sharing.share(store)] == [0], "it stops there"
    assert path.read_bytes() == data and len(kick("verify", "--deep", status=1)["faults"]) == 2
    assert sound(store, *(key for key in SERIES if key != SERIES[2]))


def test_another_artifacts_shared_file_is_damage(five: Store) -> None:
    foreign = weight_artifacts.block_path(five, SERIES[0], 0)
    with staging.stage(five, scenarios.KEY) as stage:
        assert stage is not None
        for block in range(BLOCKS):
            stage.add(scenarios.BlockReport(block, BLOCKS, (), 0.1), mask_file(0, block))
        stage.seal(scenarios.card())
    path = weight_artifacts.block_path(five, scenarios.KEY, 0)
    path.unlink()
    os.link(foreign, path)
    assert "bytes" in weight_artifacts.verify(five, scenarios.KEY, deep=False)[0]
    with pytest.raises(weight_artifacts.Damaged, match="does not tell which"):
        weight_artifacts.tensors(five, scenarios.KEY, 0, "np")


def test_what_is_busy_is_left_for_another_time(store: Store) -> None:
    scenarios.series(store)
    with locked(store.lock_path(SERIES[4])):
        assert [*sharing.share(store)] == []
    assert len([*sharing.share(store)]) == BLOCKS


def _share_and_make(root: Path, rounds: int) -> None:
    """Share, remove two, unfold, make them again."""
    store = scenarios.open_store(root)
    for _ in range(rounds):
        scenarios.shared(root, root / "log")
        for key in SERIES[2:]:
            weight_artifacts.remove(store, key)
        scenarios.shared(root, root / "log")
        scenarios.series(store)


def test_readers_see_the_same_masks_at_any_time(five: Store) -> None:
    """Files go from own to shared and back while they are read and verified."""
    writer = multiprocessing.get_context("spawn").Process(target=_share_and_make, args=(five.root, 10))
    writer.start()
    reads = 0
    expected = [weight_artifacts.tensors(five, SERIES[0], block, "np") for block in range(BLOCKS)]
    while writer.is_alive():
        for block, wanted in enumerate(expected):
            found = weight_artifacts.tensors(five, SERIES[0], block, "np")
            assert all(np.array_equal(found[name], mask) for name, mask in wanted.items())
        assert weight_artifacts.verify(five, SERIES[1], deep=bool(reads % 2)) == []
        reads += 1
    writer.join()
    assert writer.exitcode == 0 and reads > 10
