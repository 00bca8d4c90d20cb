/**
 * Tells a server that hangs from one that has much to do: both take calls and are silent, but the first does not even
 * answer a call that costs it nothing. Without it every call to a stopped process waits for its own deadline, one after
 * the other.
 *
 * HTTP/2's pings would say the same, but servers end connections on which they come often.
 */
import type { PulseOptions } from "../GrpcConnection.ts"
import { type Cancellable, type Channel, codeNumbers, type Settle, type Status } from "./channel.ts"
import * as Wire from "./wire.ts"

interface Pending extends Cancellable {
  readonly settle: Settle
}

const emptyMessage = Buffer.alloc(0)

/**
 * The channel, on which unary calls that have a deadline fail with UNAVAILABLE when the server hangs: those under way as
 * soon as that is known, others at once, until it answers again. Calls without a deadline wait on: what they wait for may
 * come when the server goes on.
 */
export const withPulse = (channel: Channel, { method, patienceMillis, retryMillis }: PulseOptions): Channel => {
  const path = Wire.path(method)
  const pending = new Set<Pending>()
  let hangs = false
  let probe: Cancellable | undefined
  let next: NodeJS.Timeout | undefined

  const silence = (): Status => ({
    code: codeNumbers.unavailable,
    details: `the server hangs: it has not answered for ${patienceMillis / 1000} s`
  })

  const ask = (): void => {
    if (probe !== undefined) return
    clearTimeout(next)
    probe = channel.unary({ path, headers: {}, deadline: Date.now() + patienceMillis }, emptyMessage, (failure) => {
      probe = undefined
      // a connection that breaks fails its calls by itself
      hangs = failure?.code === codeNumbers.deadlineExceeded
      if (!hangs) return
      for (const { cancel, settle } of pending) {
        settle(silence())
        cancel()
      }
      next = setTimeout(ask, retryMillis)
      next.unref()
    })
  }

  return {
    ...channel,
    unary: (opening, message, settle) => {
      if (opening.deadline === undefined) return channel.unary(opening, message, settle)
      if (hangs) {
        settle(silence())
        return { cancel: () => {} }
      }
      const doubt = setInterval(ask, patienceMillis)
      doubt.unref()
      /** Whether it was still under way: a call ends once. */
      const leave = (): boolean => {
        clearInterval(doubt)
        return pending.delete(entry)
      }
      const entry: Pending = {
        cancel: () => {
          leave()
          call.cancel()
        },
        settle: (failure, response) => {
          if (leave()) settle(failure, response)
        }
      }
      pending.add(entry)
      const call = channel.unary(opening, message, entry.settle)
      return entry
    },
    close: () => {
      clearTimeout(next)
      channel.close()
    }
  }
}
