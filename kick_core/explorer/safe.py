"""The one door through which text reaches a page.

Prompts, golds and model outputs were written by nobody we know. Streamlit's markdown elements would fetch the
remote images in them, and raw HTML would hide the page. So everything that is not a literal of this program
goes through `tag`, which escapes every child and every attribute, and is shown by `show`, the only caller of
st.html. tests/explorer/test_text_safety.py reads the pages and refuses any other way.
"""

from __future__ import annotations

import re
from pathlib import Path

import streamlit as st

from kick_core.views.markup import Child, Safe, escaped, many, tag

__all__ = ["TONE", "Child", "Safe", "chip", "escaped", "many", "show", "style", "tag", "unmarked"]


def show(*children: Child) -> None:
    """Put elements on the page."""
    st.html(tag("div", *children, cls="kick"))


def style() -> None:
    """The style sheet, once a run."""
    st.html(Path(__file__).with_name("style.css").read_text())


def unmarked(text: str) -> str:
    """Text for an option of a widget, which Streamlit reads as markdown: every mark is escaped."""
    return re.sub(r"([^\w\s])", r"\\\1", text)


def chip(word: str) -> Safe:
    """A verdict in its colour."""
    return tag("span", word, cls=f"chip {TONE.get(word, 'calm')}")


TONE = {
    "matching": "good",
    "not matching": "bad",
    "cannot tell": "open",
    "holds": "good",
    "holds in part": "open",
    "over half came back": "good",
    "under half came back": "bad",
    "differs by task": "open",
    "no loss shown": "calm",
    "does not hold": "bad",
    "not measured": "calm",
    "right": "good",
    "wrong": "bad",
    "both right": "good",
    "broke": "bad",
    "fixed": "good",
    "done": "good",
    "failed": "bad",
    "lost": "bad",
    "cancelled": "open",
}
"""Which colour a word has, on every page the same."""
