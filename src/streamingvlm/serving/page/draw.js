// Pictures, boxes and the latency strip on canvases. Knows a camera's bitmap and its decision, no page around them.

const COLOURS = {person: "#56b4e9", car: "#f0a830", bag: "#e07ab8"}
const OTHERS = ["#7fd1ae", "#f0e442", "#b79bff", "#ff8d5c", "#9ad0ff"]
const colour = label => COLOURS[label] ?? (COLOURS[label] = OTHERS[Object.keys(COLOURS).length % OTHERS.length])
const LABELLED_PX = 300, LABELLED = 12  // narrower pictures, and those with more boxes, show them without words

// Sizes come from an observer: reading them while drawing would lay the page out again for each picture.
const sizes = new WeakMap()
const observer = new ResizeObserver(entries => {
  for (const {target, contentRect} of entries) {
    const ratio = Math.min(devicePixelRatio || 1, 2)
    sizes.set(target, {width: Math.round(contentRect.width * ratio), height: Math.round(contentRect.height * ratio), ratio})
    target.dispatchEvent(new Event("resized"))
  }
})
export const watch = canvas => observer.observe(canvas)
export const unwatch = canvas => observer.unobserve(canvas)

function ready(canvas) {
  const size = sizes.get(canvas)
  if (!size?.width || !size.height) return null
  if (canvas.width !== size.width) canvas.width = size.width
  if (canvas.height !== size.height) canvas.height = size.height
  return size
}

export function paint(canvas, camera) {
  const size = ready(canvas)
  if (!size) return
  const draw = canvas.getContext("2d", {alpha: false})
  const {bitmap} = camera
  draw.fillStyle = "#101214"
  if (!bitmap) return draw.fillRect(0, 0, size.width, size.height)
  const scale = Math.min(size.width / bitmap.width, size.height / bitmap.height)
  const width = bitmap.width * scale, height = bitmap.height * scale
  const left = (size.width - width) / 2, top = (size.height - height) / 2
  if (width < size.width - 1 || height < size.height - 1) draw.fillRect(0, 0, size.width, size.height)
  draw.imageSmoothingEnabled = bitmap.width >= 200
  draw.drawImage(bitmap, left, top, width, height)
  const {decision, own} = camera.over
  if (decision && camera.live) boxes(draw, decision.boxes ?? [], own, {left, top, width, height}, size)
}

function boxes(draw, list, own, place, {ratio, width}) {
  draw.lineWidth = (width / ratio < LABELLED_PX ? 1.5 : 2) * ratio
  draw.setLineDash(own ? [] : [5 * ratio, 4 * ratio])
  const worded = width / ratio >= LABELLED_PX && list.length <= LABELLED
  draw.font = `${12 * ratio}px system-ui, sans-serif`
  for (const {box: [x0, y0, x1, y1], label, score} of list) {
    const x = place.left + x0 * place.width, y = place.top + y0 * place.height
    draw.strokeStyle = colour(label)
    draw.strokeRect(x, y, (x1 - x0) * place.width, (y1 - y0) * place.height)
    if (worded) word(draw, `${label} ${Math.round(score * 100)}`, x, y, ratio)
  }
  draw.setLineDash([])
}

function word(draw, text, x, y, ratio) {
  const high = 15 * ratio, wide = draw.measureText(text).width + 6 * ratio
  const top = y >= high ? y - high : y
  draw.fillStyle = draw.strokeStyle
  draw.fillRect(x - draw.lineWidth / 2, top, wide, high)
  draw.fillStyle = "#101214"
  draw.fillText(text, x + 3 * ratio, top + 11.5 * ratio)
}

// The newest decisions' latency, oldest left, with the budget as a dashed line; what exceeds it is drawn in the alarm's colour.
export function strip(canvas, trail, budgetMs, capacity) {
  const size = ready(canvas)
  if (!size) return
  const draw = canvas.getContext("2d"), style = getComputedStyle(canvas)
  draw.clearRect(0, 0, size.width, size.height)
  const values = trail.map(one => one.release).filter(value => value != null)
  const top = Math.max(budgetMs * 1.5, ...values) * 1.05
  const step = size.width / capacity, bar = Math.max(1, step - size.ratio * 0.5)
  const plain = style.getPropertyValue("--mark"), over = style.getPropertyValue("--over")
  values.forEach((value, k) => {
    draw.fillStyle = value > budgetMs ? over : plain
    const high = value / top * size.height
    draw.fillRect((capacity - values.length + k) * step, size.height - high, bar, high)
  })
  draw.strokeStyle = style.color
  draw.lineWidth = size.ratio
  draw.setLineDash([4 * size.ratio, 3 * size.ratio])
  const y = Math.round(size.height - budgetMs / top * size.height) + 0.5
  draw.beginPath()
  draw.moveTo(0, y)
  draw.lineTo(size.width, y)
  draw.stroke()
}
