"""The tasks: one file each, and the file's name is the task's name.

A task is a frozen record of functions: where its examples come from, how they are asked, how an output is
judged. The engine owns the model, the task owns data, prompt and scorers. Importing a task never imports
torch or datasets, so that stored outputs can be scored anywhere.

A file holds two records or one of them: `TASK` on the pocket world's data and `OFFICIAL` on the benchmark's own (from
the hub or a folder). Each is asked in the way of two protocols: `strict`, and `paper`, which is LLM-KICK's released
code fault for fault. Where both ask alike they share one run, and only the scorers differ; every output is judged by
the scorers of both. What the rest of the program must know about a task (its role, its place, its colour) is in its
record too: no other file names a task.
"""

from kick_core.tasks.base import (
    AS_PUBLISHED,
    DESCRIPTIVE,
    GROUPS,
    LEFT_OUT,
    OFFICIAL,
    POCKET,
    PROTOCOLS,
    UNJUDGED,
    Kind,
    Measures,
    PromptSpec,
    Score,
    Scorer,
    Task,
    about_scorer,
    judge,
    protocol_of,
)
from kick_core.tasks.registry import OWN, get, names, of_run, record, running_text

__all__ = [
    "AS_PUBLISHED",
    "DESCRIPTIVE",
    "GROUPS",
    "LEFT_OUT",
    "OFFICIAL",
    "OWN",
    "POCKET",
    "PROTOCOLS",
    "UNJUDGED",
    "Kind",
    "Measures",
    "PromptSpec",
    "Score",
    "Scorer",
    "Task",
    "about_scorer",
    "get",
    "judge",
    "names",
    "of_run",
    "protocol_of",
    "record",
    "running_text",
]
