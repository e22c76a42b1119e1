"""Compare: any recipe against any other on one task, down to one prompt at every sparsity."""

from pages.parts.frame import ensure

ensure()

import pandas as pd  # noqa: E402
import streamlit as st  # noqa: E402

from kick_core import views  # noqa: E402
from pages.parts import answers, browser, cards, controls, data, duel  # noqa: E402
from pages.parts.frame import empty, heading, note, provenance, store, title  # noqa: E402
from pages.parts.safe import show  # noqa: E402


def swap() -> None:
    st.session_state["a"], st.session_state["b"] = st.session_state["b"], st.session_state["a"]


def choose(known: list[str]) -> tuple[pd.DataFrame, str, str, str]:
    """Model, task, A and B."""
    places = st.columns([3, 3, 1.2, 3, 2] if len(known) > 1 else [3, 3, 1.2, 3], vertical_alignment="bottom")
    with places[-1]:
        frame = data.current(controls.model(known))
    with places[3]:
        task = controls.task(frame)
    with places[0]:
        a = controls.recipe(frame, "A", "a", "dense")
    with places[1]:
        b = controls.recipe(frame, "B", "b", controls.start_recipe(frame[frame["task"] == task]))
    with places[2]:
        st.button("Swap", icon=":material/swap_horiz:", on_click=swap, width="stretch")
    return frame, task, a, b


def page() -> None:
    known = data.models()
    if not known:
        title("Compare")
        empty("There is nothing to compare yet.")
    head = st.container()
    frame, task, a, b = choose(known)
    with head:
        title("Compare", provenance(frame[(frame["task"] == task) & frame["recipe"].isin((a, b))]))
    one, other = data.cell(frame, a, task), data.cell(frame, b, task)
    if one is None or other is None:
        gap, model = a if one is None else b, frame["model"].iloc[0]
        empty(f"{gap} has not been asked this task.", f"kick sweep {model} --recipe {gap} --task {task}")
    if a == b:
        note("A and B are the same recipe: choose another to see what moved.")
        return
    examples = data.examples(other["run"], one["run"])
    if examples.empty:
        note("These two have no judged example in common.")
        return
    if examples["flip"].eq("").all():
        show(cards.sentence(other))
        note("Perplexity has no right or wrong, so nothing flips. Choose another task to compare answers.")
        return
    duel.overview(examples, one, other)
    heading("One example")
    shown = browser.filtered(examples)
    if shown.empty:
        note("No example is of this kind.")
        return
    name = browser.pick(shown, f"{one['run']}-{other['run']}", f"{task}-{a}-{b}", ("A", "B"))
    detail = data.detail(other["run"], name)
    ladder = other if other["kind"] != "dense" else one
    note(f"The same prompt along {ladder['method']}'s {duel.KINDS.get(ladder['kind'], 'steps')}; outlined: B.")
    show(answers.strip(views.strip(store(), detail, ladder["run"]), other["run"], detail))
    answers.opened(detail, other["run"], one["run"])


page()
