"""Logged samples of lm-evaluation-harness in the cache: flips and verdicts, and one line for whatever is foreign."""

import json
import math
import random

import pytest

from kick_core import views
from kick_core.cli import main
from kick_core.store import open_store
from kick_core.tasks.data import lm_eval
from tests import harness

TIME = "2026-01-02T03-04-05.678901"


def choice(n, logprobs, gold, *, task="arc", texts=False, **more):
    """A sample of multiple choice as version 0.4.13 logs it; with `texts` its numbers are texts, as in older ones."""
    options = ("red", "green", "dark blue")
    best = max(range(3), key=lambda at: logprobs[at])
    return {
        "doc_id": n,
        "doc": {"question": f"{task} question {n}?", "choices": list(options), "gold": gold},
        "target": str(gold) if texts else gold,
        "arguments": {
            f"gen_args_{at}": {"arg_0": f"Q {n}", "arg_1": f" {option}"} for at, option in enumerate(options)
        },
        "resps": [[[str(value) if texts else value, "False" if texts else False]] for value in logprobs],
        "filtered_resps": [[value, False] for value in logprobs],
        "filter": "none",
        "metrics": ["acc_norm", "acc"],
        "doc_hash": f"d{n}",
        "prompt_hash": f"p-{task}-{n}",
        "acc": float(best == gold),
        "acc_norm": float(best == gold),
    } | more


def text(n, said, gold, right):
    request = [f"Q: {n}\nA:", {"until": ["\n"]}]
    return {
        "doc_id": n, "doc": {"question": f"What is {n}?"}, "target": gold, "arguments": [request],
        "resps": [[said]], "filtered_resps": [said], "exact_match": right,
    }  # fmt: skip


