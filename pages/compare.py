"""Compare: any recipe against any other on one task, down to one prompt at every sparsity; by size; live; by model."""

from kick_core.explorer.frame import ensure

ensure()

import pandas as pd  # noqa: E402
import streamlit as st  # noqa: E402

from kick_core import views  # noqa: E402
from kick_core.explorer import (  # noqa: E402
    answers,
    browser,
    cards,
    compare_ab,
    controls,
    coverage_grid,
    data,
    lineage,
    own_prompt,
    same_size,
)
from kick_core.explorer.frame import empty, heading, moved, note, provenance, store, title  # noqa: E402
from kick_core.explorer.safe import show, tag  # noqa: E402

ANSWERS, SIZE, OWN, FAMILIES = VIEWS = ("Answers", "Same size", "Your own prompt", "Families")


def swap() -> None:
    st.session_state["a"], st.session_state["b"] = st.session_state["b"], st.session_state["a"]


def choose(known: list[str]) -> tuple[pd.DataFrame, str, str, str]:
    """Model, protocol, task, A and B."""
    places = st.columns(
        [3, 3, 1.2, 3, 2.2, 2] if len(known) > 1 else [3, 3, 1.2, 3, 2.2, 0.1], vertical_alignment="bottom"
    )
    with places[5]:
        model = controls.model(known)
    with places[4]:
        under = controls.protocol(model)
        controls.kind_of_data(model)
    frame = data.current(model, under)
    if frame.empty:
        coverage_grid.nothing(model, under)
    with places[3]:
        task = controls.task(frame)
    with places[0]:
        a = controls.recipe(frame, "A", "a", "dense")
    with places[1]:
        b = controls.recipe(frame, "B", "b", controls.start_recipe(frame[frame["task"] == task]))
    with places[2]:
        st.button("Swap", icon=":material/swap_horiz:", on_click=swap, width="stretch")
    return frame, task, a, b


def compared(one: pd.Series, other: pd.Series) -> None:
    """The numbers of A against B, then one example in full."""
    examples = data.examples(other, one["run"])
    if examples.empty:
        note("These two have no judged example in common.")
        return
    if examples["flip"].eq("").all():
        show(cards.sentence(other))
        if one["kind"] != "dense":
            show(tag("p", f"B against A: {data.between(other, one, 'A')}."))
        note("Perplexity has no right or wrong, so nothing flips. Choose another task to compare answers.")
        return
    compare_ab.overview(examples, one, other)
    heading("One example")
    shown = browser.filtered(examples)
    if shown.empty:
        note("No example is of this kind.")
        return
    name = browser.pick(shown, other, str(one["recipe"]), ("A", "B"))
    detail = data.detail(other, name)
    sparsity_series = other if other["kind"] != "dense" else one
    steps = views.strip(store(), detail, sparsity_series["run"])
    broke = next((step.target_label for step in steps[1:] if steps[0].right and step.right is False), None)
    heading(
        f"Breaks at {broke}" if broke else "The same prompt at every step",
        f"One prompt along {sparsity_series['method']}'s "
        f"{compare_ab.KINDS.get(sparsity_series['kind'], 'steps')}; outlined: B.",
    )
    show(answers.strip(steps, other["run"], detail))
    answers.opened(detail, other["run"], one["run"])


def _any(frame: pd.DataFrame, recipe: str, task: str) -> pd.Series:
    """A recipe's row of this task, else of any: a prompt of one's own needs the weights alone."""
    found = data.cell(frame, recipe, task)
    return frame[frame["recipe"] == recipe].iloc[0] if found is None else found


def page() -> None:
    known = data.models()
    if not known:
        title("Compare")
        empty("There is nothing to compare yet.")
    head, chosen = st.container(), st.container()
    first = OWN if "ask" in st.query_params else ANSWERS
    view = st.segmented_control(
        "View", VIEWS, default=first, required=True, key="view", bind="query-params", label_visibility="collapsed"
    )
    if view == FAMILIES:
        lineage.page(known, head, chosen)
        return
    with chosen:
        frame, task, a, b = choose(known)
    model = str(frame["model"].iloc[0])
    with head:
        title("Compare", provenance(frame[(frame["task"] == task) & frame["recipe"].isin((a, b))]))
        moved(model)
    if view == SIZE:
        same_size.page(frame, task)
        return
    if view == OWN:
        own_prompt.page(*(_any(frame, recipe, task) for recipe in (a, b)))
        return
    one, other = (data.cell(frame, recipe, task) for recipe in (a, b))
    if one is None or other is None:
        coverage_grid.gap(model, a if one is None else b, task)
    if a == b:
        note("A and B are the same recipe: choose another to see what moved.")
        return
    compared(one, other)


page()
