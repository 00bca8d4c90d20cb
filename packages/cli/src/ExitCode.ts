/**
 * What fsb-ctl ends with: docker's codes. A program's own code passes through; 125 says that fsb-ctl itself failed.
 */
import type { SandboxInfo } from "@fast-sandbox/client/SandboxInfo"

/** All went well. */
export const SUCCESS = 0

/** fsb-ctl failed: bad usage, no connection, refused by the server. */
export const OURS = 125

/** The program is there but can't be executed. */
const NOT_EXECUTABLE = 126

/** The program is not there. */
const NOT_FOUND = 127

/** Added to the number of the signal that ended a program. */
const SIGNAL_BASE = 128

/** Signals that end fsb-ctl itself, by name and number. */
export const signals = { SIGHUP: 1, SIGINT: 2, SIGPIPE: 13, SIGTERM: 15 } as const

/** The code of a program, or of fsb-ctl, that a signal ended. */
export const ofSignal = (signal: number): number => SIGNAL_BASE + signal

/** The reasons with which a server tells that a program could not be started. */
const startFailures: Readonly<Record<string, number>> = {
  CommandNotFound: NOT_FOUND,
  CommandNotExecutable: NOT_EXECUTABLE,
  // what is left in it is killed with it
  SandboxEnded: SIGNAL_BASE + 9
}

/** The code for a failure with such a reason. */
export const ofReason = (reason: string): number =>
  Object.hasOwn(startFailures, reason) ? startFailures[reason] ?? OURS : OURS

/** The code for a sandbox whose program ended: its own, its signal's, or ours where it never got to an end. */
export const ofSandbox = (sandbox: SandboxInfo): number => {
  if (sandbox.signal !== undefined) return ofSignal(sandbox.signal)
  return sandbox.exitCode ?? ofReason(sandbox.reason)
}
