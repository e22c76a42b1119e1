"""Summaries of stories in three lengths (LLM-KICK's in-context summarization; CNN/DailyMail in the paper).

In the pocket world a story states known facts, so a summary is scored by the share of key facts that it
keeps: no judge is needed, and it cannot be won by fluency alone.
"""

from __future__ import annotations

from kick_core.records import Example, Output
from kick_core.tasks import Judged, Task
from kick_core.tasks._pocket import meta, rows
from kick_core.tasks._scorers import form_of, repeated, stands_in, unique_words
from kick_core.wording import SUMMARY


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


def facts_kept(example: Example, output: Output) -> Judged:
    """Share of the story's key facts that stand in the summary, in any of their wordings, as whole words."""
    facts, text = example.meta["facts"], "\n".join(output.text)
    kept = [stands_in(text, aliases) for aliases in facts]
    lost = [aliases[0] for aliases, there in zip(facts, kept, strict=True) if not there]
    why = "right" if not lost else form_of(output) or "wrong"
    return Judged(sum(kept) / len(kept), f"lost: {', '.join(lost)}" if lost else "", why)


TASK = Task(
    name="summarization",
    title="Summarization",
    about="stories in three lengths; share of the key facts that the summary keeps",
    version=1,
    kind="dialogue",
    load=_load,
    scorers={"facts_kept": facts_kept, "repeated": repeated, "unique_words": unique_words},
    headline="facts_kept",
    new_tokens=64,
)
