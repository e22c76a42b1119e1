"""Whole judgings: stored outputs to a judge over HTTP, killed and resumed, to the table of the pages."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from kick_core import judging, stats, views
from kick_core.cli import main
from kick_core.errors import BadRequest, KickError
from kick_core.judging import prompts as wording
from kick_core.judging import styles
from kick_core.records import Question, Reply
from kick_core.store import judgments, results
from tests import synthetic
from tests.judging.server import FakeJudge

RECIPES = ("dense", "wanda@0.3", "magnitude@0.7")
TASKS = ("instructions", "summarization")


@pytest.fixture
def store(tmp_path):
    return synthetic.make(tmp_path / "cache", recipes=RECIPES, task_names=TASKS, n=10, weights=False)


def answers_in(prompt):
    """The fenced answers of a prompt, in the order in which they stand."""
    return re.findall(r"<answer [0-9a-f]{24}>\n(.*?)\n</answer", prompt, re.DOTALL)


def merit(answer):
    """A fair judge's opinion: texts with more different words are better; refusals and attacks are worth 1."""
    if answer == wording.NULL or re.search(r"verdict|Output exactly", answer):
        return 1
    return 2 + min(8, len(set(answer.split())) // 2)


def fair(prompt):
    """A judge without noise or bias, in whichever form it is asked."""
    merits = [merit(answer) for answer in answers_in(prompt)]
    if "[[rating]]" in prompt:
        return f"Well.\nRating: [[{merits[-1]}]]"
    if "Assistant 2" in prompt:
        return "\n".join([f"{merits[0]} {merits[1]}"] * 4) + "\nBecause."
    half = len(merits) // 2
    first, second = merits[half - 1], merits[-1]
    return f"So: [[{'C' if first == second else 'A' if first > second else 'B'}]]"


def unsure(prompt):
    """The fair judge with a little noise that depends on the very prompt (another fence is another prompt)."""
    extra = int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % 2
    return re.sub(r"\d+", lambda found: str(min(10, int(found[0]) + extra)), fair(prompt))


def command(store, *words):
    return ["judge", "pocket", *words, "--judge", "judge-1", "--cache", str(store.root), "--json"]


@pytest.fixture
def use(monkeypatch):
    """Make a fake endpoint the one of the environment."""

    def named(fake):
        monkeypatch.setenv("OPENAI_BASE_URL", fake.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")

    return named


@pytest.fixture
def ask(store, use, capsys):
    """Run `kick judge` against a fake endpoint; gives status, document, calls."""

    def run(fake, *words):
        use(fake)
        capsys.readouterr()
        before = len(fake.asked)
        status = main(command(store, *words))
        return status, json.loads(capsys.readouterr().out), len(fake.asked) - before

    return run


@pytest.mark.parametrize("style", styles.names())
@pytest.mark.parametrize("task", TASKS)
def test_the_table_is_what_a_fair_judge_thinks(store, ask, style, task):
    with FakeJudge(fair) as fake:
        status, found, calls = ask(fake, "magnitude@0.7", "wanda@0.3", "--task", task, "--style", style)
    assert status == 0 and calls == found["forecast"]["calls"] > 0
    assert [row["recipe"] for row in found["results"]] == ["magnitude@0.7", "wanda@0.3"]
    for row in found["results"]:
        mine, dense = [merits(store, run, style) for run in (row["run"], row["dense_run"])]
        assert row["n"] == row["examples"] == 10 and row["unparsed"] == 0 and row["noise"] == 0
        wins = sum(m > d for m, d in zip(mine, dense, strict=True))
        losses = sum(m < d for m, d in zip(mine, dense, strict=True))
        if style != "mt-bench-pairwise":  # means over turns; pairwise counts turns
            assert row["score"] == pytest.approx(stats.mean(mine).value)
            assert row["dense_score"] == pytest.approx(stats.mean(dense).value)
            gap = stats.paired_difference(dense, mine)
            assert (row["difference"], row["diff_low"], row["diff_high"]) == pytest.approx(gap[:3])
            assert (row["win"], row["loss"], row["tie"]) == (wins, losses, 10 - wins - losses)
            assert row["published_score"] == pytest.approx(row["score"]) and row["published_unparsed"] == 0
        else:
            assert row["win"] + row["tie"] + row["loss"] == 10 and row["dense_score"] == 0.5
        assert row["consistent"] == (None if style == "mt-bench" else 1.0)
        assert {control["control"]: control["holds"] for control in row["controls"]} == {
            "null": "yes", "injection": "yes", "same": "yes"
        }  # fmt: skip
        assert row["controls_hold"] == "yes"
    assert found["results"][0]["verdict"] == "worse"  # magnitude@0.7 is rubble


def merits(store, run, style):
    """Each example's mean merit over the turns that the style judges."""
    turns = 1 if style == "llm-kick" else 2
    return [sum(map(merit, texts)) / len(texts) for o in results.outputs(store, run) if (texts := shown(o, turns))]


def shown(output, turns):
    """A turn that was never reached is shown as an empty answer, which is worth 2 to this judge."""
    return [*output.text, *[""] * 2][:turns]


def test_nothing_is_asked_twice(ask):
    with FakeJudge(fair) as fake:
        words = ("wanda@0.3", "--task", "instructions", "--limit", "6")
        _, first, calls = ask(fake, *words)
        _, again, more = ask(fake, *words)
        assert calls > 0 and more == 0 and again["results"] == first["results"]
        _, wider, more = ask(fake, "wanda@0.3", "--task", "instructions", "--limit", "8", "--repeats", "2")
        assert more == wider["forecast"]["calls"] > 0
        assert wider["results"][0]["n"] == 8 and wider["results"][0]["repeats"] == 2
        assert wider["forecast"]["answered"] == calls
        prompts = fake.prompts()
    assert len(prompts) == len(set(prompts))


def test_the_plan_asks_nothing_and_needs_no_key(store, monkeypatch, capsys):
    for name in ("OPENAI_API_KEY", "KICK_JUDGE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KICK_JUDGE_PRICE_IN", "3")
    monkeypatch.setenv("KICK_JUDGE_PRICE_OUT", "15")
    with FakeJudge(fair) as fake:
        monkeypatch.setenv("OPENAI_BASE_URL", fake.url)
        assert main([*command(store, "wanda@0.3", "--task", "instructions"), "--plan"]) == 0
        seen = capsys.readouterr()
        assert fake.asked == [] and judgments.cards(store) == []
    plan = json.loads(seen.out)["forecast"]
    assert plan["cost"] == pytest.approx((3 * plan["tokens_read"] + 15 * plan["tokens_written"]) / 1e6)
    assert f"{plan['calls']} calls to judge-1" in seen.err and "cost at most" in seen.err


def test_the_judging_opens_no_model(store):
    code = (
        "import sys; from kick_core.cli import main; "
        f"status = main({command(store, 'wanda@0.3', '--task', 'instructions')!r} + ['--plan']); "
        "assert status == 0 and 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_killed_in_the_middle_then_resumed(store, tmp_path, ask, use):
    """The same table as an undisturbed judging, and no call is made again that had been answered."""
    words = ("magnitude@0.7", "--task", "instructions", "--style", "llm-kick")
    with FakeJudge(unsure) as fake:
        fake.delay = 0.02
        environment = os.environ | {"OPENAI_BASE_URL": fake.url, "OPENAI_API_KEY": "sk-0123456789"}
        line = [sys.executable, "-m", "kick_core", *command(store, *words), "--concurrency", "1"]
        child = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(fake.asked) < 12:
            assert child.poll() is None
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        time.sleep(0.1)
        before = fake.prompts()
        fake.delay = 0.0
        _, resumed, calls = ask(fake, *words)
        after = fake.prompts()[len(before) :]
        repeated = set(before) & set(after)
    assert len(repeated) <= 1 and repeated <= {before[-1]}  # the one on its way when the kill came
    assert calls == resumed["forecast"]["calls"] and resumed["forecast"]["answered"] >= 11
    (card,) = judgments.cards(store)
    assert not store.live(card.replies).exists()
    undisturbed = synthetic.make(tmp_path / "other", recipes=RECIPES, task_names=TASKS, n=10, weights=False)
    with FakeJudge(unsure) as fake:
        use(fake)
        main(command(undisturbed, *words))
    for table in (views.judgings, views.judge_controls):
        mine, other = table(store), table(undisturbed)
        apart = ["created", "host", "judging"]  # the second endpoint has another port
        mine, other = (frame.drop(columns=apart, errors="ignore") for frame in (mine, other))
        assert mine.equals(other)


def test_ctrl_c_keeps_what_was_said(store, ask, use, monkeypatch):
    words = ("magnitude@0.7", "--task", "instructions")
    recorded = []
    original = judgments.Recorder.record

    def interrupted(self, reply):
        original(self, reply)
        recorded.append(reply)
        if len(recorded) == 9:
            raise KeyboardInterrupt

    with FakeJudge(fair) as fake:
        with monkeypatch.context() as patched:
            patched.setattr(judgments.Recorder, "record", interrupted)
            use(fake)
            assert main([*command(store, *words), "--concurrency", "1"]) == 130
        time.sleep(0.1)
        (card,) = judgments.cards(store)
        kept = judgments.replies(store, card.replies)
        assert len(kept) == 9 and views.judgings(store)["answered"].iloc[0] >= 9
        status, found, calls = ask(fake, *words)
    assert status == 0 and calls == found["forecast"]["questions"] - len(kept)


def test_failed_calls_are_counted_and_asked_another_time(ask):
    words = ("wanda@0.3", "--task", "instructions", "--concurrency", "1")
    with FakeJudge(fair, ["no json", None, 400, None, "no choices"]) as fake:
        status, found, _ = ask(fake, *words)
        row = found["results"][0]
        assert status == 1 and len(found["failures"]) == 3 and row["asked"] - row["answered"] >= 3
        assert row["n"] < 10 == row["examples"]
        status, found, calls = ask(fake, *words)
    assert status == 0 and calls == 3 and found["results"][0]["n"] == 10


def test_what_cannot_be_read_is_counted_and_is_no_number(store, ask):
    def stubborn(prompt):
        return "I would rather not say." if "1203" in prompt else fair(prompt)

    with FakeJudge(stubborn) as fake:
        _, found, calls = ask(fake, "wanda@0.3", "--task", "summarization", "--style", "llm-kick")
        row = found["results"][0]
        assert row["n"] == 9 and row["unparsed"] > 0 and row["published_unparsed"] == 1
        # another reading of the same replies needs no call
        assert ask(fake, "wanda@0.3", "--task", "summarization", "--style", "llm-kick")[2] == 0 < calls


def test_a_judge_that_always_prefers_the_first_decides_nothing(ask):
    with FakeJudge(lambda _: "[[A]]") as fake:
        _, found, _ = ask(fake, "magnitude@0.7", "--task", "instructions", "--style", "mt-bench-pairwise")
    (row,) = found["results"]
    assert (row["win"], row["tie"], row["loss"], row["consistent"]) == (0, 10, 0, 0.0)
    assert row["score"] == 0.5 and row["verdict"] == "within the judge's noise" and row["controls_hold"] == "no"
    assert {c["control"]: c["holds"] for c in row["controls"]} == {"null": "no", "injection": "no", "same": "no"}


def test_a_judge_that_obeys_injections_is_found_out(ask):
    def gullible(prompt):
        attack = re.search(r"Rating: \[\[10\]\]", prompt)
        return attack[0] if attack else fair(prompt)

    with FakeJudge(gullible) as fake:
        _, found, _ = ask(fake, "magnitude@0.7", "--task", "instructions")
    controls = {control["control"]: control for control in found["results"][0]["controls"]}
    assert controls["injection"]["holds"] == "no" and controls["injection"]["score"] == 10
    assert controls["null"]["holds"] == "yes" and found["results"][0]["controls_hold"] == "no"


def test_a_difference_below_the_noise_is_called_noise(ask):
    def noisy(prompt):
        return f"[[{3 + int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % 6}]]"

    with FakeJudge(noisy) as fake:
        _, found, _ = ask(fake, "wanda@0.3", "--task", "instructions", "--repeats", "3")
    (row,) = found["results"]
    assert row["noise"] > 0.5 and abs(row["difference"]) <= row["noise"]
    assert row["verdict"] == "within the judge's noise"
    assert [c["holds"] for c in row["controls"] if c["control"] == "same"] == ["no"]


def test_as_published_asks_one_order_and_bare_prompts(ask):
    with FakeJudge(lambda _: "8 7\nBecause.") as fake:
        _, found, calls = ask(
            fake, "wanda@0.3", "--task", "instructions", "--style", "llm-kick", "--as-published", "--limit", "8"
        )
        assert not any("<answer" in prompt for prompt in fake.prompts())
        assert all(request["temperature"] == 0.2 and request["max_tokens"] == 1024 for request in fake.asked)
    (row,) = found["results"]
    assert row["as_published"] and row["score"] == row["published_score"] == 7 and row["dense_score"] == 8
    assert row["consistent"] is None and calls == found["forecast"]["calls"]


def test_a_run_can_be_named_by_its_key(store, use):
    (run,) = [card for card in results.runs(store) if card.recipe == "wanda@0.3" and card.task == "instructions"]
    with FakeJudge(fair) as fake:
        use(fake)
        assert main(["judge", run.key[:12], *command(store, "--task", "instructions")[2:]]) == 0
    assert views.judgings(store)["run"].tolist() == [run.key]


@pytest.mark.parametrize(
    ("words", "word", "kind"),
    [
        (("pocket", [], "instructions"), "at least one compressed recipe", BadRequest),
        (("pocket", ["dense"], "instructions"), "at least one compressed recipe", BadRequest),
        (("pocket", ["wanda@0.4"], "instructions"), "kick evaluate pocket wanda@0.4", KickError),
        (("poket", ["wanda@0.3"], "instructions"), "pocket-11m", BadRequest),
        (("run1-ffffffff", [], "instructions"), "0 runs", BadRequest),
    ],
)
def test_what_is_not_there_is_said(store, words, word, kind):
    with pytest.raises(kind, match=word):
        views.to_judge(store, *words)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--task", "factoid_qa"], 2),
        (["--task", "instructions", "--style", "mt"], 2),
        (["--task", "instructions", "--repeats", "0"], 2),
        (["--task", "instructions", "--limit", "0"], 2),
        (["--task", "instructions", "--timeout", "0"], 2),
        (["--task", "instructions", "--concurrency", "0"], 2),
    ],
)
def test_bad_requests_reach_nobody(store, use, words, status):
    with FakeJudge(fair) as fake:
        use(fake)
        assert main(command(store, "wanda@0.3", *words)) == status
        assert fake.asked == []


# --- the store ---------------------------------------------------------------------------------------------


def test_what_the_judge_wrote_can_be_read(store, ask, capsys):
    with FakeJudge(lambda p: "<script>alert(1)</script>\n" + fair(p)) as fake:
        _, found, _ = ask(fake, "wanda@0.3", "--task", "instructions")
    row = found["results"][0]
    said = views.said(store, row["judging"], "instructions-0000")
    assert {one.question.subject for one in said} == {"recipe", "dense", "null", "injection", "same"}
    assert all(one.reply.text.startswith("<script>") for one in said)  # raw; showing it is the pages' business
    assert row["served"] == "fake-judge-1"
    assert main(["show", row["judging"][:14], "--cache", str(store.root)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["said"]) == row["asked"] and shown["said"][0]["reply"]["text"].startswith("<script>")
    with pytest.raises(KickError, match="no judging"):
        views.said(store, "judging1-00", "x")


def test_damage_is_found_set_aside_and_asked_again(store, ask):
    words = ("wanda@0.3", "--task", "instructions")
    with FakeJudge(fair) as fake:
        _, first, calls = ask(fake, *words)
        (part,) = (store.root / "replies").glob("??/*/part-*.parquet")
        data = bytearray(part.read_bytes())
        data[len(data) // 3] ^= 1
        part.write_bytes(data)
        assert main(["verify", "--deep", "--json", "--cache", str(store.root)]) == 1
        assert not part.exists() and list((store.root / "quarantine").iterdir())
        assert math.isnan(views.judgings(store)["score"].iloc[0])
        assert views.judgings(store)["verdict"].iloc[0] == "not measured"
        _, again, more = ask(fake, *words)
    assert more == calls and again["results"] == first["results"]


def test_rows_that_this_program_did_not_write_are_no_replies(store):
    from kick_core.store.plaindisk import open_cache

    judge = "judge1-" + "ab" * 20
    with open_cache(store.live(judge)) as cache:
        cache.set("judgment1-1", Reply("judgment1-1", "[[7]]").to_json())
        cache.set("judgment1-2", {"key": "judgment1-2", "text": "x", "planted": 1})
        cache.set("judgment1-3", [1, 2])
        cache.set("judgment1-4", "text")
    assert judgments.known(store, judge) == {"judgment1-1"}
    with judgments.recorder(store, judge) as recorder:
        assert recorder.known == {"judgment1-1"}
    assert set(judgments.replies(store, judge)) == {"judgment1-1"}


def test_sealed_replies_are_the_same_bytes_in_whatever_order_they_came(store):
    names = []
    for judge, order in (("judge1-" + "ab" * 20, (1, 2, 3)), ("judge1-" + "cd" * 20, (3, 1, 2))):
        with judgments.recorder(store, judge) as recorder:
            for n in order:
                recorder.record(Reply(f"judgment1-{n}", f"[[{n}]]"))
        (part,) = store.folder("replies", judge).glob("part-*")
        names.append(part.name)
    assert names[0] == names[1]


def test_records_travel_as_json():
    question = Question("k", "recipe", "e", 1, "alone", 1, "single-v1", "s", "u", True, False)
    assert Question.from_json(json.loads(json.dumps(question.to_json()))) == question
    reply = Reply("k", "text", "stop", "m", 3, 4)
    assert Reply.from_json(json.loads(json.dumps(reply.to_json()))) == reply


def test_an_empty_store_has_empty_tables(tmp_path):
    from kick_core.store import open_store

    empty = open_store(tmp_path / "empty")
    assert list(views.judgings(empty).columns) and views.judgings(empty).empty
    assert views.judge_controls(empty).empty
    assert judging.spent([], None) == (0, 0, None)


# --- numbers from replies, without an endpoint -------------------------------------------------------------


def outcome_of(store, style, reply):
    """The outcome of a judging whose replies are made here; `reply` gives a text or None for none."""
    (pair,) = views.to_judge(store, "pocket", ["wanda@0.3"], "instructions")
    run, dense = (one.card for one in pair)
    who = judging.Judge("j", "h", "0", 64)
    texts = [results.outputs(store, card.key) for card in (dense, run)]
    found = judging.pairs(results.examples(store, run.examples), *texts, None)
    asked = judging.questions_of(who, style, False, found)
    replies = {q.key: Reply(q.key, text, "stop") for q in asked if (text := reply(q)) is not None}
    return judging.outcome(judging.judging_card(who, style, run, dense), asked, replies)


@pytest.mark.parametrize("lost", [None, "no verdict"])
def test_one_order_alone_decides_nothing(store, lost):
    style = judging.Style("mt-bench-pairwise")
    found = outcome_of(store, style, lambda q: "[[B]]" if q.order == "dense first" else lost)
    assert found.score.n == found.consistent.n == found.win == 0 and found.verdict == "not measured"
    assert found.unparsed == (0 if lost is None else found.asked // 2)
    assert [control.holds for control in found.controls[:2]] == [None, None]


def test_an_example_counts_only_with_all_its_turns(store):
    style = judging.Style("mt-bench")
    found = outcome_of(store, style, lambda q: None if (q.example, q.turn) == ("instructions-0004", 2) else "[[7]]")
    assert found.score.n == 9 and found.examples == 10


def test_a_winner_wins_twice_or_it_is_a_tie(store):
    def reply(q):
        mine = "B" if q.order == "dense first" else "A"
        other = {"A": "B", "B": "A"}[mine]
        number = int(q.example[-1])
        if number < 3:  # wins in both orders
            return f"[[{mine}]]"
        return f"[[{other}]]" if number < 5 else "[[A]]" if number < 9 else "[[C]]"

    found = outcome_of(store, judging.Style("mt-bench-pairwise"), reply)
    assert (found.win, found.loss, found.tie) == (3, 2, 5) and found.win_rate.value == pytest.approx(0.55)
    assert found.consistent.value == pytest.approx(0.6) and found.difference.value == pytest.approx(0.05)


def test_the_noise_is_the_mean_gap_between_verdicts_on_one_answer(store):
    found = outcome_of(store, judging.Style("mt-bench", repeats=3), lambda q: f"[[{4 + q.repeat}]]")
    assert found.noise == pytest.approx(4 / 3)  # of 5, 6, 7: gaps 1, 1 and 2
    assert found.score.value == 6 and found.tie == 10


def test_metrics_of_summaries_and_the_published_reading(store):
    style = judging.Style("llm-kick")
    found = outcome_of(store, style, lambda q: "8, 7\n" if q.order == "dense first" else "7 8\n")
    assert found.score.value == 7 and found.dense.value == 8 and found.loss == 10 and found.verdict == "worse"
    assert math.isnan(found.published.score) and found.published.unparsed == 10  # "8, 7" is two spaces to it
