"""The benchmarks' own data: the real files beside the checkout, tiny ones made here, and what is wrong with them."""

import json
from collections import Counter
from types import SimpleNamespace

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kick_core import tasks
from kick_core.errors import BadRequest, KickError
from kick_core.evaluation import multiple_choice
from kick_core.models.tokenization import all_option_ids, encode, option_ids
from kick_core.tasks import perplexity
from kick_core.tasks.data import hub as _official
from kick_core.tasks.data import mmlu as _mmlu
from kick_core.tasks.data import stories as _stories
from tests import official


def load(name, data, protocol="strict"):
    return tasks.get(name, str(data)).asking(protocol).load(str(data))


@pytest.fixture(scope="session")
def real(shared):
    return shared / "data"


@pytest.fixture(scope="session")
def llama(real):
    return official.llama_tokenizer(real / "llama-tokenizer" / "tokenizer.model")


# --- the real files ----------------------------------------------------------------------------------------


def test_all_of_mmlu(real):
    found = load("multiple_choice", real)
    assert len(found) == len({e.id for e in found}) == 14042
    assert Counter(e.meta["discipline"] for e in found) == {
        "STEM": 3018, "humanities": 4705, "social sciences": 3077, "other": 3242
    }  # fmt: skip
    assert len({e.meta["subject"] for e in found}) == 57
    # the word None stays a word: pandas would make a missing value of it
    assert sum("None" in e.meta["options"] for e in found) == 10
    assert sum("nan" in e.meta["options"] for e in found) == 0
    one = next(e for e in found if e.id == "abstract_algebra-0000")
    assert one.prompt[0] == (
        "The following are multiple choice questions (with answers) about  abstract algebra.\n\n"  # two spaces
    )
    assert one.prompt[1] == (
        "Find all c in Z_3 such that Z_3[x]/(x^2 + c) is a field.\nA. 0\nB. 1\nC. 2\nD. 3\nAnswer: B\n\n"
    )
    assert one.prompt[-1].endswith("\nAnswer:") and len(one.prompt) == 7
    assert Counter(e.meta["subject"] for e in found[:1400]).most_common(1)[0][1] < 300  # any first ones are a sample


def test_every_cell_is_pandas(real):
    """hendrycks reads with pandas: quoted line breaks stay "\\r\\n" (college mathematics has one in a shot)."""
    paths = sorted(path for split in ("dev", "test") for path in (real / "mmlu" / split).glob("*.csv"))
    assert len(paths) == 114
    for path in paths:
        theirs = pd.read_csv(path, header=None, keep_default_na=False, dtype=str).to_numpy().tolist()
        assert _official.csv_of(path, _mmlu.COLUMNS) == theirs, path


def test_with_llamas_tokenizer_524_questions_lose_shots(real, llama):
    """The count that the published code's limit of 2,048 tokens gives, and letters as single tokens."""
    # 2,048 tokens in less than 4,000 characters there are not
    found = [e for e in load("multiple_choice", real) if sum(map(len, e.prompt)) > 4000]
    lengths = [len(ids) for ids in llama(["".join(e.prompt) for e in found])["input_ids"]]
    long = [e for e, tokens in zip(found, lengths, strict=True) if tokens > 2048]
    assert Counter(e.meta["subject"] for e in long) == {
        "high_school_us_history": 204, "high_school_european_history": 165, "professional_law": 153,
        "high_school_world_history": 2,
    }  # fmt: skip
    ask = SimpleNamespace(tokenizer=llama, room=lambda way: way.room)
    way = tasks.get("multiple_choice", "official").asking("paper")
    for example, shown in zip(long[:12], multiple_choice.shown(ask, way, long[:12]), strict=True):
        assert 0 <= shown.shots < 5 and len(shown.prompt) <= 2048
        kept = (*example.prompt[: 1 + shown.shots], example.prompt[-1])
        assert shown.prompt == encode(llama, "".join(kept))
        more = (*example.prompt[: 2 + shown.shots], example.prompt[-1])
        assert len(encode(llama, "".join(more))) > 2048
        assert shown.endings == [[319], [350], [315], [360]]


def test_the_90_stories(real):
    strict, paper = load("summarization", real), load("summarization", real, "paper")
    assert len(paper) == 90 and len(strict) == 72  # 18 of them lie in two folders
    assert Counter(e.meta["bucket"] for e in paper) == {"small": 30, "medium": 30, "large": 30}
    assert not any("@highlight" in e.prompt[0] for e in strict)
    assert all("@highlight" in e.prompt[0] for e in paper)
    for example in strict:
        assert example.answers[0] not in example.prompt[0]
        words = len(example.meta["story"].split())
        bounds = {"small": words <= 470, "medium": 470 < words < 790, "large": words >= 790}
        assert bounds[example.meta["bucket"]]
    lengths = [e.meta["words"] for e in paper if e.meta["bucket"] == "small"]
    assert (min(lengths), max(lengths)) == (117, 468)  # as counted in the published prompts
    assert paper[0].prompt[0].startswith("Summarize the given story in less than 150 words while")
    assert paper[-1].prompt[0].startswith("Summarize the given news in less than 150 words while")


