// One camera, large: its picture, what is said about it, its latency, counts and alarms. Knows one camera at a time.

import {question} from "./api.js"
import {at, attribute, causes, clock, count, day, make, ms, pairs, seconds, set, sum, table} from "./dom.js"
import {paint, strip, watch} from "./draw.js"
import {badges, veil} from "./wall.js"

const TRAIL = 240

export class Focus {
  constructor(budget) {
    Object.assign(this, {budget, camera: null, said: null, mute: false})
    watch(at("focus-canvas"))
    watch(at("focus-strip"))
    at("focus-canvas").addEventListener("resized", () => this.paint())
    at("focus-strip").addEventListener("resized", () => this.text())
    at("moment-close").addEventListener("click", () => this.moment(null))
    at("focus-ask").addEventListener("submit", event => {
      event.preventDefault()
      this.ask(event.target.elements.question.value.trim())
    })
  }

  open(camera) {
    if (this.camera !== camera) this.moment(null)
    this.camera = camera
    this.said = null
    set(at("focus-name"), camera.id)
    set(at("focus-answer"), "")
    at("focus-comments").replaceChildren()
    at("focus-scores").replaceChildren()
    this.paint()
    this.text()
  }

  async ask(text) {
    const {camera} = this
    if (!camera || !text) return
    set(at("focus-answer"), "…")
    const said = await question(camera.id, text).then(answer => `${text}  ${answer.text || "(nothing)"}  ${ms(answer.ms.total)}`, error => error.message)
    if (this.camera === camera) set(at("focus-answer"), said)
  }

  // The picture of an alarm, beside what is live now.
  moment(alarm) {
    at("moment").hidden = !alarm?.picture
    if (!alarm?.picture) return at("moment-picture").removeAttribute("src")
    at("moment-picture").src = `api/alarms/${encodeURIComponent(alarm.picture)}.jpg`
    at("moment-picture").alt = `${alarm.kind} at ${alarm.stream}, ${clock(alarm.at)}`
    const score = alarm.score == null ? "" : `, score ${alarm.score.toFixed(2)}`
    set(at("moment-text"), `The alarm's picture: ${alarm.kind}, ${day(alarm.at)}, frame ${count(alarm.frame)}${score}.`)
  }

  paint() {
    if (this.camera) paint(at("focus-canvas"), this.camera)
  }

  text() {
    const {camera} = this
    if (!camera) return
    const {row, newest, alarms} = camera, {latency_ms: latency = {}, frames = {}} = row
    attribute(at("focus"), "data-state", row.state)
    attribute(at("focus"), "data-alarm", String(alarms.length > 0))
    set(at("focus-state"), row.state)
    set(at("focus-action"), camera.live ? camera.action : "")
    at("focus").style.setProperty("--shape", row.width && row.height ? row.width / row.height : 16 / 9)
    set(at("focus-comment"), camera.comment)
    at("focus-comment").hidden = at("focus-comments").hidden = at("focus-ask").hidden = at("focus-answer").hidden = this.mute
    at("focus-mute").hidden = !this.mute
    attribute(at("focus-canvas"), "aria-label", `The picture of ${camera.id}: ${camera.action || row.state}`)
    badges(at("focus-badges"), alarms)
    veil(at("focus-veil"), camera)
    const over = value => value > this.budget(), now = camera.live ? newest?.ms ?? {} : {}
    table(at("focus-latency").tBodies[0], [["release → decision", [now.release, latency.p50, latency.p95, latency.p99], over],
      ["capture → decision", [now.capture, latency.capture_p50, latency.capture_p95, latency.capture_p99]]])
    pairs(at("focus-facts"), [
      ["frames", `in ${count(frames.in)} · decided ${count(frames.decided)} · in flight ${count(frames.in_flight)}`],
      ["dropped", sum(frames.dropped) ? `${count(sum(frames.dropped))}: ${causes(frames.dropped)}` : "none"],
      ["source", [row.url, row.width && `${row.width} × ${row.height}`, row.fps && `${row.fps.toFixed(1)} fps`].filter(Boolean).join(" · ")],
      ["clock", newest ? newest.captured_by === "sender" ? "the camera's own" : "this machine's: capture is counted from arrival" : "–"],
      ["settings", `buffer ${row.delay_s ?? 0} s · priority ${row.priority ?? "–"} · ${String(row.mode ?? "auto").replaceAll("_", " ")}`],
      ["state", `${row.state} for ${seconds(Math.max(0, Date.now() / 1000 - row.since))}${row.reason ? `: ${row.reason}` : ""}`],
    ])
    this.scores(newest?.anomalies ?? {}, newest?.alarms ?? [])
    this.strip()
    this.log()
  }

  scores(anomalies, alarms) {
    const box = at("focus-scores"), kinds = Object.keys(anomalies)
    if (box.children.length !== kinds.length) {
      box.replaceChildren(...kinds.map(() => {
        const row = make("label")
        const bar = make("meter")
        bar.max = 1
        row.append(make("span"), bar, make("output"))
        return row
      }))
    }
    kinds.forEach((kind, k) => {
      const [name, bar, value] = box.children[k].children
      set(name, kind)
      bar.value = anomalies[kind]
      set(value, anomalies[kind].toFixed(2))
      box.children[k].classList.toggle("on", alarms.includes(kind))
    })
  }

  strip() {
    const {trail} = this.camera, budget = this.budget()
    strip(at("focus-strip"), trail, budget, TRAIL)
    const late = trail.filter(one => one.release > budget).length
    const text = `The last ${trail.length} decisions; dashed: the budget, ${ms(budget)}; ${late ? `${late} over it` : "none over it"}.`
    set(at("focus-strip-text"), text)
    attribute(at("focus-strip"), "aria-label", text)
  }

  log() {
    const {comments} = this.camera, list = at("focus-comments")
    if (this.said === comments[0]) return
    const fresh = this.said ? comments.slice(0, Math.max(0, comments.indexOf(this.said))) : comments
    this.said = comments[0]
    list.prepend(...fresh.map(record => {
      const node = make("li"), time = make("time", "", clock(record.at))
      time.title = day(record.at)
      node.append(time, make("span", "", record.text))
      return node
    }))
    while (list.children.length > comments.length) list.lastChild.remove()
  }
}
