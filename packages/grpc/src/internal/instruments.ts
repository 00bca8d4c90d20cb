/**
 * Metrics of calls: a histogram of durations and a count by code, for every method of a served or called service. The
 * labels are bounded by the descriptors and the seventeen codes; each is made when it is first needed, since most clients
 * make few calls and a service has many.
 */
import type { DescMethod } from "@bufbuild/protobuf"
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type { Code } from "../GrpcError.ts"

/** Upper bounds, in seconds: from a call on a unix socket to the longest wait for an image. */
const DURATION_BOUNDARIES = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]

const MILLIS_PER_SECOND = 1000

/** Records calls of one method. */
export interface Instruments {
  /** The instant a call began at, for `end`. */
  readonly begin: () => number
  readonly end: (beganAt: number, code: Code, context: Context.Context<never>) => void
}

/** Instruments of a method; `side` tells whether its calls are served or made. */
export const make = (side: "server" | "client", method: DescMethod): Instruments => {
  const attributes = { grpc_service: method.parent.typeName, grpc_method: method.name }
  const makeDuration = () =>
    Metric.histogram(`fsb_grpc_${side}_duration_seconds`, {
      description: `Time from the start to the end of gRPC calls (${side})`,
      attributes,
      boundaries: DURATION_BOUNDARIES
    })
  const makeCounter = (code: Code) =>
    Metric.counter(`fsb_grpc_${side}_calls_total`, {
      description: `Ended gRPC calls (${side})`,
      attributes: { ...attributes, grpc_code: code },
      incremental: true
    })
  let duration: ReturnType<typeof makeDuration> | undefined
  const counters = new Map<Code, ReturnType<typeof makeCounter>>()
  return {
    begin: () => performance.now(),
    end: (beganAt, code, context) => {
      duration ??= makeDuration()
      duration.updateUnsafe((performance.now() - beganAt) / MILLIS_PER_SECOND, context)
      const counter = counters.get(code) ?? makeCounter(code)
      counters.set(code, counter)
      counter.updateUnsafe(1, context)
    }
  }
}
