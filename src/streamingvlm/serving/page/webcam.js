// The camera of this browser, pushed to the service by WHIP: getUserMedia -> RTCPeerConnection -> POST /whip/{name}. One at a time.

import * as api from "./api.js"
import {at} from "./dom.js"
import {complain} from "./forms.js"

const GATHER_MS = 2000  // what the network told by then goes into the offer

export function webcam(done) {
  const dialog = at("webcam"), form = at("webcam-form"), video = at("webcam-picture")
  let connection = null, stream = null, resource = null

  const say = text => { at("webcam-state").textContent = text }
  const show = sending => {
    at("webcam-stop").hidden = !sending
    at("webcam-start").hidden = sending
    form.elements.name.disabled = sending
    video.hidden = !stream
    document.body.classList.toggle("sending", sending)
  }

  async function start() {
    if (!navigator.mediaDevices) throw new Error("This browser gives its camera to pages on https:// or localhost only: open the page that way.")
    stream = await navigator.mediaDevices.getUserMedia({video: {width: {ideal: 1280}, height: {ideal: 720}, frameRate: {ideal: 15}}, audio: false})
      .catch(error => { throw new Error(refusal(error)) })
    video.srcObject = stream
    await video.play()
    const name = form.elements.name.value.trim()
    await api.add({name, url: "webrtc:", delay_s: 0, priority: 1, mode: "auto"}).catch(error => {
      if (!/already|exists/i.test(error.message)) throw error  // it is there from the last time: push to it again
    })
    connection = new RTCPeerConnection()
    connection.addTransceiver(stream.getVideoTracks()[0], {direction: "sendonly", streams: [stream]})
    connection.addEventListener("connectionstatechange", () => changed(connection.connectionState))
    await connection.setLocalDescription()
    await gathered(connection)
    const made = await api.offer(name, connection.localDescription.sdp)
    resource = made.resource
    await connection.setRemoteDescription({type: "answer", sdp: made.answer})
    done(name)
  }

  function changed(state) {
    say({connecting: "Connecting …", connected: "The picture is going out.", disconnected: "The connection is interrupted …"}[state] ?? "")
    if (state === "failed") stop().then(() => complain(form, null, "The connection failed: see whether UDP may pass between here and the service."))
  }

  async function stop() {
    const gone = {connection, stream, resource}
    connection = stream = resource = null
    gone.stream?.getTracks().forEach(track => track.stop())
    video.srcObject = null
    say("")
    show(false)
    if (gone.resource) await api.remove(gone.resource).catch(() => {})  // it is over here, whatever the service answers
    gone.connection?.close()
  }

  form.addEventListener("submit", async event => {
    event.preventDefault()
    complain(form)
    if (!form.elements.name.value.trim()) return complain(form, "name", "Give the camera a name.")
    say("Asking for the camera …")
    try {
      show(true)
      await start()
      show(true)
    } catch (error) {
      await stop()
      complain(form, "name", error.message)
    }
  })
  at("webcam-stop").addEventListener("click", stop)
  addEventListener("pagehide", () => resource && fetch(resource, {method: "DELETE", keepalive: true}))
  form.elements.name.value = `browser-${crypto.getRandomValues(new Uint16Array(1))[0].toString(16)}`
  show(false)
  return () => dialog.showModal()
}

const refusal = ({name}) => ({
  NotAllowedError: "The browser was not allowed to use its camera: allow it in the address bar, then start again.",
  NotFoundError: "This machine has no camera.",
  NotReadableError: "Another program uses the camera: close it, then start again.",
})[name] ?? "The browser could not open its camera."

function gathered(connection) {
  if (connection.iceGatheringState === "complete") return Promise.resolve()
  return new Promise(resolve => {
    setTimeout(resolve, GATHER_MS)
    connection.addEventListener("icegatheringstatechange", () => connection.iceGatheringState === "complete" && resolve())
  })
}
