"""Strict and paper: what is asked once and judged twice, what is asked apart, and MMLU against a naive loop."""

import csv
import dataclasses
import json
from collections import Counter
from itertools import islice

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kick_core import engine, evaluation, tasks
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.loaded_model import open_for
from kick_core.errors import BadRequest
from kick_core.evaluation import EvalSession, open_session
from kick_core.models.tokenization import dialogue, encode
from kick_core.records import Example, Output
from kick_core.runs import measure as runs
from kick_core.spec import DENSE, Calibration, ModelRef
from kick_core.store import results
from kick_core.tasks import breakdowns
from kick_core.tasks import verdicts as scoring
from tests import official

PLAN = engine.BatchPolicy(tokens=4096, rows=4, step=64, shortest=32)


@pytest.fixture(scope="module")
def opened(tiny_folder):
    return open_for(ModelRef(str(tiny_folder)), None, "cpu")


@pytest.fixture
def ask(opened):
    return EvalSession(opened.model, opened.tokenizer, PLAN)


def answered(ask, task, protocol, wanted):
    return {o.example: o for batch in evaluation.outputs(ask, task.asking(protocol), wanted) for o in batch}


# --- MMLU against a naive loop -----------------------------------------------------------------------------


def naive_mmlu(folder, subject, tokenizer, model, room, none):
    """hendrycks' prompt, one question at a time: yields (gold, letters' log-probabilities, next token, shots).

    `none` is what the option "None" is printed as: pandas 2 reads a missing value.
    """

    def rows(split):
        with open(folder / split / f"{subject}_{split}.csv", newline="", encoding="utf-8") as file:
            return list(csv.reader(file))

    def shown(row, answer):
        options = [none if option == "None" else option for option in row[1:5]]
        text = row[0] + "".join(f"\n{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
        return text + "\nAnswer:" + (f" {row[5]}\n\n" if answer else "")

    dev = rows("dev")
    about = "".join(f" {word}" for word in subject.split("_"))
    for row in rows("test"):
        for shots in range(5, -1, -1):
            header = f"The following are multiple choice questions (with answers) about {about}.\n\n"
            ids = encode(tokenizer, header + "".join(shown(r, True) for r in dev[:shots]) + shown(row, False))
            if len(ids) <= room:
                break
        logits = model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1].float()
        letters = [tokenizer(f"Answer: {letter}", add_special_tokens=False)["input_ids"][-1] for letter in "ABCD"]
        yield row[5], logits.log_softmax(-1)[letters].tolist(), int(logits.argmax()), shots


