// The wall: a tile a camera, in as few columns as let all of them be seen at once. Knows cameras and tiles; opening one is the caller's.

import {at, causes, count, make, ms, seconds, set, attribute, sum} from "./dom.js"
import {paint, unwatch, watch} from "./draw.js"

const GAP_PX = 8
// How much is said under a picture, in pixels: `from` is the narrowest tile for it, `worth` what the fuller text is worth in size of the picture.
const DENSITIES = [{name: "full", from: 250, text: 108, comment: 39, worth: 1}, {name: "medium", from: 190, text: 85, comment: 39, worth: 0.85},
                   {name: "small", from: 148, text: 60, comment: 19, worth: 0.75}, {name: "dense", from: 120, text: 43, comment: 0, worth: 0.65}]
const NARROW_PX = 148  // where not all fit, and on a phone

export class Wall {
  constructor(cameras, budget, open, visible) {
    Object.assign(this, {cameras, budget, open, visible, tiles: new Map(), columns: 1, current: null, list: at("wall")})
    new ResizeObserver(() => this.layout()).observe(at("wall-view"))
    this.seen = new IntersectionObserver(entries => {
      for (const {target, isIntersecting} of entries) target.tile.inView = isIntersecting
      this.visible()
    }, {rootMargin: "80px"})
    this.list.addEventListener("click", event => {
      const id = event.target.closest("li")?.tile.id
      if (id) this.open(id)
    })
    this.list.addEventListener("focusin", event => this.mark(event.target.closest("li")?.tile))
    this.list.addEventListener("keydown", event => this.key(event))
  }

  // Show exactly these cameras, in this order.
  arrange(ids) {
    const wanted = new Set(ids)
    for (const [id, tile] of this.tiles) if (!wanted.has(id)) this.drop(id, tile)
    ids.forEach((id, place) => {
      const tile = this.tiles.get(id) ?? this.build(id)
      if (this.list.children[place] !== tile.node) this.list.insertBefore(tile.node, this.list.children[place] ?? null)
    })
    if (!this.tiles.has(this.current?.id)) this.mark(this.tiles.get(ids[0]))
    this.layout()
  }

  // A service without a commentator needs no room for what it would say.
  mute(silent) {
    if (this.list.dataset.comments === (silent ? "none" : "some")) return
    this.list.dataset.comments = silent ? "none" : "some"
    this.layout()
  }

  build(id) {
    const node = at("tile").content.firstElementChild.cloneNode(true)
    const part = name => node.querySelector(`.${name}`)
    const tile = {id, node, button: part("tile"), canvas: node.querySelector("canvas"), inView: false}
    for (const name of ["name", "state", "action", "late", "comment", "counts", "veil", "badges"]) tile[name] = part(name)
    set(tile.name, id)
    tile.name.title = id
    node.tile = tile
    this.tiles.set(id, tile)
    this.seen.observe(node)
    watch(tile.canvas)
    tile.canvas.addEventListener("resized", () => this.cameras.has(id) && paint(tile.canvas, this.cameras.get(id)))
    return tile
  }

  drop(id, tile) {
    const focused = tile.node.contains(document.activeElement)
    this.tiles.delete(id)
    this.seen.unobserve(tile.node)
    unwatch(tile.canvas)
    tile.node.remove()
    if (focused) this.list.querySelector(".tile")?.focus()
  }

  get shown() {
    return [...this.tiles.values()].filter(tile => tile.inView).map(tile => tile.id)
  }

  paint(id) {
    const tile = this.tiles.get(id)
    if (tile?.inView) paint(tile.canvas, this.cameras.get(id))
  }

