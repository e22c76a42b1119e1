"""The first hour with one's own model: what cannot be read or asked is said in a line, and stops nothing else."""

import json
import shutil

import pytest

from kick_core.cli import main
from tests import official


def test_one_missing_file_stops_no_other_task(tiny_folder, tmp_path, capsys):
    official.mmlu(tmp_path / "data", {"anatomy": 4})
    names = ["--task", "factoid_qa", "--task", "multiple_choice"]
    words = ["evaluate", str(tiny_folder), "dense", *names, "--data", str(tmp_path / "data"), "--limit", "2"]
    words += ["--cache", str(tmp_path / "cache")]
    assert main([*words, "--json"]) == 1
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert [one["task"] for one in document["results"]] == ["multiple_choice"]
    assert "FreebaseQA" in document["skipped"]["factoid_qa"]
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("kick: not measured: factoid_qa (") and last.endswith("everything else is done and kept")
    assert main(words) == 1 and "multiple_choice" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "data" / "mmlu")
    assert main(words) == 2  # nothing is left to measure
    assert len(capsys.readouterr().err.strip().splitlines()[-1].split("kick: ")) == 2


@pytest.fixture(scope="module")
def short_folder(tiny_folder, tmp_path_factory):
    """A model whose context is no longer than many an answer may be."""
    folder = tmp_path_factory.mktemp("short") / "model"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))
    return folder


def test_a_short_context_has_room_for_a_question(short_folder, tmp_path, capsys):
    words = ["evaluate", str(short_folder), "dense", "--task", "world_facts", "--limit", "4", "--cache", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["results"]
    assert one["n"] == 4


def test_what_has_no_room_is_no_number(short_folder, tmp_path, capsys):
    words = ["evaluate", str(short_folder), "dense", "magnitude@0.5", "--task", "retrieval_qa_open", "--data", "pocket"]
    assert main([*words, "--limit", "4", "--cache", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "nan" not in said.out and "100.0%" not in said.out
    assert "4 of 4 not judged: 4 longer than the context of 64 tokens" in said.err
    assert main(["check", str(short_folder), "--tasks", "retrieval_qa_open", "--data", "pocket", "--limit", "4",
                 "--cache", str(tmp_path)]) == 0  # fmt: skip
    assert "cannot be measured on this task, because no question could be asked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--prompting", "shots:900"], "worked examples, so 0 to"),
        (["--prompting", "often"], "is not understood: auto, raw, chat or shots:K"),
        (["--task", "mine.csv"], "give your own questions with --data mine.csv"),
        (["--task", "mine.yaml"], "give a task of your own with --task-file mine.yaml"),
        (["--data", "EMPTY"], "is empty: it names the columns"),
        (["--data", "EQUAL"], "at least two that differ are needed"),
        (["--data", "UNANSWERED"], "the column 'answer' is missing or empty"),
        (["--data", "LARGE"], "has 80 MB, at most 64 MB are read"),
        (["--data", "/nowhere/at/all.csv"], "is not there"),
        (["--task", "world_facts", "--data", "ONE"], "world_facts cannot be asked on"),
        (["--task", "world_facts", "--data", "my.tsv"], "or a .csv or .jsonl file of your own questions"),
    ],
)
def test_bad_input_is_one_line(tiny_folder, tmp_path, capsys, more, message):
    texts = {
        "EMPTY": "", "ONE": "question,answer\nWhy?,x\n",
        "EQUAL": "question,answer,options\nWhy?,x,x|X\n", "UNANSWERED": "question,answer\nWhy?,\n"
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
    with open(tmp_path / "LARGE.csv", "wb") as file:
        file.truncate(80 << 20)
    more = [str(tmp_path / f"{word}.csv") if word in (*texts, "LARGE") else word for word in more]
    task = [] if "--data" in more else ["--task", "world_facts"]
    assert (
        main(["evaluate", str(tiny_folder), "dense", *task, *more, "--limit", "2", "--cache", str(tmp_path / "cache")])
        == 2
    )
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("kick: ")]
    assert len(lines) == 1 and message in lines[0]
