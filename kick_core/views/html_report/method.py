"""How it was done: the model and its questions, methods and statistics, limits, provenance, commands, every number."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from kick_core import methods, stats, tasks
from kick_core.spec import parse
from kick_core.store import results
from kick_core.tasks import paper
from kick_core.views import commands, load, recipe_labels
from kick_core.views.artifact_tables import POCKETS, calibrated
from kick_core.views.chart_style import Row, each
from kick_core.views.fidelity import fidelity
from kick_core.views.findings import percent
from kick_core.views.html_report.facts import Story, bullets, kept, quiet, said, score, short, table
from kick_core.views.markup import Child, Safe, tag
from kick_core.views.noise import noise
from kick_core.views.paired import AT_CHANCE, AT_FLOOR
from kick_core.views.scores import NOT_MEASURED, multiplicity


def subject(story: Story) -> list[Safe]:
    """The dense model and what it was asked."""
    if story.frame.empty:
        return []
    frame, card = story.frame, next(iter(story.cards.values()), None)
    facts = {
        "model": story.model,
        "fingerprint of its files": str(frame["fingerprint"].iloc[0])[:16],
        "number format": _each(frame["dtype"]),
        "device": _each(frame["device"]),
        "engine": _each(frame["engine"]),
        "protocol": f"{story.protocol}, greedy unless a task says otherwise",
        "data": _each(frame["data"]),
    }
    if card:
        facts["decoder blocks"] = str(card.blocks)
        facts["weights in their linears"] = f"{card.weights:,} ({card.dense_bytes / 1e6:,.1f} MB dense)"
    rows = [_task(story, row) for row in each(story.rows(kind="dense"))]
    heads = ["Task", "what counts", "n of all", "dense, 95 %", "guessing"]
    return [_list(facts), table(heads, rows, "What the dense model was asked", "words")]


def _task(story: Story, row: Row) -> list[Child]:
    about = tasks.get(row["task"], row["data"]).about
    groups = f", on {row['clusters']:,} passages" if row["clusters"] < row["n"] else ""
    bounds = f"{score(row, 'low')} to {score(row, 'high')}"
    return [
        row["title"],
        f"{about} (scorer {row['scorer']})",
        f"{row['n']:,} of {row['total']:,}{groups}",
        f"{score(row)} [{bounds}]",
        "–" if math.isnan(row["chance"]) else percent(row["chance"]),
    ]


def _list(facts: Mapping[str, str]) -> Safe:
    return tag("dl", *(part for name, fact in facts.items() for part in (tag("dt", name), tag("dd", fact))))


def _each(values: pd.Series) -> str:
    return ", ".join(sorted({str(value) for value in values}))


# --- methods -------------------------------------------------------------------------------------------------


NEEDS = {
    "nothing": "nothing but the weights",
    "norms": "the norms of every input feature over calibration text",
    "gram": "the Gram matrix of the inputs over calibration text",
}


def procedures(story: Story) -> list[Safe]:
    """The compression methods with their papers, and how numbers and intervals are made."""
    used = dict.fromkeys(
        part.method for recipe in story.labels for part in recipe_labels.parts(parse(recipe)) if part.target is not None
    )
    rows = [
        [card.title, f"{card.name}, version {card.version}", NEEDS[card.needs], card.paper]
        for card in map(methods.card, used)
    ]
    parts = [table(["Method", "name here", "looks at", "source"], rows, "Methods", "words")] if rows else []
    share = percent(1 - stats.MARGIN)
    return [
        *parts,
        bullets(
            [
                "A ratio is a share of the weights of every linear inside the decoder blocks; N:M keeps N of every M "
                "consecutive inputs of a row; embeddings, norms and lm_head stay dense.",
                f"What is asked and what is claimed follows {paper.SOURCE}.",
                "Dense and every recipe answer the same questions, in the same batches; a comparison is over the "
                "examples that both have answered and never over more.",
                "Shares of right answers have Wilson's intervals. Shares of dense kept have score intervals under the "
                "restricted hypothesis, paired: Nam and Blackwelder (2002) for right and wrong, with empirical "
                "likelihood (Owen 2001) for graded answers. Differences: Bonett and Price (2012) for right and wrong; "
                "graded scores and their differences: the wider of Student's and the score interval. "
                "Perplexity: over windows, with the long-run variance of neighbours (Lazarus et al. 2018). Questions "
                "on one passage count as a cluster (Miller 2024), which never makes an interval narrower.",
                "p: exact McNemar for right and wrong, else the larger of paired t and score test; after Holm (1979) "
                "over the recipes of one task.",
                f"Matching: the interval of the share kept lies above {share}. Not matching: it lies below. All else "
                "cannot be told at this n.",
                *([note] if (note := multiplicity(story.frame)) else []),
            ]
        ),
    ]


# --- limits --------------------------------------------------------------------------------------------------


def limits(story: Story) -> list[Safe]:
    """What these numbers cannot say."""
    frame = story.frame
    if frame.empty:
        return []
    compared = frame[frame["kind"] != "dense"]
    open_ = compared[compared["verdict"] == "cannot tell"]
    grid = len(story.labels) * len(story.titles)
    lines = [
        f"{len(open_)} of {len(compared)} compressed cells cannot tell whether 95 % of dense is kept: n is "
        f"{frame['n'].min():,} to {frame['n'].max():,} a task.",
        f"{grid - len(frame)} of {grid} cells of this grid of recipes and tasks were not measured.",
    ]
    unasked = [title for name, title in load.task_titles().items() if name not in story.titles]
    lines += [f"Not asked at all: {', '.join(unasked)}."] if unasked else []
    if guessed := int(compared["verdict"].eq(AT_FLOOR).sum()):
        lines.append(f"{guessed} of {len(compared)} compressed cells have {AT_CHANCE} on that task.")
    if compared["verdict"].eq(NOT_MEASURED).any():
        lines.append("Some recipes have no dense run to compare with; their scores stand alone.")
    mine = str(frame["fingerprint"].iloc[0])
    floor, close = noise(story.store, mine), fidelity(story.store, mine)
    lines += [] if len(floor) else ["The evaluator's own noise was not measured: small flips may be its own."]
    lines += [] if len(close) else ["Whole distributions were not compared with dense: only answers were."]
    if frame["device"].nunique() > 1 or frame["dtype"].nunique() > 1:
        lines.append("Not all rows were measured on the same device or in the same number format.")
    home = story.data == "pocket"
    if home and story.model not in POCKETS and frame["task"].isin(tasks.names(measures="knowledge")).any():
        lines.append("This model does not know the pocket world: its closed-book scores there do not mean knowledge.")
    if home and story.model in POCKETS:
        lines.append("The pocket models know a made-up world; that what holds for them holds elsewhere is not shown.")
    gone = commands.unknown_calibrations(story.store, frame)
    lines += [f"The calibration of {', '.join(gone)} is not known any more: artifacts were collected."] if gone else []
    unjudged = int(frame["unjudged"].sum())
    lines += [f"{unjudged:,} answers could not be judged and count neither as right nor as wrong."] if unjudged else []
    return [bullets(lines)]


# --- provenance ----------------------------------------------------------------------------------------------


def provenance(story: Story) -> list[Safe]:
    """Versions, machine, times, and every artifact with its key and calibration."""
    if story.frame.empty:
        return []
    versions: dict[str, set[str]] = {}
    for card in story.asked.values():
        for name, version in card.versions.items():
            versions.setdefault(name, set()).add(version)
    sittings = [one for key in story.asked for one in results.timings(story.store, key)]
    created = sorted(card.created for card in story.asked.values())
    decoders = sorted({card.decoder for card in story.asked.values() if card.decoder})
    facts = {
        "measured": f"{created[0]} to {created[-1]} (UTC)",
        "runs": f"{len(story.asked)}, {sum(one.seconds for one in sittings):,.0f} s of answering",
        "versions": ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in sorted(versions.items())),
    }
    facts |= {"files decoded by": ", ".join(decoders)} if decoders else {}
    rows = [_made(story, row) for row in each(story.frame.drop_duplicates("weights")) if row["weights"] in story.cards]
    heads = ["Recipe", "key", "calibration", "stored", "made in", "on", "date"]
    return [_list(facts), *([table(heads, rows, "Weight artifacts", "words")] if rows else [])]


def _made(story: Story, row: Row) -> list[Child]:
    card = story.cards[row["weights"]]
    noted = tag("small", f" {'; '.join(card.warnings)}") if card.warnings else ""
    return [
        tag("span", row["label"], noted),
        short(card.key),
        calibrated(card.calibration),
        f"{card.bytes / 1e6:.2f} MB",
        f"{card.seconds:.1f} s",
        card.device,
        card.created[:10],
    ]


def reproduce(story: Story) -> list[Safe]:
    """The exact commands: of the sweeps, of the closer comparisons, of this report."""
    if story.frame.empty:
        return []
    lines = [*commands.sweeps(story.store, story.frame), *commands.closer(story.store, story.frame)]
    lines.append(commands.report(story.model, story.protocol, story.data))
    name = str(story.frame["fingerprint"].iloc[0])[:16]
    return [
        said(
            "In an empty cache these commands give the keys of this report again, on the same kind of device, with the "
            f"versions above and with a model whose files have the fingerprint {name}…"
        ),
        tag("pre", "\n".join(map(commands.wrapped, lines))),
        quiet("kick show KEY tells everything of a run or an artifact; kick verify --deep reads every byte behind it."),
    ]


def numbers(story: Story) -> list[Safe]:
    """Every score that the report stands on, with its key."""
    heads = ["Recipe", "n", "score, 95 %", "kept, 95 %", "broke", "fixed", "p, Holm", "against dense", "run"]
    return [
        table(heads, (_number(row) for row in each(story.rows(task=task))), title, "numbers")
        for task, title in story.titles.items()
    ]


def _number(row: Row) -> list[Child]:
    blank = {name: "–" if math.isnan(row[name]) else f"{row[name]:.0f}" for name in ("broke", "fixed")}
    return [
        row["label"],
        f"{row['n']:,}",
        f"{score(row)} [{score(row, 'low')} to {score(row, 'high')}]",
        kept(row) if row["kind"] != "dense" else "–",
        blank["broke"],
        blank["fixed"],
        "–" if math.isnan(row["p_holm"]) else f"{row['p_holm']:.2g}",
        str(row["verdict"]),
        short(row["run"]),
    ]
