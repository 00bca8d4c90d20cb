/**
 * Where the time of one call of fsb-ctl went: what passed before the command began, every call to the server, and the
 * rest. Told on stderr at the end.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Tracer from "effect/Tracer"
import { Screen } from "./Screen.ts"

/** A call to the server. Times in milliseconds since the process began. */
interface Call {
  readonly name: string
  readonly beganAt: number
  readonly endedAt: number
}

const NANOS_PER_MILLI = 1_000_000

/** `/fastpath.v1.FastPathService/CreateSandbox` is `CreateSandbox`. */
const shortName = (path: string): string => path.slice(path.lastIndexOf("/") + 1)

const line = (millis: number, what: string): string => `${millis.toFixed(1).padStart(8)} ms  ${what}\n`

/** The table. Calls that overlap count once in the sum. */
export const format = (
  calls: ReadonlyArray<Call>,
  times: { readonly beganAt: number; readonly endedAt: number }
): string => {
  const { overlap, sum: covered } = calls.toSorted((a, b) => a.beganAt - b.beganAt).reduce(
    ({ overlap, sum, until }, { beganAt, endedAt }) => ({
      until: Math.max(until, endedAt),
      sum: sum + Math.max(0, endedAt - Math.max(until, beganAt)),
      overlap: overlap || beganAt < until
    }),
    { until: 0, sum: 0, overlap: false }
  )
  return [
    line(times.beganAt, "start of fsb-ctl"),
    ...calls.map(({ beganAt, endedAt, name }) => line(endedAt - beganAt, `${name} (call)`)),
    line(times.endedAt - times.beganAt - covered, "fsb-ctl itself"),
    line(times.endedAt, overlap ? "all of it (calls overlap)" : "all of it")
  ].join("")
}

/** Collects the calls that are made under it, and tells them when its scope closes. */
export const layer: Layer.Layer<never, never, Screen> = Layer.unwrap(Effect.gen(function*() {
  const screen = yield* Screen
  const beganAt = performance.now()
  const calls: Array<Call> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      const began = performance.now()
      if (options.kind !== "client") return span
      const end = span.end.bind(span)
      span.end = (endTime, exit) => {
        const millis = Number(endTime - options.startTime) / NANOS_PER_MILLI
        calls.push({ name: shortName(options.name), beganAt: began, endedAt: began + millis })
        end(endTime, exit)
      }
      return span
    }
  })
  yield* Effect.addFinalizer(() => screen.talk(format(calls, { beganAt, endedAt: performance.now() })))
  return Layer.succeed(Tracer.Tracer, tracer)
}))
