// Small helpers: nodes and numbers. Text reaches the page by textContent only, so a camera's name or a comment is never markup.

export const at = id => document.getElementById(id)

export function make(tag, className = "", text = "") {
  const node = document.createElement(tag)
  if (className) node.className = className
  if (text) node.textContent = text
  return node
}

export function set(node, text) {
  if (node.textContent !== text) node.textContent = text
}

export function attribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value)
}

// Pairs of a <dl>; rows are reused, so that a selection or a screen reader's place survives the next number.
export function pairs(list, rows) {
  while (list.children.length > 2 * rows.length) list.lastChild.remove()
  rows.forEach(([name, value], row) => {
    if (!list.children[2 * row]) list.append(make("dt"), make("dd"))
    set(list.children[2 * row], name)
    set(list.children[2 * row + 1], value)
  })
}

// Rows of numbers under a <thead>: [[name, values, which are over the budget], ...].
export function table(body, rows) {
  rows.forEach(([name, values, over = () => false], row) => {
    if (!body.rows[row]) {
      const line = make("tr"), head = make("th", "", name)
      head.scope = "row"
      line.append(head, ...values.map(() => make("td")))
      body.append(line)
    }
    values.forEach((value, k) => {
      const cell = body.rows[row].cells[k + 1]
      set(cell, value == null ? "–" : count(Math.round(value)))
      cell.classList.toggle("over", Boolean(over(value)))
    })
  })
}

const whole = new Intl.NumberFormat("en")
export const count = value => whole.format(value ?? 0)
export const ms = value => value == null ? "–" : value < 9950 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`
export const clock = unix => new Date(unix * 1000).toLocaleTimeString("en-GB")
export const day = unix => new Date(unix * 1000).toLocaleString("en-GB")
export const seconds = value => value < 60 ? `${Math.round(value)} s`
  : value < 3600 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`
export const causes = dropped => Object.entries(dropped).filter(([, n]) => n).sort((a, b) => b[1] - a[1])
  .map(([cause, n]) => `${cause.replaceAll("_", " ")} ${count(n)}`).join(", ")
export const sum = dropped => Object.values(dropped ?? {}).reduce((a, b) => a + b, 0)
