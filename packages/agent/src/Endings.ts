/**
 * How instances end: by themselves, because somebody asked, or because their start failed. Whatever the way, a slot
 * comes back only when task, snapshot and cgroup are proven gone; what can't be removed is tried again for as long as
 * the agent runs.
 */
import { timestampFromMs } from "@bufbuild/protobuf/wkt"
import type { ContainerdError } from "@fast-sandbox/containerd/ContainerdError"
import type { Unavailable } from "@fast-sandbox/core/Errors"
import { type Instance, InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import { type Entry, Instances, type ProgramExit } from "./Instances.ts"
import { type Outcome, outcome } from "./InstanceState.ts"
import * as Metrics from "./Metrics.ts"
import { LeftBehind, SandboxContainer } from "./SandboxContainer.ts"
import { Slots } from "./Slots.ts"

/** After SIGKILL the kernel needs milliseconds; longer than this, an event must have been lost. */
const killNotice = "2 seconds"

/** A program that ends faster than this after its stop signal is not worth a note that it was asked to. */
const promptEnd = Duration.millis(100)

/** 250 ms, 500 ms ... capped at 10 s: soon for a containerd that restarts, seldom for what really stays. */
const stuckPolicy = Schedule.min([Schedule.exponential("250 millis"), Schedule.spaced("10 seconds")])

/** 100 ms, 200 ms ... capped at 2 s, until a containerd that is restarting answers again. */
const signalPolicy = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")])

/** For requests without one; the contract's default. */
const defaultGraceSeconds = 10

/**
 * - `follow` watches over a running instance until it is EXITED; once for each.
 * - `halt` ends a running instance and answers when its slot is back; UNAVAILABLE when something is left for now.
 * - `resume` goes on with an end that an earlier life of the agent began.
 * - `unmake` takes back a start, in whatever state it is; the instance is forgotten when nothing of it is left.
 *   `hasContainer` says whether anything was made in containerd.
 */
export class Endings extends Context.Service<Endings, {
  readonly follow: (entry: Entry) => Effect.Effect<void>
  readonly halt: (entry: Entry, graceSeconds: number | undefined) => Effect.Effect<void, Unavailable>
  readonly resume: (entry: Entry) => Effect.Effect<void>
  readonly unmake: (entry: Entry, hasContainer: boolean) => Effect.Effect<void>
}>()("@fast-sandbox/agent/Endings") {
  static readonly layer: Layer.Layer<Endings, never, Instances | SandboxContainer | Slots> = Layer.effect(
    Endings,
    Effect.suspend(() => make)
  )
}

/** An instance after its end. */
const ended = ({ exitCode, message, reason, signal }: Outcome, exit: ProgramExit) => (instance: Instance): Instance => {
  const { exitCode: _, ...rest } = instance
  return {
    ...rest,
    state: InstanceState.EXITED,
    reason,
    message,
    signal,
    finishedAt: timestampFromMs(exit.atMillis),
    ...(exitCode === undefined ? {} : { exitCode })
  }
}

const exited = (entry: Entry, within: Duration.Input): Effect.Effect<boolean> =>
  Deferred.await(entry.exit).pipe(Effect.timeoutOption(within), Effect.map(Option.isSome))

const make = Effect.gen(function*() {
  const instances = yield* Instances
  const sandboxes = yield* SandboxContainer
  const slots = yield* Slots
  const scope = yield* Effect.scope

  const complain = (entry: Entry) => (error: LeftBehind) =>
    Effect.suspend(() => {
      const { stuck } = entry
      entry.stuck = Deferred.makeUnsafe()
      instances.update(entry, { state: InstanceState.STOPPING, message: error.message })
      return Effect.logError("an instance leaves something behind", { instance: entry.id }, error.message).pipe(
        Effect.andThen(Deferred.fail(stuck, error.boundary))
      )
    })

  /** Removes until it is proven gone; those who wait are told after each failed attempt. */
  const persist = (entry: Entry, removal: Effect.Effect<void, LeftBehind>): Effect.Effect<void> =>
    removal.pipe(Effect.tapError(complain(entry)), Effect.retry(stuckPolicy), Effect.orDie)

  // The record learns of the end before the task is deleted, because with the task containerd forgets the exit code. A
  // sandbox that is being deleted needs no record.
  const supervise = Effect.fnUntraced(function*(entry: Entry) {
    const exit = yield* Deferred.await(entry.exit)
    const oomKills = Math.max(entry.oomKills, yield* sandboxes.oomKills(entry.containerId))
    const told = outcome({
      exitCode: exit.exitCode,
      wasStopped: entry.isStopRequested,
      oomKills,
      isOverDisk: entry.isOverDisk
    })
    entry.asRecorded = ended(told, exit)
    const record = Effect.suspend(() => entry.isDeleting ? Effect.void : instances.save(entry)).pipe(
      Effect.mapError((error) =>
        new LeftBehind({ containerId: entry.containerId, what: "record", problem: error.message })
      )
    )
    yield* persist(entry, Effect.andThen(record, sandboxes.reclaim(entry.containerId)))
    yield* slots.release(entry.id)
    instances.update(entry, entry.asRecorded(entry.instance))
    yield* Metric.update(Metric.withAttributes(Metrics.ends, { reason: told.reason }), 1)
    yield* Deferred.succeed(entry.ended, undefined)
  })

  /** Finds out by itself whether a program has ended, where an event may have been missed. */
  const lookAt = Effect.fnUntraced(function*(entry: Entry) {
    const { exitCode, exitedAtMillis, status } = yield* sandboxes.observe(entry.containerId)
    if (status === "stopped") {
      yield* Deferred.succeed(entry.exit, { exitCode, atMillis: exitedAtMillis })
    } else if (status === "absent") {
      yield* Deferred.succeed(entry.exit, { exitCode: undefined, atMillis: yield* Clock.currentTimeMillis })
    }
  })

  const askToEnd = Effect.fnUntraced(function*(entry: Entry, grace: Duration.Duration) {
    if (!entry.isSignalled) {
      entry.isSignalled = true
      yield* sandboxes.signal(entry.containerId, entry.stopSignal).pipe(
        Effect.tapError(() =>
          Effect.sync(() => {
            entry.isSignalled = false
          })
        )
      )
    }
    const first = Duration.min(grace, promptEnd)
    if (yield* exited(entry, first)) {
      return
    }
    // An agent that is killed meanwhile goes on from here.
    yield* Effect.ignore(instances.save(entry), { log: "Warn" })
    yield* exited(entry, Duration.subtract(grace, first))
  })

  const killAndWait = (entry: Entry): Effect.Effect<void, ContainerdError> =>
    sandboxes.kill(entry.containerId).pipe(
      Effect.andThen(exited(entry, killNotice)),
      Effect.flatMap((isOver) => isOver ? Effect.void : Effect.andThen(lookAt(entry), killAndWait(entry)))
    )

  /** Stop signal, grace period, SIGKILL. The shortest grace period wins when several ask. */
  const end = Effect.fn("Endings.end")((entry: Entry, graceSeconds: number | undefined) =>
    Effect.gen(function*() {
      entry.isStopRequested = true
      if (entry.instance.state === InstanceState.RUNNING) {
        instances.update(entry, { state: InstanceState.STOPPING })
      }
      const grace = Duration.seconds(
        graceSeconds ?? entry.instance.spec?.terminationGracePeriodSeconds ?? defaultGraceSeconds
      )
      if (Duration.toMillis(grace) > 0) {
        yield* askToEnd(entry, grace)
      }
      if (!(yield* Deferred.isDone(entry.exit))) {
        yield* killAndWait(entry)
      }
    }).pipe(
      Effect.tapError((error) =>
        Effect.logWarning("an instance could not be signalled", { instance: entry.id }, error.message)
      ),
      Effect.retry(signalPolicy),
      Effect.orDie
    )
  )

  const unmake = (entry: Entry, hasContainer: boolean): Effect.Effect<void> => {
    const remove = hasContainer
      ? Effect.andThen(sandboxes.reclaim(entry.containerId), sandboxes.forget(entry.containerId))
      : Effect.void
    const close = slots.release(entry.id).pipe(
      Effect.andThen(Effect.sync(() => instances.forget(entry))),
      Effect.andThen(Deferred.succeed(entry.ended, undefined)),
      Effect.asVoid
    )
    return remove.pipe(
      Effect.andThen(close),
      Effect.catch((error) =>
        complain(entry)(error).pipe(
          Effect.andThen(Effect.forkIn(Effect.andThen(persist(entry, remove), close), scope)),
          Effect.asVoid
        )
      )
    )
  }

  return Endings.of({
    follow: (entry) => Effect.asVoid(Effect.forkIn(supervise(entry), scope, { startImmediately: true })),
    halt: Effect.fn("Endings.halt")(function*(entry, graceSeconds) {
      if (entry.instance.state !== InstanceState.EXITED) {
        // The attempt to clear up that counts is the next one, however early it fails.
        const { stuck } = entry
        // The slot may be back before the signals are through, by somebody else's shorter grace period.
        yield* Effect.raceFirst(end(entry, graceSeconds), Deferred.await(entry.ended))
        yield* Effect.raceFirst(Deferred.await(entry.ended), Deferred.await(stuck))
      }
    }),
    resume: (entry) => Effect.asVoid(Effect.forkIn(end(entry, undefined), scope)),
    unmake
  })
})
