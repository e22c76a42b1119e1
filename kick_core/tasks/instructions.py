"""Following instructions over two turns (LLM-KICK's instruction following; MT-Bench and Vicuna-80).

The pocket instructions ask for things that can be checked without a judge: words that must stand in the
answer, its beginning, its length, its number of lines. The second turn is asked after the model's own first.

Official data, strict: MT-Bench (Zheng et al. 2023), 80 questions of two turns, sampled at FastChat's temperature of
each category. Paper: what the released code asks, the 80 single-turn questions of Vicuna-bench, at 0.7. What the
answers say is a judge's business; without one they are scored by their form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kick_core.errors import BadRequest
from kick_core.records import Example, Output
from kick_core.tasks.base import PromptSpec, Score, Task
from kick_core.tasks.data.hub import Hub, find, folder, hub_rows, in_random_order, inside, json_lines, require
from kick_core.tasks.data.pocket import meta, rows
from kick_core.tasks.data.texts import SHAPE, form_of, well_formed
from kick_core.tasks.scorers import stands_in


def _load(data: str) -> tuple[Example, ...]:
    return tuple(
        Example(
            row["id"],
            tuple(row["turns"]),
            answers=tuple(row["references"]),
            meta=meta(row, "category", "checks"),
        )
        for row in rows("instructions", data)
    )


def _edge(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def met(check: dict[str, Any], text: str) -> bool:
    """Whether an answer meets one check. Raises ValueError for an unknown kind."""
    value = check["value"]
    match check["kind"]:
        case "contains":
            return stands_in(text, value if isinstance(value, list) else [value])
        case "not_contains":
            return not stands_in(text, value if isinstance(value, list) else [value])
        case "starts_with":
            return _edge(text).startswith(_edge(value))
        case "ends_with":
            return _edge(text).endswith(_edge(value))
        case "max_words":
            return 0 < len(text.split()) <= value
        case "min_words":
            return len(text.split()) >= value
        case "lines":
            return len([line for line in text.splitlines() if line.strip()]) == value
        case kind:
            raise ValueError(f"unknown check {kind!r}")


def followed(example: Example, output: Output) -> Score:
    """Share of the checks of both turns that the answers meet."""
    results: list[tuple[str, bool]] = []
    for turn, checks in enumerate(example.meta["checks"]):
        text = output.text[turn] if turn < len(output.text) else ""
        results += [(f"turn {turn + 1} {c['kind']} {c['value']}", bool(text.strip()) and met(c, text)) for c in checks]
    failed = [name for name, good in results if not good]
    why = "right" if not failed else form_of(output) or "wrong"
    return Score(1 - len(failed) / len(results), f"failed: {'; '.join(failed)}" if failed else "", why)


HUB = Hub("HuggingFaceH4/mt_bench_prompts", "e3a795c5e9a82ee40611c416b8a7786c73198991")

TEMPERATURES = {
    "writing": 0.7, "roleplay": 0.7, "extraction": 0.0, "math": 0.0, "coding": 0.0, "reasoning": 0.0,
    "stem": 0.1, "humanities": 0.1,
}  # fmt: skip
"""FastChat's, by category (llm_judge/common.py)."""


def _mt_bench(data: str) -> tuple[Example, ...]:
    if (root := folder(data)) is None:
        rows = hub_rows(HUB, "train", "prompt", "category", "prompt_id", "reference")
        questions = [_question("mt", r["prompt_id"], r["prompt"], r["category"], r["reference"]) for r in rows]
    else:
        path = find(root, "MT-Bench", "mt_bench/question.jsonl", "question.jsonl")
        golds = _references(inside(root, str(path.relative_to(root).with_name("reference_answer.gpt-4.jsonl"))))
        questions = [
            _question("mt", row["question_id"], row["turns"], row["category"], golds.get(row["question_id"], ()))
            for row in json_lines(path, "question_id", "turns", "category")
        ]
    return in_random_order("mt_bench", questions, need_answers=False)


def _references(path: Path) -> dict[int, list[str]]:
    """Question -> the reference answers of its turns, where there are such (math, reasoning, coding)."""
    if not path.exists():
        return {}
    references = {}
    for row in json_lines(path, "question_id", "choices"):
        require(row["choices"][0], ("turns",), f"{path}, question {row['question_id']}")
        references[row["question_id"]] = row["choices"][0]["turns"]
    return references


def _vicuna_80(data: str) -> tuple[Example, ...]:
    if (root := folder(data)) is None:
        raise BadRequest(
            "the 80 Vicuna questions are not on the hub: give a folder with vicuna_bench/question.jsonl (FastChat, "
            "llm_judge/data), --data DIR"
        )
    path = find(root, "Vicuna-bench", "vicuna_bench/question.jsonl", "question.jsonl")
    return tuple(
        _question("vicuna", row["question_id"], row["turns"][:1], row["category"], ())
        for row in json_lines(path, "question_id", "turns", "category")
    )


def _question(prefix: str, number: int, turns: Sequence[str], category: str, golds: Sequence[str]) -> Example:
    if not turns:
        raise BadRequest(f"question {number} of {prefix} has no turn")
    meta = {"question": turns[0], "category": category}
    return Example(f"{prefix}-{number:04d}", tuple(turns), answers=tuple(golds or ()), meta=meta)


TASK = Task(
    name="instructions",
    title="Instructions",
    about="two-turn instructions; share of the checkable demands that the answers meet",
    version=2,
    licence="Apache-2.0",
    measures="skill",
    order=70,
    colour="#0aa2c0",
    in_paper=True,
    demo_examples=48,
    strict=PromptSpec("dialogue", _load, new_tokens=48, template="chat"),
    scorers={"followed": followed, **SHAPE},
    headline="followed",
)

OFFICIAL = replace(
    TASK,
    about="MT-Bench (paper: Vicuna-80); share of well-formed answers: not empty, no loop, ended by themselves",
    strict=PromptSpec("dialogue", _mt_bench, new_tokens=1024, template="chat", temperatures=TEMPERATURES),
    paper=PromptSpec(
        "dialogue",
        _vicuna_80,
        new_tokens=1024,
        fills_context=True,
        template="vicuna_v1.1",
        temperatures={"": 0.7},
        faults=("80 single-turn Vicuna questions instead of MT-Bench", "sampled once"),
    ),
    scorers={"well_formed": well_formed, **SHAPE},
    headline="well_formed",
)
