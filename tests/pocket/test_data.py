"""The frozen evaluation files: their form, their balance, and that they can be made again byte for byte."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from kick_core.pocket import DATA_FILES, POCKET_MODELS, ROOM, data_path, split_documents
from tools.pocket import build, instructions, measure, names, stories, tokenizer, world
from tools.pocket.schema import DISCIPLINES

MEBIBYTE = 1024 * 1024
ASKED = ("factoid_qa", "retrieval_qa_closed", "retrieval_qa_open")


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in data_path(f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_data_are_made_again_byte_for_byte(tmp_path: Path) -> None:
    build.write_data(tmp_path, POCKET_MODELS["pocket-11m"])
    for name in DATA_FILES:
        assert (tmp_path / name).read_bytes() == data_path(name).read_bytes(), name


def test_checksums_are_those_of_the_files() -> None:
    meta = json.loads(data_path("meta.json").read_text(encoding="utf-8"))
    assert meta["multiple_choice"] in ("letters", "words")
    assert meta["sha256"] == {
        name: build.digest(data_path(name).read_bytes()) for name in DATA_FILES if name != "meta.json"
    }


@pytest.mark.slow
def test_the_tokenizer_is_made_again_byte_for_byte() -> None:
    saved = json.loads((POCKET_MODELS["pocket-11m"] / "tokenizer.json").read_text(encoding="utf-8"))
    assert json.loads(tokenizer.train().to_str()) == saved
    other = (POCKET_MODELS["pocket-4m"] / "tokenizer.json").read_bytes()
    assert other == (POCKET_MODELS["pocket-11m"] / "tokenizer.json").read_bytes()


def test_data_are_small() -> None:
    assert sum(data_path(name).stat().st_size for name in DATA_FILES) <= 3 * MEBIBYTE


@pytest.mark.parametrize("name", ASKED)
def test_questions(name: str) -> None:
    found = rows(name)
    assert len(found) >= 500
    assert len({row["id"] for row in found}) == len(found)
    assert len({(row["question"], row.get("passage")) for row in found}) == len(found)
    for row in found:
        assert row["discipline"] in DISCIPLINES and row["subject"] in world.SUBJECTS
        assert row["answers"] and all(row["answers"])
        if name == "retrieval_qa_open":
            assert row["answers"][0].lower() in row["passage"].lower()


def test_closed_book_questions_are_about_held_out_facts() -> None:
    forms = {
        form.replace("{s}", entity.name): (entity, item.name)
        for entity in world.build().entities
        for item in entity.attributes
        for form in item.questions
        if world.held_out(entity.name, item.name)
    }
    used = Counter()
    for name in ("factoid_qa", "retrieval_qa_closed", "multiple_choice"):
        for row in rows(name):
            entity, attribute = forms[row["question"]]
            answer = row["choices"][row["answer"]] if "choices" in row else row["answers"][0]
            assert answer == entity.value(attribute)
            used[(entity.name, attribute)] += 1
    assert max(used.values()) == 1


def test_passages_are_about_strangers() -> None:
    text = data_path("retrieval_qa_open.jsonl").read_text(encoding="utf-8")
    words = text.replace(",", " ").replace(".", " ").replace(";", " ").replace("'", " ").replace('"', " ").split()
    pairs = {f"{first} {second}" for first, second in pairwise(words)}
    assert not pairs.intersection(world.build().people)


def test_multiple_choice_is_balanced() -> None:
    found = rows("multiple_choice")
    assert len(found) >= 600
    assert set(Counter(row["answer"] for row in found).values()) == {len(found) // 4}
    assert set(Counter(row["discipline"] for row in found).values()) == {len(found) // 4}
    assert set(Counter(row["subject"] for row in found).values()) == {len(found) // 12}
    prefix = Counter(row["discipline"] for row in found[:100])
    assert max(prefix.values()) - min(prefix.values()) <= 4


def test_options_differ_in_their_first_token() -> None:
    codec = tokenizer.load(POCKET_MODELS["pocket-11m"])
    for row in rows("multiple_choice"):
        assert len(row["choices"]) == 4
        firsts = {codec.encode(f" {choice}", add_special_tokens=False).ids[0] for choice in row["choices"]}
        assert len(firsts) == 4, row["id"]


def test_letters_are_single_tokens_with_their_space() -> None:
    codec = tokenizer.load(POCKET_MODELS["pocket-11m"])
    assert all(len(codec.encode(f" {letter}", add_special_tokens=False).ids) == 1 for letter in "ABCD")


def test_stories() -> None:
    found = rows("summarization")
    assert len(found) >= 192
    assert set(Counter(row["bucket"] for row in found).values()) == {len(found) // 3}
    codec = tokenizer.load(POCKET_MODELS["pocket-11m"])
    for row in found:
        for aliases in row["facts"]:
            assert any(alias.lower() in row["story"].lower() for alias in aliases)
            assert any(alias.lower() in row["reference"].lower() for alias in aliases)
        assert len(codec.encode(row["reference"]).ids) <= 80
        hero, trade, home = (aliases[0] for aliases in row["facts"][:3])
        assert names.zone(f"{hero} {home} {trade}") == names.FROZEN
    lengths = {
        bucket: [len(codec.encode(row["story"]).ids) for row in found if row["bucket"] == bucket]
        for bucket in stories.BUCKETS
    }
    means = [sum(group) / len(group) for group in lengths.values()]
    assert means == sorted(means) and max(map(max, lengths.values())) < 320


def test_references_pass_their_own_checks() -> None:
    found = rows("instructions")
    assert len(found) >= 96 and len({row["category"] for row in found}) >= 6
    for row in found:
        assert len(row["turns"]) == len(row["references"]) == len(row["checks"]) == 2
        for checks, reference in zip(row["checks"], row["references"], strict=True):
            assert checks
            assert all(measure.passes(check, reference) for check in checks), row["id"]
        assert names.zone(row["turns"][0]) == names.FROZEN


def test_every_instruction_passes_its_own_checks() -> None:
    rng = random.Random(0)
    for category in instructions.MAKERS:
        for _ in range(60):
            made = instructions.make(rng, category)
            for checks, reference in zip(made.checks, made.references, strict=True):
                assert all(measure.passes(check, reference) for check in checks), made


def test_running_text() -> None:
    for name in ("perplexity.txt", "calibration.txt"):
        documents = split_documents(data_path(name).read_text(encoding="utf-8"))
        assert len(documents) > 300 and all(documents)
    held = split_documents(data_path("perplexity.txt").read_text(encoding="utf-8"))
    entries = [text for text in held if names.zone(text) == names.FROZEN]
    others = [text for text in held if names.zone(text) != names.FROZEN]
    assert 0.85 < len(entries) / len(held) < 1
    assert all(any(telling in text for telling in ("lived", "spent a whole life", "knew")) for text in others)


def test_the_room_is_standard_library_alone() -> None:
    code = "import sys, kick_core.pocket; print([m for m in ('torch', 'numpy', 'tokenizers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOM.parents[1])
    assert done.stdout.strip() == "[]"


def test_unknown_data_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"facts\.csv"):
        data_path("facts.csv")
