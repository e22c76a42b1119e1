"""What a style of judging is: a frozen record of functions, one file each beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from kick_core.judging.reading import Reading

Side = Literal["alone", "first", "second"]
"""Where the judged answer is in the prompt."""

ALONE, FIRST, SECOND = "alone", "dense first", "dense second"
"""Orders of the answers: the judged one alone, after the dense one, before it."""


@dataclass(frozen=True, slots=True)
class PromptForm:
    """One prompt of a style; its words are in `prompts.json` under the same name.

    Attributes:
        read: the reply's text and its finish reason ("length": cut off) -> the verdict, strictly; None: unparsed.
        published: the reply's text -> what the published code reads, faults and all; None is its -1.
        best: side -> the verdict that favours the answer there most; attacks ask for it.
    """

    read: Callable[[str, str], Reading | None]
    published: Callable[[str], Reading | None]
    best: Callable[[Side], str]


@dataclass(frozen=True, slots=True)
class JudgingStyle:
    """One way to have answers judged.

    Attributes:
        name: as `--style` takes it.
        forms: name -> prompt; names are stored with every question and must be unique among all styles.
        form_of: whether the task is in context, the example's category, the turn (from 1), whether there is a
            reference answer -> the name of the prompt.
        settings: whether the task is in context -> the published temperature (as text) and limit of tokens.
        turns: how many turns of a dialogue are judged at most.
        orders: in which orders of the answers every question is asked.
        published_orders: likewise as the published code does.
        scale: what a score is: a rating from 1 to 10, or the share of wins.
        published_order: the order whose replies the published code averages; None: it prints no average.
    """

    name: str
    forms: Mapping[str, PromptForm]
    form_of: Callable[[bool, str, int, bool], str]
    settings: Callable[[bool], tuple[str, int]]
    turns: int
    orders: tuple[str, ...]
    published_orders: tuple[str, ...]
    scale: Literal["rating", "wins"]
    published_order: str | None

    @property
    def alone(self) -> bool:
        """Whether dense is rated apart, rather than beside the judged answer."""
        return self.orders == (ALONE,)
