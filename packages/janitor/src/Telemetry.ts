/**
 * What the janitor shows to whoever watches it: its metrics, and whether it can do its work. Without an answer of the
 * Kubernetes API it spares everything, which somebody should know.
 */
import { Introspection } from "@fast-sandbox/containerd/Introspection"
import * as Probes from "@fast-sandbox/telemetry/Probes"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Janitor } from "./Janitor.ts"

/** Serves until the scope closes. */
export const layer = (address: Probes.Address): Layer.Layer<never, Probes.ProbesError, Janitor | Introspection> =>
  Layer.unwrap(Effect.gen(function*() {
    const { unanswered } = yield* Janitor
    const { version } = yield* Introspection
    return Probes.layer(address, [
      { name: "Kubernetes API", problem: unanswered },
      Probes.answers("containerd", version)
    ])
  }))
