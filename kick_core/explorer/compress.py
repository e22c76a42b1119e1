"""Compress: what a recipe would weigh before anything is pressed, the jobs that make it, and all that was made."""

from __future__ import annotations

from math import isnan

import pandas as pd
import streamlit as st

from kick_core import jobs, views
from kick_core.errors import BadRequest
from kick_core.explorer import address, artifacts, data, gaps, job_cards
from kick_core.explorer.frame import FILL, facts, heading, moved, note, store, title, without_weights
from kick_core.explorer.safe import show, tag
from kick_core.spec import Calibration, Unstructured

KINDS = {"ratio": "unstructured", "pattern": "N:M pattern", "bits": "fewer bits", "budget": "mean bits"}
PATTERNS = ("2:4", "4:8", "1:4", "1:2")
ALLOCATIONS = {
    "": "uniform",
    ",alloc=owl": "by outliers (OWL)",
    ",alloc=search": "searched for the least error",
    ",alloc=search,objective=perplexity": "searched for perplexity",
    **{
        f",alloc=search,objective={name}": f"searched for {title}"
        for name, title in views.task_titles(views.task_names(views.POCKET, kind="generate")).items()
    },
}
"""How a ratio is allocated to the layers: options of a recipe, in words."""
RECOVERIES = {
    "": "none",
    ",recover=blocks": "block reconstruction on the calibration text",
    ",recover=lora": "LoRA: low-rank updates, trained",
    ",recover=qlora": "QLoRA: low-rank updates on 4-bit weights, trained",
}
"""How what was compressed is repaired, likewise."""


def page() -> None:
    left, right = st.columns([2, 3], gap="large")
    with left:
        model, recipe = _choose()
        calibration = _calibrate(model)
    title(
        "Compress", facts([f"model {model}", f"recipe {recipe}", f"calibration {_words(calibration)}"]),
        shared=(model, data.protocol(model), data.kind(model)) if model in data.models() else None,
    )  # fmt: skip
    moved(model)
    preview = None
    with right:
        try:
            preview = views.preview(store(), model, recipe, calibration)
            show(artifacts.preview(recipe, preview))
            _press(model, recipe, preview, calibration)
        except BadRequest as error:
            show(tag("p", str(error), cls="bad"))
        job_cards.live()
    if preview:
        artifacts.opened(model, recipe, preview)
    table = data.weights()
    heading("Artifacts in this cache", "" if len(table) else "No weights have been compressed here yet.")
    if len(table):
        artifacts.table(table)
    elif not data.models():
        st.code(FILL, language="bash")


def _words(calibration: Calibration) -> str:
    size = f"{calibration.most_windows} windows of {calibration.length} tokens"
    return f"{size} of {calibration.source}, seed {calibration.seed}"


def _choose() -> tuple[str, str]:
    """Model and recipe text."""
    known = list(dict.fromkeys([*map(views.asked_name, views.models(store())), *views.POCKETS]))
    known.sort(key=without_weights)  # what can be compressed comes first
    model = _model(known)
    card = _method()
    note(f"{card.summary} ({card.paper})")
    kind = card.targets[0]
    if len(card.targets) > 1:
        kind = address.choice("how", card.targets, kind, lambda key: st.segmented_control(
            "Kind", card.targets, required=True, format_func=lambda name: KINDS[name], key=key, persist_state="session"
        ), noun="kind of target", why="this method does not take")  # fmt: skip
    allocation = _allocation() if kind == "ratio" and not card.plans else ""
    target = _target(kind)
    joint = _joint() if kind in ("ratio", "pattern") and not card.plans else ""
    return model, f"{card.name}@{target}{allocation}{joint}{_recovery()}"


