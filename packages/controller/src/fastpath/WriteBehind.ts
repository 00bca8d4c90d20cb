/**
 * Writes the resources of sandboxes that exist already: those that fast creates have answered, and those that are found
 * on agents without a resource after the controller that created them ended. Both are the same work, because the agent
 * keeps the whole manifest; it can be interrupted between any two lines and done again by any controller.
 *
 * A resource that can't be written for good ends its instance at once; the reason is an Event and a line in the log.
 */
import { timestampMs } from "@bufbuild/protobuf/wkt"
import * as Assignment from "@fast-sandbox/core/Assignment"
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import { type Phase, Sandbox } from "@fast-sandbox/core/Sandbox"
import { Traffic } from "@fast-sandbox/core/Traffic"
import { type Instance, InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Backoff from "@fast-sandbox/kube/Backoff"
import { EventRecorder } from "@fast-sandbox/kube/EventRecorder"
import * as Kinds from "@fast-sandbox/kube/FastSandbox"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { KubeError } from "@fast-sandbox/kube/KubeError"
import * as WorkQueue from "@fast-sandbox/kube/WorkQueue"
import * as Instruments from "@fast-sandbox/telemetry/Instruments"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Agents, type AgentView } from "../agents/Agents.ts"
import { isFinal } from "../KubeFailure.ts"
import { Directory, type Unwritten } from "./Directory.ts"
import * as FirstStatus from "./FirstStatus.ts"
import { Placement } from "./Placement.ts"
import { SandboxLocks } from "./SandboxLocks.ts"

/** Writes that are under way at once: enough to hide the API's latency, few enough not to be throttled. */
const workers = 32

/** Sandboxes that may wait for their resource. Beyond it fast creates are refused, so that memory stays bounded. */
export const maxBacklog = 10_000

/** How long the controller that created an instance has for writing its resource before any other one does it. */
const adoptionGrace = Duration.seconds(3)

/**
 * How long writes wait for creates that are under way. A burst is answered first, since a write to an API server of the
 * same process takes as much of it as a create; where there is no end of creates, the writes go on beside them.
 */
const patience = Duration.millis(250)

/** Between two tries: an API server that restarts is back within seconds. */
const backoff = Backoff.exponential({ name: "write-behind", base: "100 millis", cap: "5 seconds" })

/** The API has another sandbox under this name that is still being deleted. */
class NameInDeletion extends Schema.TaggedError<NameInDeletion>()("NameInDeletion", { name: Schema.String }) {}

const depthGauge = Instruments.gauge("fsb_write_behind_depth", "Sandboxes whose resource is to be written")
const ageGauge = Instruments.gauge(
  "fsb_write_behind_oldest_seconds",
  "Age of the oldest sandbox whose resource is to be written"
)
const writtenCounter = Instruments.counter("fsb_write_behind_total", "Resources written behind an answer, by outcome")

/** Writes resources behind the answers. */
export class WriteBehind extends Context.Service<WriteBehind, {
  /** Writes it when its answer is on its way and no create is waited for, or somewhat later. */
  enqueue(unwritten: Unwritten): Effect.Effect<void>
  /** Writes it now, for a caller that holds the sandbox's lock; the resource, or none when it can't be written for good. */
  write(unwritten: Unwritten): Effect.Effect<Option.Option<Sandbox>, KubeError | BoundaryError | NameInDeletion>
}>()("@fast-sandbox/controller/fastpath/WriteBehind") {
  /** Writes until the scope closes; what is left then is on the agents, for the next controller. */
  static get layer(): Layer.Layer<
    WriteBehind,
    never,
    KubeClient | Agents | Directory | Placement | SandboxLocks | EventRecorder | Traffic
  > {
    return Layer.effect(WriteBehind, make)
  }
}

const decodeManifest = Schema.decodeUnknownOption(Schema.fromJsonString(Sandbox))
const decoder = new TextDecoder()

/** Whether an instance waits for its resource. A failed start is no sandbox: its caller was told so. */
const awaitsResource = ({ claim, reason, state }: Instance): boolean =>
  claim !== undefined && claim.resourceUid === "" &&
  (state === InstanceState.RUNNING || state === InstanceState.STOPPING ||
    (state === InstanceState.EXITED && reason !== "StartFailed"))

