// Alarms as a list, newest first: a picture, when, what, where. Knows records of type "alarm"; opening one is the caller's.

import {at, clock, day, make, seconds, set} from "./dom.js"

const KEPT = 200
const SAID_MS = 3000  // a screen reader hears of alarms in portions
const AGAIN_S = 5     // one that comes back so soon is the same one, flickering
const key = record => `${record.stream}\n${record.kind}\n${record.at.toFixed(2)}`

export class Alarms {
  constructor(open, changed) {
    Object.assign(this, {open, changed, rows: [], keys: new Set(), list: at("alarm-list"), fresh: [], speaking: 0})
    for (const list of [this.list, at("focus-alarms")]) {
      list.addEventListener("click", event => this.choose(event))
      list.addEventListener("keydown", event => step(event, list))
    }
  }

  // An alarm's beginning makes a row; its end is written into that row. `aloud`: is it news?
  take(record, aloud) {
    if (this.keys.has(key(record))) return
    this.remember(key(record))
    const before = this.rows.find(one => one.stream === record.stream && one.kind === record.kind && one.at <= record.at)
    if (record.state === "off") {
      if (before && !before.ended) before.ended = record.at
      return this.changed()
    }
    const again = before?.ended && record.at - before.ended < AGAIN_S ? before : null
    if (again) {
      Object.assign(again, {ended: null, times: again.times + 1})
      return this.changed()
    }
    const place = this.rows.findIndex(one => one.at <= record.at)
    this.rows.splice(place < 0 ? this.rows.length : place, 0, {...record, ended: null, lapsed: false, times: 1})
    if (this.rows.length > KEPT) this.rows.pop()
    if (aloud) this.announce(record)
    this.changed()
  }

  // What the service says is on now: an alarm's end may have been missed, when it was started anew or the camera removed.
  confirm(on) {
    const limit = Date.now() / 1000 - AGAIN_S
    for (const row of this.rows) {
      const lapsed = !row.ended && row.at < limit && !on(row.stream).includes(row.kind)
      if (lapsed !== row.lapsed) Object.assign(row, {lapsed}) && this.changed()
    }
  }

  remember(one) {
    this.keys.add(one)
    if (this.keys.size > 4 * KEPT) this.keys.delete(this.keys.values().next().value)
  }

  announce(record) {
    this.fresh.push(record)
    if (this.speaking) return
    this.speaking = setTimeout(() => {
      const news = this.fresh.splice(0)
      this.speaking = 0
      at("said").textContent = news.length > 3 ? `${news.length} new alarms, the newest: ${news.at(-1).kind} at ${news.at(-1).stream}`
        : news.map(one => `Alarm: ${one.kind} at ${one.stream}`).join(". ")
    }, this.fresh.length > 1 ? SAID_MS : 300)
  }

  choose(event) {
    const row = event.target.closest("button")?.alarm
    if (row) this.open(row)
  }

  show(wanted) {
    const rows = this.rows.filter(wanted)
    fill(this.list, rows, true)
    at("alarm-none").hidden = rows.length > 0
    set(at("alarm-none"), this.rows.length ? "No alarm of this filter." : "No alarm so far.")
  }

  of(stream, chosen) {
    const list = at("focus-alarms")
    fill(list, this.rows.filter(row => row.stream === stream), false)
    at("focus-calm").hidden = list.children.length > 0
    for (const button of list.querySelectorAll("button")) {
      if (button.alarm === chosen) button.setAttribute("aria-current", "true")
      else button.removeAttribute("aria-current")
    }
  }

  get kinds() {
    return [...new Set(this.rows.map(row => row.kind))].sort()
  }
}

// Rows keep their nodes: focus and scroll stay where they are while new alarms come in above.
function fill(list, rows, named) {
  const old = new Map([...list.children].map(node => [node.firstChild.alarm, node]))
  const nodes = rows.map(row => {
    const node = old.get(row) ?? build(row, named)
    old.delete(row)
    const lasted = row.ended ? `for ${seconds(Math.max(1, row.ended - row.at))}` : row.lapsed ? "over" : "on"
    set(node.querySelector(".lasted"), row.times > 1 ? `${lasted} ×${row.times}` : lasted)
    node.classList.toggle("on", lasted === "on")
    return node
  })
  for (const node of old.values()) node.remove()
  nodes.forEach((node, place) => list.children[place] !== node && list.insertBefore(node, list.children[place] ?? null))
}

function build(row, named) {
  const node = make("li"), button = make("button"), text = make("span", "what")
  button.type = "button"
  button.alarm = row
  const picture = row.picture ? make("img") : make("span", "blank")
  if (row.picture) Object.assign(picture, {src: `api/alarms/${encodeURIComponent(row.picture)}.jpg`, alt: "", loading: "lazy", width: 72, height: 44})
  text.append(make("b", "", row.kind), make("span", "lasted"))
  const time = make("time", "", clock(row.at))
  time.title = day(row.at)
  button.append(picture, text, time)
  if (named) button.append(make("span", "where", row.stream))
  node.append(button)
  return node
}

function step(event, list) {
  const by = {ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1}[event.key]
  const buttons = [...list.querySelectorAll("button")], to = buttons[buttons.indexOf(document.activeElement) + by]
  if (!by || !to) return
  event.preventDefault()
  to.focus()
}
