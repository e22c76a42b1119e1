"""The frame around every page: menu, style, the open cache, title, provenance, and what to do when it is empty.

`pages/` beside app.py is a trap: on a fresh server Streamlit runs pages/evaluate.py for a deep link to
/evaluate *without* app.py, with the wrong menu for every visitor. So each page is drawn by `page`: run from the menu
it draws, run alone it hands over to `main`, and the visitor sees the right page at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NoReturn

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from kick_core import jobs, views
from kick_core.errors import KickError
from kick_core.explorer import address, glossary, open_pack
from kick_core.explorer.safe import Child, Safe, many, show, style, tag
from kick_core.packs import Header, gallery

_inside = ContextVar("inside_the_menu", default=False)
_stamp: ContextVar[str | None] = ContextVar("stamp_of_this_run", default=None)

FILL = "kick sweep pocket --preset demo"
"""The command that fills an empty cache."""


PAGES = (
    ("pages/home.py", "Findings", ":material/insights:"),
    ("pages/compress.py", "Compress", ":material/compress:"),
    ("pages/evaluate.py", "Evaluate", ":material/fact_check:"),
    ("pages/compare.py", "Compare", ":material/compare:"),
)


class Ended(Exception):
    """A page has nothing more to show: `empty` said why."""


def main() -> None:
    """The app: settings, menu, and the page that was opened."""
    st.set_page_config(page_title="LLM-KICK Explorer", page_icon="🗜️", layout="wide")
    pages = [st.Page(path, title=name, icon=icon, default=at == 0) for at, (path, name, icon) in enumerate(PAGES)]
    page = st.navigation(pages, position="top")
    token, stamped = _inside.set(True), _stamp.set(None)
    address.begin(page.url_path)
    try:
        style()
        if st.query_params.get("model") not in (None, *(pack.model for pack in gallery.shown(store()))):
            _open_all()
        drawn = store()
        _stamp.set(views.stamp(store()))
        _rescore()
        head, actions = st.columns([6, 2.6], vertical_alignment="top")
        slots = _Slots(head, st.container())
        slotted = _slots.set(slots)
        try:
            with contextlib.suppress(Ended):
                page.run()
        finally:
            _slots.reset(slotted)
        _unread()
        with actions, st.container(horizontal=True, horizontal_alignment="right"):
            if slots.shared:
                _share(*slots.shared)
            else:
                open_pack.button(store())
            glossary.button()
        with slots.under:
            for sentence in address.unknowns():
                show(tag("p", sentence, cls="open", role="status"))
        address.write(other.url_path for other in pages if other is not page)
        _open_all()
        if store() is not drawn:
            st.rerun()
    except KickError as error:
        show(tag("p", str(error), cls="bad", **{"data-page": address.page()}))
    finally:
        _inside.reset(token)
        _stamp.reset(stamped)


def page(draw: Callable[[], None]) -> None:
    """What every file of `pages/` does: draw its page inside the menu, whichever way Streamlit came to run it."""
    if _inside.get():
        draw()
    else:
        main()
        st.stop()


def _rescore() -> None:
    """Score what older versions scored, before anything is drawn of it: half a minute, where a cache is large."""
    scored = _scored(str(store().root))
    waiting = [key for key in _outdated(str(store().root), stamp()) if key not in scored]
    if not waiting:
        return
    bar = st.progress(0.0)
    for at, key in enumerate(waiting):
        words = f"Answers of {len(waiting)} runs are scored by this version's rules: {at} done."
        bar.progress(at / len(waiting), words)
        views.rescore(store(), key, keep=not jobs.read_only())
        scored.add(key)
    bar.empty()
    _stamp.set(views.stamp(store()))


@st.cache_data(show_spinner=False, max_entries=4)
def _outdated(root: str, stamp: str) -> list[str]:
    return views.outdated(store())


@st.cache_resource(show_spinner=False, max_entries=4)
def _scored(root: str) -> set[str]:
    """Runs that this server has scored anew already, whether or not the verdicts could be kept."""
    return set()


def _unread() -> None:
    """At the foot of every page: what the cache holds that this program cannot show, and that it may only look."""
    if count := _counted(str(store().root), stamp()):
        runs = "1 run of this cache is" if count == 1 else f"{count} runs of this cache are"
        note(f"{runs} not shown: damaged, or of another version's tasks or recipes. This names them:")
        st.code("kick verify && kick list", language="bash")
    if jobs.read_only():
        note("This explorer is read-only: nothing can be compressed or evaluated from here.")


@st.cache_data(show_spinner=False, max_entries=4)
def _counted(root: str, stamp: str) -> int:
    return views.unread(store())


@dataclass(slots=True)
class _Opened:
    """A cache with as much of the gallery as is unpacked; `whole`: there is no more to come."""

    store: views.Store
    whole: bool = False


@st.cache_resource(show_spinner=False)
def _open(root: str) -> _Opened:
    with st.spinner("Opening the gallery …"):
        return _Opened(gallery.with_gallery(views.open_store(root), first=st.query_params.get("model", "")))


def store() -> views.Store:
    """The cache that this app explores: `KICK_CACHE`, else the default cache (`store.default_root`)."""
    return _open(str(views.default_root())).store


def _open_all() -> None:
    """Unpack what the first page was not made to wait for, once a server: what is damaged is not tried again."""
    opened = _open(str(views.default_root()))
    if opened.whole:
        return
    if len(opened.store.beside) < len(gallery.packs()):
        with st.spinner("Opening the gallery's other models …"):
            opened.store = gallery.with_gallery(opened.store)
    opened.whole = True


def stamp() -> str:
    """Changes whenever a run or an artifact comes or goes; looked up once in a run of a page."""
    return _stamp.get() or views.stamp(store())


@dataclass(slots=True)
class _Slots:
    """Places above what a page draws, so that they can be filled when it is known what it shows.

    `shared`: model, protocol and kind of data of the page, once it has said so; it can then be shared.
    """

    head: DeltaGenerator
    under: DeltaGenerator
    shared: tuple[str, str, str] | None = None


_slots: ContextVar[_Slots | None] = ContextVar("slots_of_this_run", default=None)


def title(text: Child, *lines: Safe | str, shared: tuple[str, str, str] | None = None) -> None:
    """A page's headline, with lines of provenance under it.

    Args:
        text: the headline.
        lines: what stands under it, small.
        shared: model, protocol and kind of data, which make the page one that can be shared.
    """
    slots = _slots.get()
    with slots.head if slots else st.container():
        show(
            tag("h1", text, **{"data-page": address.page()}),
            *(tag("p", line, cls="provenance") for line in lines if line),
        )
    if slots:
        slots.shared = shared


def heading(text: str, note: str = "") -> None:
    show(tag("h2", text), tag("p", glossary.explained(note), cls="quiet") if note else Safe(""))


def note(text: str) -> None:
    show(tag("p", glossary.explained(text), cls="quiet"))


def end() -> NoReturn:
    """Nothing more on this page."""
    raise Ended


def provenance(rows: pd.DataFrame) -> Safe:
    """Where the numbers on a page come from: model, data, n, protocol, number format, date."""
    if rows.empty:
        return Safe("")
    said: list[Child] = [
        f"model {_each(rows['model'])}",
        _data(_each(rows["data"])),
        f"{_counts(rows)} per task",
        many([_protocol(_each(rows["protocol"])), tag("span", ", "), glossary.term("greedy")]),
        *([_scorer(rows.iloc[-1])] if rows["task"].nunique() == 1 else []),
        *(f"calibration {said}" for said in _calibrations(str(store().root), stamp(), tuple(rows["weights"].unique()))),
        f"{_each(rows['dtype'])} on {_each(rows['device'])}, evaluated by {_each(rows['engine'])}",
        glossary.term("95 % intervals", "95 % interval"),
        f"measured {_range(rows['created'].str[:10])}",
    ]
    return facts(said)


@st.cache_data(show_spinner=False, max_entries=256)
def _calibrations(root: str, stamp: str, keys: tuple[str, ...]) -> list[str]:
    found = views.calibration_of(store(), keys)
    return found if len(found) < 3 else [f"with {len(found)} different texts, see Compress"]


OWN_WEIGHTS = (
    "The gallery holds this model's answers, not its weights. To measure more, name its folder or hub id as the model "
    "on Compress."
)
"""What helps where a model is known by its results alone."""


def without_weights(model: str) -> bool:
    """Whether a model is known by a pack of the gallery alone, so that no job could open it."""
    name = views.asked_name(model)
    return any(pack.model == name for pack in gallery.shown(store())) and not views.at_home(name)


def moved(model: str) -> None:
    """Say so when a model's files are not on this machine: results stay, new ones need the files."""
    model = views.asked_name(model)
    if mine := [pack for pack in gallery.shown(store()) if pack.model == model]:
        origin = f"From the gallery, read only: {model}. {' '.join(map(_of_pack, mine))} "
        left_out = " ".join(dict.fromkeys(sentence for pack in mine for sentence in pack.left_out))
        show(tag("p", origin, tag("abbr", "What is left out", title=left_out, tabindex="0"), cls="quiet"))
        return
    if views.at_home(model):
        return
    if model.startswith(("/", "~", ".")):
        note(
            f"{model} is not there any more. What was measured stays readable; to measure more, put it back "
            "or name its new place, here or to kick: the same files are the same model, wherever they lie."
        )
    else:
        note(f"{model} is not on this machine: a job fetches it from the hub when it needs it.")


