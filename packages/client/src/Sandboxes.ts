/**
 * Sandboxes of a Fast-Path server, as Effects and Streams. Calls fail with the failures that cross a boundary, the same
 * ones that the server failed with.
 *
 * ```ts
 * const program = Effect.gen(function*() {
 *   const sandboxes = yield* Sandboxes
 *   const sandbox = yield* sandboxes.scoped({ image: "alpine", args: ["echo", "hello"] })
 *   const ended = yield* sandbox.wait({ for: terminal })
 *   return ended.exitCode
 * }).pipe(Effect.scoped, Effect.provide(Sandboxes.layer({ endpoint: "127.0.0.1:9090" })))
 * ```
 */
import type { InvalidArgument } from "@fast-sandbox/core/Errors"
import { type Phase, terminalPhases } from "@fast-sandbox/core/Sandbox"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Calls, ConnectOptions } from "./Calls.ts"

export type * from "./Administration.ts"
export type * from "./Calls.ts"
export type * from "./Session.ts"

/** The phases in which a program has ended. */
export const terminal: ReadonlySet<Phase> = terminalPhases

/** The phases in which a program runs or has run. */
export const started: ReadonlySet<Phase> = new Set<Phase>(["Running", "Succeeded", "Failed", "Stopped", "Expired"])

/** The calls of a Fast-Path server. */
export class Sandboxes extends Context.Service<Sandboxes, Calls>()("@fast-sandbox/client/Sandboxes") {
  /**
   * Connects with the first call. What speaks the protocol is loaded when the layer is built: programs that import this
   * library without calling a server do not pay for it.
   */
  static readonly layer = (options: ConnectOptions): Layer.Layer<Sandboxes, InvalidArgument> =>
    Layer.effect(
      Sandboxes,
      Effect.promise(() => import("./internal/connection.ts")).pipe(
        Effect.flatMap(({ connect }) => connect(options))
      )
    )
}
