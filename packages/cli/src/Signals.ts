/**
 * The signals that end fsb-ctl, and who gets them: usually the command is interrupted; a program that runs in its place
 * may take them instead.
 */
import type { Control } from "@fast-sandbox/client/Sandboxes"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import * as ExitCode from "./ExitCode.ts"

/** A signal that ends fsb-ctl. */
export type Name = "SIGHUP" | "SIGINT" | "SIGTERM"

/** All of them. */
export const names: ReadonlyArray<Name> = ["SIGHUP", "SIGINT", "SIGTERM"]

/** Signals that wait to be passed on; whoever sends more than this does not count them. */
const MAX_PENDING = 16

let taker: ((name: Name) => void) | undefined

/** Hands a signal to whoever takes signals now; whether somebody does. */
export const handOver = (name: Name): boolean => {
  taker?.(name)
  return taker !== undefined
}

/** Takes the signals of this process for as long as the stream runs. */
export const passed: Stream.Stream<Control> = Stream.callback<Control>((queue) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      taker = (name) => Queue.offerUnsafe(queue, { _tag: "Signal", signal: ExitCode.signals[name] })
    }),
    () =>
      Effect.sync(() => {
        taker = undefined
      })
  ), { bufferSize: MAX_PENDING, strategy: "dropping" })
