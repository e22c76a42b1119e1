"""The line that follows the slider under the finger, drawn in the browser.

Streamlit's slider reports when it is released, and a rerun takes a sixth of a second at best. This component
shows nothing; it watches the slider and moves the lines of the charts at once. The lines themselves are drawn
by the server with every figure, so where plotly is not within reach nothing is lost but the immediacy.
"""

from __future__ import annotations

import streamlit as st

from kick_core.views.plots import MARKER

_WATCH = """
export default function({ data }) {
  const slider = () => document.querySelector('.st-key-s input[type=range]')
  let last = slider()?.value, frame = 0
  const move = x => {
    const plotly = window.Plotly
    if (!plotly) return
    for (const chart of document.querySelectorAll('.js-plotly-plot')) {
      const change = {}
      const shapes = chart.layout?.shapes ?? []
      shapes.forEach((shape, i) => {
        if (shape.line?.color === data.colour) { change[`shapes[${i}].x0`] = x; change[`shapes[${i}].x1`] = x }
      })
      if (Object.keys(change).length) plotly.relayout(chart, change)
    }
  }
  const watch = () => {
    const value = slider()?.value
    if (value !== undefined && value !== last) { last = value; move(Number(value)) }
    frame = requestAnimationFrame(watch)
  }
  frame = requestAnimationFrame(watch)
  return () => cancelAnimationFrame(frame)
}
"""


def follow() -> None:
    """Let the charts of this page follow its sparsity slider."""
    component = st.components.v2.component("kick_marker", html="<span></span>", js=_WATCH)
    component(key="marker", data={"colour": MARKER}, height=1)