def _method() -> views.MethodCard:
    """Which method, under its group. A link, or the page before, that names a method opens that one's group."""
    groups = views.method_groups()
    group_of = {card.name: name for name, cards in groups.items() for card in cards}
    wishes = (address.brings("make"), st.session_state.get("make"), st.session_state.get("method"))
    named = next((str(name) for name in wishes if name in group_of), next(iter(group_of)))
    if address.brings("make") in group_of or "methods" not in st.session_state:
        st.session_state["methods"] = group_of[named]
    group = st.segmented_control(
        "Compression", list(groups), required=True, key="methods", persist_state="session", wrap=True
    )
    cards = {card.name: card for card in groups[group]}
    method = address.choice("make", list(cards), named if named in cards else next(iter(cards)), lambda key: st.pills(
        "Method", list(cards), required=True, key=key, persist_state="session", wrap=True
    ), noun="method", why="is no method of this program")  # fmt: skip
    return cards[method]


def _model(known: list[str]) -> str:
    """A model of this cache, a pocket model, or any that is typed: a hub id or a folder."""
    brought = address.brings("model")
    if brought and brought not in known:
        known = [*known, brought]
    typed = st.session_state.get("model")
    if isinstance(typed, str) and typed and typed not in known:
        known = [*known, typed]
    return address.choice("model", known, known[0], lambda key: st.selectbox(
        "Model", known, key=key, accept_new_options=True, persist_state="session",
        help="A pocket model, a hub id or a folder: choose or type.",
    ))  # fmt: skip


def _allocation() -> str:
    """How a ratio is allocated to the layers; in the address by what stands in the recipe, without the comma."""
    names = {text.removeprefix(",") or "uniform": text for text in ALLOCATIONS}
    return names[address.choice("alloc", list(names), "uniform", lambda key: st.selectbox(
        "Layer allocation", list(names), format_func=lambda name: ALLOCATIONS[names[name]], key=key,
        persist_state="session",
    ))]  # fmt: skip


def _joint() -> str:
    """What quantizes the weights that pruning leaves, for a joint recipe."""
    joiners = [card.name for card in views.methods_known() if card.joins]
    chosen = address.choice("then", ["none", *joiners], "none", lambda key: st.segmented_control(
        "Then quantize what is kept", ["none", *joiners], required=True, key=key, persist_state="session"
    ), noun="quantizer")  # fmt: skip
    return "" if chosen == "none" else f"+{chosen}@{_grid()}"


def _recovery() -> str:
    names = {text.removeprefix(",recover=") or "none": text for text in RECOVERIES}
    return names[address.choice("recover", list(names), "none", lambda key: st.selectbox(
        "Recovery", list(names), format_func=lambda name: RECOVERIES[names[name]], key=key, persist_state="session"
    ))]  # fmt: skip


def _target(kind: str) -> str:
    match kind:
        case "ratio":
            shown = st.session_state.get("s") or 50
            start = min(max(5, shown), 95)
            percent = address.choice("to", range(5, 96, 5), start, lambda key: st.slider(
                "Sparsity", 5, 95, step=5, format="%d %%", key=key, persist_state="session"
            ), noun="sparsity")  # fmt: skip
            return f"{percent / 100:.12g}"
        case "pattern":
            return address.choice("nm", PATTERNS, "2:4", lambda key: st.segmented_control(
                "Keep N of every M", PATTERNS, required=True, key=key, persist_state="session"
            ), noun="pattern")  # fmt: skip
        case "budget":
            budgets = [quarter / 4 for quarter in range(8, 49)]
            bits = address.choice("bpw", budgets, 4.5, lambda key: st.slider(
                "Bits per weight", 2.0, 12.0, step=0.25, key=key, persist_state="session"
            ))  # fmt: skip
            return f"{bits:.12g}bpw"
        case _:
            return _grid()


