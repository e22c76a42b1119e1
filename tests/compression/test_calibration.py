"""Calibration from the hub's data sets: pinned, streamed, cut into full windows; local folders stand in for the hub."""

import gzip
import json

import datasets
import pytest
import torch

from kick_core.artifacts.loaded_model import open_for
from kick_core.compression import calibration
from kick_core.compression.calibration import HUB, digest, token_windows
from kick_core.errors import BadRequest, KickError
from kick_core.spec import Calibration, ModelRef

TEXT = "the river runs to the sea and the old bridge of the town stands over it since many years"
WORDS = TEXT.split()


def document(number):
    return " ".join(WORDS[(number * 7 + i * i) % len(WORDS)] for i in range(120))


@pytest.fixture
def tokenizer(tiny_folder):
    return open_for(ModelRef(str(tiny_folder)), None, "cpu").tokenizer


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder with the files that the hub would serve; `asked` tells what was asked of it."""
    c4 = tmp_path / HUB["c4"][2].replace("/", "-")
    with gzip.open(c4, "wt") as file:
        file.writelines(json.dumps({"text": document(n), "url": "x"}) + "\n" for n in range(400))
    wiki = tmp_path / "train-00000-of-00001.parquet"
    texts = [text for n in range(400) for text in ("", f" = Title {n} = \n", document(n))]
    datasets.Dataset.from_dict({"text": texts}).to_parquet(wiki)
    asked, real = [], datasets.load_dataset

    def load_dataset(repository, *, data_files, revision, split, streaming):
        asked.append((repository, revision, data_files))
        form, file = ("json", c4) if repository == "allenai/c4" else ("parquet", wiki)
        return real(form, data_files=str(file), split=split, streaming=streaming)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize("source", ["c4", "wikitext2"])
def test_hub_sources_are_pinned_streamed_and_seed_stable(hub, tokenizer, source):
    asked = Calibration(source, windows=130, length=32)
    ids = token_windows(asked, tokenizer, 512)
    assert ids.shape == (130, 32) and ids.dtype == torch.int64  # more than the published code's 128
    assert hub == [HUB[source]] and len(HUB[source][1]) == 40
    assert tokenizer.pad_token_id not in ids
    assert digest(ids) == digest(token_windows(asked, tokenizer, 512))
    other = Calibration(source, windows=130, length=32, seed=1)
    assert digest(ids) != digest(token_windows(other, tokenizer, 512))
    assert len({tuple(row.tolist()) for row in ids}) > 100


def test_only_as_much_is_read_as_is_needed(hub, tokenizer, monkeypatch):
    read = []
    real = calibration.all_document_ids
    monkeypatch.setattr(calibration, "all_document_ids", lambda t, texts: read.extend(texts) or real(t, texts))
    token_windows(Calibration("c4", windows=2, length=16), tokenizer, 512)
    assert len(read) == 64, "one batch of documents"


def test_too_little_text_says_how_much_there_is(hub, tokenizer):
    with pytest.raises(BadRequest, match=r"gives \d+ windows of 512 tokens, 5000 are needed: use --windows"):
        token_windows(Calibration("wikitext2", windows=5000, length=512), tokenizer, 512)


def test_no_network_is_a_plain_failure(tokenizer, monkeypatch):
    def unreachable(*_args, **_kwargs):
        raise ConnectionError("Couldn't reach the Hub\nlong story")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(KickError, match=r"'c4' could not be read from the hub \(Couldn't reach the Hub\)"):
        token_windows(Calibration("c4", windows=2, length=16), tokenizer, 512)


def test_the_usual_text_suits_the_model():
    assert calibration.settled(Calibration(), "pocket-11m").source == "pocket"
    assert calibration.settled(Calibration(), "/models/llama").source == "english"
    named = Calibration("c4", windows=3)
    assert calibration.settled(named, "pocket-11m") == named


def test_the_shipped_english_is_enough_for_the_papers_windows(tokenizer):
    ids = token_windows(Calibration("english"), tokenizer, 8192)
    assert ids.shape == (128, 2048)


def test_a_short_text_gives_fewer_windows_unless_a_number_was_named(tokenizer, tmp_path):
    text = tmp_path / "short.txt"
    text.write_text(" ".join(document(n) for n in range(20)))
    ids = token_windows(Calibration(str(text), length=32), tokenizer, 512)
    assert calibration.FEWEST <= len(ids) < 128
    with pytest.raises(BadRequest, match=f"use --windows {len(ids)}"):
        token_windows(Calibration(str(text), windows=128, length=32), tokenizer, 512)
    with pytest.raises(BadRequest, match="give a longer text or a shorter --length"):
        token_windows(Calibration(str(text), length=500), tokenizer, 512)
