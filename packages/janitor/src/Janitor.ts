/**
 * The collector of a node: whatever belongs to nobody there is found, confirmed and removed, at a bounded pace.
 *
 * It is the last resort. Agents and controllers clean up behind themselves; the janitor is for what their deaths leave.
 * Evidence comes first, deletion second, and a question that nobody answers is never a reason to delete.
 */
import type { ContainerdError } from "@fast-sandbox/containerd/ContainerdError"
import type { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Findings from "./Findings.ts"
import * as Inventory from "./Inventory.ts"
import * as Metrics from "./Metrics.ts"
import * as Removal from "./Removal.ts"
import * as Witness from "./Witness.ts"

/** Options of {@link Janitor.layer}. */
export interface JanitorOptions {
  /** The node that is looked after, as Pods name it. */
  readonly nodeName: string
  /** Where things of ours are on the node. */
  readonly places: Inventory.Places
  /** `report`: say what would be removed and why, remove nothing. */
  readonly mode: "remove" | "report"
}

/** Time between two scans. Pods that go cause one at once. */
export const scanInterval = Duration.minutes(2)

/** A Pod that goes seldom goes alone, and its agent may still be cleaning up. */
const settleTime = Duration.seconds(2)

/** How long the first scan waits for the API before it reports that everything is spared. */
const firstAnswerWithin = Duration.seconds(10)

/** Removals of one scan; the rest is for the next. Whatever goes wrong goes wrong slowly enough to be noticed. */
export const maxRemovalsPerScan = 200

/** Time between two removals: each costs what a delete costs, and sandboxes start meanwhile. */
const removalPace = Duration.millis(50)

const nanosPerMilli = 1_000_000n

/** What one scan did. */
export interface Report {
  readonly findings: ReadonlyArray<Findings.Finding>
  readonly removed: ReadonlyArray<Findings.Finding>
  /** Spared by the last look before the removal. */
  readonly spared: ReadonlyArray<Findings.Finding>
  readonly failed: ReadonlyArray<Removal.RemovalFailed>
}

/** What is needed. */
export type Requirements = KubeClient | Inventory.Requirements | Removal.Requirements

/**
 * - `plan` looks and judges, and says what would be removed now, later or never, and why. It changes nothing, not even
 *   what the janitor remembers.
 * - `sweep` scans now, as the layer does by itself every two minutes.
 * - `unanswered` says why the Kubernetes API gives no evidence at the moment; undefined while it does.
 */
export class Janitor extends Context.Service<Janitor, {
  readonly plan: Effect.Effect<ReadonlyArray<Findings.Finding>, ContainerdError>
  readonly sweep: Effect.Effect<Report, ContainerdError>
  readonly unanswered: Effect.Effect<string | undefined>
}>()("@fast-sandbox/janitor/Janitor") {
  /** Scans in the background for the life of the layer. */
  static readonly layer = (options: JanitorOptions): Layer.Layer<Janitor, never, Requirements> =>
    Layer.effect(Janitor, Effect.tap(make(options), runForever))

  /** Scans only when told to. */
  static readonly layerManual = (options: JanitorOptions): Layer.Layer<Janitor, never, Requirements> =>
    Layer.effect(Janitor, make(options))
}

interface Running {
  /** Done at the next time a Pod was seen going. */
  readonly podGone: Effect.Effect<void>
  readonly synced: Effect.Effect<void>
}

const annotationsOf = ({ agent, cause, evidence, kind, sandbox, subject }: Findings.Suspicion) => ({
  kind,
  subject,
  cause,
  evidence,
  ...(agent === undefined ? {} : { agent: agent.name, agentUid: agent.uid }),
  ...(sandbox === undefined ? {} : { sandbox: `${sandbox.namespace}/${sandbox.name}` })
})

const make = Effect.fnUntraced(function*(
  options: JanitorOptions
): Effect.fn.Return<Janitor["Service"] & Running, never, Requirements | Scope.Scope> {
  const { mode, places } = options
  const context = yield* Effect.context<Inventory.Requirements | Removal.Requirements>()
  const wake = yield* Queue.sliding<void>(1)
  const witness = yield* Witness.make({
    nodeName: options.nodeName,
    onPodGone: Effect.asVoid(Queue.offer(wake, undefined))
  })
  const seen = yield* Ref.make<Findings.Seen>(new Map())
  const oneAtATime = yield* Semaphore.make(1)

  const judge = Effect.fn("Janitor.judge")(function*() {
    const node = yield* Inventory.look(places)
    return Findings.decide({
      node,
      api: yield* witness.state,
      seen: yield* Ref.get(seen),
      nowMillis: yield* Clock.currentTimeMillis,
      monotonicMillis: Number((yield* Clock.monotonicTimeNanos) / nanosPerMilli)
    })
  })

  /** Whether the suspicion holds at this moment, by the node and by the API itself. */
  const holds = Effect.fnUntraced(function*(suspicion: Findings.Suspicion) {
    const node = yield* Inventory.lookAgain(places, suspicion)
    const api = yield* witness.confirm(suspicion)
    const key = Findings.keyOf(suspicion)
    return api._tag === "Answered" &&
      Findings.suspicions(node, api, yield* Clock.currentTimeMillis).some((again) => Findings.keyOf(again) === key)
  })

  const removeOne = Effect.fn("Janitor.remove")(function*(finding: Findings.Finding) {
    const isSo = yield* holds(finding).pipe(
      Effect.catch((error) => Effect.as(Effect.logWarning("spared, because nobody answered", error.message), false))
    )
    if (!isSo) {
      yield* Metric.update(Metric.withAttributes(Metrics.spared, { kind: finding.kind }), 1)
      yield* Effect.logInfo("spared: the evidence did not hold")
      return { outcome: "spared", finding } as const
    }
    const result = yield* Effect.result(Removal.run(places, finding))
    if (result._tag === "Failure") {
      yield* Metric.update(Metric.withAttributes(Metrics.failed, { kind: finding.kind }), 1)
      yield* Effect.logWarning("not removed", result.failure.message)
      return { outcome: "failed", error: result.failure } as const
    }
    yield* Metric.update(Metric.withAttributes(Metrics.removed, { kind: finding.kind }), 1)
    yield* Effect.logInfo("removed")
    return { outcome: "removed", finding } as const
  }, (self, finding) => Effect.annotateLogs(self, annotationsOf(finding)))

  const measure = Effect.fnUntraced(function*(findings: ReadonlyArray<Findings.Finding>) {
    for (const kind of Findings.kinds) {
      for (const verdict of ["remove", "wait", "spare"] as const) {
        const count = findings.filter((finding) => finding.kind === kind && finding.verdict === verdict).length
        yield* Metric.update(Metric.withAttributes(Metrics.findings, { kind, verdict }), count)
      }
    }
  })

  const tellOne = (finding: Findings.Finding) =>
    (mode === "report"
      ? Effect.logInfo(`would ${finding.verdict}`)
      : finding.verdict === "wait"
      ? Effect.logInfo("waits for another look")
      : Effect.logDebug(finding.verdict)).pipe(Effect.annotateLogs(annotationsOf(finding)))

  const tell = (findings: ReadonlyArray<Findings.Finding>) => {
    const unanswered = findings.filter(({ cause }) => cause === "Unanswered")
    return unanswered[0] === undefined
      ? Effect.forEach(findings, tellOne, { discard: true })
      : Effect.logWarning("everything is spared", { things: unanswered.length, evidence: unanswered[0].evidence })
  }

  const sweep = Effect.fn("Janitor.sweep")(function*() {
    const [duration, judged] = yield* Effect.timed(judge())
    const { findings } = judged
    yield* Ref.set(seen, judged.seen)
    yield* witness.forget(new Set(findings.map(({ agent }) => agent?.uid ?? "")))
    yield* Metric.update(Metrics.scanDuration, Duration.toSeconds(duration))
    yield* measure(findings)
    yield* tell(findings)
    const due = mode === "report" ? [] : findings.filter(({ verdict }) => verdict === "remove")
    const outcomes = yield* Effect.forEach(
      due.slice(0, maxRemovalsPerScan),
      (finding) => Effect.tap(removeOne(finding), () => Effect.sleep(removalPace))
    )
    return {
      findings,
      removed: outcomes.flatMap((one) => one.outcome === "removed" ? [one.finding] : []),
      spared: outcomes.flatMap((one) => one.outcome === "spared" ? [one.finding] : []),
      failed: outcomes.flatMap((one) => one.outcome === "failed" ? [one.error] : [])
    }
  })

  return {
    plan: Effect.map(judge(), ({ findings }) => findings).pipe(Effect.provideContext(context)),
    sweep: oneAtATime.withPermits(1)(sweep()).pipe(Effect.provideContext(context)),
    unanswered: Effect.map(witness.state, (api) => api._tag === "Unanswered" ? api.problem : undefined),
    podGone: Queue.take(wake),
    synced: witness.synced
  }
})

/** A scan that fails is logged and comes again; containerd may be restarting. */
const runForever = Effect.fnUntraced(function*({ podGone, sweep, synced }: Janitor["Service"] & Running) {
  const scan = sweep.pipe(
    Effect.catchCause((cause) =>
      Cause.hasInterruptsOnly(cause)
        ? Effect.failCause(cause)
        : Effect.logError("the scan failed, nothing was removed", Cause.pretty(cause))
    ),
    Effect.asVoid,
    Effect.orDie
  )
  yield* Effect.timeoutOption(synced, firstAnswerWithin).pipe(
    Effect.andThen(
      Effect.forever(
        Effect.andThen(
          scan,
          Effect.raceFirst(Effect.sleep(scanInterval), Effect.andThen(podGone, Effect.sleep(settleTime)))
        )
      )
    ),
    Effect.forkScoped
  )
})
