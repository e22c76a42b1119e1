"""One's own questions: a file is checked, kept in the cache, and asked of dense and the chosen recipe by a job."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from kick_core import jobs, views
from kick_core.errors import KickError
from kick_core.explorer import address, data, gaps, job_cards
from kick_core.explorer.frame import OWN_WEIGHTS, note, store, without_weights
from kick_core.explorer.safe import show, tag


def panel(model: str, frame: pd.DataFrame, recipe: str) -> None:
    """The fold with the upload; nothing is started before the file has been read without a fault."""
    opened = address.fold("own")
    with st.expander("Ask your own questions", key="own", on_change="rerun"):
        if not opened:
            return
        if without_weights(model):
            note(OWN_WEIGHTS)
            return
        note(
            "A CSV or JSONL file with the columns question and answer (several spellings apart by |). With options it "
            "is a choice, with context open book; subject and popularity group the results."
        )
        if jobs.read_only():
            note("This explorer is read-only: no file is taken.")
            return
        file = st.file_uploader(
            "A file of questions", ["csv", "jsonl"], key="own_file", max_upload_size=jobs.QUESTIONS >> 20
        )
        if file is not None:
            _ask(model, frame, recipe, file.name, file.getvalue())


def _ask(model: str, frame: pd.DataFrame, recipe: str, name: str, content: bytes) -> None:
    try:
        path, task, count = jobs.keep_questions(store(), name, content)
    except KickError as error:
        show(tag("p", str(error), cls="bad"))
        return
    title = views.task_titles([task])[task]
    show(tag("p", tag("b", name), f": {count:,} question{'s' if count > 1 else ''}, asked as “{title}”."))
    asked, recipes = views.asked_name(model), list(dict.fromkeys(("dense", recipe)))
    calibration = views.calibration_used(store(), asked, recipes)
    dtype = str(frame["dtype"].iloc[0])
    request = jobs.request(
        asked, recipes, tasks=(task,), data=str(path), counts={task: count}, dtype=dtype,
        **({"calibration": calibration} if calibration else {}),
    )  # fmt: skip
    job_cards.button("Ask dense and this recipe", request, key="own-ask", primary=True)
    job_cards.done(request)
    if data.kind(model) == views.POCKET:
        note("Results are on this page under the data “official”: they are no part of the pocket world.")
    gaps.command(views.command(store(), asked, recipe, task, data=str(path), dtype=dtype))
