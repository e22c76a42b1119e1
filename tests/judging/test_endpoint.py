"""Over real HTTP against an endpoint that misbehaves; and the key, which must be found nowhere."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import subprocess
import sys
import time
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kick_core.cli import main
from kick_core.errors import BadRequest
from kick_core.judging import Caller, Failure, Judge, endpoint
from kick_core.judging.openai import Scrubber, judge_name
from kick_core.judging.provider import PATIENCE, replies
from kick_core.records import Question, Reply
from tests import synthetic
from tests.judging.server import FakeJudge

SENTINEL = "sk-sentinel/7f+Qz93KpLw0VbXy82mN"
DISGUISES = [
    SENTINEL,
    SENTINEL.encode().hex(),
    *(base64.b64encode(b"x" * n + SENTINEL.encode()).decode()[(0, 2, 3)[n] : -6] for n in range(3)),
]


def question(n=0):
    return Question(f"judgment1-{n}", "recipe", "e", 1, "alone", 1, "single-v1", "be fair", f"question {n}")


def caller(fake, *, timeout=5.0, retries=2, temperature="0", key=SENTINEL):
    environment = {"OPENAI_BASE_URL": fake.url, "OPENAI_API_KEY": key}
    at = endpoint(environment)
    return Caller(Judge("judge-1", at.host, temperature, 64), at, environment, timeout, retries)


def ask(fake, n=1, threads=1, **settings):
    client = caller(fake, **settings)
    try:
        return list(replies(client, [question(i) for i in range(n)], threads))
    finally:
        client.close()


def test_what_is_sent_and_what_is_kept():
    with FakeJudge(lambda prompt: f"[[7]] to {prompt}") as fake:
        (found,) = ask(fake)
    assert found == Reply("judgment1-0", "[[7]] to be fair\n\nquestion 0", "stop", "fake-judge-1", 100, 10)
    (sent,) = fake.asked
    assert sent == {
        "model": "judge-1",
        "messages": [{"role": "system", "content": "be fair"}, {"role": "user", "content": "question 0"}],
        "temperature": 0.0,
        "max_tokens": 64,
    }
    assert fake.keys == [f"Bearer {SENTINEL}"]


def test_the_endpoints_own_temperature():
    with FakeJudge(lambda _: "[[7]]") as fake:
        ask(fake, temperature=None)
    assert "temperature" not in fake.asked[0]


@pytest.mark.parametrize("fault", [408, 409, 429, 500, 502, 503, "truncated", "silent", "drip", "huge"])
def test_passing_faults_are_tried_again(fault):
    with FakeJudge(lambda _: "[[7]]", [fault]) as fake:
        (found,) = ask(fake, timeout=2.0)
    assert isinstance(found, Reply) and found.text == "[[7]]" and len(fake.asked) == 2


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (429, "HTTP 429"),
        (500, "HTTP 500"),
        ("truncated", "connection failed"),
        ("huge", "connection failed"),
        ("silent", "in time"),
        ("drip", "in time"),
    ],
)
def test_lasting_faults_end_after_the_retries(fault, word):
    with FakeJudge(lambda _: "[[7]]", [fault] * 9) as fake:
        (found,) = ask(fake, timeout=2.0, retries=1)
    assert isinstance(found, Failure) and word in found.why and not found.final and len(fake.asked) == 2


@pytest.mark.parametrize("fault", ["no json", "half json", "no choices", "null", 400, 422])
def test_a_whole_reply_that_is_none_is_a_failure(fault):
    with FakeJudge(lambda _: "[[7]]", [fault]) as fake:
        first, second = ask(fake, n=2)
    assert isinstance(first, Failure) and isinstance(second, Reply) and len(fake.asked) == 2


def test_retry_after_is_honoured(monkeypatch):
    slept = []
    monkeypatch.setattr("openai._base_client.time.sleep", slept.append)
    with FakeJudge(lambda _: "[[7]]", [429, 429]) as fake:
        fake.headers = {"Retry-After": "17"}
        (found,) = ask(fake)
    assert isinstance(found, Reply) and [s for s in slept if s >= 1] == [17.0, 17.0]
    with FakeJudge(lambda _: "[[7]]", [429]) as fake:
        fake.headers = {"Retry-After": "86400"}  # nobody waits a day: the call fails and is asked another time
        (found,) = ask(fake)
    assert isinstance(found, Failure) and len(fake.asked) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_every_call_would_meet_ends_the_judging(status):
    with FakeJudge(lambda _: "[[7]]", [status] * 50) as fake:
        found = ask(fake, n=50)
    assert len(fake.asked) == 1 and found[0].final


def test_a_dead_endpoint_is_given_up():
    with FakeJudge(lambda _: "[[7]]", [500] * 500) as fake:
        found = ask(fake, n=100, retries=0)
    assert len(found) == PATIENCE == len(fake.asked)
    with FakeJudge(lambda _: "[[7]]", [*[500] * (PATIENCE - 1), None] * 3) as fake:
        assert len(ask(fake, n=30, retries=0)) == 30


def test_nobody_there():
    with FakeJudge(lambda _: "") as fake:
        pass
    (found,) = ask(fake, retries=0)
    assert "connection failed" in found.why


def test_so_many_calls_at_once_and_every_question_once():
    with FakeJudge(lambda prompt: f"[[7]] {prompt}") as fake:
        fake.delay = 0.05
        found = ask(fake, n=40, threads=4)
    assert sorted(reply.key for reply in found) == sorted(question(i).key for i in range(40))
    assert all(reply.text.endswith(f" {reply.key.split('-')[1]}") for reply in found)
    assert len(fake.asked) == 40 and 1 < fake.most_at_once <= 4
    with pytest.raises(BadRequest, match="concurrency"):
        ask(fake, threads=0)


def test_stopping_does_not_wait_for_the_endpoint():
    with FakeJudge(lambda _: "[[7]]") as fake:
        fake.delay = 0.01
        client = caller(fake)
        running = replies(client, [question(i) for i in range(1000)], 4)
        next(running)
        running.close()
        time.sleep(0.2)
        asked = len(fake.asked)
        time.sleep(0.2)
        assert len(fake.asked) == asked < 100
        client.close()


# --- addresses and keys ------------------------------------------------------------------------------------


def test_addresses():
    assert endpoint({}).host == "api.openai.com"
    both = {"OPENAI_BASE_URL": "https://a.example/v1", "KICK_JUDGE_BASE_URL": "http://127.0.0.1:8000/v1"}
    assert endpoint(both).host == "127.0.0.1:8000" and not endpoint(both).in_the_clear
    assert endpoint({"OPENAI_BASE_URL": "http://judge.example/v1"}).in_the_clear
    for url in (
        "judge.example",
        "ftp://x/v1",
        "https://",
        "https://u:hidden@x/v1",
        "https://x/v1?k=hidden",
        "http://x:99999/",
    ):
        with pytest.raises(BadRequest, match="OPENAI_BASE_URL is no plain address") as caught:
            endpoint({"OPENAI_BASE_URL": url})
        assert "hidden" not in str(caught.value)


def test_openais_key_never_goes_to_another_judge():
    environment = {"KICK_JUDGE_BASE_URL": "http://127.0.0.1:8000/v1", "OPENAI_API_KEY": SENTINEL}
    with pytest.raises(BadRequest, match="KICK_JUDGE_API_KEY"):
        Caller(Judge("j", "h", "0", 64), endpoint(environment), environment)


def test_what_is_meant_for_openai_stays_away_from_another_judge(monkeypatch):
    meant = {
        "OPENAI_ORG_ID": "org-hidden",
        "OPENAI_PROJECT_ID": "proj-hidden",
        "OPENAI_CUSTOM_HEADERS": "X-Gate: hidden-1",
    }
    for name, value in meant.items():
        monkeypatch.setenv(name, value)
    for prefix, there in (("KICK_JUDGE", False), ("OPENAI", True)):
        with FakeJudge(lambda _: "[[7]] hidden-1") as fake:
            environment = {**meant, f"{prefix}_BASE_URL": fake.url, f"{prefix}_API_KEY": SENTINEL}
            client = Caller(Judge("j", "h", "0", 64), endpoint(environment), environment)
            found = client.ask(question())
            client.close()
        assert all((word in fake.seen_headers[0]) == there for word in ("org-hidden", "proj-hidden", "hidden-1"))
        assert SENTINEL in fake.keys[0] and found.text == "[[7]] [key]"


@pytest.mark.parametrize("key", ["sk-a b", "sk-ä", "sk-a\x00b", "sk-a\nX-Evil: 1"])
def test_keys_that_no_header_can_carry(key):
    with pytest.raises(BadRequest, match="set it again") as caught:
        Caller(Judge("j", "h", "0", 64), endpoint({}), {"OPENAI_API_KEY": key})
    assert key not in str(caught.value)


def test_a_judge_must_be_named():
    assert judge_name(None, {"KICK_JUDGE_MODEL": "m"}) == "m" and judge_name("x", {"KICK_JUDGE_MODEL": "m"}) == "x"
    with pytest.raises(BadRequest, match="--judge"):
        judge_name(None, {})


def test_a_redirect_takes_the_key_nowhere():
    with FakeJudge(lambda _: "[[7]]") as other, FakeJudge(lambda _: "[[7]]") as fake:
        fake.faults.extend([("redirect", f"{other.url}/chat/completions")])
        (found,) = ask(fake)
    assert isinstance(found, Failure) and "HTTP 307" in found.why and other.asked == []


@given(before=st.binary(max_size=9), after=st.binary(max_size=9), secret=st.text("abcXYZ019-_+/=", min_size=8))
def test_a_secret_is_found_in_its_disguises(before, after, secret):
    scrub = Scrubber([secret])
    around = base64.b64encode(before + secret.encode() + after).decode()
    for text in (f"x{secret}y", around, base64.urlsafe_b64encode(before + secret.encode() + after).decode()):
        assert "[key]" in scrub(text)
    assert secret not in scrub(f"x{secret}y{secret}") and secret.encode().hex() not in scrub(secret.encode().hex())


def test_words_that_stand_for_no_key_stay_in_the_text():
    assert Scrubber(["EMPTY", ""])("EMPTY words") == "EMPTY words"


# --- the sentinel ------------------------------------------------------------------------------------------


def everything_in(root):
    """All bytes under a folder, sealed tables and live databases opened as well."""
    import zlib

    import pyarrow.parquet as pq

    for path in root.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            yield data
            if path.suffix == ".parquet":
                yield json.dumps(pq.read_table(path).to_pylist()).encode()
            for at in range(len(data)):
                if data[at : at + 1] == b"\x78":
                    try:
                        yield zlib.decompressobj().decompress(data[at:])
                    except zlib.error:
                        continue


def assert_clean(texts):
    for text in texts:
        for form in DISGUISES:
            assert form.encode() not in text and form.lower().encode() not in text.lower()


_MODES = [[], [429, 500], [401], [400] * 60, ["no json"] * 60, ["truncated"] * 8, ["silent"]]


@pytest.mark.parametrize("faults", _MODES, ids=lambda faults: str(faults[:1]))
@pytest.mark.parametrize("coded", [False, True])
def test_the_key_is_found_nowhere(tmp_path, monkeypatch, capfd, caplog, faults, coded):
    """Every reply and every error page echoes the request's headers, plain or in base64."""
    store = synthetic.make(tmp_path / "cache", recipes=("dense", "wanda@0.5"), task_names=["instructions"], n=3,
                           weights=False)  # fmt: skip
    monkeypatch.setattr("openai._base_client.time.sleep", lambda _: None)
    monkeypatch.setenv("OPENAI_API_KEY", SENTINEL)
    monkeypatch.setenv("KICK_JUDGE_MODEL", "judge-1")
    caplog.set_level(logging.DEBUG)
    with FakeJudge(lambda _: "Rating: [[7]] ", faults, echo=not coded) as fake:
        if coded:
            fake.judge = lambda _: f"[[7]] {base64.b64encode(b'Authorization: Bearer ' + SENTINEL.encode()).decode()}"
        monkeypatch.setenv("OPENAI_BASE_URL", fake.url)
        line = ["judge", "pocket", "wanda@0.5", "--task", "instructions", "--json", "--cache", str(store.root)]
        status = main([*line, "--timeout", "2"])
        assert status in (0, 1) and SENTINEL in fake.keys[0]
    seen = capfd.readouterr()
    assert_clean([seen.out.encode(), seen.err.encode(), caplog.text.encode()])
    assert_clean(everything_in(store.root))
    if not faults:
        assert "[key]" in next(iter(judged(store))).text  # the echo arrived, and was scrubbed


