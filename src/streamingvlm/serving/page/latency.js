// The histogram of latencies with its percentiles and the budget, and the totals of frames. Knows the service's statistics only.

import {at, attribute, count, ms, pairs, seconds, set, sum, table} from "./dom.js"

const HIGH = 148, FOOT = 16, ROW = 12, HEAD = 4 * ROW + 2
const NS = "http://www.w3.org/2000/svg"

function shape(tag, attributes, text) {
  const node = document.createElementNS(NS, tag)
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value)
  if (text) node.textContent = text
  return node
}

// stats -> the panel. `buckets`: [upper edge in ms, count], rising. The axis is logarithmic: a budget of 120 ms and a stall of 6 s
// are on one picture.
export function show(stats, budgetMs) {
  const {latency_ms: latency = {}, buckets = [], frames = {}} = stats
  histogram(buckets.filter(([edge]) => edge > 0), latency.release ?? {}, budgetMs)
  percentiles(latency, budgetMs)
  const late = stats.late ? `${count(stats.late)} results came too late to be shown in order. ` : ""
  const {running, deaths, lost} = stats.replicas ?? {}
  const replicas = stats.replicas ? `${count(running)} replicas decide; ${count(deaths)} died, ${count(lost)} cameras began anew for it. ` : ""
  set(at("latency-late"), `${replicas}${late}Since the service started${stats.uptime_s ? `, ${seconds(stats.uptime_s)} ago` : ""}.`)
  const dropped = sum(frames.dropped)
  pairs(at("frames"), [["in", count(frames.in)], ["decided", count(frames.decided)], ["in flight", count(frames.in_flight)],
    ["dropped", count(dropped)], ...Object.entries(frames.dropped ?? {}).filter(([, n]) => n).sort((a, b) => b[1] - a[1])
      .map(([cause, n]) => [`· ${cause.replaceAll("_", " ")}`, count(n)])])
}

function percentiles({release = {}, capture = {}}, budgetMs) {
  const three = ({p50, p95, p99}) => [p50, p95, p99]
  table(at("percentiles").tBodies[0], [["release → decision", three(release), value => value > budgetMs], ["capture → decision", three(capture)]])
}

function histogram(buckets, latency, budgetMs) {
  const svg = at("histogram"), wide = svg.clientWidth || 300
  svg.setAttribute("viewBox", `0 0 ${wide} ${HIGH}`)
  const said = `Latency from release to decision: p50 ${ms(latency.p50)}, p95 ${ms(latency.p95)}, p99 ${ms(latency.p99)}, budget ${ms(budgetMs)}`
  attribute(svg, "aria-label", said)
  const filled = buckets.filter(([, n]) => n > 0)
  if (!filled.length) return svg.replaceChildren(shape("text", {x: 4, y: 70, class: "soft"}, "no decision yet"))
  const low = Math.log(Math.max(1, Math.min(filled[0][0] * 0.7, budgetMs * 0.5)))
  const high = Math.log(Math.max(filled.at(-1)[0] * 1.1, budgetMs * 1.6))
  const x = value => (Math.log(Math.max(value, 1)) - low) / (high - low) * wide
  const top = Math.max(...filled.map(([, n]) => n)), floor = HIGH - FOOT
  const parts = []
  buckets.forEach(([edge, n], k) => {
    const from = x(k ? buckets[k - 1][0] : edge * 0.8), to = x(edge)
    if (!n || to <= 0) return
    const tall = Math.max(1, n / top * (floor - HEAD))
    parts.push(shape("rect", {x: Math.max(0, from), y: floor - tall, width: Math.max(1, to - Math.max(0, from) - 0.5), height: tall,
                              class: edge > budgetMs ? "over" : "bar"}))
  })
  parts.push(shape("line", {x1: 0, x2: wide, y1: floor, y2: floor, class: "axis"}))
  parts.push(...ticks(low, high).map(value => shape("text", {x: x(value), y: HIGH - 3, "text-anchor": "middle", class: "soft"},
                                                        value < 1000 ? `${value} ms` : `${value / 1000} s`)))
  const marks = [[`budget ${ms(budgetMs)}`, budgetMs, "budget"], ...["p50", "p95", "p99"].map(name => [name, latency[name], "mark"])]
  parts.push(...marks.filter(([, value]) => value != null).flatMap(([name, value, kind], row) => {
    const left = x(value) > wide * 0.7, y = 9 + row * ROW
    return [shape("line", {x1: x(value), x2: x(value), y1: y - 8, y2: floor, class: kind}),
            shape("text", {x: x(value) + (left ? -3 : 3), y, "text-anchor": left ? "end" : "start", class: kind}, name)]
  }))
  parts.sort((a, b) => (a.tagName === "text") - (b.tagName === "text"))  // words above lines
  svg.replaceChildren(...parts)
}

function ticks(low, high) {
  const all = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 60000]
  const inside = all.filter(value => Math.log(value) > low + 0.08 * (high - low) && Math.log(value) < high - 0.08 * (high - low))
  return inside.length > 5 ? inside.filter((_, k) => k % 2 === 0) : inside
}
