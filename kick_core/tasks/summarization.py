"""Summaries of stories in three lengths (LLM-KICK's in-context summarization; CNN/DailyMail in the paper).

In the pocket world a story states known facts, so a summary is scored by the share of key facts that it
keeps: no judge is needed, and it cannot be won by fluency alone.

Official data, strict: each story stands in one bucket by its own words (small up to 470, medium, large from 790),
its `@highlight` lines are stripped from the input and kept as the reference of ROUGE. Paper: the folders' stories
as they lie, 18 of them in two buckets, with the highlights glued into the prompt.
"""

from __future__ import annotations

from dataclasses import replace

from kick_core.records import Example, Output
from kick_core.tasks.base import PromptSpec, Score, Task
from kick_core.tasks.data import stories
from kick_core.tasks.data.pocket import meta, rows
from kick_core.tasks.data.texts import ROUGE, SHAPE, form_of
from kick_core.tasks.scorers import stands_in
from kick_core.tasks.wording import SUMMARY


def _load(data: str) -> tuple[Example, ...]:
    return tuple(
        Example(
            row["id"],
            (SUMMARY.format(story=row["story"]),),
            answers=(row["reference"],),
            meta=meta(row, "story", "bucket", "facts"),
        )
        for row in rows("summarization", data)
    )


def facts_kept(example: Example, output: Output) -> Score:
    """Share of the story's key facts that stand in the summary, in any of their wordings, as whole words."""
    facts, text = example.meta["facts"], "\n".join(output.text)
    kept = [stands_in(text, aliases) for aliases in facts]
    lost = [aliases[0] for aliases, there in zip(facts, kept, strict=True) if not there]
    why = "right" if not lost else form_of(output) or "wrong"
    return Score(sum(kept) / len(kept), f"lost: {', '.join(lost)}" if lost else "", why)


TASK = Task(
    name="summarization",
    title="Summarization",
    about="stories in three lengths; share of the key facts that the summary keeps",
    version=2,
    licence="Apache-2.0",
    measures="in_context",
    order=60,
    colour="#3366cc",
    in_paper=True,
    demo_examples=48,
    strict=PromptSpec("dialogue", _load, new_tokens=64, template="chat"),
    scorers={"facts_kept": facts_kept, **SHAPE},
    headline="facts_kept",
)

OFFICIAL = replace(
    TASK,
    about="CNN/DailyMail stories in three lengths; ROUGE-L F1 against the highlights",
    licence="",
    strict=PromptSpec("dialogue", stories.strict, new_tokens=256, template="chat"),
    paper=PromptSpec(
        "dialogue",
        stories.as_published,
        new_tokens=1024,
        fills_context=True,
        template="vicuna_v1.1",
        temperatures={"": 0.7},
        faults=("the reference's @highlight lines stand in the prompt", "stories in two buckets", "sampled once"),
    ),
    scorers={**ROUGE, **SHAPE},
    headline="rouge_l",
)
