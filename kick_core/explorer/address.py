"""The address of a page: everything that is chosen on it, defaults too, so that a link opens the same tomorrow.

One way in and one way out. A value that the address bar brings, by a link, by Back or by Forward, wins over the
widget's own; one that it brings and that is not on offer is named under the title instead of being replaced in
silence. At the end of a run the whole address is written once, in place of the page's history entry: Streamlit's
`st.query_params` would *push* an entry a write, which leaves Back without effect, and its `bind="query-params"`
knows options by their labels only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlencode

import streamlit as st

Value = TypeVar("Value")

_MEMORY = "address"
"""Where the session keeps what the last run read and wrote."""

_WRITE = """
const HOLD = 3500  // milliseconds; browsers give up at 4000
const LOST = 20000  // milliseconds after which a page that was opened is waited for no longer
const PRESSES = ['keydown', 'pointerdown', 'mousedown', 'click']
const SETTLED = 300  // milliseconds after which a slider has sent its value
const page = document.documentElement
// Until the server has begun the page that a link opens, whatever the browser sends carries the old page's name: it is
// run after the new page, and Streamlit takes all of that away. So meanwhile nothing is sent: components look at
// data-leaving, and presses reach the menu alone. The old page stays in view until the new one has its headline:
// in between Streamlit shows an empty one. A second link may be clicked meanwhile: the last one's page counts.
const leave = to => {
  const old = document.querySelector('.kick [data-page]')
  page.dataset.leaving = to
  let show  // ends the view transition
  const watch = new MutationObserver(() => {
    const wanted = page.dataset.leaving
    const here = [...document.querySelectorAll('.kick [data-page]')].find(one => one.dataset.page === wanted)
    const idle = document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'
    if (wanted === undefined || (here && (here !== old || idle))) end()
  })
  const end = () => { watch.disconnect(); clearTimeout(lost); delete page.dataset.leaving; show?.() }
  const lost = setTimeout(end, LOST)
  watch.observe(document.body, { childList: true, subtree: true })
  if (!document.startViewTransition || page.dataset.held) return
  page.dataset.held = 'true'
  const change = document.startViewTransition(() => new Promise(done => {
    show = () => { delete page.dataset.held; done() }
    setTimeout(show, HOLD)
  }))
  for (const promise of [change.ready, change.finished]) promise.catch(() => {})  // skipped, as in a hidden tab
}
const still = event => {
  const menu = event.target.closest?.('header, [data-testid=stSidebar]')
  if (page.dataset.leaving === undefined || event.ctrlKey || event.metaKey || event.altKey) return
  if (menu && ['Tab', 'Enter', undefined].includes(event.key)) return
  event.preventDefault()
  event.stopImmediatePropagation()
}
export default function({ data, parentElement }) {
  const root = parentElement.querySelector('span')
  root.undo?.()  // Streamlit calls this function at every update, and what it returns in the end only
  const elsewhere = path => {
    const place = path.split('/').filter(Boolean).pop() ?? ''
    return data.page ? place !== data.page : data.others.includes(place)
  }
  const named = path => {
    const place = path.split('/').filter(Boolean).pop() ?? ''
    return [data.page, ...data.others].includes(place) && place || '/'
  }
  if (elsewhere(location.pathname)) return  // another page was opened meanwhile
  const url = new URL(location.href)
  url.search = data.query
  const menu = document.querySelector('[data-testid=stSidebarCollapseButton] button')
  // On a phone the menu covers the page that it has just opened.
  if (menu && page.dataset.page !== data.page && innerWidth < 640) menu.click()
  page.dataset.page = data.page
  if (url.href !== location.href) history.replaceState(history.state, '', url)
  // A link to another page of this app is opened by the app's own router, which listens to the history.
  const open = event => {
    const link = event.composedPath().find(node => node.matches?.('a[data-inside], a[data-testid$=NavLink]'))
    if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return
    const away = elsewhere(new URL(link.href).pathname)
    if (away && performance.now() - moved < SETTLED) {  // a slider's value is on its way, as during Play
      event.preventDefault()
      event.stopImmediatePropagation()
      setTimeout(() => link.click(), SETTLED)
      return
    }
    if (away || page.dataset.leaving) leave(named(new URL(link.href).pathname))
    if (!link.matches('a[data-inside]')) return
    event.preventDefault()
    history.pushState({}, '', link.href)
    dispatchEvent(new PopStateEvent('popstate'))
  }
  let moved = -SETTLED
  const slide = () => { moved = performance.now() }
  const travel = () => { if (elsewhere(location.pathname)) leave(named(location.pathname)) }
  const listen = [[document, 'click', open], [document, 'input', slide], [window, 'popstate', travel],
    ...PRESSES.map(kind => [window, kind, still])]
  for (const [place, kind, heard] of listen) place.addEventListener(kind, heard, true)
  return root.undo = () => { for (const [place, kind, heard] of listen) place.removeEventListener(kind, heard, true) }
}
"""


@dataclass(slots=True)
class Memory:
    """One run's dealings with the address bar.

    Attributes:
        page: the page's URL path, "" for the first page.
        read: what stood in the address bar when the run began.
        fresh: the part of it that came from elsewhere: a link, or Back and Forward.
        written: what this page says of itself.
        unknown: values of the address that are not on offer, in words.
        brought: names whose fresh value has been taken.
        others: the other pages' URL paths.
    """

    page: str
    read: dict[str, str]
    fresh: dict[str, str]
    written: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    brought: set[str] = field(default_factory=set)
    others: list[str] = field(default_factory=list)


_memory: ContextVar[Memory | None] = ContextVar("address_of_this_run", default=None)


def begin(page: str) -> None:
    """Read the address bar at the start of a run.

    What the bar says on the same page as before is news only where it is neither what the last run read (Streamlit
    repeats the query of the link that opened a page) nor what it wrote.
    """
    read, last = st.query_params.to_dict(), st.session_state.get(_MEMORY)
    fresh = dict(read)
    if isinstance(last, Memory) and last.page == page:
        fresh = {k: v for k, v in read.items() if v not in (last.read.get(k), last.written.get(k))}
    st.session_state[_MEMORY] = memory = Memory(page, read, fresh)
    _memory.set(memory)


def _now() -> Memory:
    """This run's dealings; in a fragment's run those of the run that drew the page."""
    memory = _memory.get() or st.session_state.get(_MEMORY)
    return memory if isinstance(memory, Memory) else Memory("", {}, {})


def choice(
    key: str,
    options: Collection[Value],
    start: Value,
    widget: Callable[[str], object],
    *,
    noun: str = "",
    why: str = "is not on offer here",
) -> Value:
    """A widget whose value is in the address by its plain text.

    Args:
        key: the name in the address, and the widget's.
        options: what is on offer; a `range` serves for numbers.
        start: what is chosen when neither the address nor the session says anything.
        widget: draws the widget under this key.
        noun: what a value is called when the address names one that is not on offer; "" for `key`.
        why: what is said of such a value.

    Returns:
        The chosen option.
    """
    brought = _brought(key, options, noun or key, why)
    value = st.session_state.get(key, start) if brought is None else brought
    st.session_state[key] = value if value in options else start
    chosen = widget(key)
    found: Value = chosen if chosen in options else start  # type: ignore[assignment]
    say(key, found)
    return found


def _brought(key: str, options: Collection[Value], noun: str, why: str) -> Value | None:
    memory = _now()
    text = memory.fresh.pop(key, None)
    if text is None:
        return None
    among = (int(text) if text.isdecimal() else None,) if isinstance(options, range) else options
    value: Value | None = next((one for one in among if one in options and str(one) == text), None)  # type: ignore[assignment]
    if value is None:
        memory.unknown.append(f"This address names the {noun} {text[:80]}, which {why}.")
    return value


def value(key: str, start: str = "") -> str:
    """A value that no widget holds, such as the open example: as the address brings it, else as it was left."""
    memory = _now()
    text = memory.fresh.pop(key, None)
    if text is not None:
        memory.brought.add(key)
        st.session_state[f"at:{key}"] = text
    return str(st.session_state.get(f"at:{key}", start))


def brings(key: str) -> str | None:
    """What the address newly says under a key, before a widget takes it."""
    return _now().fresh.get(key)


def was_brought(key: str) -> bool:
    """Whether the value of this run came with the address."""
    return key in _now().brought


def unknown(sentence: str) -> None:
    """Tell that the address names something that cannot be shown."""
    _now().unknown.append(sentence)


def say(key: str, value: object) -> None:
    """Put a value into this page's address; "" leaves it out."""
    st.session_state[f"at:{key}"] = str(value)
    if str(value) != "":
        _now().written[key] = str(value)
    else:
        _now().written.pop(key, None)