def lettered_llama(letters, *, vocabulary, context):
    """A tiny random model for which letters are often the likeliest token, and sometimes the least likely."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=context, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "lm_head" not in name:
            parameter.data.mul_(8.0)
    model.lm_head.weight.data[letters] *= 4
    return model


@torch.no_grad()
def compare_with_naive(folder, subjects, tokenizer, model, protocol, room, first=None):
    """How many questions were asked, and how many verdicts of both kinds agree. Ties within rounding count."""
    task = tasks.get("multiple_choice", str(folder))
    ask = EvalSession(model, tokenizer, PLAN)
    names = {f"{subject}-{number:04d}" for subject in subjects for number in range(first or 10_000)}
    examples = [e for e in task.asking(protocol).load(str(folder)) if e.id in names]
    found = answered(ask, task, protocol, examples)
    by_id = {example.id: example for example in examples}
    count, none = Counter(), "nan" if protocol == "paper" else "None"
    for subject in subjects:
        for number, (gold, logprobs, token, shots) in enumerate(
            islice(naive_mmlu(folder / "mmlu", subject, tokenizer, model, room, none), first)
        ):
            name = f"{subject}-{number:04d}"
            output = found[name]
            verdicts = {v.scorer: v for v in tasks.judge(task, by_id[name], output)}
            best = "ABCD"[max(range(4), key=logprobs.__getitem__)]
            margin = sorted(logprobs)[-1] - sorted(logprobs)[-2]
            published = tokenizer.decode([token], skip_special_tokens=True)[-1:] == gold
            count["asked"] += 1
            count["shots"] += output.shots_used == shots
            count["close"] += output.logprobs == pytest.approx(logprobs, abs=1e-3)
            count["strict"] += verdicts["accuracy"].score == (best == gold) or margin < 1e-3
            count["published"] += verdicts["last_character_as_published"].score == published
            count["right by strict"] += verdicts["accuracy"].score
            count["right as published"] += verdicts["last_character_as_published"].score
            count["fewer shots"] += shots < 5
    return count


def check(count):
    total = count["asked"]
    assert count["shots"] == count["close"] == count["strict"] == count["published"] == total
    assert 0 < count["right as published"] < total and count["right as published"] != count["right by strict"]


FEW = ("high_school_european_history", "college_mathematics", "management")


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_mmlu_equals_a_naive_loop(shared, protocol):
    """Three real subjects; the long one loses shots at the paper's 2,048 tokens and none in a context of 4,096."""
    tokenizer = official.llama_tokenizer(shared / "data" / "llama-tokenizer" / "tokenizer.model")
    model = lettered_llama([319, 350, 315, 360], vocabulary=32000, context=4096)
    room = {"strict": 4096, "paper": 2048}[protocol]
    count = compare_with_naive(shared / "data", FEW, tokenizer, model, protocol, room, first=20)
    check(count)
    assert count["asked"] == 60 and count["fewer shots"] == {"strict": 0, "paper": 20}[protocol]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_all_of_mmlu_equals_a_naive_loop(shared, protocol):
    tokenizer = official.llama_tokenizer(shared / "data" / "llama-tokenizer" / "tokenizer.model")
    model = lettered_llama([319, 350, 315, 360], vocabulary=32000, context=4096)
    subjects = [path.stem.removesuffix("_test") for path in sorted((shared / "data" / "mmlu" / "test").glob("*.csv"))]
    room = {"strict": 4096, "paper": 2048}[protocol]
    count = compare_with_naive(shared / "data", subjects, tokenizer, model, protocol, room)
    print(dict(count))
    check(count)
    assert count["asked"] == 14042 and count["fewer shots"] == {"strict": 0, "paper": 524}[protocol]


def test_shots_go_until_the_prompt_fits_else_it_is_rejected(ask, tmp_path):
    official.mmlu(tmp_path, {"anatomy": 3})
    task = tasks.get("multiple_choice", str(tmp_path))
    wanted = task.strict.load(str(tmp_path))
    longer = dataclasses.replace(wanted[0], id="x", prompt=(*wanted[0].prompt[:-1], "word " * 300 + "\nAnswer:"))
    hopeless = dataclasses.replace(wanted[0], id="y", prompt=(*wanted[0].prompt[:-1], "word " * 600 + "\nAnswer:"))
    found = answered(ask, task, "strict", [*wanted, longer, hopeless])
    assert 0 < found["x"].shots_used < 5 and found["x"].stop == "scored" and found["x"].prompt_tokens <= 512
    assert found["y"].shots_used is None and found["y"].stop == "rejected"
    assert all(v.score is None and v.why == "rejected" for v in tasks.judge(task, hopeless, found["y"]))


# --- one run or two ----------------------------------------------------------------------------------------


def key(builder, ask, name, data, protocol):
    loaded = runs.task_data(tasks.get(name, str(data)), ask, str(data), protocol)
    card = runs.run_card(builder, DENSE, ask, loaded)
    return card.key, card.protocol