def test_mt_bench_and_vicuna_80(real):
    strict, paper = load("instructions", real), load("instructions", real, "paper")
    assert len(strict) == len(paper) == 80
    assert {len(e.prompt) for e in strict} == {2} and {len(e.prompt) for e in paper} == {1}
    assert Counter(e.meta["category"] for e in strict).most_common(1)[0][1] == 10
    assert sum(bool(e.answers) for e in strict) == 30  # references of math, reasoning, coding
    way = tasks.get("instructions", "official").strict
    assert {way.temperature(e) for e in strict if e.meta["category"] == "math"} == {0.0}
    assert {way.temperature(e) for e in strict if e.meta["category"] == "writing"} == {0.7}
    assert tasks.get("instructions", "official").paper.temperature(paper[0]) == 0.7


def test_wikitext_and_the_trivia_sample(real):
    (text,) = load("perplexity", real)
    assert text.meta == {"text": "wikitext-2 with <unk>"} and "\n\n\n\n" in text.prompt[0]
    (question,) = load("retrieval_qa_closed", real)
    assert question.id == "tc_33" and "sunset blvd" in question.answers
    assert question.prompt[0].startswith("Answer these questions:\n\nQ: Which Lloyd Webber")
    with pytest.raises(BadRequest, match=r"evidence/wikipedia/Andrew_Lloyd_Webber\.txt"):
        load("retrieval_qa_open", real)
    with pytest.raises(BadRequest, match=r"FreebaseQA-eval\.json"):
        load("factoid_qa", real)


# --- tiny files in the official layouts --------------------------------------------------------------------


def test_freebase_in_both_protocols(tmp_path):
    official.freebase(official.freebase(tmp_path, "eval", 7), "train", 1005)
    strict, paper = load("factoid_qa", tmp_path), load("factoid_qa", tmp_path, "paper")
    assert len(strict) == 7 and len(paper) == 1000
    assert [e.id for e in paper[:2]] == ["FreebaseQA-train-0", "FreebaseQA-train-1"]
    assert [e.id for e in strict] != sorted(e.id for e in strict)
    assert strict[0].prompt[0].endswith("\nThe answer is") and paper[0].prompt[0].endswith("\nThe answer is ")
    assert paper[3].answers == ("writer 3", "w. 3", "someone else")
    assert paper[3].meta["first_answer"] == ["writer 3", "w. 3"]


def test_trivia_in_both_protocols(tmp_path):
    official.trivia(tmp_path)
    assert sorted(e.id for e in load("retrieval_qa_closed", tmp_path)) == ["tc_1", "tc_2", "tc_3"]
    paper = load("retrieval_qa_closed", tmp_path, "paper")
    assert [e.id for e in paper] == ["tc_1", "tc_2", "tc_1#2", "tc_3"]
    found = {e.id: e for e in load("retrieval_qa_open", tmp_path)}
    assert set(found) == {"tc_1", "tc_2"}  # the third has no evidence
    assert found["tc_1"].meta["answer_in_context"] is True and found["tc_2"].meta["answer_in_context"] is False
    assert len(found["tc_2"].meta["passage"]) == 3072  # the cut leaves the answer outside
    assert found["tc_1"].prompt[0].startswith("The musical Sunset Boulevard opened in 1993.xxxx")
    assert found["tc_1"].prompt[0].endswith("\n\nBased on these texts, answer these questions:\n\nQ: What is tc_1?\nA:")
    bare = load("retrieval_qa_open", tmp_path, "paper")[-1]
    assert bare.prompt[0].startswith("Based on these texts")  # stripped, as published


def test_stories_by_their_own_length(tmp_path):
    where = {"a": ("mid", 470), "b": ("mid", 471), "c": ("large", 789), "d": ("large", 790), "e": ("small", 470)}
    official.stories(tmp_path, where)
    official.stories(tmp_path, {"a": ("small", 470)})
    strict = {e.id: e for e in load("summarization", tmp_path)}
    assert {name: e.meta["bucket"] for name, e in strict.items()} == {
        "a": "small", "b": "medium", "c": "medium", "d": "large", "e": "small"
    }  # fmt: skip
    assert strict["a"].answers == ("Gold one of a\nGold two",) and "Gold" not in strict["a"].prompt[0]
    paper = {e.id: e for e in load("summarization", tmp_path, "paper")}
    assert set(paper) == {"small-a", "small-e", "medium-a", "medium-b", "large-c", "large-d"}
    assert paper["small-a"].prompt[0].endswith("@highlightGold one of a@highlightGold two")


