"""The line that follows the slider under the finger, drawn in the browser.

Streamlit's slider reports when it is released, and a rerun takes a sixth of a second at best. This component
shows nothing; it watches the slider and moves the lines of the charts at once. The lines themselves are drawn
by the server with every figure, so where plotly is not within reach nothing is lost but the immediacy. How a line
lies in plotly's picture is not documented: where it lies otherwise, plotly is asked to move it.
"""

from __future__ import annotations

import streamlit as st

from kick_core.views.chart_style import MARKER

_WATCH = r"""
export default function({ data }) {
  const slider = () => document.querySelector('.st-key-s input[type=range]')
  let last = slider()?.value, frame = 0
  const across = /^M[-\d.e]+,([-\d.e]+)L[-\d.e]+,([-\d.e]+)$/
  // A line is moved by its two ends: plotly's own relayout lays the whole figure out anew, a hundred times the work.
  const shift = (chart, shape, i, x) => {
    const axis = chart._fullLayout?.['xaxis' + shape.xref.slice(1)]
    const paths = chart.querySelectorAll(`.shapelayer path[data-index="${i}"]`)
    if (!axis?.d2p || !paths.length) return false
    const at = axis._offset + axis.d2p(x)
    for (const path of paths) {
      const ends = across.exec(path.getAttribute('d') ?? '')
      if (!ends) return false
      path.setAttribute('d', `M${at},${ends[1]}L${at},${ends[2]}`)
    }
    shape.x0 = shape.x1 = x
    return true
  }
  const move = x => {
    for (const chart of document.querySelectorAll('.js-plotly-plot')) {
      const change = {}
      const shapes = chart.layout?.shapes ?? []
      shapes.forEach((shape, i) => {
        if (shape.line?.color !== data.colour || shift(chart, shape, i, x)) return
        change[`shapes[${i}].x0`] = change[`shapes[${i}].x1`] = x
      })
      if (Object.keys(change).length) window.Plotly?.relayout(chart, change)
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
