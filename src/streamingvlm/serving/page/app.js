// The page of the live service: it puts the parts together and knows which camera is open (the address's #camera=...). The parts know no other part.

import {Alarms} from "./alarms.js"
import {get} from "./api.js"
import {Camera} from "./camera.js"
import {at, count, make, ms, seconds, set} from "./dom.js"
import {Feed, Pictures} from "./feed.js"
import {Focus} from "./focus.js"
import {adding, dialogs, removing} from "./forms.js"
import {keys, tabs, theme} from "./controls.js"
import {show as showLatency} from "./latency.js"
import {Wall} from "./wall.js"
import {webcam} from "./webcam.js"

const POLL_MS = 2000, TEXT_MS = 500, NOTICE_MS = 15000
const cameras = new Map()
let stats = {}, opened = null, chosen = null, deaf = 0, lostAt = 0, notice = 0, decided = null, dirtyAlarms = true, known = ""

const budget = () => stats.budget_ms ?? 120
const wall = new Wall(cameras, budget, id => open(id), () => pictures.want(...wanted()))
const focus = new Focus(budget)
const alarms = new Alarms(row => open(row.stream, row), () => { dirtyAlarms = true })
const pictures = new Pictures((header, jpeg) => cameras.get(header.stream)?.picture(header, jpeg))
const feed = new Feed(take, status)

// ---- what comes in

function take(record, old) {
  const camera = cameras.get(record.stream)
  if (record.type === "alarm") return alarms.take(record, true)
  if (!camera) return record.type === "state" && poll()
  if (record.type === "decision") camera.decide(record)
  if (record.type === "comment") camera.say(record)
  if (record.type === "state" && !old) {
    Object.assign(camera.row, {state: record.state, reason: record.reason, since: record.at})
    camera.fresh = true  // its boxes go with the state
    text(camera.id)
  }
}

async function poll() {
  try {
    const [rows, news] = await Promise.all([get("api/cameras"), get("api/stats")])
    deaf = 0
    stats = news
    receive(rows)
  } catch {
    if (++deaf >= 2) feed.cut()
  }
}

function receive(rows) {
  const there = new Set(rows.map(row => row.id))
  for (const [id, camera] of cameras) {
    if (there.has(id)) continue
    camera.close()
    cameras.delete(id)
    if (opened === id) open(null)
  }
  for (const row of rows) {
    if (cameras.has(row.id)) cameras.get(row.id).refresh(row)
    else cameras.set(row.id, new Camera(row))
  }
  focus.mute = stats.commentary === null
  wall.mute(focus.mute)
  arrange()
  alarms.confirm(id => cameras.get(id)?.row.alarms ?? [])
  summary()
  showLatency(stats, budget())
  if (opened !== focus.camera?.id || !focus.camera) route()
}

function status({state, awayS, caught, missed}) {
  if (state === "lost") {
    lostAt ||= Date.now()
    document.body.classList.add("lost")
    return
  }
  if (lostAt || awayS) {
    const counts = [caught && `${count(caught)} results caught up`, missed && `${count(missed)} missed: the service keeps only the newest`]
      .filter(Boolean)
    tell(`Connected again after ${seconds(Math.max(1, awayS))}${counts.length ? `: ${counts.join(", ")}` : ""}.`)
  } else if (missed) tell(`This page was too slow for ${count(missed)} results.`)
  if (lostAt) poll()
  lostAt = 0
  document.body.classList.remove("lost")
}

function tell(sentence) {
  clearTimeout(notice)
  at("banner").hidden = false
  set(at("banner-text"), sentence)
  set(at("banner-time"), "")
  notice = setTimeout(() => { at("banner").hidden = true }, NOTICE_MS)
}

// ---- what is shown

function filtered(id, kinds) {
  const name = at("filter-name").value.trim().toLowerCase(), kind = at("filter-kind").value, camera = cameras.get(id)
  if (name && !id.toLowerCase().includes(name)) return false
  if (kind === "alarm") return kinds ? true : camera?.alarms.length > 0
  if (kind === "not-live") return !camera?.live
  return kind.startsWith("kind:") ? (kinds ?? camera?.alarms ?? []).includes(kind.slice(5)) : true
}

function arrange() {
  const ids = [...cameras.keys()].filter(id => filtered(id))
  wall.arrange(ids)
  at("empty").hidden = ids.length > 0
  set(at("empty"), cameras.size ? "No camera of this filter." : "No camera yet: add one.")
  ids.forEach(text)
  pictures.want(...wanted())
}

function wanted() {
  if (document.hidden) return [[], 0]
  if (opened) return [[opened], 12]
  const shown = wall.shown
  return [shown, shown.length <= 4 ? 10 : shown.length <= 12 ? 8 : shown.length <= 20 ? 5 : 3]
}

function text(id) {
  if (id === opened) focus.text()
  else wall.text(id)
}

