// The two sockets. Records: JSON, one a message, resumed by the newest `seq` after a break. Pictures: the newest of each camera, never queued.
// Knows nothing of what is shown.

const BACKOFF_MS = [300, 600, 1200, 2500, 5000]
const socketUrl = (path, query) => {
  const url = new URL(path, location.href)
  url.protocol = url.protocol.replace("http", "ws")
  url.hash = ""
  url.search = new URLSearchParams(query)
  return url
}

export class Feed {
  // onRecord(record, old: was it published while the socket was down?); onStatus({state: "open" | "lost", awayS, caught, missed})
  constructor(onRecord, onStatus) {
    Object.assign(this, {onRecord, onStatus, since: null, tries: 0, lostAt: null, awayS: 0, caught: 0, missed: 0, socket: null, timer: 0})
    addEventListener("online", () => this.retryNow())
    document.addEventListener("visibilitychange", () => document.hidden || this.retryNow())
  }

  connect() {
    clearTimeout(this.timer)
    this.timer = 0
    const socket = this.socket = new WebSocket(socketUrl("ws", this.since === null ? {} : {since: this.since}))
    socket.onopen = () => {
      this.tries = 0
      this.openedAt = Date.now() / 1000
      this.awayS = this.lostAt ? this.openedAt - this.lostAt : 0
      Object.assign(this, {lostAt: null, caught: 0, missed: 0})
      this.tell("open")
    }
    socket.onmessage = event => this.take(JSON.parse(event.data))
    socket.onclose = () => socket === this.socket && this.lose()
  }

  take(record) {
    if (record.error) {  // the service does not know that number: begin with what is new
      this.since = null
      return
    }
    if (record.type === "missed") {
      this.missed += record.count
      return this.tell("open")
    }
    if (this.since !== null && record.seq <= this.since) return
    this.since = record.seq
    const old = this.awayS > 0 && record.at < this.openedAt
    if (old) {
      this.caught += 1
      clearTimeout(this.telling)
      this.telling = setTimeout(() => this.tell("open"), 100)
    }
    this.onRecord(record, old)
  }

  tell(state) {
    const {awayS, caught, missed} = this
    this.onStatus({state, awayS, caught, missed})
  }

  lose() {
    this.socket = null
    this.lostAt ??= Date.now() / 1000
    this.tell("lost")
    if (!this.timer) this.timer = setTimeout(() => this.connect(), BACKOFF_MS[Math.min(this.tries++, BACKOFF_MS.length - 1)])
  }

  // A connection whose other end is gone without a word: the socket would wait for minutes.
  cut() {
    const socket = this.socket
    if (!socket) return
    this.lose()
    socket.close()
  }

  retryNow() {
    if (this.timer) this.connect()
  }
}

export class Pictures {
  // onPicture(header {stream, frame, pts_s}, jpeg: Blob)
  constructor(onPicture) {
    Object.assign(this, {onPicture, wanted: "", fps: 0, socket: null, timer: 0})
  }

  // Ask for these cameras' pictures and no others; a change waits a moment, because scrolling makes many.
  want(names, fps) {
    const wanted = names.join(",")
    if (wanted === this.wanted && fps === this.fps && (this.socket || !wanted)) return
    Object.assign(this, {wanted, fps})
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.open(), 150)
  }

  open() {
    const gone = this.socket
    this.socket = null
    gone?.close()
    if (!this.wanted) return
    const socket = this.socket = new WebSocket(socketUrl("ws/pictures", {streams: this.wanted, fps: this.fps}))
    socket.binaryType = "arraybuffer"
    socket.onmessage = event => this.take(event.data)
    socket.onclose = () => {
      if (socket !== this.socket) return
      this.socket = null
      this.timer = setTimeout(() => this.open(), 1000)
    }
  }

  take(data) {
    if (typeof data === "string") return // why the service refuses, such as a camera that has just gone; it closes the socket next
    const length = new DataView(data).getUint32(0)
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)))
    this.onPicture(header, new Blob([new Uint8Array(data, 4 + length)], {type: "image/jpeg"}))
  }
}
