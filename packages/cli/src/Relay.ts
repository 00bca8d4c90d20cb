/**
 * Passes what a sandbox's program printed on to the own stdout and stderr.
 */
import * as LogLine from "@fast-sandbox/client/LogLine"
import * as Effect from "effect/Effect"
import { Screen } from "./Screen.ts"

/** How lines look: as they were printed, with their time before them, or as one JSON object each. */
type Form = "plain" | "timestamps" | "json"

const LINE_FEED = 0x0a

const plain = (prefix: string, line: LogLine.LogLine): Uint8Array => {
  const before = new TextEncoder().encode(prefix)
  const content = new Uint8Array(before.length + line.bytes.length + (line.partial ? 0 : 1))
  content.set(before)
  content.set(line.bytes, before.length)
  if (!line.partial) content[content.length - 1] = LINE_FEED
  return content
}

const json = (line: LogLine.LogLine): string => {
  const { partial, stream, time } = line
  return `${JSON.stringify({ time, stream, text: LogLine.text(line), ...(partial ? { partial } : {}) })}\n`
}

/** Prints line after line. A line that comes in pieces is one line again. */
export const make = (form: Form) =>
  Effect.map(Screen, (screen) => {
    const isContinued = { stdout: false, stderr: false }
    return (line: LogLine.LogLine) => {
      if (form === "json") return screen.data(json(line))
      const prefix = form === "timestamps" && !isContinued[line.stream] ? `${line.time} ` : ""
      isContinued[line.stream] = line.partial
      const content = plain(prefix, line)
      return line.stream === "stdout" ? screen.data(content) : screen.errorData(content)
    }
  })
