/**
 * The report as a picture: for each metric a bar from p50 to p99 on a logarithmic axis, because what is compared differs
 * by a hundred times. Pure: metrics to SVG.
 */
import type { Metrics } from "./Report.ts"
import { summarise } from "./Statistics.ts"

const width = 860
const labelWidth = 260
const rowHeight = 26
const margin = 36
const barHeight = 12

const escapeText = (text: string): string =>
  text.replace(/[&<>]/g, (character) => character === "&" ? "&amp;" : character === "<" ? "&lt;" : "&gt;")

/** Powers of ten from the one at or below `least` to the one at or above `most`. */
const decades = (least: number, most: number): ReadonlyArray<number> => {
  const first = Math.floor(Math.log10(least))
  const last = Math.max(first + 1, Math.ceil(Math.log10(most)))
  return Array.from({ length: last - first + 1 }, (_, at) => 10 ** (first + at))
}

/** Those of `metrics` whose unit is milliseconds, in their order. Ours are filled darker than peers. */
export const svg = (title: string, metrics: Metrics): string => {
  const rows = [...metrics]
    .filter(([, { unit }]) => unit === "ms")
    .map(([name, metric]) => ({ name, ...summarise(metric) }))
  const ticks = decades(
    Math.min(...rows.map(({ p50 }) => p50)),
    Math.max(...rows.map(({ p99 }) => p99))
  )
  const [low = 1] = ticks
  const high = ticks.at(-1) ?? 10
  const x = (millis: number): number =>
    labelWidth + (width - labelWidth - margin) * Math.log(millis / low) / Math.log(high / low)
  const height = margin * 2 + rows.length * rowHeight
  const grid = ticks.map((tick) =>
    `<line x1="${x(tick).toFixed(1)}" x2="${x(tick).toFixed(1)}" y1="${margin}" y2="${
      height - margin
    }" class="grid"/>` +
    `<text x="${x(tick).toFixed(1)}" y="${height - margin + 16}" text-anchor="middle">${tick} ms</text>`
  )
  const bars = rows.map(({ name, p50, p90, p99 }, at) => {
    const middle = margin + at * rowHeight + rowHeight / 2
    const kind = name.startsWith("peer.") ? "peer" : "ours"
    return [
      `<text x="${labelWidth - 8}" y="${middle + 4}" text-anchor="end">${escapeText(name)}</text>`,
      `<rect x="${x(p50).toFixed(1)}" y="${middle - barHeight / 2}" width="${
        Math.max(2, x(p99) - x(p50)).toFixed(1)
      }" height="${barHeight}" rx="2" class="${kind}"><title>${escapeText(name)}: p50 ${p50.toFixed(2)}, p90 ${
        p90.toFixed(2)
      }, p99 ${p99.toFixed(2)} ms</title></rect>`,
      `<text x="${(x(p99) + 6).toFixed(1)}" y="${middle + 4}" class="value">${p50.toFixed(1)}</text>`
    ].join("")
  })
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    "<style>.grid{stroke:#d0d7de}.ours{fill:#0969da}.peer{fill:#9a6700}text{fill:#57606a}.value{fill:#24292f}</style>",
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    `<text x="${margin / 2}" y="20" font-size="14" class="value">${
      escapeText(title)
    }: bars from p50 to p99, p50 written</text>`,
    ...grid,
    ...bars,
    "</svg>",
    ""
  ].join("\n")
}
