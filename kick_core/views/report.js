// The report's slider: sentences, cards and lines for every measured sparsity are in the page already.
const data = JSON.parse(document.getElementById('data').textContent)
const at = id => document.getElementById(id)
const dark = matchMedia('(prefers-color-scheme: dark)').matches
const ink = dark ? '#e6eaf2' : '#1a2233', grid = dark ? '#2b3445' : '#e3e7ee'

const themed = chart => {
  const layout = { ...chart.layout, paper_bgcolor: 'transparent', plot_bgcolor: 'transparent', font: { color: ink } }
  for (const name of Object.keys(layout)) if (/^[xy]axis/.test(name)) layout[name] = { gridcolor: grid, ...layout[name] }
  return layout
}
const line = (x, name) => {
  const n = name.replace('xaxis', '')
  return { type: 'line', x0: x, x1: x, y0: 0, y1: 1, xref: 'x' + n, yref: 'y' + n + ' domain',
    line: { width: 2, dash: 'dash', color: data.colour } }
}
const draw = (id, chart, x) => {
  const layout = themed(chart)
  const axes = Object.keys(layout).filter(name => name.startsWith('xaxis') && layout[name].ticksuffix)
  layout.shapes = [...(layout.shapes ?? []), ...axes.map(name => line(x, name))]
  Plotly.react(at(id), chart.data, layout, { displayModeBar: false, responsive: true })
}
const card = ([title, score, kept, verdict, n]) => {
  const box = document.createElement('div')
  for (const [name, text] of [['small', title], ['b', score], ['span', kept], ['small', `${verdict} · n ${n}`]]) {
    const part = document.createElement(name)
    part.textContent = text
    box.append(part)
  }
  return box
}
const show = () => {
  const method = at('method').value, states = data.states[method]
  const wanted = Number(at('s').value)
  const state = states.reduce((best, one) => Math.abs(one.s - wanted) < Math.abs(best.s - wanted) ? one : best)
  at('headline').textContent = state.words
  at('shown').textContent = state.s + ' %'
  at('cards').replaceChildren(...state.cards.map(card))
  draw('overlay', data.overlay[method], state.s)
  draw('panels', data.panels, state.s)
}
if (at('method')) {
  const reach = () => { at('s').max = Math.max(...data.states[at('method').value].map(state => state.s)) }
  reach()
  at('s').value = 50
  at('method').onchange = () => { reach(); show() }
  at('s').oninput = show
  show()
} else at('headline').textContent = data.only
