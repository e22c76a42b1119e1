"""A task of one's own without Python: a YAML or JSON file that says how the rows of a data file are asked and scored.

    name: capitals                      # what tables call it
    data: capitals.csv                  # .csv or .jsonl, in this file's folder or below it
    prompt: "Q: {question}\\nA:"         # columns in braces; {options} are lettered lines; the answer follows a space
    header: "Answer in one word.\\n\\n"   # optional: stands once before the worked examples
    answer: answer                      # the column of accepted answers: a list, or separated by |
    options: choices                    # optional column: then the options are scored; answer is one's text or letter
    letters: true                       # optional: the letters are scored instead of the options' words
    subject: continent                  # optional column that groups the results
    passage: text                       # optional column: a text with the answer (open book)
    id: number                          # optional column; else ids follow from the questions
    scorer: exact_match                 # the headline; see `TEXT` and `OPTIONS`
    shots: 3                            # worked examples before each question, drawn from the data and not asked
    shots_data: worked.csv              # optional: drawn from this file instead
    fewshot_seed: 0                     # which are drawn
    template: chat                      # optional: the prompt is a message in the model's chat template
    stop: ["\\n"]                        # optional: where an answer ends; without a template a line's end
    new_tokens: 32                      # the most tokens of an answer
    version: 1                          # yours to raise; it is shown

A fault is named with its line and field. The definition is kept in a run's settings, so that its outputs can be scored
and shown when the file is gone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from string import Formatter, ascii_uppercase
from typing import Any

import yaml

from kick_core.errors import BadRequest, nearest
from kick_core.keys import sha256_text
from kick_core.records import Example
from kick_core.tasks.base import PromptSpec, Scorer, Task
from kick_core.tasks.data.hub import in_random_order, inside, random_sample, text_of
from kick_core.tasks.data.questions import column_name, csv_rows, distinct, jsonl_rows, whole
from kick_core.tasks.data.texts import ROUGE
from kick_core.tasks.option_scorers import BY_WORDS
from kick_core.tasks.scorers import STATED, comparable, substring
from kick_core.tasks.wording import lettered

SUFFIXES = (".yaml", ".yml", ".json")
LARGEST = 1 << 16
"""Bytes of a task file."""

TEXT: Mapping[str, Scorer] = {**STATED, "substring": substring, **ROUGE}
"""Scorers of written answers."""
OPTIONS: Mapping[str, Scorer] = BY_WORDS
"""Scorers of options."""

SETTING = "task_file"
"""Where a run's settings hold the definition."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a task file says; its fields are those above."""

    name: str
    data: str
    prompt: str
    answer: str = "answer"
    header: str = ""
    options: str = ""
    letters: bool = False
    subject: str = ""
    passage: str = ""
    id: str = ""
    scorer: str = ""
    shots: int = 0
    shots_data: str = ""
    fewshot_seed: int = 0
    template: str = "raw"
    stop: tuple[str, ...] = ()
    new_tokens: int = 32
    version: int = 1

    @property
    def scorers(self) -> Mapping[str, Scorer]:
        """Scorers that it can name."""
        return OPTIONS if self.options else TEXT

    @property
    def task(self) -> str:
        """The name of its task: the record that it fills in, by options, a passage, or neither, then its own."""
        base = "own_choice" if self.options else "own_open" if self.passage else "own_questions"
        return f"{base}/{slug(self.name)}"

    def to_json(self) -> dict[str, Any]:
        """Its fields as JSON values, those with their usual value left out."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}
        return own | ({"stop": list(self.stop)} if self.stop else {})


def slug(name: str) -> str:
    """A name as it stands in tasks and addresses."""
    return re.sub(r"[^\w.-]+", "_", name)[:60]


def is_file(data: str) -> bool:
    """Whether a data name means a task file, there or not."""
    return data.endswith(SUFFIXES)


def read(data: str) -> Definition:
    """The definition of a task file.

    Raises:
        BadRequest: a file that is missing, too large or no mapping, a field that is unknown, missing, of another kind,
            or that does not fit the others. The line and the field are named.
        KickError: a file that cannot be read as UTF-8 text.
    """
    path = Path(data).expanduser()
    if not path.is_file():
        raise BadRequest(f"the task file {data!r} is not there")
    stat = path.stat()
    if stat.st_size > LARGEST:
        raise BadRequest(
            f"{path} has {stat.st_size:,} bytes, and a task file at most {LARGEST:,}: data stands beside it"
        )
    return _read(path, stat.st_size, stat.st_mtime_ns)


def files(data: str) -> tuple[Path, ...]:
    """The data files that a task file names."""
    definition, root = read(data), Path(data).expanduser().resolve().parent
    return tuple(inside(root, name) for name in (definition.data, definition.shots_data) if name)


def filled_in(task: Task, definition: Definition, data: str) -> Task:
    """A record of one's own questions with what a definition says in place of its own."""
    kind: Any = "choose" if definition.options else "dialogue" if definition.template == "chat" else "generate"
    stop = definition.stop or (("\n",) if kind == "generate" else ())
    spec = PromptSpec(
        kind,
        partial(load, definition=definition, file=data),
        new_tokens=definition.new_tokens,
        stop=stop,
        template="chat" if kind == "dialogue" else "raw",
    )
    known = definition.scorers
    headline = definition.scorer or next(iter(known))
    usual = OPTIONS if definition.options else STATED
    scorers = {headline: known[headline], **usual}
    about = f"{definition.name}: a task of one's own, scored by {headline.replace('_', ' ')}"
    return replace(
        task, title=definition.name, about=about, version=definition.version, scorers=scorers, headline=headline,
        strict=spec, paper=None,
    )  # fmt: skip