def test_runs_are_shared_where_both_protocols_ask_alike(store, ask, opened, tmp_path):
    official.mmlu(official.freebase(official.freebase(tmp_path, "eval", 3), "train", 3), {"anatomy": 3}, option="two")
    builder = ArtifactBuilder(store, opened, Calibration("pocket", 4, 32))
    for name in tasks.names("pocket"):  # the pocket world is asked one way
        assert key(builder, ask, name, "pocket", "strict") == key(builder, ask, name, "pocket", "paper")
    strict, paper = (key(builder, ask, "multiple_choice", tmp_path, p) for p in tasks.PROTOCOLS)
    assert strict == paper and strict[1] == "strict"  # the context of 512 is what limits both
    strict, paper = (key(builder, ask, "factoid_qa", tmp_path, p) for p in tasks.PROTOCOLS)
    assert strict[0] != paper[0] and (strict[1], paper[1]) == ("strict", "paper")
    with pytest.raises(BadRequest, match="Did you mean 'paper'"):
        key(builder, ask, "factoid_qa", tmp_path, "papers")


def test_how_a_run_was_asked_is_recorded(ask):
    way = tasks.get("summarization", "official").paper
    settings = ask.settings(way)
    assert (
        settings["template"] == "vicuna_v1.1"
        and settings["bos"] == "<s>"
        and settings["new_tokens"] == "1024, or what the context leaves"
    )
    assert settings["decoding"].startswith("sampled at temperature 0.7") and settings["as_published"]
    assert ask.settings(tasks.get("summarization").strict)["template"] == "tokenizer"
    assert ask.settings(tasks.get("factoid_qa").strict)["template"] == "raw"
    loaded = runs.task_data(tasks.get("perplexity"), ask)
    assert loaded.facts["windows"] == len(loaded.examples) and len(loaded.facts["text_sha256"]) == 64
    assert dialogue(ask.tokenizer, ["hi", "more"], ["yes"], "vicuna_v1.1").endswith(
        "USER: hi ASSISTANT: yes</s>USER: more ASSISTANT:"
    )


def test_the_papers_budget_is_twice_the_prompt(ask, tmp_path):
    official.freebase(tmp_path, "train", 4)
    task = tasks.get("factoid_qa", str(tmp_path))
    for output in answered(ask, task, "paper", task.paper.load(str(tmp_path))).values():
        assert output.stop != "limit" or output.tokens == 2 * output.prompt_tokens
        assert output.tokens <= 2 * output.prompt_tokens and len(output.ids[0]) == output.tokens


def test_the_papers_summaries_end_where_the_context_does(ask):
    """The released code writes on after a prompt that leaves less than 1,024 tokens; nothing is rejected for that."""
    way = dataclasses.replace(tasks.get("summarization", "official").paper, new_tokens=400)
    long = Example("long", ("word " * 200,), answers=("x",))
    over = Example("over", ("word " * 600,), answers=("x",))
    found = {o.example: o for batch in evaluation.outputs(ask, way, [long, over]) for o in batch}
    prompt = found["long"].prompt_tokens
    assert ask.context - prompt < 400 and found["over"].stop == "rejected"
    assert found["long"].stop == "eos" or (found["long"].stop, found["long"].tokens) == ("limit", ask.context - prompt)


def test_quantized_models_are_asked_in_the_words_of_their_own_script(ask, tmp_path):
    official.freebase(tmp_path, "train", 3)
    usual, quantized = (tasks.get(name, str(tmp_path)) for name in ("factoid_qa", "factoid_qa_quantized"))
    one, other = (task.asking("paper").load(str(tmp_path)) for task in (usual, quantized))
    assert one[0].prompt[0].endswith("New York?\nThe answer is ")
    assert [e.prompt[0].replace("\n", " ") for e in one] == [e.prompt[0] for e in other]
    assert [e.answers for e in one] == [e.answers for e in other]


def test_what_pandas_takes_for_missing_is_printed_nan(tmp_path):
    official.mmlu(tmp_path, {"anatomy": 2}, option="None")
    task = tasks.get("multiple_choice", str(tmp_path))
    strict, paper = (task.asking(protocol).load(str(tmp_path)) for protocol in tasks.PROTOCOLS)
    assert [e.prompt[-1].replace("B. None", "B. nan") for e in strict] == [e.prompt[-1] for e in paper]
    assert [e.prompt[:-1] for e in strict] == [e.prompt[:-1] for e in paper]


