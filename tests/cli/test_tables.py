"""What the shell prints of an evaluation: Markdown, CSV, samples, standard errors, worked examples, warnings."""

import csv
import io
import json

import pytest
from transformers import AutoTokenizer

from kick_core import views
from kick_core.cli import main
from kick_core.cli.formats import print_table
from kick_core.evaluation.session import prompt_hash
from kick_core.store import open_store, results
from tests import official


@pytest.fixture(scope="module")
def kick(tmp_path_factory, request):
    cache = tmp_path_factory.mktemp("tables")

    def run(capsys, *words):
        status = main([*map(str, words), "--cache", str(cache)])
        said = capsys.readouterr()
        return status, said.out, said.err

    run.store = lambda: open_store(str(cache))
    return run


def test_one_evaluation_in_every_format(kick, capsys, tiny_folder):
    words = ("evaluate", tiny_folder, "magnitude@0.5", "--task", "multiple_choice", "--limit", 12)
    status, out, _ = kick(capsys, *words, "--json")
    document = json.loads(out)["results"][0]
    scorer = document["scorers"]["accuracy"]
    assert status == 0 and document["task_version"] == 2 and document["shots"] is document["fewshot_seed"] is None
    share = scorer["mean"]
    assert scorer["stderr"] == pytest.approx((share * (1 - share) / 11) ** 0.5)
    for row in document["details"]["by_subject"][:-1]:
        assert row["low"] <= row["mean"] <= row["high"] and row["n"] >= 1

    rows = list(csv.DictReader(io.StringIO(kick(capsys, *words, "--format", "csv")[1])))
    (mine,) = (row for row in rows if row["headline"] == "True")
    assert float(mine["score"]) == share and float(mine["stderr"]) == scorer["stderr"] and mine["task_version"] == "2"
    assert {row["scorer"] for row in rows} == set(document["scorers"])

    lines = kick(capsys, *words, "--format", "md")[1].splitlines()
    assert lines[0].startswith("| recipe | task | n | score |") and lines[1].startswith("|---|---|---:|")
    assert lines[2].startswith(f"| magnitude@0.5 | multiple_choice | 12 | {share:.3f} |")

    run = document["run"]
    samples = list(csv.DictReader(io.StringIO(kick(capsys, "show", run, "--format", "csv")[1])))
    assert len(samples) == 12 and sum(float(row["score"]) for row in samples) / 12 == share
    subject = samples[0]["subject"]
    own = json.loads(kick(capsys, "show", run, "--subject", subject, "--json")[1])["samples"]
    assert {row["id"] for row in own} == {row["id"] for row in samples if row["subject"] == subject}
    status, out, _ = kick(capsys, "show", run, "--id", samples[3]["id"])
    assert status == 0 and samples[3]["question"] in out and out.startswith(f"id: {samples[3]['id']}")
    assert "nearest are" in kick(capsys, "show", run, "--id", "nothing")[2]
    assert kick(capsys, "list", "--format", "csv")[1].startswith("artifact,model,recipe")
    assert f"{run},{tiny_folder}" in kick(capsys, "score", "--format", "csv")[1]


def test_shots_seeds_and_what_a_task_has_not(kick, capsys, tiny_folder, tmp_path):
    official.mmlu(tmp_path, {"anatomy": 4})
    words = ("evaluate", tiny_folder, "dense", "--task", "multiple_choice", "--data", tmp_path)
    prompts = []
    for more in (("--shots", 2), ("--shots", 2, "--fewshot-seed", 1), ("--shots", 2, "--fewshot-seed", 1)):
        status, out, _ = kick(capsys, *words, *more, "--json")
        document = json.loads(out)["results"][0]
        assert status == 0 and document["shots"] == 2 and document["details"]["shots"] == [{"shots": 2, "count": 4}]
        prompts.append(document["run"])
    assert prompts[0] != prompts[1] == prompts[2]
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    for run in prompts[:2]:
        samples = json.loads(kick(capsys, "show", run, "--samples", "--json")[1])["samples"]
        sent = {o.example: o.prompt_hash for o in results.outputs(kick.store(), run)}
        shown = {s["id"]: tokenizer(s["prompt"], add_special_tokens=False)["input_ids"] for s in samples}
        assert {name: prompt_hash(ids) for name, ids in shown.items()} == sent
    _, out, _ = kick(capsys, *words, "--shots", 2, "--fewshot-seed", 1)
    assert "multiple_choice version 2, 2 shots, few-shot seed 1" in out
    assert "5 worked examples at most" in kick(capsys, *words, "--shots", 6)[2]
    pocket = ("evaluate", tiny_folder, "dense", "--task", "factoid_qa", "--limit", 2)
    assert "no worked examples to show" in kick(capsys, *pocket, "--shots", 1)[2]
    assert "always alike" in kick(capsys, *pocket, "--repeats", 2)[2]
    facts = ("evaluate", tiny_folder, "dense", "--task", "world_facts", "--limit", 2, "--shots", 2, "--prompting")
    assert "leave one of them out" in kick(capsys, *facts, "shots:1")[2]


