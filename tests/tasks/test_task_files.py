"""Tasks of one's own in a YAML or JSON file: what they ask, and faults by line and field."""

import json

import pytest

from kick_core import tasks
from kick_core.errors import BadRequest
from kick_core.records import Output
from kick_core.tasks.data import task_files

ROWS = """question,answer,continent,choices
Capital of France?,Paris|Lutetia,Europe,Paris|Rome|Oslo
Capital of Italy?,Rome,Europe,Paris|Rome|Oslo
Capital of Norway?,Oslo,Europe,Paris|Rome|Oslo
Capital of Japan?,Tokyo,Asia,Tokyo|Rome|Oslo
"""


@pytest.fixture
def written(tmp_path):
    (tmp_path / "rows.csv").write_text(ROWS)

    def write(text, name="task.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


HEAD = 'name: capitals\ndata: rows.csv\nprompt: "Q: {question}\\nA:"\n'


def task_of(file):
    return tasks.get(task_files.read(file).task, file)


def test_a_file_is_a_task_with_its_own_prompt_shots_scorer_and_stop(written):
    task = task_of(written(HEAD + "subject: continent\nscorer: f1\nshots: 2\nstop: [';']\nnew_tokens: 5\nversion: 3\n"))
    assert (task.title, task.headline, task.version, task.kind) == ("capitals", "f1", 3, "generate")
    assert task.strict.stop == (";",) and task.strict.new_tokens == 5
    examples = task.strict.load("")
    assert len(examples) == 2 and examples == task.strict.load("")
    shown = {part.split("\nA: ")[0] for example in examples for part in example.prompt[1:3]}
    assert all(len(example.prompt) == 4 and example.prompt[-1].endswith("?\nA:") for example in examples)
    assert len(shown) == 2 and shown.isdisjoint(example.prompt[-1].split("\nA:")[0] for example in examples)
    assert {example.meta["subject"] for example in examples} <= {"Europe", "Asia"}
    (verdict,) = (v for v in tasks.judge(task, examples[0], Output("", "", ("x",), stop="eos")) if v.scorer == "f1")
    assert verdict.score == 0


def test_options_by_words_or_letters_as_yaml_or_json(written):
    words = task_of(written(HEAD + "options: choices\n"))
    spec = {
        "name": "c",
        "data": "rows.csv",
        "prompt": "{question}\n{options}\nA:",
        "options": "choices",
        "letters": True,
    }
    letters = task_of(written(json.dumps(spec, indent=1), "task.json"))
    by_gold = {example.answers: example for example in words.strict.load("")}
    assert (words.name, letters.name) == ("own_choice/capitals", "own_choice/c") and by_gold["C",].choices == (
        " Paris",
        " Rome",
        " Oslo",
    )
    lettered = {example.id: example for example in letters.strict.load("")}
    assert all(example.choices == (" A", " B", " C") for example in lettered.values())
    assert any(
        example.prompt[0] == "Capital of Italy?\nA. Paris\nB. Rome\nC. Oslo\nA:" for example in lettered.values()
    )


def test_a_run_is_read_by_the_definition_that_it_was_asked_by(written):
    definition = task_files.read(written(HEAD + "scorer: contains\nstop: [x, y]\n"))
    assert task_files.from_settings({task_files.SETTING: json.loads(json.dumps(definition.to_json()))}) == definition
    assert task_files.from_settings({}) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "scorrer: f1\n", r"line 4, scorrer: unknown field .* Did you mean 'scorer'"),
        (HEAD + "scorer: exact\n", r"line 4, scorer: unknown scorer 'exact'.*'exact_match'"),
        (HEAD + "options: choices\nscorer: f1\n", r"line 5, scorer: unknown scorer"),
        (HEAD + "shots: many\n", r"line 4, shots: a whole number from 0 on is expected, not 'many'"),
        (HEAD + "stop: [[1]]\n", r"line 4, stop: a text, a number or a list"),
        (HEAD + "stop: {a: 1}\n", r"line 4, stop: a text, a number or a list"),
        (HEAD + "name: again\n", r"line 4, name: the field stands there twice"),
        (HEAD + "template: chat\nshots: 1\n", r"line 4, template: a chat takes neither"),
        (HEAD + "letters: true\n", r"line 4, letters: letters stand for options"),
        (HEAD + "letters: true\noptions: choices\n", r"line 4, letters: the prompt does not show .* write {options}"),
        (HEAD + "passage: text\n", r"line 4, passage: the prompt does not show it; write {text} there"),
        (HEAD.replace("{question}", "{ }"), r"line 3, prompt: { } names no column"),
        (HEAD.replace("{question}", "{question:>999999999}"), r"line 3, prompt: {question} takes neither ':' nor '!'"),
        (HEAD.replace("{question}", "what"), r"line 3, prompt: no column in braces"),
        (HEAD.replace("{question}", "{"), r"line 3, prompt: .* written twice"),
        ("name: x\nprompt: '{a}'\n", "the field 'data' is missing or empty"),
        ("- a\n", "a mapping of fields is expected"),
        ("a: [1\nb: 2\n", r"line \d is no YAML or JSON"),
        ("a: " + "[" * 5000, "is no YAML or JSON"),
    ],
)
def test_faults_of_the_file_name_line_and_field(written, text, message):
    with pytest.raises(BadRequest, match=message):
        task_files.read(written(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "answer: gold\n", r"rows.csv, line 2: the column 'gold' is missing or empty; the row has question"),
        (HEAD.replace("{question}", "{question.__class__}"), r"line 2: the column 'question.__class__' is missing"),
        (HEAD + "options: question\n", r"line 2, question: the options 'Capital of France\?': at least two"),
        (HEAD + "options: choices\nanswer: continent\n", r"line 2, continent: 'Europe' is none of the options"),
        (HEAD + "shots: 4\n", "holds no question but the worked examples"),
        (HEAD + "shots: 5\n", "5 worked examples, but there are 4 rows"),
        (HEAD.replace("rows.csv", "../rows.csv"), "leads out of the data folder"),
        (HEAD.replace("rows.csv", "other.csv"), "other.csv is not there"),
        (HEAD + "id: continent\n", "the question of line 2 stands here again"),
    ],
)
def test_faults_of_the_data_name_line_and_column(written, text, message):
    with pytest.raises(BadRequest, match=message):
        task_of(written(text)).strict.load("")


def test_options_are_never_renumbered_and_columns_may_have_any_name(written, tmp_path):
    head = "name: x\ndata: mine.CSV\nprompt: '{Frage (kurz).1}'\noptions: o\nanswer: a\n"
    file = written(head)
    for cells, fault in (("x|x|y,2", "at least two that differ"), ("x||y,2", "none of them empty"), ("x|y,1", "")):
        (tmp_path / "mine.CSV").write_text(f"Frage (kurz).1, o,a\nWelche?,{cells}\n")
        if fault:
            with pytest.raises(BadRequest, match=f"line 2, o: .*{fault}"):
                task_of(file).strict.load("")
        else:
            (example,) = task_of(file).strict.load("")
            assert (example.prompt, example.answers) == (("Welche?",), ("B",))


def test_a_task_file_is_a_task_of_its_own(written):
    with pytest.raises(BadRequest, match="without --task"):
        tasks.get("factoid_qa", written(HEAD))
