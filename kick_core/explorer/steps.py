"""What follows the slider under the finger, in the browser: headline, cards, answers, mask, the charts' lines; Play.

The server draws every measured step once, all but one hidden (`each`), and no line into the charts. This component
shows the step on which the slider stands: it is told by the slider's own attribute, so there is nothing to poll, and
a move of the slider repaints no chart. Streamlit's slider reports to the server when it is released; what the server
then draws is what is already shown.
"""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from kick_core.explorer.safe import Safe, many, tag
from kick_core.views.chart_style import MARKER

_HTML = '<button type="button" class="play" aria-pressed="false">▶ Play</button>'

_CSS = """
.play { font: inherit; color: var(--st-text-color); background: transparent; cursor: pointer; border-radius: 8px;
  border: 1px solid color-mix(in srgb, currentColor 22%, transparent); min-height: 2.5rem; padding: .25rem 1rem;
  white-space: nowrap; }
.play:hover { border-color: var(--st-primary-color); color: var(--st-primary-color); }
.play:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
"""

_JS = """
const PACE = 1100  // milliseconds a step
export default function({ parentElement, data, setTriggerValue }) {
  const button = parentElement.querySelector('.play')
  button.undo?.()  // Streamlit calls this function at every update, and what it returns in the end only
  const input = () => document.querySelector('.st-key-s input[type=range]')
  let at = button.playing ? Number(input()?.value) : data.at

  const line = (chart, number) => {
    const name = `marker${number}`
    let mark = chart.querySelector(`:scope > [data-line="${name}"]`)
    if (!mark) {
      mark = document.createElement('div')
      mark.dataset.line = name
      mark.style.cssText = `position:absolute;width:0;pointer-events:none;border-left:2px dashed ${data.colour}`
      chart.style.position = 'relative'
      chart.append(mark)
    }
    return mark
  }
  const place = chart => {
    const drawn = chart._fullLayout
    for (const number of chart.layout?.meta?.follows ?? []) {
      const x = drawn?.[`xaxis${number}`], y = drawn?.[`yaxis${number}`], mark = line(chart, number)
      mark.hidden = !x?.d2p || !y
      if (mark.hidden) continue
      mark.dataset.x = data.steps[at]
      Object.assign(mark.style, {
        left: `${x._offset + x.d2p(data.steps[at]) - 1}px`, top: `${y._offset}px`, height: `${y._length}px`,
      })
    }
  }
  const charts = () => document.querySelectorAll('.js-plotly-plot')
  const show = () => {
    const step = String(data.steps[at])
    for (const part of document.querySelectorAll('[data-step]')) part.hidden = part.dataset.step !== step
    for (const cell of document.querySelectorAll('[data-reached]')) {
      cell.classList.toggle('here', cell.dataset.reached === step)
      cell.classList.toggle('later', Number(cell.dataset.reached) > Number(step))
    }
    charts().forEach(place)
  }

  const watched = new WeakSet()
  const meet = () => charts().forEach(chart => {
    if (!watched.has(chart) && chart.on) { watched.add(chart); chart.on('plotly_afterplot', () => place(chart)) }
    place(chart)
  })
  const arrivals = new MutationObserver(changes => {
    const nodes = changes.flatMap(change => [...change.addedNodes]).filter(node => node.querySelector)
    if (nodes.length) meet()
    if (nodes.some(node => node.querySelector('[data-step], [data-reached]'))) show()  // before it is painted
  })
  arrivals.observe(document.querySelector('[data-testid=stMain]') ?? document.body, { childList: true, subtree: true })

  const slider = document.querySelector('.st-key-s')
  const moves = new MutationObserver(() => {
    const now = Number(input()?.value)
    if (now !== at && data.steps[now] !== undefined) { at = now; show() }
  })
  if (slider) moves.observe(slider, { attributes: true, subtree: true, attributeFilter: ['value', 'aria-valuetext'] })

  const move = to => {  // as if a key had moved it: React hears the native setter and a change
    const range = input()
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(range, to)
    range.dispatchEvent(new Event('input', { bubbles: true }))
    range.dispatchEvent(new Event('change', { bubbles: true }))
  }
  const rest = () => {
    clearInterval(button.playing)
    button.playing = 0
    button.textContent = '▶ Play'
    button.setAttribute('aria-pressed', 'false')
  }
  const stop = () => { rest(); setTriggerValue('stopped', data.steps[at]) }  // now the server hears where it stands
  const play = () => {
    if (button.playing) return stop()
    if (at + 1 >= data.steps.length) { at = 0; move(0); show() }
    button.textContent = '■ Stop'
    button.setAttribute('aria-pressed', 'true')
    button.playing = setInterval(() => button.beat(), PACE)
  }
  button.beat = () => {
    if (document.documentElement.dataset.leaving) return rest()  // another page was opened: see address
    return at + 1 >= data.steps.length ? stop() : move(at + 1)
  }
  button.addEventListener('click', play)
  meet()
  show()
  const undo = () => { moves.disconnect(); arrivals.disconnect(); button.removeEventListener('click', play) }
  button.undo = undo
  return () => { undo(); if (button.undo === undo) rest() }  // an update may have overtaken this one
}
"""


def each(pieces: Mapping[int, Safe], here: int, name: str = "div") -> Safe:
    """A piece of the page at every step, all hidden but the one that the slider shows.

    Args:
        pieces: step (in percent) to what is drawn there.
        here: the step that is shown.
        name: the element around each piece.
    """
    hidden = ({} if step == here else {"hidden": ""} for step in pieces)
    return many(
        tag(name, piece, **{"data-step": str(step)}, **more)
        for (step, piece), more in zip(pieces.items(), hidden, strict=True)
    )


def player(steps: list[int], here: int) -> None:
    """The Play button, and everything that follows the slider.

    Args:
        steps: the measured sparsities in percent, rising.
        here: the one that is shown.
    """

    def stopped() -> None:
        if (step := st.session_state["steps"].get("stopped")) in steps:
            st.session_state["s"] = step

    draw = st.components.v2.component("kick_steps", html=_HTML, css=_CSS, js=_JS)
    data = {"steps": steps, "at": steps.index(here), "colour": MARKER}
    draw(key="steps", data=data, on_stopped_change=stopped)