def _of_pack(pack: Header) -> str:
    """What a pack of the gallery is, in a sentence."""
    first, last = pack.measured
    days = first if first == last else f"{first} to {last}"
    by = f"version {pack.versions.get('kick_core', '?')}" + (f", commit {pack.commit}" if pack.commit else "")
    return (
        f"{len(pack.tasks)} tasks, {len(pack.recipes)} recipes, {pack.outputs:,} answers, measured {days} on "
        f"{', '.join(pack.devices)} by {by}."
    )


def _share(model: str, protocol: str, kind: str) -> None:
    """What to take along: the address of what is on the page, and a report that works offline."""
    with st.popover("Share", icon=":material/link:"):
        note("Whoever runs this explorer over the same cache sees with this address what you see.")
        place = (st.context.url or "").partition("?")[0]
        st.code(f"{place}?{address.query()}", language=None, wrap_lines=True)
        open_pack.picker(store())
    method, percent = st.session_state.get("method"), st.session_state.get("s")
    opens = (method, percent) if method and percent is not None else None
    st.download_button(
        "Report",
        data=lambda: _report(model, protocol, kind, opens).encode(),
        file_name="llm-kick-report.html",
        mime="text/html",
        on_click="ignore",
        icon=":material/download:",
        help="One file that works offline, slider included",
    )


