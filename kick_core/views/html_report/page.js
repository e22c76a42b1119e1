// The report's slider: sentences and cards for every measured sparsity are in the page already, pictures too.
const states = JSON.parse(document.getElementById('data').textContent)
const at = id => document.getElementById(id)
const posters = [...document.querySelectorAll('.poster')]

const card = ([title, score, kept, verdict, n]) => {
  const box = document.createElement('div')
  for (const [name, text] of [['small', title], ['b', score], ['span', kept], ['small', `${verdict} · n ${n}`]]) {
    const part = document.createElement(name)
    part.textContent = text
    box.append(part)
  }
  return box
}
const mark = (svg, s) => {
  const line = svg.querySelector('.marker') ?? svg.appendChild(document.createElementNS(svg.namespaceURI, 'line'))
  const x = Number(svg.dataset.zero) + s * Number(svg.dataset.unit)
  const places = { class: 'marker', x1: x, x2: x, y1: 8, y2: svg.viewBox.baseVal.height - 40 }
  for (const [name, value] of Object.entries(places)) line.setAttribute(name, value)
}
const show = () => {
  const method = at('method').value, wanted = Number(at('s').value)
  const state = states[method].reduce((best, one) => Math.abs(one.s - wanted) < Math.abs(best.s - wanted) ? one : best)
  at('headline').textContent = state.words
  at('shown').textContent = state.s + ' %'
  at('cards').replaceChildren(...state.cards.map(card))
  for (const poster of posters) {
    poster.classList.toggle('off', poster.dataset.method !== method)
    mark(poster.querySelector('svg'), state.s)
  }
}
const reach = () => { at('s').max = Math.max(...states[at('method').value].map(state => state.s)) }
reach()
at('s').value = 50
at('method').onchange = () => { reach(); show() }
at('s').oninput = show
show()