def test_a_task_file_from_the_shell(kick, capsys, tiny_folder, tmp_path):
    (tmp_path / "rows.csv").write_text(
        "question,answer,stop\nOne?,one,x\nTwo?,!!,x\nThree?,three,x\n".replace("!!", "two")
    )
    file = tmp_path / "own.yaml"
    file.write_text('name: counting\ndata: rows.csv\nprompt: "Q: {question}\\nA:"\nscorer: contains\nstop: ["t"]\n')
    words = ("evaluate", tiny_folder, "magnitude@0.5", "--task-file", file)
    status, out, err = kick(capsys, *words)
    assert status == 0 and "counting" in out and "2 of 3 questions can never be right" in err
    run = json.loads(kick(capsys, *words, "--json")[1])["results"][0]["run"]
    file.unlink()
    assert json.loads(kick(capsys, "show", run, "--samples", "--json")[1])["samples"][0]["scores"].keys() >= {
        "contains"
    }
    assert "leave --data out" in kick(capsys, *words, "--data", "pocket")[2]
    assert "leave one of them out" in kick(capsys, *words, "--task", "factoid_qa")[2]


def test_examples_chosen_by_id_or_subject(kick, capsys, tiny_folder):
    words = ("evaluate", tiny_folder, "magnitude@0.5", "--task", "factoid_qa")
    first = json.loads(kick(capsys, *words, "--limit", 6, "--json")[1])["results"][0]
    samples = json.loads(kick(capsys, "show", first["run"], "--samples", "--json")[1])["samples"]
    ids = [samples[4]["id"], samples[1]["id"]]
    status, out, _ = kick(capsys, *words, "--ids", ",".join(ids), "--limit", 1, "--json")
    part = json.loads(out)["results"][0]
    assert status == 0 and part["n"] == 1 and part["total"] == 2 and part["run"] != first["run"]
    assert part["chosen"] == {"ids": 2, "of": 600} and first["chosen"] is None
    _, out, _ = kick(capsys, *words, "--ids", ",".join(ids))
    assert "2 of 600 examples, chosen" in out
    shown = json.loads(kick(capsys, "show", part["run"], "--samples", "--json")[1])["samples"]
    assert shown == [samples[1], samples[4]], "in the task's order, with the very answers of the whole run"

    subject = samples[0]["subject"]
    _, out, _ = kick(capsys, *words, "--subject", subject, "--limit", 2, "--json")
    part = json.loads(out)["results"][0]
    assert part["n"] == 2 and part["chosen"] == {"subject": subject, "of": 600} and part["total"] < 600
    assert {
        row["subject"] for row in json.loads(kick(capsys, "show", part["run"], "--samples", "--json")[1])["samples"]
    } == {subject}
    store = kick.store()
    assert set(views.scores(store)["run"]) & {first["run"], part["run"]} == {first["run"]}
    for wrong, message in (
        (("--ids", "nothing"), "has no example 'nothing'; the nearest are"),
        (("--ids", ","), "--ids names no example"),
        (("--subject", "nothing"), "unknown subject 'nothing'"),
        (("--task", "perplexity", "--ids", ids[0]), "perplexity reads running text"),
    ):
        status, _, err = kick(capsys, *words, *wrong)
        assert status == 2 and message in err


def test_questions_without_a_gold_are_said_once(kick, capsys, tiny_folder, tmp_path):
    (tmp_path / "nq_open").mkdir()
    rows = ({"question": f"question {number}", "answer": ["The"] if number else ["one"]} for number in range(3))
    (tmp_path / "nq_open" / "NQ-open.dev.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    status, out, err = kick(
        capsys, "evaluate", tiny_folder, "dense", "magnitude@0.5", "--task", "nq_open", "--data", tmp_path, "--json"
    )
    assert status == 0 and err.count("2 of 3 questions are not judged") == 1 and " of 3 not judged" not in err
    for result in json.loads(out)["results"]:
        assert result["n"] == 1 and result["scorers"]["stated"]["unjudged"] == 2 and len(result["warnings"]) == 1


def test_cells_are_harmless_in_every_format(capsys):
    rows = [["=1+1", "a|b\x1b[2J"], ["-3.5", "–"]]
    for form, first in (("csv", "'=1+1,a|b\x1b[2J"), ("md", "| =1+1 | a\\|b?[2J |"), ("table", "=1+1  a|b?[2J")):
        print_table(("x", "y"), rows, form)
        assert capsys.readouterr().out.splitlines()[-2] == first