def test_draws_depend_on_the_example_alone(ask):
    task = tasks.get("instructions", "official")
    way = dataclasses.replace(task.strict, new_tokens=12)
    made = [
        Example(f"e{n}", ("Say something.", "Go on."), meta={"category": c})
        for n, c in enumerate(("writing", "math", "writing", "stem"))
    ]
    together = {o.example: o for batch in evaluation.outputs(ask, way, made) for o in batch}
    alone = {o.example: o for one in made[::-1] for batch in evaluation.outputs(ask, way, [one]) for o in batch}
    assert together == alone
    assert together["e0"].ids != together["e2"].ids  # the same prompt, other draws
    greedy = dataclasses.replace(way, temperatures={})
    plain = {o.example: o for batch in evaluation.outputs(ask, greedy, made) for o in batch}
    assert plain["e1"] == together["e1"] and plain["e0"].ids != together["e0"].ids


@torch.no_grad()
def test_sampling_follows_the_models_distribution(opened):
    """2,000 draws of one token against its probabilities at temperature 0.7 among the three likeliest."""
    prompt = [1, 40, 41, 42]
    found = Counter(
        one.ids[0]
        for batch in engine.generate(
            opened.model, [prompt] * 2000, new_tokens=1, ends=frozenset(), stops=lambda _: False,
            plan=engine.BatchPolicy(tokens=16384, rows=250), filler=0, sampling=engine.Sampling(0.7, top_k=3),
            seeds=range(2000),
        )
        for one in batch.values()
    )  # fmt: skip
    values, tokens = opened.model(torch.tensor([prompt])).logits[0, -1].topk(3)
    expected = (values / 0.7).softmax(-1).tolist()
    assert set(found) <= set(tokens.tolist())
    for token, share in zip(tokens.tolist(), expected, strict=True):
        assert found[token] / 2000 == pytest.approx(share, abs=0.05)


def test_generation_from_logits_that_are_not_finite_is_never_judged(opened):
    weight = opened.model.model.norm.weight
    kept = weight.detach().clone()
    weight.data.fill_(float("nan"))
    try:
        for name in ("factoid_qa", "instructions"):
            task = tasks.get(name)
            wanted = task.strict.load("pocket")[:3]
            found = answered(EvalSession(opened.model, opened.tokenizer, PLAN), task, "strict", wanted)
            assert {o.stop for o in found.values()} == {"not finite"} and len(found) == 3
            assert all(v.score is None for e in wanted for v in tasks.judge(task, e, found[e.id]))
    finally:
        weight.data.copy_(kept)


# --- scorers of both protocols on one output ---------------------------------------------------------------


def verdicts(task, example, output):
    return {v.scorer: v for v in tasks.judge(task, example, output)}


def test_every_published_scorer_says_so():
    for data in ("pocket", "official"):
        for name in tasks.names(data):
            task = tasks.get(name, data)
            assert task.headline in task.scorers and (not task.published or task.published in task.scorers)
            for scorer in task.scorers:
                about = tasks.about_scorer(task, scorer)
                assert about.startswith("As published:") == scorer.endswith(tasks.AS_PUBLISHED) and about != scorer


@pytest.mark.parametrize(
    ("said", "exact", "whole", "inside", "published"),
    [
        ("Paris", 1, 1, 1, 1),
        ("It is Paris.", 0, 1, 1, 1),
        ("Parisian", 0, 0, 1, 1),
        ("", 0, 0, 0, 1),
        ("the", 0, 0, 0, 1),
        ("!!!", 0, 0, 0, 1),
        ("s", 0, 0, 0, 1),
        ("Rome", 0, 0, 0, 0),
    ],
)
def test_trivia_in_four_readings(said, exact, whole, inside, published):
    """Including what the published code counts as right: nothing at all, an article, marks, one letter."""
    found = verdicts(
        tasks.get("retrieval_qa_closed", "official"),
        Example("e", ("q",), answers=("paris",)),
        Output("e", "h", (said,), stop="eos"),
    )
    names = ("exact_match", "contains", "substring", "exact_match_as_published")
    assert tuple(found[name].score for name in names) == (exact, whole, inside, published)


