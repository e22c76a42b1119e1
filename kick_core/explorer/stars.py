"""Stars: examples that somebody picked, with a comment. They stay in the cache, and the report tells them."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from kick_core import jobs, views
from kick_core.explorer import address
from kick_core.explorer.frame import note, store


def of(run: str) -> dict[str, views.Star]:
    """The starred examples of a run, by id."""
    return {star.example: star for star in views.starred(store()) if star.run == run}


def only(frame: pd.DataFrame) -> pd.DataFrame:
    """The starred examples alone, where some are and that is chosen."""
    count = int(frame["starred"].sum())
    if not count:
        return frame
    chosen = address.choice("starred", (False, True), False, lambda key: st.toggle(
        "Starred only", key=key, persist_state="session"
    ))  # fmt: skip
    return frame[frame["starred"]] if chosen else frame


def button(run: str, example: str, other: str) -> None:
    """The open example's star and comment."""
    star = of(run).get(example)
    if jobs.read_only():
        if star and star.comment:
            note(f"Starred: {star.comment}")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if star is None:
            st.button("Star", icon=":material/star:", key=f"star-{run}-{example}", on_click=views.star,
                      args=(store(), views.Star(run, example, other)))  # fmt: skip
            return
        st.button("Unstar", icon=":material/star:", key=f"unstar-{run}-{example}", type="primary",
                  on_click=views.unstar, args=(store(), run, example))  # fmt: skip
        comment = st.text_input(
            "Comment", value=star.comment, max_chars=500, key=f"comment-{run}-{example}",
            placeholder="Why this one? It stands in the report.", label_visibility="collapsed",
        )  # fmt: skip
        if comment != star.comment:
            views.star(store(), views.Star(run, example, other, comment or ""))