  text(id) {
    const tile = this.tiles.get(id), camera = this.cameras.get(id)
    if (!tile || !camera) return
    const {row, alarms} = camera, release = camera.newest?.ms?.release ?? row.latency_ms?.p50, capture = camera.newest?.ms?.capture
    const silent = document.body.classList.contains("lost") ? 0 : camera.silentS, over = camera.live && release > this.budget()
    set(tile.state, row.state)
    attribute(tile.node, "data-state", row.state)
    attribute(tile.node, "data-alarm", String(alarms.length > 0))
    veil(tile.veil, camera)
    set(tile.action, camera.live ? camera.action : "")
    set(tile.late, !camera.live ? "" : silent ? `no decision for ${seconds(silent)}` : ms(release))
    tile.late.classList.toggle("over", Boolean(over || silent))
    tile.late.title = `release → decision ${ms(release)}, capture → decision ${ms(capture)}`
    set(tile.comment, camera.comment)
    const dropped = sum(row.frames?.dropped)
    set(tile.counts, `in ${count(row.frames?.in)} · decided ${count(row.frames?.decided)} · dropped ${count(dropped)}`)
    tile.counts.title = dropped ? `dropped: ${causes(row.frames.dropped)}` : "no frame dropped"
    badges(tile.badges, alarms)
    attribute(tile.button, "aria-label", [id, row.state, camera.live ? camera.action : row.reason, camera.live ? `${ms(release)} from release` : "",
      alarms.length ? `alarm: ${alarms.join(", ")}` : "", camera.comment].filter(Boolean).join(", "))
    // what hovering shows, a focused tile shows too
    const looked = tile === this.current && tile.button.matches(":focus-visible") && camera.live && !silent
    if (looked) set(tile.late, `${ms(release)}, from capture ${ms(capture)}`)
  }

  layout() {
    const n = this.tiles.size, {clientWidth: width, clientHeight: height} = at("wall-view")
    if (!n || !width) return
    const phone = matchMedia("(max-width: 720px)").matches, shape = aspect(this.cameras), inner = width - 2 * GAP_PX
    const mute = this.list.dataset.comments === "none"
    const {columns, tile, density} = (phone ? null : fitting(n, inner, height - 2 * GAP_PX, shape, mute)) ?? scrolling(n, inner, phone)
    this.columns = columns
    this.list.style.setProperty("--columns", columns)
    this.list.style.setProperty("--tile", `${Math.floor(tile)}px`)
    this.list.style.setProperty("--shape", shape)
    attribute(this.list, "data-density", density)
  }

  mark(tile) {
    if (!tile) return
    if (this.current) this.current.button.tabIndex = -1
    this.current = tile
    tile.button.tabIndex = 0
  }

  focus(id = this.current?.id) {
    (this.tiles.get(id) ?? this.tiles.values().next().value)?.button.focus()
  }

  key(event) {
    const nodes = [...this.list.children], here = nodes.indexOf(event.target.closest("li"))
    const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns}[event.key]
    const to = event.key === "Home" ? 0 : event.key === "End" ? nodes.length - 1 : step ? here + step : -1
    if (here < 0 || !nodes[to]) return
    event.preventDefault()
    nodes[to].tile.button.focus()
  }
}

// The columns and the text that give the largest tiles of which all are seen at once; null where there is no such.
function fitting(n, width, height, shape, mute) {
  let best = null
  for (let columns = 1; columns <= n; columns++) {
    const widest = (width - GAP_PX * (columns - 1)) / columns, tallest = height / Math.ceil(n / columns) - GAP_PX
    for (const {name, from, text, comment, worth} of DENSITIES) {
      const tile = Math.min(widest, (tallest - text + (mute ? comment : 0)) * shape)
      if (tile >= from && tile * worth > (best?.value ?? 0)) best = {columns, tile, density: name, value: tile * worth}
    }
  }
  return best
}

function scrolling(n, width, phone) {
  const columns = phone && n < 3 ? 1 : Math.max(1, Math.floor((width + GAP_PX) / (NARROW_PX + GAP_PX)))
  const tile = (width - GAP_PX * (columns - 1)) / columns
  return {columns, tile, density: phone ? (tile < 250 ? "medium" : "full") : "small"}
}

// The commonest shape of picture, between square and 16:9.
function aspect(cameras) {
  const seen = new Map()
  for (const {row} of cameras.values()) {
    const shape = row.width && row.height ? Math.min(16 / 9, Math.max(1, row.width / row.height)) : null
    if (shape) seen.set(shape, (seen.get(shape) ?? 0) + 1)
  }
  return [...seen].sort((a, b) => b[1] - a[1])[0]?.[0] ?? 16 / 9
}

// A picture that is not live must not look it.
export function veil(node, {live, row, bitmap}) {
  node.hidden = live && Boolean(bitmap)
  set(node, live ? "no picture yet" : row.reason ? `${row.state}: ${row.reason}` : row.state)
}

export function badges(node, alarms) {
  const key = alarms.join("\n")
  if (node.dataset.key === key) return
  node.dataset.key = key
  node.replaceChildren(...alarms.map(kind => make("span", "badge", kind)))
}
