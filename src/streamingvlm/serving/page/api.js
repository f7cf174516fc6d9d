// The service's HTTP side. Every failure is an Error whose message is a sentence for the person at the page.

const TIMEOUT_MS = 8000

async function ask(path, options = {}) {
  let answer
  try {
    answer = await fetch(path, {signal: AbortSignal.timeout(TIMEOUT_MS), ...options})
  } catch {
    throw new Error("The service does not answer: see whether it still runs.")
  }
  if (!answer.ok) throw new Error(await sentence(answer))
  return answer
}

async function sentence(answer) {
  const text = await answer.text()
  try {
    const {error} = JSON.parse(text)
    if (error) return error
  } catch { /* not JSON: a proxy between here and the service */ }
  return `The service answered ${answer.status} ${answer.statusText}.`
}

export const get = async path => (await ask(path)).json()
export const remove = path => ask(path, {method: "DELETE"})

// A camera for which the machine has no room is refused with its reason, and its name is free again.
export async function add(camera) {
  const options = {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(camera)}
  const row = await (await ask("api/cameras", options)).json()
  if (row.state !== "failed") return row
  await remove(`api/cameras/${encodeURIComponent(row.id)}`)
  throw new Error(row.reason)
}

// -> the answer, as a line.
export async function question(camera, text) {
  const options = {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({question: text}), signal: AbortSignal.timeout(25000)}
  return (await ask(`api/cameras/${encodeURIComponent(camera)}/ask`, options)).json()
}

// WHIP (RFC 9725): -> {answer: SDP, resource: where to hang up}
export async function offer(name, sdp) {
  const answer = await ask(`whip/${encodeURIComponent(name)}`, {method: "POST", headers: {"Content-Type": "application/sdp"}, body: sdp})
  return {answer: await answer.text(), resource: new URL(answer.headers.get("Location"), answer.url).href}
}
