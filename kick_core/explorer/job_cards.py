"""Live cards of the detached jobs. They are read from disk, so a reload, another tab or a restart shows the same."""

from __future__ import annotations

import math
import time

import streamlit as st

from kick_core import jobs, views
from kick_core.explorer.frame import OWN_WEIGHTS, heading, note, store, without_weights
from kick_core.explorer.safe import TONE, Safe, many, show, tag
from kick_core.jobs import Job
from kick_core.units import duration_text

SHOWN = 6
"""Ended jobs listed."""


def live(ended: int = SHOWN) -> None:
    """The cards, renewed twice a second while a job is active; when one ends the page runs once more.

    Of the jobs that have ended the newest `ended` stay on the page, and all that failed while it was open.
    """
    busy = {job.id for job in jobs.jobs(store()) if job.active}
    watched = st.session_state.setdefault("watched_jobs", set())
    watched |= busy

    @st.fragment(run_every=0.5 if busy else None)
    def cards() -> None:
        found = jobs.jobs(store())
        if busy - {job.id for job in found if job.active}:
            st.rerun()
        over = [job for job in found if not job.active]
        failed = [job for job in over[ended:] if job.id in watched and job.state in ("failed", "lost")]
        shown = [job for job in found if job.active] + over[:ended] + failed
        if shown:
            heading("Jobs", "They run as processes of their own: leave, reload or restart the app, they go on.")
        for job in shown:
            _card(job)

    cards()


def what(job: Job) -> str:
    """What a job does, in words."""
    spec = job.spec
    recipes, tasks = spec.get("recipes", ()), spec.get("tasks", ())
    named = ", ".join(recipes[:3]) + (f" and {len(recipes) - 3} more" if len(recipes) > 3 else "")
    asked = "" if not tasks else f" · {tasks[0]}" if len(tasks) == 1 else f" · {len(tasks)} tasks"
    return f"{spec.get('model', '?')} · {named}{' · a prompt' if job.kind == 'prompt' else asked}"


def _card(job: Job) -> None:
    with st.container(border=True):
        left, right = st.columns([6, 1], vertical_alignment="center")
        with left:
            tone = TONE.get(job.state, "open")
            word = "stopping" if job.cancelling else job.state
            show(
                tag(
                    "div", tag("b", what(job)), tag("span", word, cls=f"chip {tone}"),
                    tag("span", _where(job), cls="quiet"), _sparks(job.losses), cls="answer",
                    **{"data-job": job.id, "data-state": job.state},
                )
            )  # fmt: skip
            if job.active:
                st.progress(job.share)
                _so_far(job)
        with right:
            _buttons(job)
        if job.active or job.state in ("failed", "lost", "cancelled"):
            with st.expander("Log"):
                st.code(jobs.log(store(), job.id) or "(nothing was printed)", language=None, wrap_lines=True)


def _where(job: Job) -> str:
    if not job.active:
        took = job.updated - job.started if job.started else 0
        told = f"{job.message} · {took:.0f} s" if job.state == "done" else job.message
        return f"{told} · {job.where}" if job.where else told
    block = f"block {job.block + 1} of {job.blocks}" if job.block is not None and job.blocks else ""
    left = job.remaining()
    eta = f"about {duration_text(left)} to go" if left is not None else ""
    return " · ".join(word for word in (job.cell, block, job.message, job.where, eta) if word)


def _sparks(losses: tuple[float, ...]) -> Safe:
    """Loss block by block as small bars."""
    if len(losses) < 2:
        return Safe("")
    top = max(losses) or 1
    bars = many(tag("i", style=f"height:{100 * loss / top:.0f}%", title=f"{loss:.4f}") for loss in losses)
    return tag("span", bars, cls="sparks", title="relative output error of each block")


def _open(job: Job) -> None:
    """The way to what a job has made: its answers, or its harshest recipe."""
    model, recipes = str(job.spec.get("model", "")), [str(recipe) for recipe in job.spec.get("recipes", ())]
    if job.kind == "prompt":
        words = {"view": "Your own prompt", "model": model, "ask": job.id}
        st.page_link("pages/compare.py", label="Open", query_params=words)
    elif recipes:
        tasks = list(job.spec.get("tasks", ()))
        words = {"model": model, "b": recipes[-1]} | ({"task": str(tasks[0])} if tasks else {})
        st.page_link("pages/evaluate.py", label="Open", query_params=words)


def _so_far(job: Job) -> None:
    """The way to what a job of another model than the page's has measured already."""
    shown, model = st.session_state.get("model"), str(job.spec.get("model", ""))
    if job.kind == "prompt" or shown is None or views.asked_name(shown) == model or model not in views.models(store()):
        return

    def switch() -> None:
        st.session_state["model"] = model

    if st.button("Show its results so far", key=f"so-far-{job.id}", on_click=switch):
        st.rerun()


def _buttons(job: Job) -> None:
    if job.state == "done":
        _open(job)
    if jobs.read_only():
        return
    if job.active:
        late = job.cancelling and time.time() - job.updated > jobs.PATIENCE
        if st.button("Stop now" if late else "Cancel", key=f"cancel-{job.id}", disabled=job.cancelling and not late):
            jobs.cancel(store(), job.id)
        return
    if job.state != "done" and st.button("Start again", key=f"again-{job.id}"):
        jobs.again(store(), job.id)
        st.rerun()
    if st.button("Dismiss", key=f"forget-{job.id}", type="tertiary"):
        jobs.forget(store(), job.id)
        st.rerun(scope="fragment")


def done(request: jobs.JobSpec) -> None:
    """The way to the answers of a request that is done."""
    name = jobs.job_id(request)
    if (job := next((job for job in jobs.jobs(store()) if job.id == name), None)) and job.state == "done":
        _open(job)


def _at(job: Job) -> str:
    return job.state if job.block is None else f"{job.state}, block {job.block + 1} of {job.blocks}"


def about(seconds: float) -> str:
    """A cost for a button's label; nothing where it is not known."""
    return "" if math.isnan(seconds) else f"about {duration_text(seconds)}"


def button(label: str, request: jobs.JobSpec, *, key: str, primary: bool = False, cost: str = "") -> None:
    """Start a job, or join the one that is at it; the id is the request's, so nothing runs twice.

    Args:
        label: a literal of this program.
        request: what the job does.
        key: the button's.
        primary: the one that most people want.
        cost: what it takes, in words of this program; part of the label.
    """
    if jobs.read_only():
        return
    if without_weights(str(request.to_json()["model"])):
        note(OWN_WEIGHTS)
        return
    name = jobs.job_id(request)
    running = next((job for job in jobs.jobs(store()) if job.id == name and job.active), None)
    shown = f"{label} ({cost})" if cost else label
    if running is not None:
        shown = f"Join ({_at(running)})"
    if st.button(shown, key=key, type="primary" if primary else "secondary"):
        jobs.start(store(), request)
        st.rerun()
