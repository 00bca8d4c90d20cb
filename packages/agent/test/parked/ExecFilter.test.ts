import { assert, describe, it } from "@effect/vitest"
import * as ExecFilter from "@fast-sandbox/agent/parked/ExecFilter"

const allow = 0x7fff_0000
const refuse = 0x0005_0001

/** A filter that lets everything through. */
const open = Buffer.from([0x06, 0, 0, 0, 0, 0, 0xff, 0x7f])

/** What a filter says to a call, as the kernel would compute it. */
const verdict = (filter: Buffer, call: number, architecture: number): number => {
  let value = 0
  for (let at = 0; at < filter.length; at += 8) {
    const [code, ifTrue, ifFalse, k] = [
      filter.readUInt16LE(at),
      filter.readUInt8(at + 2),
      filter.readUInt8(at + 3),
      filter.readUInt32LE(at + 4)
    ]
    if (code === 0x06) return k
    if (code === 0x20) value = k === 0 ? call : architecture
    else at += 8 * (value === k ? ifTrue : ifFalse)
  }
  return -1
}

describe("ExecFilter", () => {
  it.each([["x64", 0xc000_003e, 166, 170], ["arm64", 0xc000_00b7, 39, 161]] as const)(
    "refuses what only init needed, and leaves the rest to the filter: %s",
    (architecture, audit, umount2, sethostname) => {
      const filter = ExecFilter.closed(open, architecture)
      for (let call = 0; call < 500; call++) {
        const isRefused = call === umount2 || call === sethostname
        assert.strictEqual(verdict(filter, call, audit), isRefused ? refuse : allow, String(call))
        assert.strictEqual(verdict(filter, call, audit + 1), allow)
      }
    }
  )
})
