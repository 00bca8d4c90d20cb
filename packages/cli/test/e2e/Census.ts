/**
 * Holds a test file to leaving the machine as it was.
 */
import { NodeServices } from "@effect/platform-node"
import * as MachineCensus from "@fast-sandbox/testkit/MachineCensus"
import { Effect } from "effect"
import { afterAll, beforeAll, expect } from "vitest"

const take = () => Effect.runPromise(MachineCensus.take.pipe(Effect.provide(NodeServices.layer)))

/** To be called before the stack's own layer, so that the count after it comes after the stack's release. */
export const leavesNothing = (): void => {
  let before = MachineCensus.empty
  beforeAll(async () => {
    before = await take()
  })
  afterAll(async () => {
    expect(MachineCensus.added(before, await take())).toEqual(MachineCensus.empty)
  })
}