def _grid() -> str:
    """Bits, and how many weights share a scale."""
    left, right = st.columns(2)
    widths = (8, 4, 3, 2)
    sizes = {"usual": "", "128": ",group=128", "64": ",group=64", "32": ",group=32", "row": ",group=-1"}
    words = {"usual": "the method's default", "row": "a whole row"}
    with left:
        bits = address.choice("bits", widths, 4, lambda key: st.segmented_control(
            "Bits", widths, required=True, key=key, persist_state="session"
        ))  # fmt: skip
    with right:
        group = address.choice("group", list(sizes), "usual", lambda key: st.selectbox(
            "Group size", list(sizes), format_func=lambda name: words.get(name, name), key=key, persist_state="session",
            help="How many weights share a scale",
        ))  # fmt: skip
    return f"{bits}bit{sizes[group]}"


def _calibrate(model: str) -> Calibration:
    """The text that data-aware methods look at; as in this model's artifacts, else as in the demo, unless changed."""
    usual = views.calibration_used(store(), model, ()) or jobs.calibration(model)
    with st.expander("Calibration", key="calibration"):
        note("What data-aware methods look at. Another calibration is another artifact.")
        places = st.columns(3)
        with places[0]:
            windows = address.choice("windows", range(1, 4097), usual.most_windows, lambda key: st.number_input(
                "Windows", 1, 4096, key=key, persist_state="session"
            ), noun="number of windows")  # fmt: skip
        with places[1]:
            length = address.choice("length", range(2, 8193), usual.length or 256, lambda key: st.number_input(
                "Tokens each", 2, 8192, key=key, persist_state="session"
            ))  # fmt: skip
        with places[2]:
            seed = address.choice("seed", range(2**31 + 1), usual.seed, lambda key: st.number_input(
                "Seed", 0, 2**31, key=key, persist_state="session"
            ))  # fmt: skip
    return Calibration(usual.source, windows, length, seed, usual.propagate)


def _press(model: str, recipe: str, preview: views.Preview, calibration: Calibration) -> None:
    """What can be done now: compress, evaluate, or both over the method's whole series of sparsities."""
    new, tasks = preview.card is None, jobs.task_names(model)
    if without_weights(model):
        note("The gallery holds this model's answers, not its weights: type its folder or hub id as the model.")
        return
    if preview.card:
        took = f" on {preview.card.created[:10]} in {preview.seconds:.1f} s"
        show(tag("p", tag("span", "compressed", cls="chip good"), took))
    elif isnan(preview.seconds):
        note("How long it takes is known once this method has run here.")
    done = _evaluated(model, recipe)
    with st.container(horizontal=True):
        if preview.card:
            st.page_link(
                "pages/evaluate.py", label="Open in Evaluate", icon=":material/arrow_forward:",
                query_params={"b": recipe, "model": model},
            )  # fmt: skip
        else:
            request = jobs.request(model, [recipe], calibration=calibration)
            took = job_cards.about(preview.seconds + views.START)
            job_cards.button("Compress", request, key="go", primary=True, cost=took)
        if done < len(tasks):
            request = jobs.request(model, ["dense", recipe], tasks=tasks, calibration=calibration)
            cost = (
                job_cards.about(gaps.cost(model, [recipe], tasks, data.coverage(model))) if len(data.models()) else ""
            )
            job_cards.button(
                "Compress and evaluate on all tasks" if new else "Evaluate on all tasks", request, key="ask",
                primary=not new, cost=cost,
            )  # fmt: skip
        else:
            note("Evaluated on all tasks.")
        if isinstance(preview.recipe.target, Unstructured) and preview.recipe.then is None:
            options = recipe.partition(",")[2]
            series = [f"{preview.recipe.method}@0.{tenth}{',' * bool(options)}{options}" for tenth in range(1, 8)]
            request = jobs.request(model, ["dense", *series], tasks=tasks, calibration=calibration)
            job_cards.button("Sweep 10 to 70 % and evaluate on all tasks", request, key="sweep")


def _evaluated(model: str, recipe: str) -> int:
    """On how many tasks a recipe has been evaluated."""
    if model not in data.models():
        return 0
    frame: pd.DataFrame = data.current(model)
    return int(frame.loc[frame["recipe"] == recipe, "task"].nunique())
