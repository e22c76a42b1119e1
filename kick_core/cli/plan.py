"""`--plan`: what sweeps would cost. A plan of what is done already needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

from kick_core.cli import printing
from kick_core.store import Store
from kick_core.sweeps import cost
from kick_core.sweeps.cost import Line, SweepCost
from kick_core.sweeps.request import SweepJob
from kick_core.units import bytes_text, count_text, duration_text


def print_plans(jobs: Sequence[SweepJob], store: Store, *, as_json: bool) -> None:
    """Print what sweeps would cost: as one document, or a table each."""
    plans = [cost.forecast(job, store) for job in jobs]
    if as_json:
        documents = [cost.document(plan) for plan in plans]
        printing.document(documents[0] if len(documents) == 1 else {"plans": documents})
        return
    for job, plan in zip(jobs, plans, strict=True):
        if len(jobs) > 1:
            print(f"{plan.model}, {job.calibration.most_windows} calibration windows")
        _print(plan)
    print("Examples come in a fixed random order: a sweep that is stopped is an unbiased estimate; it goes on later.")


def _print(plan: SweepCost) -> None:
    printing.table(_HEADER, [row for lines in by_recipe(plan) for row in _rows(lines)])
    cells = [line.cost.cell for line in plan.lines]
    left = plan.left
    print(
        f"{count_text(len(cells), 'cell')}, {sum(cell.cached for cell in cells)} done already; "
        f"left: {left['tokens']:,.0f} tokens, {left['flops']:.2g} FLOPs, "
        f"{bytes_text(plan.demanded)} on disk ({bytes_text(plan.free)} free), {_time(plan)}"
    )


def by_recipe(plan: SweepCost) -> list[list[Line]]:
    """For people: the tasks of a recipe that are done already together, every other cell alone."""
    groups: list[list[Line]] = []
    for line in plan.lines:
        cell, last = line.cost.cell, groups[-1][-1].cost.cell if groups else None
        alike = last and cell.cached and last.cached and (cell.recipe, cell.work) == (last.recipe, last.work)
        groups[-1].append(line) if alike else groups.append([line])
    return groups


_HEADER = ("recipe", "work", "task", "of", "left", "tokens", "FLOPs", "on disk", "time", "by")


def _rows(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    line = lines[0]
    cost, cell = line.cost, line.cost.cell
    if cell.cached:
        tasks = ", ".join(one.cost.cell.task or "–" for one in lines)
        total = sum(one.cost.cell.total for one in lines)
        return [(cell.recipe, cell.work, tasks, f"{total:,}", "0", "–", "–", "–", "done", "–")]
    return [
        (
            cell.recipe,
            cell.work,
            cell.task or "–",
            f"{cell.total:,}",
            f"{cell.left:,}",
            f"{cost.tokens:,.0f}",
            f"{cost.flops:.2g}",
            bytes_text(cost.bytes),
            duration_text(line.seconds),
            line.basis,
        )
    ]


def _time(plan: SweepCost) -> str:
    left = [line for line in plan.lines if not line.cost.cell.cached]
    if not left:
        return "no time"
    time = f"about {duration_text(plan.left['seconds'])} in one process"
    if not plan.unmeasured:
        return f"{time}, by rates measured on this machine"
    if all(line.basis == "specification" for line in left):
        return f"{time}: an estimate from the device's specification, nothing is measured yet"
    return f"{time}; {plan.unmeasured} of {count_text(len(left), 'cell')} by rates of similar work"
