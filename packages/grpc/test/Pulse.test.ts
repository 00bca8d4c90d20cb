import { assert, describe, it } from "@effect/vitest"
import { EchoService } from "@fast-sandbox/grpc/gen/test/v1/echo_pb"
import { Effect, Schedule } from "effect"
import { vi } from "vitest"
import { type Channel, codeNumbers, type Status } from "../src/internal/channel.ts"
import { withPulse } from "../src/internal/pulse.ts"

const patienceMillis = 20

const method = EchoService.method.echo
const pulsePath = "/test.v1.EchoService/Echo"

const unused = (): never => {
  throw new Error("this test makes unary calls only")
}

/** A server that answers `/slow` never, the pulse while it is alive, and is told of what is cancelled. */
const makeServer = () => {
  const state = { isAlive: true, probes: 0, cancelled: 0, closed: false }
  const channel: Channel = {
    unary: ({ deadline, path }, _message, settle) => {
      let timer: NodeJS.Timeout | undefined
      if (path === pulsePath) {
        state.probes++
        if (state.isAlive) setImmediate(() => settle(null, Buffer.alloc(0)))
        else {
          timer = setTimeout(
            () => settle({ code: codeNumbers.deadlineExceeded, details: "" }),
            (deadline ?? 0) - Date.now()
          )
        }
      }
      return {
        cancel: () => {
          clearTimeout(timer)
          state.cancelled++
        }
      }
    },
    clientStreaming: unused,
    serverStreaming: unused,
    bidiStreaming: unused,
    close: () => {
      state.closed = true
    }
  }
  return { state, channel: withPulse(channel, { method, patienceMillis, retryMillis: 10 }) }
}

const slow = { path: "/slow", headers: {}, deadline: Date.now() + 3_600_000 }

const ended = (channel: Channel, opening: Parameters<Channel["unary"]>[0]) =>
  Effect.callback<Status | null>((resume) => {
    const call = channel.unary(opening, Buffer.alloc(0), (failure) => resume(Effect.succeed(failure)))
    return Effect.sync(() => call.cancel())
  })

const until = (condition: () => boolean) =>
  Effect.sync(condition).pipe(Effect.repeat({ schedule: Schedule.spaced("1 millis"), until: (holds) => holds }))

describe("a channel with a pulse", () => {
  it.live("lets calls wait on a server that is only slow, and asks it again and again", () =>
    Effect.gen(function*() {
      const { channel, state } = makeServer()
      const call = yield* Effect.forkChild(ended(channel, slow))
      yield* until(() => state.probes >= 3)
      assert.isUndefined(call.pollUnsafe())
      assert.strictEqual(state.cancelled, 0)
    }))

  it.live("fails calls under way, and new ones at once, while the server hangs", () =>
    Effect.gen(function*() {
      const { channel, state } = makeServer()
      state.isAlive = false
      const patient = yield* Effect.forkChild(ended(channel, { ...slow, deadline: undefined }))
      const [first, second] = yield* Effect.all([ended(channel, slow), ended(channel, slow)], { concurrency: 2 })
      assert.deepStrictEqual(first, {
        code: codeNumbers.unavailable,
        details: "the server hangs: it has not answered for 0.02 s"
      })
      assert.deepStrictEqual(second, first)
      const asked = state.probes
      assert.deepStrictEqual(yield* ended(channel, slow), first)
      assert.strictEqual(state.probes, asked)
      assert.isUndefined(patient.pollUnsafe())
      state.isAlive = true
      yield* until(() => state.probes > asked)
      const next = yield* Effect.forkChild(ended(channel, slow))
      yield* until(() => state.probes > asked + 2)
      assert.isUndefined(next.pollUnsafe())
    }))

  it("holds no timer for a call that was left, and ends with its channel", () => {
    vi.useFakeTimers()
    try {
      const { channel, state } = makeServer()
      channel.unary(slow, Buffer.alloc(0), unused).cancel()
      assert.strictEqual(state.cancelled, 1)
      assert.strictEqual(vi.getTimerCount(), 0)
      vi.advanceTimersByTime(3 * patienceMillis)
      assert.strictEqual(state.probes, 0)
      channel.close()
      assert.isTrue(state.closed)
    } finally {
      vi.useRealTimers()
    }
  })
})
