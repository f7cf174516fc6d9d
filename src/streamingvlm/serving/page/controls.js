// Keys, the phone's tabs and the colours. Knows which part of the page is meant, not what is in it.

import {at, set} from "./dom.js"

const THEMES = {"": "as the system", dark: "dark", light: "light"}, MARKS = {"": "◐", dark: "●", light: "○"}

export function keys({back, add, wall, help}) {
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return
    const typing = event.target.matches("input, select, textarea")
    if (event.key === "Escape") {
      if (typing) event.target.blur()
      else back()
      return
    }
    if (typing) return
    const act = {
      "?": help, n: add, w: () => { view("cameras"); wall() },
      a: () => { view("alarms"); (at("alarm-list").querySelector("button") ?? at("alarms-title")).focus() },
      "/": () => at("filter-name").focus(),
    }[event.key]
    if (act) {
      event.preventDefault()
      act()
    } else if (event.key.startsWith("Arrow") && document.activeElement === document.body) wall()
  })
}

function view(name) {
  document.body.dataset.view = name
  for (const button of document.querySelectorAll(".tabs button")) button.setAttribute("aria-pressed", String(button.dataset.view === name))
}

export function tabs() {
  for (const button of document.querySelectorAll(".tabs button")) button.addEventListener("click", () => view(button.dataset.view))
}

export function theme(button, changed) {
  const apply = name => {
    if (name) document.documentElement.dataset.theme = name
    else delete document.documentElement.dataset.theme
    set(button, MARKS[name])
    button.title = `Colours: ${THEMES[name]}`
    button.setAttribute("aria-label", `Colours: ${THEMES[name]}. Press to change.`)
  }
  let now = ""
  try {
    now = localStorage.getItem("theme") ?? ""
  } catch { /* storage is off: the system's colours */ }
  apply(now in THEMES ? now : "")
  button.addEventListener("click", () => {
    const names = Object.keys(THEMES)
    now = names[(names.indexOf(now) + 1) % names.length]
    apply(now)
    try {
      localStorage.setItem("theme", now)
    } catch { /* not kept, but shown */ }
    changed()
  })
}
