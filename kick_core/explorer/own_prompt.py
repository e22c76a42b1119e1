"""One's own prompt to both models, word by word. A job answers it, so the page never loads a model."""

from __future__ import annotations

import hashlib

import pandas as pd
import streamlit as st

from kick_core import jobs, views
from kick_core.errors import BadRequest, KickError
from kick_core.explorer import address, answers, data
from kick_core.explorer.frame import OWN_WEIGHTS, heading, note, store, without_weights
from kick_core.explorer.safe import TONE, Safe, chip, show, tag
from kick_core.jobs import Job


def page(a: pd.Series, b: pd.Series) -> None:
    """The form, and beneath it the answers to the prompt that the URL names (ask)."""
    heading("Your own prompt", "The same words to A and B, the very weights that were measured. Nothing is judged.")
    found = _asked()
    if jobs.read_only():
        note("This explorer is read-only: prompts that others asked can be read by their link, none can be asked.")
    elif without_weights(a["model"]):
        note(OWN_WEIGHTS)
        st.page_link(
            "pages/compress.py", label="Compress a pocket model, which comes with its weights, and ask that one",
            icon=":material/arrow_forward:", query_params={"model": views.POCKETS[0]},
        )  # fmt: skip
        if found is None:
            return
    else:
        _form(a, b, found)
    blind = address.choice("blind", (False, True), False, lambda key: st.toggle(
        "Guess first: hide which model gave which answer", key=key, persist_state="session"
    )) if a["recipe"] != b["recipe"] else False  # fmt: skip
    if found is not None:
        _answers(found, blind and len(found.spec["recipes"]) == 2)


def _asked() -> Job | None:
    name = address.value("ask")
    if not name:
        return None
    try:
        found = jobs.job(store(), name)
    except KickError:
        note("The answers that this address names are not in this cache any more. Ask again.")
        return None
    if found.kind != "prompt":
        return None
    address.say("ask", name)
    return found


def _form(a: pd.Series, b: pd.Series, found: Job | None) -> None:
    before = found.spec if found else {}
    with st.form("own", border=False):
        text = st.text_area(
            "Prompt", value=str(before.get("prompt") or _open_example(b)), height=120, max_chars=8000, key="own_text"
        )
        left, middle, right, last = st.columns([2, 2, 3, 2], vertical_alignment="bottom")
        with left:
            length = st.number_input("New tokens", 1, 1024, value=int(before.get("new_tokens", 64)), key="own_tokens")
        with middle:
            heat = st.number_input(
                "Temperature", 0.0, 2.0, value=float(before.get("temperature", 0.0)), step=0.1, key="own_heat",
                help="0 always takes the likeliest word, so the same prompt gives the same answer.",
            )  # fmt: skip
        with right:
            chat = st.toggle("Apply the chat template", value=bool(before.get("chat", False)), key="own_chat")
        with last:
            pressed = st.form_submit_button("Ask both", type="primary", width="stretch")
    if not pressed:
        return
    rows = [a] if a["recipe"] == b["recipe"] else [a, b]
    model, recipes = views.asked_name(a["model"]), [str(row["recipe"]) for row in rows]
    calibration = views.calibration_used(store(), model, recipes) or jobs.calibration(model)
    try:
        wanted = jobs.prompt(
            model, recipes, text, weights=tuple(str(row["weights"]) for row in rows), dtype=str(b["dtype"]),
            new_tokens=int(length), temperature=float(heat), chat=bool(chat), calibration=calibration,
        )  # fmt: skip
    except BadRequest as error:
        show(tag("p", str(error), cls="bad"))
        return
    address.say("ask", jobs.start(store(), wanted).id)
    st.rerun()


def _open_example(row: pd.Series) -> str:
    """The prompt of the example that was open, to begin with; a word of it changed shows more than a blank page."""
    try:
        return "\n\n".join(data.detail(row, address.value("ex"), ()).example.prompt)
    except KickError:
        return ""


def _answers(found: Job, blind: bool) -> None:
    """Both answers, renewed while they are written; blind until one has guessed, if one wants to."""
    name, active = found.id, found.active

    @st.fragment(run_every=0.4 if active else None)
    def written() -> None:
        job = jobs.job(store(), name)
        if active and not job.active:
            st.rerun()
        guess = st.session_state.get(f"guess-{name}")
        hidden = blind and guess is None
        _state(job, hidden)
        recipes = list(job.spec["recipes"])
        order = sorted(recipes, key=lambda recipe: hashlib.sha256(f"{name}{recipe}".encode()).digest())
        shown = order if blind else recipes
        texts = [job.answers[recipe].lstrip() if recipe in job.answers else None for recipe in shown]
        marked: tuple[Safe | None, ...] = (None,) * len(texts)
        if not job.active and len(texts) == 2 and all(texts):
            marked = answers.both(str(texts[0]), str(texts[1]))
            show(tag("p", tag("span", "Marked", cls="shared"), ": what both say.", cls="quiet"))
        names = ["First answer", "Second answer"] if hidden else shown
        for place, title, text, words in zip(st.columns(len(texts)), names, texts, marked, strict=True):
            with place:
                _one(title, text, words, job)
        if hidden and not job.active and all(texts):
            _guess(name, recipes[-1])
        elif blind and guess is not None:
            right = shown[guess] == recipes[-1]
            show(tag("p", chip("right" if right else "wrong"), f" {recipes[-1]} gave the "
                     f"{('first', 'second')[shown.index(recipes[-1])]} answer."))  # fmt: skip

    written()


def _guess(name: str, recipe: str) -> None:
    """Which of the two answers is the compressed model's?"""

    def take(at: int) -> None:
        st.session_state[f"guess-{name}"] = at

    show(tag("p", "Which of them is ", tag("b", recipe), "?"))
    with st.container(horizontal=True):
        st.button("The first", key="guess-first", on_click=take, args=(0,))
        st.button("The second", key="guess-second", on_click=take, args=(1,))


def _state(job: Job, hidden: bool) -> None:
    spec = job.spec
    told = "" if hidden else f" · {job.message}"
    how = "greedy" if not spec["temperature"] else f"temperature {spec['temperature']}, seed {spec['seed']}"
    show(
        answers.box(str(spec["prompt"])),
        tag(
            "div", tag("span", job.state, cls=f"chip {TONE.get(job.state, 'open')}"),
            tag("span", f"{spec['model']} · {how} · at most {spec['new_tokens']} tokens{told}", cls="quiet"),
            cls="answer", style="margin:.4rem 0", **{"data-ask": job.id, "data-state": job.state},
        ),
    )  # fmt: skip
    if job.active:
        st.progress(job.share)
        if not jobs.read_only() and st.button("Cancel", key="own_cancel", disabled=job.cancelling):
            jobs.cancel(store(), job.id)
    elif job.state != "done" and not jobs.read_only() and st.button("Start again", key="own_again"):
        jobs.again(store(), job.id)
        st.rerun()


def _one(recipe: str, text: str | None, marked: Safe | None, job: Job) -> None:
    """One model's answer as it is written; what both share is marked when both are done."""
    if text is None:
        waiting = "waits for its turn" if job.active else "was not answered"
        show(tag("div", tag("b", recipe), tag("span", waiting, cls="quiet"), cls="answer"))
        return
    found = views.repetition(text)
    share = "" if found.tokens < 2 else f"{found.tokens} words, {views.percent(found.repeated)} of 4-grams repeated"
    nothing = "…" if job.active else "(empty answer)"
    show(
        tag("div", tag("b", recipe), tag("span", share, cls="quiet"), cls="answer"),
        answers.box(nothing if not text else text if marked is None else marked),
    )