def test_line_breaks_in_cells_stay_as_they_are(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'"first\r\nsecond",a,b,c,d,A\r\nq,a,b,c,d,B\r\n')
    assert [row[0] for row in _official.csv_of(path, _mmlu.COLUMNS)] == ["first\r\nsecond", "q"]


def test_rows_of_a_file_are_the_hubs():
    assert perplexity.rows_of(" \n = Title = \n \n Some text . \n") == ["", " = Title = \n", "", " Some text . \n"]


# --- from the hub: its layout, written here ----------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Parquet files in hub layout stand for the hub; what was asked of it is written down."""
    asked = []
    real_load = datasets.load_dataset

    def write(repo, split, rows, config=None):
        folder = tmp_path / "hub" / repo / (config or "data")
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")

    def load_dataset(repo, config=None, *, split, revision):
        asked.append((repo, config, split, revision))
        files = {split: str(tmp_path / "hub" / repo / (config or "data") / f"{split}-00000-of-00001.parquet")}
        return real_load("parquet", data_files=files, split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return SimpleNamespace(write=write, asked=asked)


def test_mmlu_from_the_hub_is_mmlu_from_the_files(hub, tmp_path):
    official.mmlu(tmp_path, {"anatomy": 3, "virology": 2})
    files = load("multiple_choice", tmp_path)
    for split in ("dev", "test"):
        rows = [
            {"question": cells[0], "subject": subject, "choices": list(cells[1:5]), "answer": "ABCD".index(cells[5])}
            for subject in ("anatomy", "virology")
            for cells in _official.csv_of(tmp_path / "mmlu" / split / f"{subject}_{split}.csv", "qABCDa")
        ]
        hub.write("cais/mmlu", split, rows, "all")
    assert load("multiple_choice", "official") == files and len(files) == 5
    assert {row[0:2] for row in hub.asked} == {("cais/mmlu", "all")}
    assert all(len(row[3]) == 40 for row in hub.asked)  # one commit, not a branch


def test_freebase_from_the_hubs_own_conversion(hub, tmp_path):
    official.freebase(tmp_path, "eval", 3)
    rows = json.loads((tmp_path / "FreebaseQA-eval.json").read_text())["Questions"]
    hub.write("microsoft/freebase_qa", "test", rows)
    assert load("factoid_qa", "official") == load("factoid_qa", tmp_path)
    turned = [  # a sequence of records became a record of lists
        row
        | {"Parses": {"Answers": [{"AnswersName": [a["AnswersName"] for a in p["Answers"]]} for p in row["Parses"]]}}
        for row in rows
    ]
    hub.write("microsoft/freebase_qa", "train", turned)
    assert [e.answers for e in load("factoid_qa", "official", "paper")] == [
        (f"writer {n}", f"w. {n}", "someone else") for n in range(3)
    ]
    assert hub.asked[-1][3] == "refs/convert/parquet"


def test_trivia_stories_prompts_and_wikitext_from_the_hub(hub, tmp_path):
    answer = {"normalized_aliases": ["paris"], "value": "Paris"}
    row = {"question_id": "q1", "question": "Capital?", "answer": answer}
    pages = {"entity_pages": {"wiki_context": ["It is Paris."]}, "search_results": {"search_context": ["Yes."]}}
    hub.write("mandarjoshi/trivia_qa", "validation", [row], "rc.nocontext")
    hub.write("mandarjoshi/trivia_qa", "validation", [row | pages], "rc")
    assert load("retrieval_qa_closed", "official")[0].answers == ("paris",)
    assert load("retrieval_qa_open", "official")[0].meta["passage"] == "It is Paris.Yes."
    official.stories(tmp_path, {"a": ("", 500)})
    story = _stories.parse("a", "", (tmp_path / "cnn_dailymail" / "a.story").read_text())
    article = {"article": story.text, "highlights": "\n".join(story.highlights), "id": "a"}
    hub.write("abisee/cnn_dailymail", "test", [article], "3.0.0")
    assert load("summarization", "official") == load("summarization", tmp_path)
    assert load("summarization", "official", "paper")[0].id == "medium-a"
    prompt = {"prompt": ["one", "two"], "category": "math", "prompt_id": 7, "reference": ["r1", "r2"]}
    hub.write("HuggingFaceH4/mt_bench_prompts", "train", [prompt])
    assert load("instructions", "official")[0].prompt == ("one", "two")
    hub.write("Salesforce/wikitext", "test", [{"text": ""}, {"text": " = T = \n"}], "wikitext-2-raw-v1")
    assert load("perplexity", "official")[0].prompt == ("\n\n = T = \n",)
    with pytest.raises(BadRequest, match="not on the hub"):
        load("instructions", "official", "paper")


def test_a_hub_that_cannot_be_reached_says_what_to_do(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(KickError, match="--data DIR"):
        load("multiple_choice", "official")


# --- bad input ---------------------------------------------------------------------------------------------


def test_missing_columns_are_named(tmp_path, hub):
    official.freebase(tmp_path, "eval", 2)
    path = tmp_path / "FreebaseQA-eval.json"
    path.write_text(path.read_text().replace("RawQuestion", "Raw"))
    with pytest.raises(BadRequest, match=r"question 1 lacks the column 'RawQuestion'"):
        load("factoid_qa", tmp_path)
    official.mmlu(tmp_path, {"anatomy": 2})
    (tmp_path / "mmlu" / "test" / "anatomy_test.csv").write_text("q,a,b,c,d\n")
    with pytest.raises(BadRequest, match=r"anatomy_test\.csv, row 1 lacks the column 'answer'"):
        load("multiple_choice", tmp_path)
    (tmp_path / "mmlu" / "test" / "anatomy_test.csv").write_text("q,a,b,c,d,E\n")
    with pytest.raises(BadRequest, match="'E' is none of A, B, C, D"):
        load("multiple_choice", tmp_path)
    (tmp_path / "mt_bench").mkdir()
    (tmp_path / "mt_bench" / "question.jsonl").write_text('{"question_id": 1, "category": "math"}\n')
    with pytest.raises(BadRequest, match=r"line 1 lacks the column 'turns'"):
        load("instructions", tmp_path)
    hub.write("cais/mmlu", "dev", [{"question": "q", "choices": ["a"] * 4, "answer": 1}], "all")
    with pytest.raises(BadRequest, match="lacks the column 'subject'"):
        load("multiple_choice", "official")


def test_an_empty_answer_list_is_refused(tmp_path):
    official.trivia(tmp_path, answers=())
    with pytest.raises(BadRequest, match="answer list of 'tc_1' is empty"):
        load("retrieval_qa_closed", tmp_path)


def test_files_stay_inside_the_folder(tmp_path):
    outside = tmp_path / "secret.txt"
    outside.write_text("secret")
    root = tmp_path / "data"
    root.mkdir()
    official.trivia(root)
    for name in ("web-dev.json", "wikipedia-dev.json"):
        path = root / "triviaqa" / "qa" / name
        path.write_text(path.read_text().replace("page.txt", "../../../../secret.txt"))
    with pytest.raises(BadRequest, match="leads out of the data folder"):
        load("retrieval_qa_open", root)


def test_a_folder_may_be_laid_out_with_links(tmp_path):
    """Links are the user's own doing; only names that a data file brings along must stay where they are."""
    official.trivia(tmp_path / "elsewhere")
    root = tmp_path / "data"
    root.mkdir()
    (root / "triviaqa").symlink_to(tmp_path / "elsewhere" / "triviaqa")
    linked = tmp_path / "linked"
    linked.symlink_to(root)
    assert load("retrieval_qa_open", linked) == load("retrieval_qa_open", tmp_path / "elsewhere")


def test_unknown_data_and_subjects(tmp_path):
    with pytest.raises(BadRequest, match="Known: pocket"):
        load("factoid_qa", tmp_path / "nowhere")
    official.mmlu(tmp_path, {"alchemy": 1})
    with pytest.raises(BadRequest, match="no subject 'alchemy'"):
        load("multiple_choice", tmp_path)


def test_options_of_many_prompts_are_those_of_each(real, llama):
    """Seen on the last line and tokenised once, against the literal rule: real prompts, and borders that merge."""
    found = [e for e in load("multiple_choice", real) if e.id.endswith("-0003")]
    asked = [("".join(e.prompt), e.choices) for e in found]
    asked += [
        ("Is it 1", ("2", "3")),
        ("ends in a line break\n", (" A", " B")),
        ("", ("x", "y")),
        ("a b", ("c d", "e")),
    ]
    together = all_option_ids(llama, *zip(*asked, strict=True))
    for (prompt, options), (ids, endings) in zip(asked, together, strict=True):
        whole, start = option_ids(llama, prompt, options)
        assert [ids + ending for ending in endings] == whole and len(ids) == start


def test_letters_that_a_tokenizer_splits(llama):
    """Options of several tokens are scored by all of them; equal ones are refused (see test_evaluation)."""
    whole, start = option_ids(llama, "Answer:", (" A", " zyx"))
    assert [len(ids) - start for ids in whole] == [1, len(whole[1]) - start] and len(whole[1]) - start > 1
