"""MMLU (Hendrycks et al. 2021): 57 subjects, 14,042 test questions, five shots each from the dev split.

Prompt as in hendrycks/test and LLM-KICK, byte for byte: *two* spaces after "about" (the subject is formatted
with a leading one), shots that end in " X\\n\\n". Both protocols ask all questions, so they share one order; the
published code goes by subject. That code reads the CSVs with pandas' defaults, which since pandas 2.0 make the option
"None" of ten questions a missing value that is printed as "nan"; strict leaves every cell the word that it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from kick_core.errors import BadRequest
from kick_core.records import Example
from kick_core.tasks.data.hub import Hub, csv_of, find, folder, hub_rows, in_random_order, inside
from kick_core.tasks.wording import CHOICE_HEADER, LETTERS, choice

HUB = Hub("cais/mmlu", "c30699e8356da336a370243923dbaf21066bb9fe", "all")
SHOTS = 5
COLUMNS = ("question", "A", "B", "C", "D", "answer")

DISCIPLINES = {
    "STEM": (
        "abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics "
        "college_physics computer_security conceptual_physics electrical_engineering elementary_mathematics "
        "high_school_biology high_school_chemistry high_school_computer_science high_school_mathematics "
        "high_school_physics high_school_statistics machine_learning"
    ),
    "humanities": (
        "formal_logic high_school_european_history high_school_us_history high_school_world_history "
        "international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory "
        "professional_law world_religions"
    ),
    "social sciences": (
        "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics "
        "high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations "
        "security_studies sociology us_foreign_policy"
    ),
    "other": (
        "anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing "
        "medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology"
    ),
}
"""The four disciplines of hendrycks' categories.py."""

LM_EVAL_MOVES = {"anatomy": "STEM"}
"""Where lm-eval's map differs from hendrycks': 135 questions."""

_DISCIPLINE = {subject: discipline for discipline, subjects in DISCIPLINES.items() for subject in subjects.split()}

Question = tuple[str, ...]
"""The question, its four options, the answer's letter."""


def load(data: str) -> tuple[Example, ...]:
    """All test questions, each with its subject's five shots, in one random order."""
    return in_random_order("mmlu", _examples(data))


_MISSING = frozenset(
    (
        "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
        "NULL", "NaN", "None", "n/a", "nan", "null",
    )
)  # fmt: skip
"""What pandas 2 reads as a missing value (`pandas.read_csv`, `na_values`)."""


def as_published(data: str) -> tuple[Example, ...]:
    """The same with options that pandas 2 takes for missing printed as "nan"."""
    return tuple(map(_with_missing, load(data)))


def _with_missing(example: Example) -> Example:
    options = example.meta["options"]
    if _MISSING.isdisjoint(options):
        return example
    options = ["nan" if option in _MISSING else option for option in options]
    prompt = (*example.prompt[:-1], choice(example.meta["question"], options))
    return replace(example, prompt=prompt, meta=example.meta | {"options": options})


def _examples(data: str) -> Iterator[Example]:
    dev, test = _questions(data, "dev"), _questions(data, "test")
    for subject, questions in test.items():
        if subject not in _DISCIPLINE:
            raise BadRequest(f"MMLU has no subject {subject!r}: the 57 official ones are known")
        if len(dev.get(subject, ())) < SHOTS:
            raise BadRequest(f"MMLU's dev split holds {len(dev.get(subject, ()))} questions on {subject}, not {SHOTS}")
        head = (_header(subject), *map(_shot, dev[subject][:SHOTS]))
        for number, row in enumerate(questions):
            question, options, answer = row[0], row[1:5], row[5]
            yield Example(
                f"{subject}-{number:04d}",
                (*head, choice(question, options)),
                choices=tuple(f" {letter}" for letter in LETTERS),
                answers=(answer,),
                meta={
                    "question": question,
                    "subject": subject,
                    "discipline": _DISCIPLINE[subject],
                    "options": list(options),
                },
            )


def _header(subject: str) -> str:
    return CHOICE_HEADER.format(subject="".join(f" {word}" for word in subject.split("_")))


def _shot(row: Sequence[str]) -> str:
    return f"{choice(row[0], row[1:5])} {row[5]}\n\n"


def _questions(data: str, split: str) -> dict[str, list[Question]]:
    """Subject -> its rows in file order."""
    root = folder(data)
    subjects: dict[str, list[Question]] = {}
    if root is None:
        for row in hub_rows(HUB, split, "question", "subject", "choices", "answer"):
            options = row["choices"]
            if len(options) != len(LETTERS):
                raise BadRequest(f"MMLU, {row['subject']}: {len(options)} choices instead of four")
            subjects.setdefault(row["subject"], []).append((row["question"], *options, LETTERS[row["answer"]]))
        return subjects
    base = find(root, f"MMLU {split} split", f"mmlu/{split}", f"data/{split}", split)
    paths = sorted(base.glob(f"*_{split}.csv"))
    if not paths:
        raise BadRequest(f"{base} holds no MMLU file: looked for SUBJECT_{split}.csv")
    for path in paths:
        subject = path.stem.removesuffix(f"_{split}")
        lines = csv_of(inside(root, str(path.relative_to(root))), COLUMNS)
        for number, cells in enumerate(lines, 1):
            if cells[5] not in LETTERS:
                raise BadRequest(f"{path}, row {number}: the answer {cells[5]!r} is none of {', '.join(LETTERS)}")
        subjects[subject] = [tuple(cells) for cells in lines]
    return subjects


def lm_eval_discipline(subject: str) -> str:
    """The discipline that lm-eval's groups put a subject in."""
    return LM_EVAL_MOVES.get(subject, _DISCIPLINE.get(subject, ""))