def _report(model: str, protocol: str, kind: str, opens: tuple[str, int] | None) -> str:
    from kick_core.explorer import data  # which is made of this module

    return views.report(store(), model, protocol, kind, measured=data.scores(), opens=opens)


def _data(name: str) -> Safe:
    words = f"data {name}"
    return glossary.term(words, name) if name in glossary.TERMS else tag("span", words)


def _scorer(row: pd.Series) -> Safe:
    """Which rule judges the answers; in full on hover."""
    rule = views.scorer_rule(store(), str(row["run"]), str(row["scorer"]))
    return tag("abbr", f"scored by {str(row['scorer']).replace('_', ' ')}", title=rule, tabindex="0")


def _protocol(name: str) -> Safe:
    words = f"protocol {name}"
    return glossary.term(words, name) if name in glossary.TERMS else tag("span", words)


def facts(words: Iterable[Child]) -> Safe:
    """A line of provenance."""
    return many(tag("span", word) for word in words)


def _each(values: Iterable[object]) -> str:
    return ", ".join(sorted({str(value) for value in values}))


def _counts(rows: pd.DataFrame) -> str:
    """How many examples were asked, of how many."""
    counts, totals = _range(rows["n"]), _range(rows["total"])
    if (rows["n"] == rows["total"]).all():
        return f"all {counts} examples"
    return f"almost all {counts} examples" if counts == totals else f"{counts} of {totals} examples"


def _range(values: pd.Series) -> str:
    low, high = (f"{value}" if isinstance(value, str) else f"{value:,}" for value in
                 (values.min(), values.max()))  # fmt: skip
    return low if low == high else f"{low} to {high}"