def unknowns() -> list[str]:
    """What this run's address named in vain."""
    return list(dict.fromkeys(_now().unknown))


def page() -> str:
    """This page's name in addresses; "/" is the first page's."""
    return _now().page or "/"


def query(**changes: str) -> str:
    """This page's address as a query, with some values changed; "" leaves one out."""
    return urlencode({name: text for name, text in {**_now().written, **changes}.items() if text})


def write(others: Iterable[str]) -> None:
    """Write the address, once, at the end of a run.

    Args:
        others: URL paths of the other pages.
    """
    _now().others = list(others)
    _component("address")


def write_fragment(key: str) -> None:
    """Write the address from within a fragment that is run alone; in a whole run `write` does it."""
    if _memory.get() is None:
        _component(key)


def _component(key: str) -> None:
    data = {"page": _now().page, "others": _now().others, "query": query()}
    draw = st.components.v2.component("kick_address", html="<span></span>", js=_WRITE)
    draw(key=key, data=data, height=1)


def fold(key: str) -> bool:
    """Whether the address, or the session, has a fold open; the fold is drawn with `key` and `on_change="rerun"`."""
    brought = _now().fresh.pop(key, None)
    if brought is not None:
        st.session_state[key] = brought == "true"
    opened = bool(st.session_state.get(key, False))
    say(key, "true" if opened else "")
    return opened
