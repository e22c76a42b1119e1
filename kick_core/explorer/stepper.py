"""Previous, next, "12 of 50": a component that counts in the browser, so that no key press is lost.

A button's press is an event, and Streamlit merges the events that come while a script runs: of ten quick presses two
arrive. A component's value is a state, of which the newest counts: after ten presses it says ten steps further.

The server draws the open example and its neighbours, all but one hidden (`each`). A step shows the next one at once;
what the server alone can draw (the table's row, the address, a star) follows, and is dimmed until it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import streamlit as st

from kick_core.explorer.safe import Safe, many, tag

NEAR = 2
"""Neighbours drawn ahead on either side."""

_HTML = """
<div class="stepper" role="group" aria-label="Step through the examples">
  <button type="button" data-by="-1" title="Left arrow or k">Previous</button>
  <output aria-live="polite"></output>
  <button type="button" data-by="1" title="Right arrow or j">Next</button>
</div>
"""

_CSS = """
.stepper { display: flex; gap: .6rem; align-items: center; font: inherit; color: var(--st-text-color); }
.stepper button { font: inherit; color: inherit; background: transparent; cursor: pointer; min-height: 2.4rem;
  padding: .25rem .9rem; border: 1px solid color-mix(in srgb, currentColor 22%, transparent); border-radius: 8px; }
.stepper button:disabled { opacity: .45; cursor: default; }
.stepper button:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
.stepper output { min-width: 6.5rem; text-align: center; font-variant-numeric: tabular-nums; }
"""

_JS = """
const KEYS = { ArrowLeft: -1, k: -1, ArrowRight: 1, j: 1 }
export default function({ parentElement, data, setStateValue }) {
  const root = parentElement.querySelector('.stepper'), state = root.state ??= { at: data.at, presses: data.presses }
  root.undo?.()  // Streamlit calls this function at every update, and what it returns in the end only
  // The server repeats older places while presses are on their way: it is heard once it has answered the last one.
  if (data.presses >= state.presses) Object.assign(state, { at: data.at, presses: data.presses })
  // Shown by id, not by place: after a filter another example stands at the same place.
  const show = () => {
    const id = data.near[state.at - data.first]
    for (const group of document.querySelectorAll('[data-examples]')) {
      const pieces = [...group.children]
      if (!pieces.some(piece => piece.dataset.example === id)) continue
      for (const piece of pieces) piece.hidden = piece.dataset.example !== id
    }
    document.documentElement.toggleAttribute('data-stepping', state.at !== data.at)
  }
  const draw = () => {
    show()
    root.querySelector('output').textContent = `${state.at + 1} of ${data.count}`
    root.querySelector('[data-by="-1"]').disabled = state.at <= 0
    root.querySelector('[data-by="1"]').disabled = state.at + 1 >= data.count
  }
  const step = by => {
    const to = Math.min(Math.max(state.at + by, 0), data.count - 1)
    if (to === state.at) return
    state.at = to
    state.presses += 1
    draw()
    setStateValue('place', { at: to, presses: state.presses })
  }
  const press = event => {
    const by = KEYS[event.key], field = event.target
    if (!by || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return
    if (field.matches?.('input[type=range], textarea, [role=radio], [role=slider], [contenteditable]')) return
    const chosen = field.matches?.('[role=combobox][aria-expanded=false]')  // a choice that has been made
    if (field.matches?.('input') && !chosen && (event.key.length === 1 || field.value)) return  // typed into
    if (field.closest?.('[data-testid=stDataFrame]')) return  // the table moves its own focus
    event.preventDefault()
    step(by)
  }
  const arrivals = new MutationObserver(changes => {  // before it is painted
    const nodes = changes.flatMap(change => [...change.addedNodes])
    if (nodes.some(node => node.querySelector?.('[data-examples]'))) show()
  })
  arrivals.observe(document.querySelector('[data-testid=stMain]') ?? document.body, { childList: true, subtree: true })
  const click = event => { const by = event.target.dataset?.by; if (by) step(Number(by)) }
  root.addEventListener('click', click)
  document.addEventListener('keydown', press, true)  // before a choice that has the focus takes the key
  draw()
  return root.undo = () => {
    arrivals.disconnect()
    document.documentElement.removeAttribute('data-stepping')
    root.removeEventListener('click', click)
    document.removeEventListener('keydown', press, true)
  }
}
"""


def near(ids: Sequence[str], at: int) -> list[str]:
    """The ids of the open example and of its neighbours, those that are drawn ahead."""
    return list(ids[max(0, at - NEAR) : at + NEAR + 1])


def each(pieces: Mapping[str, Safe], here: str) -> Safe:
    """A piece of the page for every example that is drawn, all hidden but the open one's.

    Args:
        pieces: id to what is drawn of it.
        here: the id of the open example.
    """
    drawn = (
        tag("div", piece, **{"data-example": name}, **({} if name == here else {"hidden": ""}))
        for name, piece in pieces.items()
    )
    return tag("div", many(drawn), **{"data-examples": ""})


def stepper(key: str, ids: Sequence[str], at: int, moved: Callable[[int], None]) -> None:
    """Draw the stepper.

    Args:
        key: the component's key.
        ids: the examples that are stepped through.
        at: the place that is open, from 0.
        moved: is told the new place.
    """

    counted = f"{key}-presses"

    def take() -> None:
        place = st.session_state[key].get("place") or {}
        st.session_state[counted] = place.get("presses", 0)
        if isinstance(place.get("at"), int) and 0 <= place["at"] < len(ids):
            moved(place["at"])

    draw = st.components.v2.component("kick_stepper", html=_HTML, css=_CSS, js=_JS)
    data = {
        "count": len(ids), "at": at, "presses": st.session_state.get(counted, 0),
        "near": near(ids, at), "first": max(0, at - NEAR),
    }  # fmt: skip
    draw(key=key, data=data, on_place_change=take)
