"""Open a pack: results of another machine, added to this cache by a button."""

from __future__ import annotations

import tempfile
from pathlib import Path

import streamlit as st

from kick_core import jobs, packs, views
from kick_core.errors import KickError
from kick_core.explorer.safe import show, tag


def button(store: views.Store) -> None:
    """A popover with the file picker, where there is nothing to share yet."""
    if not jobs.read_only():
        with st.popover("Open a pack", icon=":material/upload_file:"):
            picker(store)


def picker(store: views.Store) -> None:
    """A file picker; what came of the last pack stands under it until the next one."""
    if jobs.read_only():
        return
    file = st.file_uploader(
        "Open a pack: results of another machine",
        key="pack",
        help="A .kickpack file, as kick pack makes it; larger ones: kick unpack FILE",
        on_change=_take,
        args=(store,),
    )
    for sentence in st.session_state.get("pack-done", ()) if file else ():
        show(tag("p", sentence, role="status"))


def _take(store: views.Store) -> None:
    """Unpack the picked file before the page is drawn, so that the page can show its model."""
    if file := st.session_state["pack"]:
        st.session_state["pack-done"] = _unpack(store, file.getvalue())


def _unpack(store: views.Store, data: bytes) -> list[str]:
    """Choose the pack's model; what happened, in sentences. The file lies outside the cache until it is checked."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"uploaded{packs.SUFFIX}"
        path.write_bytes(data)
        try:
            done = packs.unpack(path, views.open_store(store.root))  # without the gallery beside it
        except KickError as error:
            return [str(error).replace(str(path), "This file")]
    st.session_state["model"] = done.header.model
    there = f", {done.same} were there already" if done.same else ""
    return [f"{done.header.model} is the chosen model now: {done.added} runs were added{there}.", *done.notes]
