"""Previous, next, "12 of 50": a component that counts in the browser, so that no key press is lost.

A button's press is an event, and Streamlit merges the events that come while a script runs: of ten quick presses two
arrive. A component's value is a state, of which the newest counts: after ten presses it says ten steps further.
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

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
  // The server repeats older places while presses are on their way: it is heard once it has answered the last one.
  if (data.presses >= state.presses) Object.assign(state, { at: data.at, presses: data.presses })
  const draw = () => {
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
    const chosen = field.matches?.('[role=combobox]') && event.key.length > 1  // a choice that has been made
    if (field.matches?.('input') && !chosen && (event.key.length === 1 || field.value)) return  // typed into
    if (field.closest?.('[data-testid=stDataFrame]')) return  // the table moves its own focus
    event.preventDefault()
    step(by)
  }
  const click = event => { const by = event.target.dataset?.by; if (by) step(Number(by)) }
  root.addEventListener('click', click)
  document.addEventListener('keydown', press, true)  // before a choice that has the focus takes the key
  draw()
  return () => { root.removeEventListener('click', click); document.removeEventListener('keydown', press, true) }
}
"""


def stepper(key: str, count: int, at: int, moved: Callable[[int], None]) -> None:
    """Draw the stepper.

    Args:
        key: the component's key.
        count: how many there are.
        at: the place that is open, from 0.
        moved: is told the new place.
    """

    counted = f"{key}-presses"

    def take() -> None:
        place = st.session_state[key].get("place") or {}
        st.session_state[counted] = place.get("presses", 0)
        if isinstance(place.get("at"), int) and 0 <= place["at"] < count:
            moved(place["at"])

    draw = st.components.v2.component("kick_stepper", html=_HTML, css=_CSS, js=_JS)
    draw(key=key, data={"count": count, "at": at, "presses": st.session_state.get(counted, 0)}, on_place_change=take)