@pytest.mark.parametrize("said", ["", "The", "!!!", "no idea"])
def test_golds_of_which_nothing_is_left_are_not_judged_but_as_published(said):
    task, output = tasks.get("retrieval_qa_closed", "official"), Output("e", "h", (said,), stop="eos")
    strict = {name for name in task.scorers if not name.endswith(tasks.AS_PUBLISHED)}
    found = verdicts(task, Example("e", ("q",), answers=("The", "!!!")), output)
    assert {(found[name].score, found[name].why) for name in strict} == {(None, "no gold")}
    assert found["exact_match_as_published"].score == 1
    found = verdicts(task, Example("e", ("q",), answers=("The", "idea")), output)
    assert {found[name].score for name in strict} <= ({0, 1, 2 / 3} if said == "no idea" else {0})


def test_trivia_as_published_knows_no_answers_of_people_and_cuts_at_line_breaks_alone():
    task = tasks.get("retrieval_qa_closed", "official")
    example = Example("e", ("q",), answers=("mark twain", "sam clemens"), meta={"normalized_aliases": ["mark twain"]})
    people = verdicts(task, example, Output("e", "h", ("Sam Clemens",), stop="eos"))
    assert people["exact_match"].score == 1 and people["exact_match_as_published"].score == 0
    for mark in ("\r", "\x0b", "\x85", "\u2028"):
        found = verdicts(task, example, Output("e", "h", (f"Mark Twain{mark}Ohio",), stop="eos"))
        assert found["exact_match"].score == 0 and found["exact_match_as_published"].score == 1
    assert verdicts(task, example, Output("e", "h", ("Mark Twain\nOhio",), stop="eos"))["exact_match"].score == 1


def test_freebase_as_published_sees_line_breaks(ask, tmp_path):
    official.freebase(tmp_path, "train", 1)
    task = tasks.get("factoid_qa", str(tmp_path))
    example = dataclasses.replace(task.paper.load(str(tmp_path))[0], meta={"first_answer": ["is France"]})
    assert task.paper.verbatim and not task.strict.verbatim
    for text, score in (("France", 1), ("\nFrance", 0)):
        found = verdicts(task, example, Output("e", "h", (text,), stop="limit"))
        assert found["substring_as_published"].score == score


def test_freebase_as_published_finds_the_answer_in_the_question():
    task = tasks.get("factoid_qa", "official")
    example = Example("e", ("Who wrote 'New York'?\nThe answer is ",), answers=("New York", "x y"), meta={})
    found = verdicts(task, example, Output("e", "h", ("no idea",), stop="eos"))
    assert found["substring_as_published"].score == 1 and found["contains"].score == 0
    example = dataclasses.replace(example, meta={"first_answer": ["Ann Lee"]})
    found = verdicts(task, example, Output("e", "h", ("Joann  Leeds",), stop="eos"))
    assert found["substring_as_published"].score == 1 and found["substring"].score == 0  # within words
    found = verdicts(task, example, Output("e", "h", ("x y",), stop="eos"))
    assert found["contains"].score == 1 and found["substring_as_published"].score == 0  # another parse's answer


@pytest.mark.parametrize(
    ("token", "free", "given", "published"), [("B", 1, 1, 1), ("A", 0, 1, 0), ("DB", 0, 0, 1), ("", 0, 0, 0)]
)
def test_choice_in_four_readings(token, free, given, published):
    example = Example("e", ("q",), (" A", " B", " C", " D"), ("B",))
    output = Output("e", "h", logprobs=(-2.0, -1.0, -3.0, -4.0), stop="scored", argmax=token, top=-0.5, entropy=1.0)
    found = verdicts(tasks.get("multiple_choice", "official"), example, output)
    assert found["accuracy"].score == 1
    names = ("free_choice", "letter_given", "last_character_as_published")
    assert tuple(found[name].score for name in names) == (free, given, published)
    assert found["free_choice"].why == ("right" if free else "wrong" if given else "no answer")


