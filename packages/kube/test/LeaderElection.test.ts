import { assert, describe, it } from "@effect/vitest"
import type { Lease } from "@fast-sandbox/kube/Kinds"
import { Conflict, KubeError, type KubeErrorReason, Unavailable } from "@fast-sandbox/kube/KubeError"
import type { Draft } from "@fast-sandbox/kube/KubeObject"
import * as LeaderElection from "@fast-sandbox/kube/LeaderElection"
import { Clock, Effect, Exit, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"

const failure = (reason: KubeErrorReason) => new KubeError({ method: "PUT", path: "leases", reason })

/** A server that keeps one Lease, and the ways in which candidates reach it. */
const makeServer = () => {
  let lease: Lease | undefined
  let version = 0
  const write = (draft: Draft<Lease>) => {
    lease = {
      ...draft,
      metadata: { name: "l", uid: "u", creationTimestamp: "", resourceVersion: String(++version) }
    }
  }
  return {
    lease: () => lease,
    holder: () => lease?.spec?.holderIdentity ?? "",
    /** A candidate's way to the server. */
    link: () => {
      const link = {
        partitioned: false,
        requestMillis: 0,
        responseMillis: 0,
        calls: 0
      }
      const call = <A>(work: Effect.Effect<A, KubeError>): Effect.Effect<A, KubeError> =>
        Effect.suspend(() => {
          link.calls++
          return link.partitioned
            ? Effect.fail(failure(new Unavailable({ problem: "partitioned", sent: false })))
            : Effect.sleep(link.requestMillis).pipe(
              Effect.andThen(work),
              Effect.tap(() => Effect.sleep(link.responseMillis))
            )
        })
      const store: LeaderElection.LeaseStore = {
        get: call(Effect.sync(() => Option.fromUndefinedOr(lease))),
        create: (draft) =>
          call(Effect.suspend(() =>
            lease === undefined
              ? Effect.sync(() => write(draft))
              : Effect.fail(failure(new Conflict({ problem: "exists" })))
          )),
        update: (changed) =>
          call(Effect.suspend(() =>
            changed.metadata.resourceVersion === String(version)
              ? Effect.sync(() => write(changed))
              : Effect.fail(failure(new Conflict({ problem: "changed" })))
          ))
      }
      return Object.assign(link, { store })
    }
  }
}

const world = () => {
  const server = makeServer()
  const log: Array<string> = []
  let leaders = 0
  const note = (what: string) => Effect.map(Clock.currentTimeMillis, (now) => void log.push(`${what}@${now / 1000}`))
  const candidate = (identity: string, finalizerSeconds = 0) => {
    const link = server.link()
    const lead = LeaderElection.runOn(link.store, { name: "l", namespace: "n", identity })(
      Effect.acquireUseRelease(
        Effect.andThen(note(`+${identity}`), Effect.sync(() => assert.strictEqual(++leaders, 1))),
        () => Effect.never,
        () =>
          Effect.sleep(`${finalizerSeconds} seconds`).pipe(
            Effect.andThen(Effect.sync(() => leaders--)),
            Effect.andThen(note(`-${identity}`))
          )
      )
    )
    return { link, lead }
  }
  return { server, log, candidate, note }
}

describe("LeaderElection", () => {
  it.effect("one leads, the other waits, and takes over when the first lets go", () =>
    Effect.gen(function*() {
      const { candidate, log, server } = world()
      const a = candidate("a")
      const b = candidate("b")
      const first = yield* Effect.forkChild(a.lead)
      yield* TestClock.adjust(0)
      yield* Effect.forkChild(b.lead)
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(log, ["+a@0"])
      assert.strictEqual(server.lease()?.spec?.leaseTransitions, 0)
      yield* Fiber.interrupt(first)
      assert.strictEqual(server.holder(), "")
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(log.slice(0, 2), ["+a@0", "-a@600"])
      assert.match(log[2] ?? "", /^\+b@60[0-3]/)
      assert.strictEqual(server.holder(), "b")
      assert.strictEqual(server.lease()?.spec?.leaseTransitions, 1)
    }))

  it.effect("a leader that can't renew stops at its deadline, before another starts", () =>
    Effect.gen(function*() {
      const { candidate, log } = world()
      const a = candidate("a", 4)
      const b = candidate("b")
      yield* Effect.forkChild(a.lead)
      yield* TestClock.adjust(0)
      yield* Effect.forkChild(b.lead)
      yield* TestClock.adjust("60 seconds")
      a.link.partitioned = true
      yield* TestClock.adjust("40 seconds")
      // The last renewal was at 60 s: a is interrupted at 70 s and done at 74 s, b may start from 75 s on.
      assert.deepStrictEqual(log.slice(0, 2), ["+a@0", "-a@74"])
      const started = Number(/^\+b@(.*)$/.exec(log[2] ?? "")?.[1])
      assert.isAtLeast(started, 75)
      assert.isAtMost(started, 80)
    }))

  it.effect("stands again after a partition, and leads once the other is gone", () =>
    Effect.gen(function*() {
      const { candidate, log } = world()
      const a = candidate("a")
      const b = candidate("b")
      yield* Effect.forkChild(a.lead)
      yield* TestClock.adjust("10 seconds")
      a.link.partitioned = true
      const second = yield* Effect.forkChild(b.lead)
      yield* TestClock.adjust("60 seconds")
      a.link.partitioned = false
      yield* TestClock.adjust("60 seconds")
      yield* Fiber.interrupt(second)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(log.map((entry) => entry.slice(0, 2)), ["+a", "-a", "+b", "-b", "+a"])
    }))

  it.effect("a slow server does not cost the lease while it answers in time", () =>
    Effect.gen(function*() {
      const { candidate, log } = world()
      const a = candidate("a")
      a.link.requestMillis = 1000
      a.link.responseMillis = 1000
      const b = candidate("b")
      yield* Effect.forkChild(a.lead)
      yield* TestClock.adjust("10 seconds")
      yield* Effect.forkChild(b.lead)
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(log.length, 1)
      a.link.requestMillis = a.link.responseMillis = 0
    }))

  it.effect("counts from before a renewal was sent, however late the answer comes", () =>
    Effect.gen(function*() {
      const { candidate, log } = world()
      const a = candidate("a")
      const b = candidate("b")
      yield* Effect.forkChild(a.lead)
      yield* TestClock.adjust("1 seconds")
      yield* Effect.forkChild(b.lead)
      // From the next renewal on each call takes 2.4 s, nearly all of it on the way back.
      a.link.responseMillis = 2400
      yield* TestClock.adjust("30 seconds")
      a.link.partitioned = true
      yield* TestClock.adjust("60 seconds")
      assert.deepStrictEqual(log.map((entry) => entry.slice(0, 2)), ["+a", "-a", "+b"])
    }))

  it.effect("two that start together: one wins", () =>
    Effect.gen(function*() {
      const { candidate, log } = world()
      const all = ["a", "b", "c", "d"].map((identity) => candidate(identity))
      for (const { lead, link } of all) {
        link.requestMillis = 10
        yield* Effect.forkChild(lead)
      }
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(log.length, 1)
      for (const { link } of all) {
        link.requestMillis = 0
      }
    }))

  it.effect("keeps the lease until the finalizers of an interrupted leader are done", () =>
    Effect.gen(function*() {
      const { candidate, log } = world()
      const a = candidate("a", 60)
      const b = candidate("b")
      const first = yield* Effect.forkChild(a.lead)
      yield* TestClock.adjust("1 seconds")
      yield* Effect.forkChild(b.lead)
      yield* TestClock.adjust("9 seconds")
      yield* Effect.forkChild(Fiber.interrupt(first))
      yield* TestClock.adjust("80 seconds")
      assert.deepStrictEqual(log.slice(0, 2), ["+a@0", "-a@70"])
      assert.match(log[2] ?? "", /^\+b@7[0-3]/)
    }))

  it.effect("hands through what the effect ends with, and releases", () =>
    Effect.gen(function*() {
      const { server } = world()
      const run = LeaderElection.runOn(server.link().store, { name: "l", namespace: "n", identity: "a" })
      assert.strictEqual(yield* run(Effect.succeed(7)), 7)
      assert.strictEqual(server.holder(), "")
      assert.strictEqual(yield* Effect.flip(run(Effect.fail("no"))), "no")
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(server.holder(), "")
    }))

  it.effect("stops at once when another took the lease by force", () =>
    Effect.gen(function*() {
      const { candidate, log, server } = world()
      const a = candidate("a")
      yield* Effect.forkChild(a.lead)
      yield* TestClock.adjust("1 seconds")
      const link = server.link()
      const lease = Option.getOrThrow(yield* link.store.get)
      yield* link.store.update({ ...lease, spec: { ...lease.spec, holderIdentity: "usurper" } })
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(log, ["+a@0", "-a@2"])
    }))

  it.effect("refuses durations that can't be safe", () =>
    Effect.gen(function*() {
      const { server } = world()
      const exit = yield* Effect.exit(
        LeaderElection.runOn(server.link().store, {
          name: "l",
          namespace: "n",
          identity: "a",
          leaseDuration: "5 seconds"
        })(Effect.void)
      )
      assert.isTrue(Exit.isFailure(exit))
    }))
})
