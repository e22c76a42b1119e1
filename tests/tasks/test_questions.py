"""A user's own questions: columns decide the form, faults name line and column, and order does not matter."""

import json

import pytest

from kick_core import tasks
from kick_core.errors import BadRequest, KickError
from kick_core.keys import canonical
from kick_core.tasks.data import questions


def csv(tmp_path, text, name="my.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_text(text, encoding)
    return str(path)


def test_columns_decide_how_questions_are_asked(tmp_path):
    closed = csv(tmp_path, "question,answer\nCapital of France?,Paris\n", "a.csv")
    choice = csv(tmp_path, "question,answer,options\nCapital of France?,Paris,Rome|Paris|Oslo\n", "b.csv")
    opened = csv(tmp_path, "question,answer,context\nWho came?,Ann,Ann came.\n", "c.csv")
    assert [questions.form_of(path) for path in (closed, choice, opened)] == ["closed", "choice", "open"]
    (one,) = questions.load(choice, "choice")
    assert one.choices == (" Rome", " Paris", " Oslo") and one.answers == ("B",)
    both = csv(tmp_path, "question,answer,options,context\nWho came?,Ann,Ann|Bob,Ann came.\n", "d.csv")
    task = tasks.get("own_choice", both)
    (shown,) = task.strict.load(both)
    assert task.strict.elicitation.question(shown) == "Ann came.\n\nWho came?" and shown.prompt[0].startswith(
        "Ann came."
    )
    with pytest.raises(BadRequest, match="make choice questions, not closed"):
        questions.load(choice, "closed")


def test_aliases_numbers_and_excel(tmp_path):
    text = "Question,Answers,Subject,Popularity\nLargest city of the US?,New York|NYC,cities,8.8e6\nTwo?,2,,\n"
    found = questions.load(csv(tmp_path, text, encoding="utf-8-sig"), "closed")
    by_question = {example.meta["question"]: example for example in found}
    assert by_question["Largest city of the US?"].answers == ("New York", "NYC")
    assert by_question["Largest city of the US?"].meta["popularity"] == 8.8e6
    assert by_question["Two?"].answers == ("2",) and "popularity" not in by_question["Two?"].meta
    (part,) = questions.load(csv(tmp_path, "question,answer,popularity\nThree?,3,0.25\n", "b.csv"), "closed")
    assert float(part.meta["popularity"]) == 0.25
    assert canonical([example.to_json() for example in (*found, part)]), "a run's key is made of them"
    row = {"question": "Largest city of the US?", "answer": ["New York", "NYC"], "passage": "It is New York."}
    path = tmp_path / "my.jsonl"
    path.write_text(json.dumps(row) + "\n\n")
    (one,) = questions.load(str(path), "open")
    assert one.answers == ("New York", "NYC") and one.meta["passage"] == "It is New York."
    assert one.prompt == ("It is New York.\n\nQuestion: Largest city of the US?\nAnswer:",)


def test_spreadsheets_separate_cells_otherwise_and_letters_are_composed(tmp_path):
    path = csv(tmp_path, "question;answer;options\nWhere?;Malmo\u0308;Malm\u00f6|a, b\n", "my.CSV")
    (example,) = questions.load(path, "choice")
    assert example.choices == (" Malm\u00f6", " a, b") and example.answers == ("A",)


def test_one_question_with_other_options_is_another_one_and_a_letter_names_an_option(tmp_path):
    rows = "Which is true?,a,a|b\nWhich is true?,B,c|d\n,,\n,,,\n"
    first, second = questions.load(csv(tmp_path, f"question, answer ,options\n{rows}"), "choice")
    assert first.id != second.id and {first.choices + first.answers, second.choices + second.answers} == {
        (" a", " b", "A"),
        (" c", " d", "B"),
    }


def test_half_a_character_is_refused(tmp_path):
    path = csv(tmp_path, '{"question": "a\\ud800?", "answer": "x"}\n', "my.jsonl")
    with pytest.raises(BadRequest, match="half of a character"):
        questions.form_of(path)


def test_a_question_keeps_its_id_when_the_file_is_sorted_or_grows(tmp_path):
    lines = [f"Question {n}?,answer {n}" for n in range(30)]
    first = questions.load(csv(tmp_path, "question,answer\n" + "\n".join(lines), "a.csv"), "closed")
    again = questions.load(csv(tmp_path, "question,answer\n" + "\n".join(reversed(lines)), "b.csv"), "closed")
    assert first == again
    assert [example.id for example in first] != sorted(example.id for example in first)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: it names the columns"),
        ("question,answer\n", "holds no question"),
        ("question,answer\nWhy?\n", "line 2: the column 'answer' is missing or empty"),
        ("question,answer\n,x\n", "line 2: the column 'question' is missing or empty"),
        ("question,answer\nWhy?,!!!\n", "answer '!!!' holds no word"),
        ("question,answer\nWhy?,x,y\n", "line 2 has more cells than the header"),
        ("question,answer,colour\nWhy?,x,red\n", "unknown column 'colour'"),
        ("question,answer\nWhy?,x\nWhy?,y\n", "line 3: the question of line 2 stands here again"),
        ("question,answer,options\nWhy?,x,x|x|y\n", "at least two that differ"),
        (
            f"question,answer,options\nWhy?,1,{'|'.join(map(str, range(27)))}\n",
            "line 2: 27 options, a question can have 26",
        ),
        ("question,answer,answer\nWhy?,x,y\n", "line 1: the column 'answer' stands there twice"),
        ("question,answer,answers\nWhy?,x,y\n", "line 2: the column 'answer' stands there twice"),
        ('question,answer\nWho?,y\n"Why?,x\n', "line 3 is no CSV (unexpected end of data)"),
        ("question,answer,options\nWhy?,x,y|z\n", "must be one of the options"),
        ("question,answer,options\nWhy?,x,x|y\nHow?,z,\n", "lines 2 and 3 differ"),
        ("question,answer,popularity\nWhy?,x,much\n", "popularity: a number is expected, not 'much'"),
    ],
)
def test_faults_are_one_line_with_the_place(tmp_path, text, message):
    path = csv(tmp_path, text)
    with pytest.raises(BadRequest) as error:
        questions.form_of(path)
    assert message in str(error.value) and path in str(error.value) and "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(BadRequest, match="is not there"):
        questions.form_of(str(tmp_path / "none.csv"))
    path = tmp_path / "latin.csv"
    path.write_bytes("question,answer\nWie heißt er?,Jörg\n".encode("latin-1"))
    with pytest.raises(KickError, match="UTF-8"):
        questions.form_of(str(path))
    monkeypatch.setattr(questions, "LARGEST", 1 << 20)
    with pytest.raises(BadRequest, match="has 2 MB, at most 1 MB are read"):
        questions.form_of(csv(tmp_path, "question,answer\n" + "x" * (2 << 20), "large.csv"))
    lines = tmp_path / "my.jsonl"
    lines.write_text('{"question": "a", "answer": "b"}\n[1]\n')
    with pytest.raises(BadRequest, match=r"line 2: a JSON object is expected, not '\[1\]'"):
        questions.form_of(str(lines))


def test_an_uploaded_file_is_kept_by_its_content_under_a_safe_name(tmp_path, monkeypatch):
    content = b"question,answer\nCapital of France?,Paris\n"
    path, task, count = questions.keep(tmp_path, "../../my questions.csv", content)
    assert (path.name, task, count) == ("my_questions.csv", "own_questions", 1)
    assert path.parent.parent == tmp_path and path.read_bytes() == content
    assert questions.keep(tmp_path, "my questions.csv", content)[0] == path
    with pytest.raises(BadRequest, match=r"^bad.csv, line 2: the column 'answer'"):
        questions.keep(tmp_path, "bad.csv", b"question,answer\nWhy?\n")
    with pytest.raises(BadRequest, match=r"ends in \.csv or \.jsonl"):
        questions.keep(tmp_path, "my.pdf", content)
    monkeypatch.setattr(questions, "UPLOAD", 1 << 20)
    with pytest.raises(BadRequest, match="has 2 MB, a browser may bring 1 MB"):
        questions.keep(tmp_path, "large.csv", b"x" * (2 << 20))
    assert [one.name for one in tmp_path.rglob("*.csv")] == ["my_questions.csv"]