def judged(store):
    from kick_core.store import judgments

    (card,) = judgments.cards(store)
    return judgments.replies(store, card.replies).values()


@pytest.mark.parametrize("fault", [None, 401, 400, "no json", "truncated", "silent"])
def test_no_record_or_object_shows_the_key(fault, monkeypatch):
    monkeypatch.setattr("openai._base_client.time.sleep", lambda _: None)
    with FakeJudge(lambda _: "[[7]]", [fault] * 9, echo=True) as fake:
        client = caller(fake, timeout=0.5)
        shown = [repr(client), repr(vars(client)), repr(client._scrub), repr(client.ask(question()))]
        client.close()
    assert_clean([text.encode() for text in shown])


def test_no_exception_carries_the_key():
    with FakeJudge(lambda _: "[[7]]") as fake:
        client = caller(fake)
        client._reply = lambda *_: 1 / 0  # a fault of our own, raised through the threads
        written = io.StringIO()
        try:
            list(replies(client, [question()], 1))
        except ZeroDivisionError as error:
            traceback.print_exception(error, file=written)
        client.close()
    assert "ZeroDivisionError" in written.getvalue()
    assert_clean([written.getvalue().encode()])


def test_the_process_list_does_not_show_the_key(tmp_path):
    store = synthetic.make(tmp_path / "cache", recipes=("dense", "wanda@0.5"), task_names=["instructions"], n=3,
                           weights=False)  # fmt: skip
    with FakeJudge(lambda _: "[[7]]") as fake:
        fake.delay = 0.3
        environment = os.environ | {"OPENAI_API_KEY": SENTINEL, "OPENAI_BASE_URL": fake.url, "KICK_JUDGE_MODEL": "j"}
        line = [sys.executable, "-m", "kick_core", "judge", "pocket", "wanda@0.5", "--task", "instructions"]
        with subprocess.Popen([*line, "--cache", str(store.root)], env=environment, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as child:  # fmt: skip
            while not fake.asked and child.poll() is None:
                time.sleep(0.05)
            with open(f"/proc/{child.pid}/cmdline", "rb") as file:
                shown = file.read()
            out, err = child.communicate()
    assert child.returncode == 0 and b"judge" in shown
    assert_clean([shown, out, err])