def from_settings(settings: Mapping[str, Any]) -> Definition | None:
    """The definition that a run was asked by, or None where it was not by a task file."""
    saved = settings.get(SETTING)
    return Definition(**{**saved, "stop": tuple(saved.get("stop", ()))}) if saved else None


# --- the file ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _read(path: Path, size: int, changed: int) -> Definition:
    values, lines = _values(path)
    known = {one.name: one for one in fields(Definition)}
    for name, value in values.items():
        where = f"{path}, line {lines[name]}, {name}"
        if name not in known:
            raise BadRequest(f"{where}: {nearest(name, tuple(known), 'field')}")
        values[name] = _checked(where, known[name].type, value)
    for name in ("name", "data", "prompt"):
        if not values.get(name):
            raise BadRequest(f"{path}: the field {name!r} is missing or empty")
    definition = Definition(**values)
    _check(definition, lambda name: f"{path}, line {lines.get(name, 1)}, {name}")
    return definition


def _values(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Field -> value and field -> line. JSON is YAML too, and one reader tells the lines of both."""
    try:
        loader = yaml.SafeLoader(text_of(path))
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise BadRequest(f"{path}: a mapping of fields is expected, e.g. name: capitals")
        values, lines = {}, {}
        for key, value in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            flat = value.value if isinstance(value, yaml.SequenceNode) else [value]
            if not all(isinstance(one, yaml.ScalarNode) for one in flat):
                raise BadRequest(f"{path}, line {line}, {name}: a text, a number or a list of texts is expected")
            if name in values:
                raise BadRequest(f"{path}, line {line}, {name}: the field stands there twice")
            values[name], lines[name] = loader.construct_object(value, deep=True), line
        return values, lines
    except BadRequest:  # a ValueError, as what PyYAML raises for an impossible date
        raise
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark
        where = f", line {at.line + 1}" if at else ""
        raise BadRequest(f"{path}{where} is no YAML or JSON ({error.problem})") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise BadRequest(f"{path} is no YAML or JSON ({str(error).splitlines()[0]})") from error


def _checked(where: str, kind: Any, value: Any) -> Any:
    """A field's value, if it is of the field's kind."""
    match kind:
        case "bool" if isinstance(value, bool):
            return value
        case "int" if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        case "str" if isinstance(value, str):
            return value
        case "tuple[str, ...]":
            parts = value if isinstance(value, list) else [value]
            if all(isinstance(part, str) and part for part in parts):
                return tuple(parts)
    wanted = {"bool": "true or false", "int": "a whole number from 0 on", "str": "a text"}.get(kind, "a list of texts")
    raise BadRequest(f"{where}: {wanted} is expected, not {str(value)[:40]!r}")


def _check(definition: Definition, where: Any) -> None:
    """What fields must be together."""
    if definition.scorer and definition.scorer not in definition.scorers:
        raise BadRequest(f"{where('scorer')}: {nearest(definition.scorer, definition.scorers, 'scorer')}")
    if definition.template not in ("raw", "chat"):
        raise BadRequest(f"{where('template')}: raw or chat is expected, not {definition.template[:40]!r}")
    if definition.template == "chat" and (definition.shots or definition.options):
        raise BadRequest(
            f"{where('template')}: a chat takes neither worked examples nor options; leave one of them out"
        )
    if definition.letters and not definition.options:
        raise BadRequest(f"{where('letters')}: letters stand for options; name their column with options")
    if not definition.new_tokens:
        raise BadRequest(f"{where('new_tokens')}: at least 1 is needed")
    shown = columns(definition, where("prompt"))
    if definition.passage and definition.passage not in shown:
        raise BadRequest(f"{where('passage')}: the prompt does not show it; write {{{definition.passage}}} there")
    if definition.letters and not {"options", definition.options} & set(shown):
        raise BadRequest(f"{where('letters')}: the prompt does not show what they stand for; write {{options}} there")


def columns(definition: Definition, where: str) -> tuple[str, ...]:
    """The columns that the prompt names. Raises BadRequest for braces that name none."""
    try:
        marked = [
            (name, spec, conversion)
            for _, name, spec, conversion in Formatter().parse(definition.prompt)
            if name is not None
        ]
    except ValueError as error:
        raise BadRequest(f"{where}: {error}; a brace of the text itself is written twice") from error
    # a format such as {question:>999999999} would fill the memory
    if formatted := [name for name, spec, conversion in marked if spec or conversion]:
        raise BadRequest(
            f"{where}: {{{formatted[0]}}} takes neither ':' nor '!': a column's name alone stands in braces"
        )
    parts = [name for name, *_ in marked]
    if odd := [name for name in parts if not name.strip()]:
        raise BadRequest(f"{where}: {{{odd[0]}}} names no column; a brace of the text itself is written twice")
    if not parts:
        raise BadRequest(f"{where}: no column in braces, so all prompts would be alike; e.g. {{question}}")
    return tuple(parts)


# --- its data ------------------------------------------------------------------------------------------------


def load(data: str, definition: Definition, file: str) -> tuple[Example, ...]:
    """The questions of a task file in one fixed random order; worked examples stand before each.

    Raises:
        BadRequest: a data file that is missing or empty, or a row that lacks a column or an answer: line and column are
            named.
    """
    root = Path(file).expanduser().resolve().parent
    examples = _examples(root, definition, definition.data)
    pool = examples
    if definition.shots_data:
        pool = _examples(root, definition, definition.shots_data)
    worked = random_sample(f"few-shot {definition.fewshot_seed}", pool, definition.shots)
    if len(worked) < definition.shots:
        raise BadRequest(
            f"{file}: shots: {definition.shots} worked examples, but there are {len(worked)} rows to draw from"
        )
    if not definition.shots_data:
        names = {example.id for example in worked}
        examples = [example for example in examples if example.id not in names]
    if not examples:
        raise BadRequest(f"{file}: {definition.data} holds no question" + " but the worked examples" * bool(worked))
    head = (definition.header, *(_shot(example) for example in worked)) if worked else ()
    before = "" if worked else definition.header
    return in_random_order(
        f"task file {definition.name}",
        (replace(example, prompt=(*head, f"{before}{example.prompt[0]}")) for example in examples),
    )


def _shot(example: Example) -> str:
    answer = example.choices[ascii_uppercase.index(example.answers[0])] if example.choices else (
        f" {example.answers[0]}"
    )  # fmt: skip
    return f"{example.prompt[0]}{answer}\n\n"


def _examples(root: Path, definition: Definition, name: str) -> list[Example]:
    path = inside(root, name)
    if not path.is_file():
        raise BadRequest(f"{root / name} is not there: a task's data stand beside its file, or in a folder below it")
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".jsonl"):
        raise BadRequest(f"{path}: data are a .csv or a .jsonl file")
    text = text_of(path, newline="")
    rows = csv_rows(str(path), text) if suffix == ".csv" else jsonl_rows(str(path), text)
    examples = ((line, _example(f"{path}, line {line}", row, definition)) for line, row in rows)
    return list(distinct(str(path), examples, named=bool(definition.id)).values())


def _example(where: str, row: Mapping[str, Any], definition: Definition) -> Example:
    answers = _texts(where, row, definition.answer)
    options = _options(where, row, definition.options) if definition.options else ()
    values = {name: _one(where, row, name) for name in columns(definition, where) if name != "options" or not options}
    if options:
        lines = (f"{letter}. {text}" for letter, text in zip(lettered(options), options, strict=True))
        values["options"] = "\n".join(lines)
    prompt = "".join(
        text + ("" if name is None else values[name]) for text, name, *_ in Formatter().parse(definition.prompt)
    )
    meta: dict[str, Any] = {"question": str(values.get("question", prompt))}
    for field, key in ((definition.subject, "subject"), (definition.passage, "passage")):
        if field:
            meta[key] = _one(where, row, field)
    name = _one(where, row, definition.id) if definition.id else f"own-{sha256_text(prompt)[:16]}"
    if not options:
        if not comparable(answers):
            raise BadRequest(f"{where}, {definition.answer}: {answers[0]!r} holds no word that could be compared")
        return Example(name, (prompt,), answers=answers, meta=meta)
    gold = _gold(f"{where}, {definition.answer}", answers, options)
    shown = lettered(options) if definition.letters else options
    choices = tuple(f" {option}" for option in shown)
    return Example(name, (prompt,), choices=choices, answers=(gold,), meta=meta | {"options": list(options)})


def _gold(where: str, answers: Sequence[str], options: Sequence[str]) -> str:
    """The letter of the right option: its text, its letter, or its place from 0 on."""
    letters, answer = tuple(lettered(options)), answers[0]
    if answer in options:
        return letters[options.index(answer)]
    if answer in letters:
        return answer
    if answer.isascii() and answer.isdigit() and int(answer) < len(options):
        return letters[int(answer)]
    raise BadRequest(
        f"{where}: {answer[:40]!r} is none of the options {', '.join(options)[:80]!r}, and no letter of one"
    )


def _one(where: str, row: Mapping[str, Any], column: str) -> str:
    value = row.get(column_name(column))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        known = ", ".join(map(str, row))[:200]
        problem = "is missing or empty" if value is None else f"holds {str(value)[:40]!r}, not a text"
        raise BadRequest(f"{where}: the column {column!r} {problem}; the row has {known}")
    return whole(f"{where}, {column}", str(value))


def _options(where: str, row: Mapping[str, Any], column: str) -> tuple[str, ...]:
    """As they stand, because an answer may be a letter or a place among them."""
    options = tuple(_parts(where, row, column))
    if len(options) < 2 or len(set(options)) < len(options) or not all(options):
        raise BadRequest(
            f"{where}, {column}: the options {', '.join(options)!r}: at least two that differ are needed, none of them "
            "empty, separated by | or as a list"
        )
    if len(options) > len(ascii_uppercase):
        raise BadRequest(
            f"{where}, {column}: {len(options)} options, a question can have {len(ascii_uppercase)} at most"
        )
    return options


def _texts(where: str, row: Mapping[str, Any], column: str) -> tuple[str, ...]:
    texts = tuple(dict.fromkeys(text for text in _parts(where, row, column) if text))
    if not texts:
        raise BadRequest(f"{where}: the column {column!r} is missing or empty")
    return texts


def _parts(where: str, row: Mapping[str, Any], column: str) -> list[str]:
    value = row.get(column_name(column))
    parts = value if isinstance(value, list) else _one(where, row, column).split("|")
    if not parts or any(isinstance(part, bool) or not isinstance(part, str | int | float) for part in parts):
        raise BadRequest(f"{where}: the column {column!r} holds {str(value)[:40]!r}, not a text or a list of texts")
    return [whole(f"{where}, {column}", str(part).strip()) for part in parts]
