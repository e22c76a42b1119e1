"""`kick judge`: stored answers before a judge. Neither the model nor torch is opened."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from kick_core import judging, tasks, views
from kick_core.cli import printing
from kick_core.errors import KickError, nearest
from kick_core.judging import Caller, Endpoint, Failure, Judge, JudgeCost, Judging, Pair, Price, Style, styles
from kick_core.records import Progress, Reply
from kick_core.store import Store, judgments, open_store, results
from kick_core.units import count_text


def run(args: Namespace) -> int:
    """`kick judge RUN_OR_MODEL RECIPE... --task T`: the forecast first; exit 1 when a call got no reply."""
    free = tasks.names(kind="dialogue", unlisted=True)
    if args.task not in free:
        raise nearest(args.task, free, "task whose answers a judge can read")
    style = Style(args.style, args.repeats, args.as_published)
    store, at, price = open_store(args.cache), judging.endpoint(os.environ), Price.of(os.environ)
    who = _judge(args, at)
    planned = _planned(store, who, style, args)
    questions = [question for one in planned for question in one.questions]
    known = judgments.known(store, who.key)
    plan = judging.forecast(who, questions, known, price)
    _show_plan(plan, who, at)
    replies: list[Reply] = []
    failures: list[Failure] = []
    used = None
    if not args.plan:
        caller = Caller(who, at, os.environ, args.timeout)
        try:
            replies, failures = _ask(store, planned, caller, args.concurrency, plan.calls)
        finally:
            caller.close()
        used = judging.spent(replies, price)
    _report(store, args.json, planned, plan, who, used, failures)
    if failures:
        reasons = Counter(failure.why for failure in failures).most_common(3)
        summary = "; ".join(f"{why} ({count}×)" for why, count in reasons)
        raise KickError(
            f"{plan.calls - len(replies)} of {plan.calls} calls got no reply: {summary}. "
            f"What was said is kept, the same command asks the rest"
        )
    return 0


def _judge(args: Namespace, at: Endpoint) -> Judge:
    temperature, tokens = styles.get(args.style).settings(_in_context(args.task))
    chosen = args.temperature or temperature
    return Judge(
        judging.judge_name(args.judge, os.environ),
        at.host,
        None if chosen == "default" else chosen,
        tokens if args.max_tokens is None else args.max_tokens,
    )


def _planned(store: Store, who: Judge, style: Style, args: Namespace) -> list[Judging]:
    planned = []
    for run, dense in views.to_judge(store, args.named, args.recipes, args.task):
        pairs = _pairs(store, run.key, dense.key, run.card.examples, args.limit)
        if not pairs:
            raise KickError(f"{run.recipe.text} and dense have no answered example of {args.task} in common")
        card = judging.judging_card(who, style, run.card, dense.card)
        planned.append(Judging(card, tuple(judging.questions_of(who, style, _in_context(args.task), pairs))))
    return planned


def _in_context(task: str) -> bool:
    return tasks.record(task).measures == "in_context"


def _pairs(store: Store, run: str, dense: str, examples: str, limit: int | None) -> list[Pair]:
    questions = results.examples(store, examples)
    return judging.pairs(questions, results.outputs(store, dense), results.outputs(store, run), limit)


def _show_plan(plan: JudgeCost, who: Judge, at: Endpoint) -> None:
    """The forecast, on standard error: standard output is for the results."""
    cost = "" if plan.cost is None else f", cost at most {plan.cost:.2f}"
    print(
        f"kick: {count_text(plan.calls, 'call')} to {printing.clean(who.model)} at {printing.clean(at.host)} "
        f"({count_text(plan.questions, 'question')}, {plan.answered:,} answered already): "
        f"about {plan.tokens_read:,} tokens read, at most {plan.tokens_written:,} written{cost}",
        file=sys.stderr,
    )
    if at.in_the_clear:
        print(f"kick: {printing.clean(at.host)} is asked without encryption: key and answers can be read on the way",
              file=sys.stderr)  # fmt: skip


def _ask(
    store: Store, planned: list[Judging], caller: Caller, threads: int, calls: int
) -> tuple[list[Reply], list[Failure]]:
    """Ask what is left, behind a progress bar."""
    replies: list[Reply] = []
    failures: list[Failure] = []

    def progress() -> Iterator[Progress]:
        yield Progress("judging", 0, calls)
        for result in judging.ask(store, planned, caller, threads):
            if isinstance(result, Reply):
                replies.append(result)
            else:
                failures.append(result)
            words = f"{len(failures)} failed" if failures else ""
            yield Progress("judging", len(replies) + len(failures), calls, words)

    printing.bar(progress())
    return replies, failures


def _report(
    store: Store,
    as_json: bool,
    planned: Sequence[Judging],
    plan: JudgeCost,
    who: Judge,
    used: tuple[int, int, float | None] | None,
    failures: Sequence[Failure],
) -> None:
    keys = [one.card.key for one in planned]
    frame, controls = views.judgings(store), views.judge_controls(store)
    frame, controls = (
        table[table["judging"].isin(keys)].sort_values("judging", key=lambda of: of.map(keys.index), kind="stable")
        for table in (frame, controls)
    )
    if used is not None:
        cost = "" if used[2] is None else f", cost {used[2]:.2f}"
        print(f"kick: {used[0]:,} tokens read and {used[1]:,} written by the endpoint's count{cost}", file=sys.stderr)
    if not as_json:
        if used is not None:
            printing.table(_HEADER, (_score_row(row) for row in frame.itertuples()))
            print()
            printing.table(_CONTROLS, (_control_row(row, frame) for row in controls.itertuples()))
        return
    printing.document(
        {
            "judge": {"model": who.model, "host": who.host, "temperature": who.temperature, "tokens": who.max_tokens},
            "forecast": {name: getattr(plan, name) for name in JudgeCost.__slots__},
            "used": None if used is None else dict(zip(("tokens_read", "tokens_written", "cost"), used, strict=True)),
            "failures": [failure.why for failure in failures],
            "results": [] if used is None else _rows(frame, controls),
        }
    )


def _rows(frame: pd.DataFrame, controls: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(name): value for name, value in row.items()}
        | {"controls": controls[controls["judging"] == row["judging"]].drop(columns="judging").to_dict("records")}
        for row in frame.to_dict("records")
    ]


_HEADER = (
    "recipe", "n", "score", "95 % interval", "dense", "difference", "win/tie/loss", "orders agree", "noise",
    "unparsed", "published", "verdict",
)  # fmt: skip


def _score_row(row: Any) -> tuple[str, ...]:
    return (
        row.recipe,
        f"{row.n} of {row.examples}",
        printing.blank_as(row.score, ".2f"),
        f"{printing.blank_as(row.low, '.2f')} … {printing.blank_as(row.high, '.2f')}",
        printing.blank_as(row.dense_score, ".2f"),
        printing.blank_as(row.difference, "+.2f"),
        f"{row.win}/{row.tie}/{row.loss}",
        printing.blank_as(row.consistent, ".0%"),
        printing.blank_as(row.noise, ".2f"),
        f"{row.unparsed} of {row.answered}",
        printing.blank_as(row.published_score, ".2f"),
        row.verdict,
    )


_CONTROLS = ("recipe", "control", "hits", "score", "holds", "what it is")


def _control_row(row: Any, frame: pd.DataFrame) -> tuple[str, ...]:
    recipe = frame[frame["judging"] == row.judging]["recipe"].iloc[0]
    return (
        recipe,
        row.control,
        f"{row.hits} of {row.n}",
        printing.blank_as(row.score, ".2f"),
        row.holds,
        row.about,
    )
