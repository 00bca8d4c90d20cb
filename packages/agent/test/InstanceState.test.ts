import { assert, describe, it } from "@effect/vitest"
import { isLegal, outcome } from "@fast-sandbox/agent/InstanceState"
import * as StopSignal from "@fast-sandbox/agent/StopSignal"
import { InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"

const { CREATING, EXITED, RUNNING, STOPPING } = InstanceState

describe("InstanceState", () => {
  it("goes forward only", () => {
    const order = [CREATING, RUNNING, STOPPING, EXITED]
    const legal = order.flatMap((from, at) =>
      order.flatMap((to, then) => isLegal(from, to) ? [[at, then] as const] : [])
    )
    assert.isTrue(legal.every(([from, to]) => from <= to))
    assert.isFalse(isLegal(CREATING, EXITED))
    assert.isTrue(isLegal(RUNNING, EXITED))
    assert.isTrue(order.every((state) => isLegal(state, state)))
  })

  it.each(
    [
      [{ exitCode: 0, wasStopped: false, oomKills: 0, isOverDisk: false }, "Completed", 0],
      [{ exitCode: 3, wasStopped: false, oomKills: 0, isOverDisk: false }, "Error", 0],
      [{ exitCode: 137, wasStopped: false, oomKills: 0, isOverDisk: false }, "Error", 9],
      [{ exitCode: 137, wasStopped: true, oomKills: 0, isOverDisk: false }, "Stopped", 9],
      [{ exitCode: 0, wasStopped: true, oomKills: 0, isOverDisk: false }, "Stopped", 0],
      [{ exitCode: 137, wasStopped: false, oomKills: 1, isOverDisk: false }, "OOMKilled", 9],
      [{ exitCode: 137, wasStopped: false, oomKills: 0, isOverDisk: true }, "DiskExceeded", 9],
      [{ exitCode: 0, wasStopped: false, oomKills: 2, isOverDisk: false }, "Completed", 0],
      [{ exitCode: undefined, wasStopped: false, oomKills: 0, isOverDisk: false }, "Error", 0],
      [{ exitCode: undefined, wasStopped: true, oomKills: 0, isOverDisk: false }, "Stopped", 0]
    ] as const
  )("tells the end %j as %s", (ending, reason, signal) => {
    const told = outcome(ending)
    assert.deepStrictEqual([told.reason, told.signal, told.exitCode], [reason, signal, ending.exitCode])
  })
})

describe("StopSignal", () => {
  it.each([
    ["", 15],
    ["SIGQUIT", 3],
    ["quit", 3],
    ["9", 9],
    ["SIGRTMIN+3", 37],
    ["RTMAX-1", 63],
    ["nonsense", 15],
    ["0", 15],
    ["999", 15]
  ])("%j is %i", (text, number) => assert.strictEqual(StopSignal.parse(text), number))
})
