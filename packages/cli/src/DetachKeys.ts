/**
 * The keys that leave a program without ending it, as docker has them: ctrl-p, then ctrl-q.
 */

const FIRST = 0x10
const SECOND = 0x11

/** What of the keys goes to the program, and whether the user leaves. */
export interface Keys {
  readonly passed: Uint8Array
  readonly isLeaving: boolean
}

/** Reads keys as they come. The first key waits for the next one, which decides what it was. */
export const make = (): (bytes: Uint8Array) => Keys => {
  let isHeld = false
  return (bytes) => {
    const passed: Array<number> = []
    for (const byte of bytes) {
      if (isHeld && byte === SECOND) return { passed: Uint8Array.from(passed), isLeaving: true }
      if (isHeld) passed.push(FIRST)
      isHeld = byte === FIRST
      if (!isHeld) passed.push(byte)
    }
    return { passed: Uint8Array.from(passed), isLeaving: false }
  }
}
