"""A large model is opened while its files are hashed: the same keys, and never a model of other files."""

import os
import threading
from pathlib import Path

import pytest

from kick_core.errors import KickError
from kick_core.models import source as sources
from kick_core.spec import ModelRef
from kick_core.store import Store
from kick_core.sweeps import driver, grid, opening
from kick_core.sweeps.request import SweepJob
from tests.tiny import save_tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model")


def run(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch, meanwhile=lambda: None):
    """A sweep whose files are hashed until the model is open, `meanwhile` done in between; how often it was opened."""
    begun, opened = threading.Event(), []

    def find(ref, store, heard):
        heard(0, driver.LARGE + 1)
        assert begun.wait(60), "it was not opened beside the hash"
        return sources.find(ref, store)

    def begin(job, source, questions):
        assert not source.fingerprint
        try:
            return opening.begin(job, source, questions)
        finally:
            meanwhile()
            begun.set()

    def open_parts(*args, **more):
        opened.append(args)
        return parts(*args, **more)

    parts = opening.open_parts
    monkeypatch.setattr(driver, "find", find)
    monkeypatch.setattr(driver, "begin", begin)
    monkeypatch.setattr(opening, "open_parts", open_parts)
    monkeypatch.setattr(grid, "open_parts", open_parts)
    steps = driver.run(SweepJob(str(folder), ("dense",), ("factoid_qa", "perplexity"), 2, device="cpu"), store, 1)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, len(opened)


def test_opened_once_beside_the_hash_under_the_same_keys(folder, store, monkeypatch):
    keys, times = run(folder, store, monkeypatch)
    assert times == 1
    job = SweepJob(str(folder), ("dense",), ("factoid_qa", "perplexity"), 2, device="cpu")
    assert keys == grid.open_sweep(job, store).keys
    assert keys.model.fingerprint == sources.find(ModelRef(str(folder))).fingerprint


def test_opened_anew_where_a_file_was_written_meanwhile(folder, store, monkeypatch):
    """The hash would name the new file, the open model would be the old one's."""
    config = folder / "generation_config.json"
    keys, times = run(folder, store, monkeypatch, lambda: config.write_text(config.read_text() + "\n"))
    assert times == 2 and keys.model.fingerprint == sources.find(ModelRef(str(folder))).fingerprint


def test_what_cannot_be_opened_is_reported_after_the_hash(folder, store, monkeypatch):
    os.remove(folder / "tokenizer.json")
    with pytest.raises(KickError, match="tokenizer cannot be opened"):
        run(folder, store, monkeypatch)
