"""A part of a page that is drawn when it comes near the window.

Every chart takes the browser 0.2 s or more, those far below the fold too: a page of which one reads the top must
not wait for its foot.
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

_HTML = '<div class="later"></div>'

_JS = """
// Milliseconds. A wish that comes while the page is drawn anew may be lost, so it is repeated.
const AHEAD = '600px', AGAIN = 1500, SOON = 100
const quiet = () => document.documentElement.dataset.leaving === undefined  // see address
  && document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'

export default function({ parentElement, setTriggerValue }) {
  const place = parentElement.querySelector('.later')
  place.undo?.()  // Streamlit calls this function at every update, and what it returns in the end only
  let asked = 0
  const ask = () => {
    const now = quiet()
    if (now) setTriggerValue('near', true)
    asked = setTimeout(ask, now ? AGAIN : SOON)
  }
  const watch = new IntersectionObserver(seen => {
    if (!seen.some(one => one.isIntersecting)) return
    watch.disconnect()
    asked = setTimeout(ask, SOON)  // a click often follows a scroll at once
  }, { root: document.querySelector('[data-testid=stMain]'), rootMargin: AHEAD })
  watch.observe(place)
  return place.undo = () => { watch.disconnect(); clearTimeout(asked) }
}
"""


def part(key: str, height: int, draw: Callable[[], object]) -> None:
    """Draw a part once somebody comes near it; from then on with the page.

    Args:
        key: the part's key; `st.session_state[key]` says whether it is drawn.
        height: what it will take in pixels, so that nothing moves when it comes.
        draw: draws it.
    """

    def near() -> None:
        st.session_state[key] = True

    @st.fragment
    def drawn() -> None:
        if st.session_state.get(key):
            draw()
        else:
            show = st.components.v2.component("kick_later", html=_HTML, js=_JS)
            show(key=f"{key}-near", height=height, on_near_change=near)

    drawn()