/** Whether an instance is what is left of a failed create: its caller was told so, and nobody else knows of it. */
const isLeftover = ({ claim, reason, state }: Instance): boolean =>
  claim?.resourceUid === "" && state === InstanceState.EXITED && reason === "StartFailed"

/** What an agent's instance says is to be written; none when its manifest can't be read. */
const unwrittenOf = (agent: AgentView, instance: Instance): Option.Option<Unwritten> =>
  Option.map(decodeManifest(decoder.decode(instance.claim?.manifest)), (manifest) => ({
    manifest,
    assignment: { instanceId: instance.instanceId, pod: agent.pod, podUid: agent.uid, node: agent.node },
    since: instance.createdAt === undefined ? 0 : timestampMs(instance.createdAt),
    acknowledged: false
  }))

/** Phases that only a controller's own deed leads to: the instance's absence is part of it. */
const endedOnPurpose: ReadonlySet<Phase | undefined> = new Set<Phase | undefined>(["Stopping", "Stopped", "Expired"])

/**
 * Whether the resource is still about the instance that it was written for. One that was found written already may have
 * been reset or have recovered since: then the absence of its first instance is no news.
 */
const isUntouched = (resource: Sandbox, { instanceId }: Assignment.Assignment): boolean =>
  (resource.metadata.generation ?? 1) <= 1 && !endedOnPurpose.has(resource.status?.phase) &&
  Option.exists(Assignment.of(resource), (current) => current.instanceId === instanceId)

const separator = "/"

const queueKey = ({ instanceId, podUid }: Pick<Assignment.Assignment, "instanceId" | "podUid">) =>
  `${podUid}${separator}${instanceId}`

const count = (outcome: string) => Metric.update(Metric.withAttributes(writtenCounter, { outcome }), 1)

/** Makes the writer and starts it. */
export const make: Effect.Effect<
  WriteBehind["Service"],
  never,
  KubeClient | Agents | Directory | Placement | SandboxLocks | EventRecorder | Traffic | Scope.Scope