def test_rouge_is_the_packages():
    from rouge_score.rouge_scorer import RougeScorer

    gold, said = "The cats sat on mats.\nDogs ran.", "A cat was sitting on the mat.\nThe dogs are running away."
    found = verdicts(
        tasks.get("summarization", "official"),
        Example("e", ("s",), answers=(gold,)),
        Output("e", "h", (said,), stop="eos", ids=((5, 6, 5),), tokens=3),
    )
    expected = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True).score(gold, said)
    for name, theirs in zip(("rouge_1", "rouge_2", "rouge_l", "rouge_lsum"), expected.values(), strict=True):
        assert found[name].score == pytest.approx(theirs.fmeasure)
    assert found["rouge_l"].score != found["rouge_lsum"].score
    assert found["unique_tokens"].score == 2 and found["length"].score == 3 and found["hit_limit"].score == 0


def test_the_shape_of_texts():
    task = tasks.get("instructions", "official")
    example = Example("e", ("q",))
    looped = verdicts(task, example, Output("e", "h", ("once upon red red red red",), stop="limit", tokens=6))
    assert looped["well_formed"].score == 0 and looped["well_formed"].why == "loop"
    assert looped["looping"].extracted == "turn 1: from word 3 on, 1 words, 4 times"
    assert looped["distinct_1"].score == pytest.approx(3 / 6) and looped["distinct_2"].score == pytest.approx(3 / 5)
    assert looped["hit_limit"].score == 1 and looped["unique_tokens"].score is None
    short = verdicts(task, example, Output("e", "h", ("fine",), stop="eos", tokens=1))
    assert short["well_formed"].score == 1 and short["distinct_2"].score is None
    assert set(task.scorers) - {"well_formed"} <= tasks.DESCRIPTIVE


# --- what a whole task shows -------------------------------------------------------------------------------


def test_letter_bias_calibration_and_subjects():
    task = tasks.get("multiple_choice", "official")
    golds, tops = "ABCDAB", "AAAAAC"
    examples = [
        Example(f"e{n}", ("q",), (" A", " B", " C", " D"), (gold,), {"subject": s, "discipline": d})
        for n, (gold, (s, d)) in enumerate(
            zip(
                golds,
                [("anatomy", "other")] * 2 + [("virology", "other")] * 2 + [("astronomy", "STEM")] * 2,
                strict=True,
            )
        )
    ]
    outputs = [
        Output(f"e{n}", "h", logprobs=tuple(0.0 if letter == top else -1.0 for letter in "ABCD"), stop="scored",
               argmax=top if n else "The", top=-0.1, entropy=1.0, shots_used=5 - (n == 0))
        for n, top in enumerate(tops)
    ]  # fmt: skip
    judged = [v for e, o in zip(examples, outputs, strict=True) for v in tasks.judge(task, e, o)]
    found = breakdowns.details(task, examples, outputs, judged)
    a = found["letters"][0]
    assert (a["chosen"], a["gold"], a["found"], a["free"]) == (5 / 6, 2 / 6, 1.0, 4 / 6)
    confidence = 1 / (1 + 3 * 2.718281828459045**-1)
    (error,) = found["calibration"]
    assert error["expected_calibration_error"] == pytest.approx(abs(2 / 6 - confidence)) and error["bins"] == 10
    assert found["shots"] == [{"shots": 5, "count": 5}, {"shots": 4, "count": 1}]
    means = {row["group"]: row["mean"] for row in found["by_discipline"]}
    assert means["STEM"] == 0.5 and means["other"] == 0.25 and means["micro"] == 2 / 6 and means["macro"] == 0.375
    moved = {row["group"]: row["n"] for row in found["by_discipline_lm_eval"]}
    assert moved["STEM"] == 4 and moved["other"] == 2  # anatomy
    table = {(row["strict"], row["as_published"]): row for row in found["protocols"]}
    assert table["right", "wrong"]["examples"] == ["e0"] and table["right", "right"]["count"] == 1


