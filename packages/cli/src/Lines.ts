/**
 * Text for terminals: one line, or as many as the width asks for.
 */
import { displayWidth } from "effect/cli/CliOutput"

/** Text that others wrote as one line. Control characters of a peer never reach the terminal. */
export const oneLine = (text: string): string =>
  // eslint-disable-next-line no-control-regex -- these very characters are to be kept from the terminal
  text.trim().replace(/\s*\n\s*/g, "; ").replace(/[\u0000-\u001f\u007f-\u009f]/g, "?")

/** Columns that a text takes. Where all of it is ASCII nothing is asked of ICU, which no start-up snapshot can hold. */
export const widthOf = (text: string): number => /^[ -~]*$/.test(text) ? text.length : displayWidth(text)

/** A word in parts that are at most `width` wide. */
const partsOf = (word: string, width: number): ReadonlyArray<string> => {
  if (widthOf(word) <= width) return [word]
  const parts: Array<string> = []
  let part = ""
  for (const character of word) {
    if (part !== "" && widthOf(part + character) > width) {
      parts.push(part)
      part = ""
    }
    part += character
  }
  return [...parts, part]
}

/** Breaks a text at its blanks into lines that are at most `width` wide, and words where they alone are wider. */
export const wrap = (text: string, width: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(" ").flatMap((word) => partsOf(word, width))) {
    if (line !== "" && widthOf(line) + 1 + widthOf(word) > width) {
      lines.push(line)
      line = word
    } else {
      line = line === "" ? word : `${line} ${word}`
    }
  }
  lines.push(line)
  return lines
}

const ELLIPSIS = "…"

/** Leaves out the middle of a name (ASCII) that is wider: what tells names of one kind apart stands at their ends. */
export const shorten = (name: string, width: number): string => {
  if (widthOf(name) <= width) return name
  const head = Math.ceil((width - ELLIPSIS.length) / 2)
  return name.slice(0, head) + ELLIPSIS + name.slice(name.length - (width - ELLIPSIS.length - head))
}
