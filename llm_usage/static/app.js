'use strict'
// New calls go on top of the list only while the reader is there; a connection that was lost is said.
const by = id => document.getElementById(id)
let waiting = 0

function show(id, on) { const o = by(id); if (o) o.hidden = !on }

document.addEventListener('htmx:sseBeforeMessage', e => {
  const id = /id="(c\d+)"/.exec(e.detail.data)
  if (id && by(id[1])) return e.preventDefault() // it came before the connection was lost
  if (scrollY < 200) return
  e.preventDefault()
  by('fresh').textContent = `${++waiting} new call${waiting>1 ? 's' : ''}`
  show('fresh', true)
})
document.addEventListener('htmx:sseError', () => { show('lost', true); show('live', false) })
document.addEventListener('htmx:sseOpen',  () => { show('lost', false); show('live', true) })
document.addEventListener('htmx:afterSwap', e => { if (e.detail.target?.id=='main') waiting = 0 })
for (const o of ['htmx:sendError','htmx:responseError']) document.addEventListener(o, () => show('failed', true))