def test_open_book_answers_by_where_they_came_from():
    task = tasks.get("retrieval_qa_open", "official")
    cases = {
        "read": ("It is rust.", "rust"), "known": ("It is rust.", "rust"), "lost": ("It is rust.", "blue"),
        "from memory": ("Nothing.", "rust"), "out of reach": ("Nothing.", "blue"),
    }  # fmt: skip
    examples = [Example(n, ("q",), answers=("rust",), meta={"passage": p}) for n, (p, _) in cases.items()]
    outputs = [Output(n, "h", (said,), stop="eos", tokens=1) for n, (_, said) in cases.items()]
    judged = [v for e, o in zip(examples, outputs, strict=True) for v in tasks.judge(task, e, o)]
    inside, outside = breakdowns.details(task, examples, outputs, judged, {"known": True, "read": False})["context"]
    assert (inside["n"], inside["retrieved"], inside["remembered"], inside["lost"]) == (3, 1, 1, 1)
    assert (outside["n"], outside["retrieved"], outside["remembered"], outside["lost"]) == (2, 0, 1, 1)
    inside, _ = breakdowns.details(task, examples, outputs, judged)["context"]
    assert (inside["retrieved"], inside["closed_book_asked"]) == (2, False)


# --- perplexity per word -----------------------------------------------------------------------------------


def test_wikitext_is_detokenised_by_lm_evals_rules():
    from kick_core.tasks import word_perplexity as words

    assert words.detokenised('He said " yes " ( twice ) .\n') == 'He said "yes" (twice) .\n'


def test_pages_are_lm_evals(shared):
    """62 pages, detokenised by lm-eval's rules; words and bytes are those of the page before."""
    from kick_core.tasks import word_perplexity as words

    text = (shared / "data" / "wikitext-2" / "test.txt").read_text(encoding="utf-8")
    pages = words.pages_of(text)
    assert len(pages) == 62 and pages[0].startswith(" = Robert <unk> = ")
    shown = words.detokenised(pages[0])
    assert "a guest-starring role" in shown and "\n\n== Filmography ==\n" in shown and " , " not in shown
    (loaded,) = tasks.get("word_perplexity", "official").strict.load(str(shared / "data"))
    assert sum(page["words"] for page in loaded.meta["pages"]) == sum(len(page.split()) + 2 for page in pages)


def test_rolling_windows_predict_every_token_once():
    from kick_core.evaluation.perplexity import rolling

    assert rolling([1, 2, 3], 0, 4) == [([0], [1, 2, 3])]
    assert rolling(list(range(1, 10)), 0, 4) == [
        ([0], [1, 2, 3, 4]), ([4], [5, 6, 7, 8]), ([5, 6, 7, 8], [9])
    ]  # fmt: skip


@torch.no_grad()
def test_word_perplexity_equals_its_definition(ask):
    task = tasks.get("word_perplexity")
    wanted = evaluation.examples(task, ask)[:3]
    long = dataclasses.replace(wanted[0], id="long", prompt=(" ".join(e.prompt[0] for e in wanted) * 6,))
    for example in (*wanted, long):
        output = answered(ask, task, "strict", [example])[example.id]
        ids = ask.tokenizer(example.prompt[0], add_special_tokens=False)["input_ids"]
        total, at = 0.0, 0
        while at < len(ids):  # windows of the context: one token before them, the last one filled up from behind
            stop = min(at + ask.context, len(ids))
            read = [1, *ids[:stop]][-ask.context - 1 :] if at else [1, *ids[:stop]]
            logprobs = ask.model(torch.tensor([read[:-1]])).logits[0].log_softmax(-1)
            total += sum(float(logprobs[at - stop + n, ids[at + n]]) for n in range(stop - at))
            at = stop
        assert output.logprobs[0] == pytest.approx(total, rel=1e-4) and output.tokens == example.meta["words"]
        assert tasks.judge(task, example, output)[0].score == -output.logprobs[0] / example.meta["words"]
    assert len(ids) > ask.context