function summary() {
  const all = [...cameras.values()], live = all.filter(camera => camera.live).length, alarmed = all.filter(camera => camera.alarms.length).length
  const now = performance.now(), total = stats.frames?.decided
  const rate = decided && total >= decided.total ? (total - decided.total) / (now - decided.at) * 1000 : null
  decided = {total, at: now}
  const p99 = stats.latency_ms?.release?.p99
  const parts = [`${live} of ${cameras.size} live`, `${alarmed} in alarm`, p99 == null ? "" : `p99 ${ms(p99)} of ${ms(budget())}`,
    rate == null ? "" : `${rate.toFixed(0)} decisions/s`].filter(Boolean)
  set(at("summary"), parts.join(" · "))
  at("alarm-count").hidden = !alarmed
  set(at("alarm-count"), String(alarmed))
  const title = stats.title || "Live cameras"
  set(at("title"), title)
  document.title = alarmed ? `(${alarmed}) ${title}` : title
}

function showAlarms() {
  if (!dirtyAlarms) return
  dirtyAlarms = false
  const chosenKind = at("filter-kind").value
  alarms.show(row => filtered(row.stream, [row.kind]))
  if (opened) alarms.of(opened, chosen)
  const kinds = alarms.kinds
  if (kinds.join() === known && at("filter-kind").options.length) return
  known = kinds.join()
  const choices = [["", "All"], ["alarm", "In alarm now"], ["not-live", "Not live"], ...kinds.map(kind => [`kind:${kind}`, `Alarm: ${kind}`])]
  at("filter-kind").replaceChildren(...choices.map(([value, name]) => Object.assign(make("option", "", name), {value})))
  at("filter-kind").value = chosenKind
}

function frame() {
  for (const camera of cameras.values()) {
    if (!camera.fresh) continue
    camera.fresh = false
    if (camera.id === opened) focus.paint()
    else if (!opened) wall.paint(camera.id)
  }
  requestAnimationFrame(frame)
}

function tick() {
  for (const camera of cameras.values()) camera.settle()
  if (opened) focus.text()
  else for (const id of wall.tiles.keys()) wall.text(id)
  if (["alarm", "not-live"].includes(at("filter-kind").value) || at("filter-kind").value.startsWith("kind:")) arrange()
  showAlarms()
  if (!lostAt) return
  tell("No connection to the service: what you see is old. Trying again …")
  set(at("banner-time"), `${seconds((Date.now() - lostAt) / 1000)} so far`)
}

// ---- one camera or all: the address says which, so that Back, reload and links work

function open(id, alarm = null) {
  chosen = alarm
  const hash = id ? `#camera=${encodeURIComponent(id)}` : "#"
  if (id && id === opened) return route()
  if (location.hash === hash) return route()
  location.hash = hash
}

async function route() {
  const id = new URLSearchParams(location.hash.slice(1)).get("camera"), camera = cameras.get(id), before = opened
  opened = camera ? id : null
  at("focus").hidden = !opened
  at("wall-view").hidden = Boolean(opened)
  pictures.want(...wanted())
  if (!opened) {
    focus.camera = null
    chosen = null
    if (before) wall.focus(before)
    return
  }
  document.body.dataset.view = "cameras"
  if (before !== opened) {
    focus.open(camera)
    at("focus-name").focus({preventScroll: true})
    at("focus").scrollTop = 0
    history_of(camera)
  }
  focus.moment(chosen)
  alarms.of(opened, chosen)
}

async function history_of(camera) {
  if (camera.asked) return
  camera.asked = true
  const query = new URLSearchParams({streams: camera.id, types: "comment", since: 0, limit: 300})
  const answer = await get(`api/results?${query}`).catch(() => ({records: []}))
  const have = new Set(camera.comments.map(record => record.seq))
  camera.comments.push(...answer.records.filter(record => !have.has(record.seq)).reverse())
  camera.comments.sort((a, b) => b.at - a.at)
  if (focus.camera === camera) focus.open(camera)
}

// ---- begin

dialogs()
theme(at("theme"), arrange)
const openAdd = adding(poll), openRemove = removing(() => open(null) ?? poll()), openWebcam = webcam(poll)
at("open-add").addEventListener("click", openAdd)
at("open-webcam").addEventListener("click", openWebcam)
at("open-help").addEventListener("click", () => at("help").showModal())
at("focus-back").addEventListener("click", () => open(null))
at("focus-remove").addEventListener("click", () => openRemove(opened))
at("filter").addEventListener("submit", event => event.preventDefault())
for (const id of ["filter-name", "filter-kind"]) at(id).addEventListener("input", () => { dirtyAlarms = true; arrange(); showAlarms() })
keys({back: () => opened && open(null), add: openAdd, wall: () => { open(null); wall.focus() }, help: () => at("help").showModal()})
tabs()
addEventListener("hashchange", route)
document.addEventListener("visibilitychange", () => pictures.want(...wanted()))
showAlarms()
poll().then(async () => {
  route()
  const past = await get("api/alarms?limit=200").catch(() => [])
  for (const record of past.sort((a, b) => a.at - b.at)) alarms.take(record, false)
})
feed.connect()
requestAnimationFrame(frame)
setInterval(tick, TEXT_MS)
setInterval(() => document.hidden || poll(), POLL_MS)
