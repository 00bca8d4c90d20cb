/**
 * The signal by which an image wants to be stopped: a name with or without SIG, a number, or a real-time signal.
 */
import { constants } from "node:os"

/** The default of every container runtime. */
export const defaultStopSignal: number = constants.signals.SIGTERM

/** The first real-time signal that programs may use on Linux with glibc and musl; docker counts from here too. */
const realTimeMin = 34
const realTimeMax = 64

const byName: ReadonlyMap<string, number> = new Map(Object.entries(constants.signals))

/** The number; the default for what no kernel knows, because a sandbox must be stoppable whatever its image says. */
export const parse = (text: string): number => {
  const name = text.toUpperCase().replace(/^SIG/, "")
  const number = /^\d+$/.test(name) ? Number(name) : realTime(name) ?? byName.get(`SIG${name}`)
  return number !== undefined && number > 0 && number <= realTimeMax ? number : defaultStopSignal
}

const realTime = (name: string): number | undefined => {
  const [, end, offset = "+0"] = /^RT(MIN|MAX)([+-]\d+)?$/.exec(name) ?? []
  return end === undefined ? undefined : (end === "MIN" ? realTimeMin : realTimeMax) + Number(offset)
}