# --- from end to end ---------------------------------------------------------------------------------------


def test_scores_are_derived_again_without_a_model(store, ask, opened, tmp_path):
    official.mmlu(tmp_path, {"anatomy": 4, "virology": 3})
    builder = ArtifactBuilder(store, opened, Calibration("pocket", 4, 32))
    loaded = runs.task_data(tasks.get("multiple_choice", str(tmp_path)), ask, str(tmp_path))
    card = runs.run_card(builder, DENSE, ask, loaded)
    assert sum(runs.measure(store, ask, card, loaded, None)) == 7
    for output in results.outputs(store, card.key):
        assert output.argmax is not None and output.shots_used is not None and output.entropy > 0 > output.top
    before = results.verdicts(store, card.key, card.task_version)
    assert scoring.score(store, card.key) == before and len(before) == 7 * 5
    assert {row["group"] for row in scoring.details(store, card.key)["by_subject"]} >= {"anatomy", "virology", "micro"}


def test_the_command_line_in_both_protocols(tmp_path, tiny_folder, capsys):
    from kick_core.cli import main

    official.mmlu(official.freebase(official.freebase(tmp_path, "eval", 3), "train", 3), {"anatomy": 3}, option="two")

    def kick(*words):
        common = ["evaluate", tiny_folder, "dense", "--data", tmp_path, "--cache", tmp_path / "cache", "--json"]
        status = main([*map(str, common), *map(str, words)])
        said = capsys.readouterr()
        return status, json.loads(said.out)["results"] if status == 0 else said.err

    both = ["--task", "factoid_qa", "--task", "multiple_choice"]
    strict, paper = (kick(*both, "--protocol", protocol)[1] for protocol in ("strict", "paper"))
    assert [one["headline"] for one in strict] == ["stated", "accuracy"]
    assert [one["headline"] for one in paper] == ["substring_as_published", "last_character_as_published"]
    assert strict[1]["run"] == paper[1]["run"] and strict[0]["run"] != paper[0]["run"]
    assert [one["asked"] for one in paper] == ["paper", "strict"] and {one["protocol"] for one in paper} == {"paper"}
    assert strict[1]["details"]["letters"][0]["letter"] == "A" and paper[0]["n"] == 3
    status, said = kick("--task", "summarization")
    assert status == 2 and "looked for cnn_dailymail/small/*.story" in said
    assert kick("--task", "factoid_qa", "--protocol", "papers")[0] == 2


def test_python_asks_official_data_too(opened, tmp_path):
    official.mmlu(tmp_path, {"anatomy": 3})
    found = list(
        evaluation.evaluate(opened.model, opened.tokenizer, "multiple_choice", 2, data=str(tmp_path), protocol="paper")
    )
    assert len(found) == 2 and all(len(output.logprobs) == 4 for output in found)
    assert open_session(opened.model, opened.tokenizer).room(tasks.get("multiple_choice", "official").paper) == 512


# --- what is drawn ------------------------------------------------------------------------------------------


def test_repeats_are_draws_of_their_own_in_one_cluster(ask, tmp_path):
    rows = [{"question_id": n, "turns": ["Say something.", "Go on."], "category": "writing"} for n in (1, 2)]
    (tmp_path / "question.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = tasks.get("instructions", str(tmp_path))
    once, twice = (runs.task_data(task, ask, str(tmp_path), draws=runs.Draws(repeats=n)) for n in (1, 2))
    assert [e.id for e in twice.examples] == [*(e.id for e in once.examples), *(f"{e.id}~2" for e in once.examples)]
    assert [e.meta["cluster"] for e in twice.examples] == [e.id for e in once.examples] * 2
    way = dataclasses.replace(twice.spec, new_tokens=8)
    found = {o.example: o.ids for batch in evaluation.outputs(ask, way, twice.examples) for o in batch}
    assert len(set(found.values())) == 4
