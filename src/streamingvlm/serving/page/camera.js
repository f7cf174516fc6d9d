// What the page knows of one camera: the service's row, its newest decisions and comments, the picture on show. Draws nothing.

const DECISIONS = 48, COMMENTS = 200, TRAIL = 240
const SLACK_MS = 350, LATEST_MS = 1500
const PENDING = 48       // pictures, not decoded yet, that wait so: 2 s of buffer at the largest rate that is asked for
const QUIET_S = 3        // a live camera without a decision for longer says so

export class Camera {
  constructor(row) {
    Object.assign(this, {id: row.id, row, decisions: new Map(), newest: null, comments: [], trail: [], pending: [], bitmap: null, shown: null,
                         matched: null, busy: false, seenAt: 0, fresh: false})
  }

  refresh(row) {
    this.row = row
  }

  get alarms() {
    return this.newest ? this.newest.alarms ?? [] : this.row.alarms ?? []
  }

  get action() {
    return this.newest?.action ?? this.row.action ?? ""
  }

  get comment() {
    return this.comments[0]?.text ?? this.row.comment ?? ""
  }

  get live() {
    return this.row.state === "live"
  }

  // Seconds since the newest decision of a live camera, 0 while they come as they should.
  get silentS() {
    if (!this.live || !this.newest) return 0
    const silent = (performance.now() - this.seenAt) / 1000
    return silent > QUIET_S ? silent : 0
  }

  decide(record) {
    if (this.newest && record.epoch === this.newest.epoch && record.frame <= this.newest.frame) return
    this.newest = record
    this.seenAt = performance.now()
    this.decisions.set(record.frame, record)
    if (this.decisions.size > DECISIONS) this.decisions.delete(this.decisions.keys().next().value)
    this.trail.push({release: record.ms?.release ?? null, capture: record.ms?.capture ?? null})
    if (this.trail.length > TRAIL) this.trail.shift()
    this.settle()
  }

  say(record) {
    this.comments.unshift(record)
    if (this.comments.length > COMMENTS) this.comments.pop()
  }

  picture(header, jpeg) {
    this.pending.push({frame: header.frame, jpeg, at: performance.now()})
    if (this.pending.length > PENDING) this.pending.shift()
    this.settle()
  }

  // How long a picture may wait for its decision: it is sent when it comes in, the decision when it has been through the buffer and the model.
  get holdMs() {
    return 1000 * (this.row.delay_s ?? 0) + Math.min(this.newest?.ms?.release ?? 0, LATEST_MS) + SLACK_MS
  }

  // Show the newest pending picture whose decision is there or cannot come any more; the ones before it are past.
  settle() {
    const now = performance.now(), hold = this.holdMs
    for (let k = this.pending.length - 1; k >= 0; k--) {
      const one = this.pending[k]
      if (!this.decisions.has(one.frame) && !(this.newest && this.newest.frame > one.frame) && now - one.at < hold && this.live) continue
      this.pending.splice(0, k + 1)
      this.show(one)
      return
    }
  }

  async show(one) {
    if (this.busy) {
      this.next = one
      return
    }
    this.busy = true
    try {
      const bitmap = await createImageBitmap(one.jpeg)
      this.bitmap?.close()
      Object.assign(this, {bitmap, shown: one, fresh: true})
    } catch { /* half a JPEG: the next one comes soon */ }
    this.busy = false
    const next = this.next
    this.next = null
    if (next) this.show(next)
  }

  // -> {decision to draw over the picture on show, is it of that very frame?}. Of a dropped frame: the nearest one that was decided.
  get over() {
    const frame = this.shown?.frame, own = this.decisions.get(frame)
    if (own || !this.newest) return {decision: own ?? null, own: true}
    let decision = this.newest
    for (const one of this.decisions.values()) if (Math.abs(one.frame - frame) < Math.abs(decision.frame - frame)) decision = one
    return {decision, own: false}
  }

  close() {
    this.bitmap?.close()
    this.bitmap = null
  }
}
