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
// The slider's value is the place of a measured sparsity, so every press of a key is a step.
let percent = Number(at('method').dataset.percent)
const show = () => {
  const method = at('method').value, state = states[method][Number(at('s').value)]
  percent = state.s
  at('headline').textContent = state.words
  at('shown').textContent = state.s + ' %'
  at('cards').replaceChildren(...state.cards.map(card))
  for (const poster of posters) {
    poster.classList.toggle('off', poster.dataset.method !== method)
    mark(poster.querySelector('svg'), state.s)
  }
}
const reach = () => {
  const far = states[at('method').value].map(state => Math.abs(state.s - percent))
  at('s').max = far.length - 1
  at('s').value = far.indexOf(Math.min(...far))
}
reach()
at('method').onchange = () => { reach(); show() }
at('s').oninput = show
show()
