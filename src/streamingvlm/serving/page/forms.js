// The dialogs: add a camera, remove one, help. The service's sentence of refusal is shown at the field it is about.

import * as api from "./api.js"
import {at} from "./dom.js"

const FIELDS = ["url", "name", "delay_s", "priority", "mode"]

export function dialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", event => (event.target === dialog || event.target.closest("[data-close]")) && dialog.close())
  }
}

export function complain(form, name, sentence) {
  const error = form.querySelector(".error"), field = form.elements[name]
  for (const one of form.querySelectorAll("[aria-invalid]")) {
    one.removeAttribute("aria-invalid")
    one.removeAttribute("aria-errormessage")
  }
  error.hidden = !sentence
  error.textContent = sentence ?? ""
  if (!sentence || !field) return
  field.setAttribute("aria-invalid", "true")
  field.setAttribute("aria-errormessage", error.id)
  field.closest("label").after(error)
  field.focus()
}

// The service quotes a key that is wrong; what it says without one is about a name that is taken, or about the address.
const about = sentence => FIELDS.find(name => sentence.includes(`\`${name}\``)) ?? (/already|choose another name/.test(sentence) ? "name" : "url")

export function adding(done) {
  const dialog = at("add"), form = at("add-form")
  const open = () => {
    complain(form)
    dialog.showModal()
    form.elements.url.focus()
  }
  form.addEventListener("submit", async event => {
    event.preventDefault()
    const value = name => form.elements[name].value.trim()
    if (!value("url")) return complain(form, "url", "Say where the camera is, for example rtsp://192.168.1.20/stream1.")
    if (!value("name")) return complain(form, "name", "Give the camera a name.")
    const camera = {name: value("name"), url: value("url"), delay_s: Number(value("delay_s")), priority: Number(value("priority")),
                    mode: value("mode")}
    const button = form.querySelector("[type=submit]")
    button.disabled = true
    try {
      await api.add(camera)
      form.reset()
      dialog.close()
      done(camera.name)
    } catch (error) {
      complain(form, about(error.message), error.message)
    } finally {
      button.disabled = false
    }
  })
  return open
}

export function removing(done) {
  const dialog = at("remove"), form = at("remove-form")
  let id = null
  form.addEventListener("submit", async event => {
    event.preventDefault()
    try {
      await api.remove(`api/cameras/${encodeURIComponent(id)}`)
      dialog.close()
      done(id)
    } catch (error) {
      complain(form, null, error.message)
    }
  })
  return name => {
    id = name
    complain(form)
    at("remove-title").textContent = `Remove ${name}?`
    dialog.showModal()
    form.querySelector("[data-close]").focus()
  }
}
