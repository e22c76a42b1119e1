"""Compress: what a recipe would weigh before anything is pressed, the jobs that make it, and all that was made."""

from kick_core.explorer.frame import ensure

ensure()

from math import isnan  # noqa: E402

import streamlit as st  # noqa: E402

from kick_core import jobs, views  # noqa: E402
from kick_core.errors import BadRequest  # noqa: E402
from kick_core.explorer import artifacts, data, job_cards  # noqa: E402
from kick_core.explorer.frame import FILL, facts, heading, moved, note, store, title  # noqa: E402
from kick_core.explorer.safe import show, tag  # noqa: E402
from kick_core.spec import Calibration, Unstructured  # noqa: E402
from kick_core.units import duration_text  # noqa: E402

KINDS = {"ratio": "unstructured", "pattern": "N:M pattern", "bits": "fewer bits", "budget": "bits per weight"}
PATTERNS = ("2:4", "4:8", "1:4", "1:2")
SHARED = {
    "": "evenly",
    ",alloc=owl": "by outliers (OWL)",
    ",alloc=search": "searched for the least error",
    ",alloc=search,objective=perplexity": "searched for perplexity",
    **{
        f",alloc=search,objective={name}": f"searched for {title}"
        for name, title in views.task_titles(views.task_names(views.POCKET, kind="generate")).items()
    },
}
"""How a ratio is shared out over the model: options of a recipe, in words."""
RECOVERED = {
    "": "not at all",
    ",recover=blocks": "block by block, by the calibration text",
    ",recover=lora": "by training low-rank updates (LoRA)",
    ",recover=qlora": "by training low-rank updates on 4-bit weights (QLoRA)",
}
"""How what was compressed is repaired, likewise."""


def choose() -> tuple[str, str]:
    """Model and recipe text."""
    known = list(dict.fromkeys([*map(views.asked_name, views.models(store())), *views.POCKETS]))
    model = st.selectbox(
        "Model", known, key="model", accept_new_options=True, bind="query-params", persist_state="session",
        help="A pocket model, a hub id or a folder: choose or type.",
    )  # fmt: skip
    cards = {card.name: card for card in views.methods_known()}
    names = list(cards)
    shown = st.session_state.get("method")
    first = shown if shown in names else names[0]
    method = st.pills(
        "Method",
        names,
        default=first,
        required=True,
        key="make",
        bind="query-params",
        persist_state="session",
        wrap=True,
    )
    card = cards[method or first]
    note(f"{card.title}. {card.paper}.")
    kind = card.targets[0]
    if len(card.targets) > 1:
        kind = st.segmented_control(
            "Kind", card.targets, default=kind, required=True, format_func=KINDS.__getitem__, key="how"
        ) or kind  # fmt: skip
    shared = _shared() if kind == "ratio" and not card.plans else ""
    target = _target(kind)
    again = st.selectbox("Recovered", RECOVERED, format_func=RECOVERED.__getitem__, key="recover")
    return model or known[0], f"{card.name}@{target}{shared}{again or ''}"


def _shared() -> str:
    """How a ratio is shared out over the model, as options of a recipe."""
    chosen = st.selectbox("Shared out", SHARED, format_func=SHARED.__getitem__, key="alloc")
    return str(chosen or "")


def _target(kind: str) -> str:
    match kind:
        case "ratio":
            percent = st.slider(
                "Sparsity to make", 5, 95, value=50, step=5, format="%d%%", key="to", bind="query-params"
            )
            return f"{percent / 100:.12g}"
        case "pattern":
            return str(st.segmented_control("Keep N of every M", PATTERNS, default="2:4", required=True, key="nm"))
        case "budget":
            return f"{st.slider('Bits a weight', 2.0, 12.0, value=4.5, step=0.25, key='bpw'):.12g}bpw"
        case _:
            left, right = st.columns(2)
            with left:
                bits = st.segmented_control("Bits", (8, 4, 3, 2), default=4, required=True, key="bits")
            with right:
                sizes = (None, 128, 64, 32, -1)
                group = st.selectbox("Weights sharing a scale", sizes, format_func=_group, key="group")
            return f"{bits}bit" + ("" if group is None else f",group={group}")


def _group(size: int | None) -> str:
    return {None: "as usual for the method", -1: "a whole row"}.get(size, str(size))


def calibrate(model: str) -> Calibration:
    """The text that data-aware methods look at; as in this model's artifacts, else as in the demo, unless changed."""
    usual = views.calibration_used(store(), model, ()) or jobs.calibration(model)
    with st.expander("Calibration"):
        note("What data-aware methods look at. Another calibration is another artifact.")
        left, middle, right = st.columns(3)
        with left:
            windows = st.number_input("Windows", 1, 4096, value=usual.most_windows, key="windows")
        with middle:
            length = st.number_input("Tokens each", 2, 8192, value=usual.length or 256, key="length")
        with right:
            seed = st.number_input("Seed", 0, 2**31, value=usual.seed, key="seed")
    return Calibration(usual.source, int(windows), int(length), int(seed), usual.propagate)


def press(model: str, recipe: str, made: views.Preview, calibration: Calibration) -> None:
    """What can be done now: open it or make it, ask it, or make and ask the method's whole ladder."""
    new, tasks = made.card is None, jobs.task_names(model)
    if made.card:
        show(tag("p", tag("span", "made", cls="chip good"), f" on {made.card.created[:10]} in {made.seconds:.1f} s"))
    elif isnan(made.seconds):
        note("How long it takes is known once this method has run here.")
    with st.container(horizontal=True):
        if made.card:
            st.page_link(
                "pages/evaluate.py", label="Open in Evaluate", icon=":material/arrow_forward:",
                query_params={"b": recipe},
            )  # fmt: skip
        else:
            time = "" if isnan(made.seconds) else f" (about {duration_text(made.seconds)})"
            wanted = jobs.request(model, [recipe], calibration=calibration)
            job_cards.button(f"Compress{time}", wanted, key="go", primary=True)
        wanted = jobs.request(model, ["dense", recipe], tasks=tasks, calibration=calibration)
        label = "Compress and ask all tasks" if new else "Ask all tasks"
        job_cards.button(label, wanted, key="ask", primary=not new)
        if isinstance(made.recipe.target, Unstructured) and made.recipe.then is None:
            ladder = [f"{made.recipe.method}@0.{tenth}" for tenth in range(1, 8)]
            wanted = jobs.request(model, ["dense", *ladder], tasks=tasks, calibration=calibration)
            job_cards.button("Sweep 10 to 70 % and ask all tasks", wanted, key="sweep")


def page() -> None:
    head = st.container()
    left, right = st.columns([2, 3], gap="large")
    with left:
        model, recipe = choose()
        calibration = calibrate(model)
    seen = (
        f"{calibration.most_windows} windows of {calibration.length} tokens of {calibration.source}, "
        f"seed {calibration.seed}"
    )
    with head:
        title("Compress", facts([f"model {model}", f"recipe {recipe}", f"calibration {seen}"]))
        moved(model)
    made = None
    with right:
        try:
            made = views.preview(store(), model, recipe, calibration)
            show(artifacts.preview(recipe, made))
            press(model, recipe, made, calibration)
        except BadRequest as error:
            show(tag("p", str(error), cls="bad"))
    job_cards.live()
    if made:
        artifacts.opened(model, recipe, made)
    table = data.weights()
    heading("Artifacts in this cache", "" if len(table) else "Nothing has been compressed yet. Press Compress, or run:")
    if len(table):
        artifacts.table(table)
    else:
        st.code(FILL, language="bash")


page()
