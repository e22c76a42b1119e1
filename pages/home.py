"""Findings: the tool's sentence, the poster behind it, the paper's claims put to the data, one broken example."""

from kick_core.explorer.frame import ensure

ensure()

import pandas as pd  # noqa: E402
import streamlit as st  # noqa: E402

from kick_core import views  # noqa: E402
from kick_core.errors import KickError  # noqa: E402
from kick_core.explorer import answers, cards, charts, controls, data, recovery, slider_marker  # noqa: E402
from kick_core.explorer.frame import empty, heading, moved, note, provenance, share, title  # noqa: E402
from kick_core.explorer.safe import show  # noqa: E402
from kick_core.views import matrices  # noqa: E402


def choose(known: list[str], head: st.delta_generator.DeltaGenerator) -> tuple[pd.DataFrame, str, str, int]:
    """The controls in one row, and above them the sentence that they change."""
    several = len(known) > 1
    widths = [4, 6, 10, 5] if several else [6, 13, 5]
    places = list(st.columns(widths, gap="medium", vertical_alignment="center"))
    with places[0]:
        model = controls.model(known)
    if several:
        places.pop(0)
    with places[-1]:
        if len(data.protocols(model)) > 1:
            controls.protocol(model)
        controls.kind_of_data(model)
    frame = data.current(model)
    names = controls.pruners(frame)
    recipe, method, percent = str(frame["recipe"].iloc[-1]), "", 0
    if names:
        with places[0]:
            method = controls.method(names)
        with places[1]:
            percent = controls.sparsity(controls.percents(frame, method))
        recipe = controls.recipe_at(frame, method, percent)
    with head:
        words, actions = st.columns([5, 1], vertical_alignment="top")
        with words:
            title(views.headline(frame, recipe), provenance(frame))
        with actions, st.container(horizontal=True, horizontal_alignment="right"):
            share(model, data.protocol(model), data.kind(model))
    return frame, recipe, method, percent


def poster(frame: pd.DataFrame, method: str, percent: int) -> None:
    again = ((frame["base"] == method) & (frame["recovered"] != "")).any()
    heading(
        f"What {method} keeps of the dense model",
        "Every line starts at 100 %. Perplexity is dense / compressed (dotted), so a flat line means that it noticed "
        "nothing. Bars are 95 % paired intervals." + (" Dashed: the same recipes, recovered." if again else ""),
    )
    charts.draw(
        charts.chart("overlay", frame, method),
        key="overlay",
        marker=percent,
        alt=f"Share of the dense score kept by {method} against sparsity, one line for each task",
    )


def claims(model: str) -> None:
    heading("The paper's claims, put to this data")
    words = views.multiplicity(data.current(model))
    together = bool(words) and st.toggle("Verdicts that hold together over all recipes of a task", help=words)
    for place, found in zip(st.columns(3, border=True), data.claims(model, together=together), strict=True):
        with place:
            show(cards.claim(found))
            with st.expander("Evidence"):
                note(found.rule)
                answers.evidence(found)


def broken(frame: pd.DataFrame, recipe: str) -> None:
    """One example that broke, picked by a rule; the first knowledge task that has one."""
    for task in (*views.task_names(measures="knowledge"), *views.task_names(measures="in_context")):
        row = data.cell(frame, recipe, task)
        if row is None or not row["dense_run"] or not row["broke"] > 0:
            continue
        name = data.broken(row)
        if name is None:
            continue
        rule = f"{row['title']}: of the {row['broke']:.0f} answers that broke, {views.RULE}."
        heading("What it looks like", rule)
        answers.short(data.detail(row, name), row["run"], row["dense_run"])
        st.page_link(
            "pages/evaluate.py",
            label=f"See the {row['broke']:.0f} that broke",
            icon=":material/arrow_forward:",
            query_params={"task": task, "b": recipe, "kind": "broke", "ex": name},
        )
        return
    heading("What it looks like", "No answer broke under this recipe.")


def others(frame: pd.DataFrame, here: str) -> None:
    """Recipes that have no place on an axis of sparsity, beside the one that the slider shows."""
    rest = frame[frame["kind"].isin(("pattern", "bits", "joint"))]
    if rest.empty:
        return
    left, right = st.columns([2, 3], gap="large")
    with left:
        sized(frame)
    with right:
        heading(
            "N:M patterns and quantization",
            "Share of the dense score kept. They are no points on an axis of sparsity, so they stand here, below the "
            "recipe of the slider. Green surely keeps 95 %, red surely does not, amber cannot tell.",
        )
        show(cards.kept_table(frame, list(dict.fromkeys([here, *rest["recipe"]])), here))
        note(views.multiplicity(frame))


def sized(frame: pd.DataFrame) -> None:
    """Pruning beside quantization on the axis that they share: size."""
    shares = frame[(frame["kind"] != "dense") & frame["share_kept"].notna()]
    if shares.empty:
        return
    knowledge = [task for task in views.task_names(measures="knowledge") if (shares["task"] == task).any()]
    task = next(iter(knowledge), str(shares["task"].iloc[0]))
    name = str(frame.loc[frame["task"] == task, "title"].iloc[0])
    heading("At equal size", f"{name}: a pruned weight costs 16 bits if kept and one bit to say where.")
    charts.draw(
        charts.chart("sizes", frame, task),
        key="sizes",
        alt=f"Share of dense kept on {name} against bits per weight, all recipes",
    )


def kept(row: pd.Series, model: str) -> None:
    """The mask of one matrix at this sparsity: the first matrix of the middle block, weight by weight."""
    if not row["weights"].startswith("weights"):
        return
    layers = data.layers(row["weights"])
    if layers.empty:
        return
    one = layers[layers["block"] == layers["block"].max() // 2].iloc[0]
    name, block, rows, cols = views.asked_name(model), int(one["block"]), int(one["rows"]), int(one["cols"])
    asked = matrices.Asked(name, row["recipe"], row["weights"], block, one["name"], rows, cols)
    try:
        found = data.look(asked)
    except KickError:
        return  # a damaged artifact is Compress's to tell; the finding stands without its picture
    if found is None or found.corner is None:
        return
    heading("Kept weights", f"Block {one['block']}, {one['name']}: its first {len(found.corner)} rows; red is dropped.")
    st.image(found.picture(), width=272, output_format="PNG", alt="Which weights of one matrix were kept")


def page() -> None:
    known = data.models()
    if not known:
        title("Nothing has been measured yet")
        empty("There are no results in this cache.")
    head = st.container()
    frame, recipe, method, percent = choose(known, head)
    model = str(frame["model"].iloc[0])
    moved(model)
    show(cards.metrics(frame, recipe, views.task_titles(frame["task"].unique())))
    if method:
        left, right = st.columns([5, 3], gap="large")
        with left:
            poster(frame, method, percent)
        with right:
            broken(frame, recipe)
            kept(frame[frame["recipe"] == recipe].iloc[0], model)
    else:
        note("This model has not been measured at any sparsity. Compress it on the next page, or run:")
        st.code(f"kick sweep {model} --preset demo", language="bash")
    claims(model)
    recovery.section(model)
    if method:
        heading("Every task, all methods", "Raw scores from 0; perplexity on a logarithmic axis, where up is worse.")
        with st.container(key="panels-scroll"):
            charts.draw(
                charts.chart("panels", frame),
                key="panels",
                marker=percent,
                alt="Scores of all pruning methods against sparsity, one panel for each task",
            )
    others(frame, recipe)
    slider_marker.follow()


page()