> = Effect.gen(function*() {
  const kube = yield* KubeClient
  const agents = yield* Agents
  const directory = yield* Directory
  const recorder = yield* EventRecorder
  const locks = yield* SandboxLocks
  const placement = yield* Placement
  const traffic = yield* Traffic
  const queue = yield* WorkQueue.make({ name: "write-behind", backoff })

  /** What callers were told, by queue key; bounded by the backlog. */
  const waiting = new Map<string, Unwritten>()

  const instanceOf = ({ instanceId, podUid }: Assignment.Assignment) =>
    Effect.map(
      agents.get(podUid),
      Option.flatMap((agent) =>
        Option.map(Option.fromNullishOr(agent.instances.get(instanceId)), (instance) => ({ agent, instance }))
      )
    )

  /** Ends an instance whose resource will never be, and says why. */
  const reject = Effect.fnUntraced(function*(unwritten: Unwritten, about: Sandbox, reason: string, message: string) {
    const { assignment: { instanceId, podUid }, manifest } = unwritten
    const { name = "", namespace = "" } = manifest.metadata
    yield* Effect.logWarning("a sandbox is ended because its resource can't be written", message).pipe(
      Effect.annotateLogs({ sandbox: `${namespace}/${name}`, instance: instanceId, reason })
    )
    yield* recorder.record(Kinds.Sandbox, about, { type: "Warning", reason, message })
    yield* agents.delete(podUid, instanceId, 0)
    yield* directory.drop(namespace, name, instanceId)
    yield* count("rejected")
    return Option.none<Sandbox>()
  })

  /** Ends an instance whose resource was there and is gone: what was deleted must not come back. */
  const endOver = Effect.fnUntraced(function*({ assignment: { instanceId, podUid }, manifest }: Unwritten) {
    yield* agents.delete(podUid, instanceId)
    const { name = "", namespace = "" } = manifest.metadata
    yield* directory.drop(namespace, name, instanceId)
    yield* count("over")
    return Option.none<Sandbox>()
  })

  /** The resource of this claim: written now, or before. None when the name is another sandbox's, or it was deleted. */
  const place = Effect.fnUntraced(function*(unwritten: Unwritten) {
    const { manifest } = unwritten
    const { name = "", namespace = "" } = manifest.metadata
    if (yield* directory.wasWritten(Assignment.claimUid(manifest))) {
      const existing = yield* kube.get(Kinds.Sandbox, { namespace, name }).pipe(
        Effect.asSome,
        Effect.catchIf(({ reason }) => reason._tag === "NotFound", () => Effect.succeed(Option.none<Sandbox>()))
      )
      return Option.exists(existing, (sandbox) => Assignment.claimUid(sandbox) === Assignment.claimUid(manifest))
        ? existing
        : yield* endOver(unwritten)
    }
    return yield* kube.create(Kinds.Sandbox, manifest).pipe(
      Effect.map(Option.some),
      Effect.catchIf(({ reason }) => reason._tag === "AlreadyExists", () =>
        Effect.gen(function*() {
          const existing = yield* kube.get(Kinds.Sandbox, { namespace, name })
          if (Assignment.claimUid(existing) === Assignment.claimUid(manifest)) {
            return Option.some(existing)
          }
          if (existing.metadata.deletionTimestamp !== undefined) {
            return yield* new NameInDeletion({ name: `${namespace}/${name}` })
          }
          return yield* reject(
            unwritten,
            existing,
            "NameTaken",
            `instance ${unwritten.assignment.instanceId} was ended: the name belongs to this sandbox`
          )
        })),
      Effect.catchIf(
        (error): error is KubeError =>
          error._tag === "KubeError" && (isFinal(error) || error.reason._tag === "NotFound"),
        (error) => reject(unwritten, manifest, "ResourceRefused", error.message)
      )
    )
  })

  const write = Effect.fn("WriteBehind.write")(function*(unwritten: Unwritten) {
    const { assignment, manifest } = unwritten
    const { name = "", namespace = "" } = manifest.metadata
    yield* Effect.annotateCurrentSpan({ "sandbox.name": name, "sandbox.namespace": namespace })
    const placed = yield* place(unwritten)
    if (Option.isNone(placed)) {
      return placed
    }
    const resource = placed.value
    yield* directory.wrote(resource)
    const { uid = "" } = resource.metadata
    // Before anything else: an instance that does not know its resource is adopted again after that was deleted.
    const isBound = yield* agents.bind(assignment.podUid, assignment.instanceId, uid).pipe(
      Effect.as(true),
      Effect.catchTag("NotFound", () => Effect.succeed(false))
    )
    if (!isBound && !unwritten.acknowledged && isUntouched(resource, assignment)) {
      // Whoever ended the instance meanwhile ended the sandbox: what was deleted must not come back.
      yield* kube.delete(Kinds.Sandbox, { namespace, name }, { preconditions: { uid } }).pipe(
        Effect.catchIf(
          ({ reason }) => reason._tag === "NotFound" || reason._tag === "Conflict",
          () => Effect.void
        )
      )
      yield* directory.deleted(resource)
      yield* count("written")
      return Option.some(resource)
    }
    const found = yield* instanceOf(assignment)
    const now = yield* Clock.currentTimeMillis
    const status = Option.isNone(found) || resource.status?.phase !== undefined
      ? undefined
      : FirstStatus.of(resource, found.value.agent, found.value.instance, now)
    const reported = status === undefined
      ? resource
      : (yield* FirstStatus.write({ kube, recorder }, resource, { ...resource, status })) ?? resource
    yield* directory.wrote(reported)
    yield* count("written")
    return Option.some(reported)
  })

  /** One look at one instance: what an agent shows, or what a caller was told, is written if it still has to be. */
  const work = Effect.fnUntraced(function*(key: string) {
    yield* Effect.timeoutOption(traffic.quiet, patience)
    const at = key.indexOf(separator)
    const podUid = key.slice(0, at)
    const instanceId = key.slice(at + separator.length)
    const agent = Option.getOrUndefined(yield* agents.get(podUid))
    const instance = agent?.instances.get(instanceId)
    const shown = agent !== undefined && instance !== undefined && awaitsResource(instance)
      ? unwrittenOf(agent, instance)
      : Option.none<Unwritten>()
    if (instance !== undefined && isLeftover(instance)) {
      return yield* agents.delete(podUid, instanceId)
    }
    const told = waiting.get(key)
    const first = told ?? Option.getOrUndefined(shown)
    if (first === undefined) {
      return
    }
    const { name = "", namespace = "" } = first.manifest.metadata
    yield* Effect.gen(function*() {
      const known = yield* directory.unwritten(namespace, name)
      const current = Option.filter(known, ({ assignment }) => assignment.instanceId === instanceId)
      const now = yield* instanceOf(first.assignment)
      const isWaiting = Option.exists(now, ({ instance }) => awaitsResource(instance))
      if (Option.isSome(current) || isWaiting) {
        // What the directory has forgotten was deleted, though the view may still show the instance: then only an agent
        // that has it keeps the resource.
        yield* write(Option.getOrElse(current, () => ({ ...first, acknowledged: false })))
      }
      waiting.delete(key)
    }).pipe(locks.withKey(`${namespace}${separator}${name}`))
  })

  // -------------------------------------------------------------------------------------------------------------------
  // adoption

  const consider = Effect.fnUntraced(function*(agent: AgentView, instance: Instance) {
    if (placement.isOwn(instance.instanceId)) {
      return
    }
    const key = queueKey({ instanceId: instance.instanceId, podUid: agent.uid })
    if (isLeftover(instance)) {
      return yield* queue.addAfter(key, adoptionGrace)
    }
    // Asked for each instance of an agent whenever one changes: what waits already is not decoded again.
    if (!awaitsResource(instance) || waiting.has(key)) {
      return
    }
    const unwritten = unwrittenOf(agent, instance)
    if (Option.isNone(unwritten)) {
      return yield* Effect.logWarning("an instance without a resource has no manifest; it can't be adopted").pipe(
        Effect.annotateLogs({ instance: instance.instanceId, agent: agent.pod })
      )
    }
    const { name = "", namespace = "" } = unwritten.value.manifest.metadata
    if (Option.isNone(yield* directory.get(namespace, name))) {
      yield* directory.admit(unwritten.value)
    }
    yield* queue.addAfter(key, adoptionGrace)
  })

  /** Asked again whenever one of an agent's counts moves; of the hundreds that it holds, hardly any is to be written. */
  const considerAgent = (agent: AgentView) =>
    Effect.forEach(
      Array.from(agent.instances.values()).filter((instance) => isLeftover(instance) || awaitsResource(instance)),
      (instance) => consider(agent, instance),
      { discard: true }
    )

  yield* directory.synced.pipe(
    Effect.andThen(agents.list),
    Effect.flatMap(Effect.forEach(considerAgent, { discard: true })),
    Effect.forkScoped
  )
  yield* agents.changes.pipe(
    Stream.runForEach((change) =>
      Effect.gen(function*() {
        if (change._tag === "AgentGone") {
          return
        }
        const agent = yield* agents.get(change.uid)
        if (Option.isNone(agent)) {
          return
        }
        if (change._tag === "AgentChanged") {
          return yield* considerAgent(agent.value)
        }
        const instance = agent.value.instances.get(change.instanceId)
        if (instance !== undefined) {
          yield* consider(agent.value, instance)
        }
      })
    ),
    Effect.forkScoped
  )

  yield* queue.run({ workers }, work).pipe(Effect.forkScoped)

  yield* Effect.gen(function*() {
    yield* Metric.update(depthGauge, yield* directory.backlog)
    yield* Metric.update(ageGauge, (yield* directory.oldestMillis) / 1000)
  }).pipe(Effect.repeat(Schedule.spaced("1 second")), Effect.forkScoped)

  return WriteBehind.of({
    enqueue: (unwritten) =>
      Effect.suspend(() => {
        const key = queueKey(unwritten.assignment)
        waiting.set(key, unwritten)
        return queue.add(key)
      }),
    write
  })
})