def write(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return path


def drawn(seed, count=60, task="arc", **more):
    rng = random.Random(seed)
    return [
        choice(n, [rng.gauss(-(at != n % 3) * 2, 1) for at in range(3)], n % 3, task=task, **more) for n in range(count)
    ]


@pytest.fixture
def run(tmp_path, capsys):
    def run(*words):
        status = main(["import-lm-eval", *map(str, words), "--cache", str(tmp_path / "cache")])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_flips_and_verdicts_of_logged_runs(run, tmp_path, monkeypatch):
    dense, other = drawn(1), drawn(2)
    one = write(tmp_path / "dense" / f"samples_arc_easy_{TIME}.jsonl", dense)
    two = write(tmp_path / "wanda-0.5" / f"samples_arc_easy_{TIME}.jsonl", [{**s, "resps": s["resps"]} for s in other])
    status, out, _ = run(one, two, "--model-name", "my-7b", "--json")
    base, document = json.loads(out)["results"]
    assert status == 0 and (base["recipe"], document["recipe"], document["title"]) == ("dense", "wanda@0.5", "arc_easy")
    scorer, before, after = document["scorers"]["acc"], [s["acc"] for s in dense], [s["acc"] for s in other]
    assert scorer["mean"] == sum(after) / 60 and document["headline"] == "acc" and document["n"] == 60
    pairs = list(zip(before, after, strict=True))
    assert scorer["against_dense"]["broke"] == pairs.count((1, 0)) and scorer["against_dense"]["fixed"] == pairs.count(
        (0, 1)
    )
    assert document["scorers"]["accuracy"]["mean"] == scorer["mean"]  # our own reading of the same log-probabilities
    assert run(one, two, "--model-name", "my-7b", "--json")[1] == out  # the same samples are the same runs

    store = open_store(tmp_path / "cache")
    frame = views.scores(store)
    assert set(frame["model"]) == {"my-7b"} and set(frame["engine"]) == {"lm_eval samples"}
    monkeypatch.setenv("KICK_CACHE", str(tmp_path / "cache"))
    for page in ("pages/evaluate.py", "pages/compare.py"):
        harness.run(page)


def test_folders_older_formats_and_written_answers(run, tmp_path):
    for folder, seed in (("base", 1), ("gptq_4bit", 2)):
        for task in ("mmlu_anatomy", "mmlu_virology"):
            write(tmp_path / folder / f"samples_{task}_{TIME}.jsonl", drawn(seed, 20, task, texts=True))
        answers = [text(n, f"{n if n % (seed + 1) else 'no'}", str(n), float(bool(n % (seed + 1)))) for n in range(12)]
        write(tmp_path / folder / f"samples_triviaqa_{TIME}.jsonl", answers)
        write(tmp_path / folder / f"samples_wikitext_{TIME}.jsonl", [{**text(0, "x", "", 0.0), "exact_match": [1, 2]}])
    status, out, err = run(tmp_path / "base", tmp_path / "gptq_4bit", "--json")
    found = {(one["recipe"], one["title"]): one for one in json.loads(out)["results"]}
    assert status == 0 and len(found) == 4 and "no score of a single question" in err
    mmlu, trivia = found["gptq@4bit", "mmlu"], found["gptq@4bit", "triviaqa"]
    assert mmlu["n"] == 40 and [row["group"] for row in mmlu["details"]["by_subject"]][:2] == ["anatomy", "virology"]
    assert (
        trivia["scorers"]["exact_match"]["mean"] == 8 / 12
        and trivia["scorers"]["exact_match"]["against_dense"]["broke"]
    )


def test_groups_are_those_that_the_harness_scores(run, tmp_path):
    """ARC's two tasks stay two; a group with one score of its own is one task, and only it."""
    results = {
        "group_subtasks": {"all": ["bbh"], "bbh": ["bbh_dates", "bbh_sports"], "arc_easy": []},
        "groups": {"bbh": {}},
    }
    tasks = ("arc_easy", "arc_challenge", "bbh_dates", "bbh_sports")
    for folder in ("base", "gptq_4bit"):
        for task in tasks:
            write(tmp_path / folder / "m" / f"samples_{task}_{TIME}.jsonl", drawn(1, 8, task))
        (tmp_path / folder / "m" / f"results_{TIME}.json").write_text(json.dumps(results))
    _, out, _ = run(tmp_path / "base", tmp_path / "gptq_4bit", "--json")
    assert {one["title"]: one["n"] for one in json.loads(out)["results"]} == {
        "arc_easy": 8,
        "arc_challenge": 8,
        "bbh": 16,
    }


def test_names_of_ones_own_lists_and_log_probabilities_of_one_continuation(run, tmp_path):
    samples = [
        choice(n, [0, 0, 0], 0, texts=True) | {"target": " end", "resps": [[[str(-1.5 - n), str(n % 2 == 0)]]]}
        | {"metrics": ["perplexity", "acc"], "perplexity": -1.5 - n, "acc": float(n % 2 == 0)}
        for n in range(6)
    ]  # fmt: skip
    dense = tmp_path / "samples_dense.jsonl"
    dense.write_text(json.dumps(samples, indent=4))  # one list, as versions before 0.4.2 wrote it
    status, out, _ = run(dense, write(tmp_path / "wanda-0.5.jsonl", samples), "--json")
    first, other = json.loads(out)["results"]
    assert status == 0 and other["recipe"] == "wanda@0.5" and list(other["scorers"]) == ["acc"]
    assert first["scorers"]["acc"]["mean"] == other["scorers"]["acc"]["mean"] == 0.5


def test_answers_without_a_number_are_not_judged(run, tmp_path):
    samples = drawn(1, 8)
    samples[0]["acc"], samples[1]["resps"][2][0][0] = math.nan, -math.inf
    status, out, err = run(
        write(tmp_path / "a.jsonl", drawn(1, 8)), write(tmp_path / "wanda@0.5.jsonl", samples), "--json"
    )
    scorers = json.loads(out)["results"][1]["scorers"]
    assert status == 0 and scorers["acc"]["n"] == 6 and scorers["accuracy"]["n"] == 7
    assert "2 of 8 not judged: 1 logits not finite, 1 the harness logged no number" in err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], "line 1 is not JSON"),
        (["[1]"], "line 1: a JSON object is expected"),
        (['{"a": 1}'], "line 1 lacks 'doc'"),
        ([""], "holds no sample"),
        (["[" * 100_000], "line 1 is not JSON"),
        ([json.dumps({"doc": {}, "resps": [], "target": 1})], "line 1, resps"),
        ([json.dumps(choice(0, [0, 0, 0], 7))], "sample 1, target: '7' is none of the options 'red, green"),
        ([json.dumps(choice(0, [0, 0, 0], 1) | {"arguments": {}})], "3 answers to 0 requests"),
        ([json.dumps(text(0, 5, "x", 1.0))], "neither log-probabilities of continuations nor"),
        ([json.dumps(choice(0, [0, 0, 0], 1))] * 2, "a question more than once"),
        ([json.dumps(choice(0, [0, 0, 0], 1)), json.dumps(text(1, "a", "b", 1.0))], "sample 2: options and written"),
        ([json.dumps({**text(0, "a", "b", 1.0), "exact_match": None})], "no score of a single question"),
    ],
)
def test_foreign_files_get_one_line(run, tmp_path, lines, message):
    good = write(tmp_path / "good.jsonl", drawn(1, 3))
    bad = tmp_path / "wanda-0.5" / "bad.jsonl"
    bad.parent.mkdir()
    bad.write_text("\n".join(lines))
    for pair in ((bad, good), (good, bad)):
        status, _, err = run(*pair, "--recipe", "wanda@0.5")
        assert status == 2 and message in err and err.count("\n") == 1


def test_what_cannot_be_compared_is_refused(run, tmp_path):
    dense = write(tmp_path / "dense.jsonl", drawn(1, 3))
    for name, samples, message in (
        ("shots", [{**s, "prompt_hash": "other"} for s in drawn(2, 3)], "3 of 3 prompts are not those of dense"),
        (
            "metrics",
            [{**s, "metrics": ["acc"]} for s in drawn(2, 3)],
            "scored by choose, acc, dense scored by choose, acc, acc_norm",
        ),
        ("targets", [{**s, "target": 0} for s in drawn(2, 3)], "2 of 3 targets are not those of dense"),
        ("filter", [{**s, "filter": "strict"} for s in drawn(2, 3)], "read by the filter strict, dense read by"),
        ("rows", [{**s, "doc_id": 9 + s["doc_id"]} for s in drawn(2, 3)], "no question is one that dense was asked"),
    ):
        other = write(tmp_path / name / "dense.jsonl", samples)
        assert message in run(dense, other, "--recipe", "wanda@0.5")[2]
    assert "what was done to the model of" in run(dense, other)[2]
    assert "1 --recipe for 2" in run(dense, other, other, "--recipe", "wanda@0.5")[2]
    assert "dense stands first" in run(dense, other, "--recipe", "dense")[2]
    assert "unknown method" in run(dense, other, "--recipe", "foo@0.5")[2]


def test_gold_by_place_letter_or_text():
    assert [lm_eval._gold("", target, ["a", " b", "c"]) for target in (1, "1", "B", "b", ["b"])] == [1] * 5
