/**
 * The instance that a session is about: it must run, and a session does not outlive it.
 */
import { toJson } from "@fast-sandbox/containerd/Any"
import { Containers } from "@fast-sandbox/containerd/Containers"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import { type BoundaryError, FailedPrecondition, Internal, InvalidArgument, NotFound } from "@fast-sandbox/core/Errors"
import { InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type { SandboxRef } from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { AgentConfig } from "../AgentConfig.ts"
import { toBoundary } from "../ContainerdFailure.ts"
import { type Entry, Instances } from "../Instances.ts"
import * as ExecProcess from "./ExecProcess.ts"

/** A running instance. */
export interface Target {
  readonly entry: Entry
  /** Its container, which is also the last part of its cgroup's name. */
  readonly containerId: string
  /** The process id of its program, as the node sees it. */
  readonly pid: number
}

/**
 * - `find` gives the instance of a reference: NOT_FOUND when this agent does not have it, FAILED_PRECONDITION
 *   `NotRunning` when its program does not run.
 * - `enterable` gives it only where it can be entered from the node; a sandbox with a kernel of its own can't.
 * - `processOf` gives what its container has on record about its program.
 */
export class Targets extends Context.Service<Targets, {
  readonly find: (ref: SandboxRef | undefined) => Effect.Effect<Target, BoundaryError>
  readonly enterable: (ref: SandboxRef | undefined) => Effect.Effect<Target, BoundaryError>
  readonly processOf: (target: Target) => Effect.Effect<ExecProcess.RecordedProcess, BoundaryError>
}>()("@fast-sandbox/agent/sessions/Targets") {
  static readonly layer: Layer.Layer<
    Targets,
    never,
    AgentConfig | Containers | Instances | Tasks
  > = Layer.effect(
    Targets,
    Effect.gen(function*() {
      const { runtimeType } = yield* AgentConfig
      const containers = yield* Containers
      const instances = yield* Instances
      const tasks = yield* Tasks
      const pids = new WeakMap<Entry, number>()
      const processes = new WeakMap<Entry, ExecProcess.RecordedProcess>()

      const pidOf = Effect.fnUntraced(function*(entry: Entry) {
        const known = pids.get(entry)
        if (known !== undefined) return known
        const { pid } = yield* tasks.get({ containerId: entry.containerId }).pipe(Effect.mapError(toBoundary))
        pids.set(entry, pid)
        return pid
      })

      const find = Effect.fn("Targets.find")(function*(ref: SandboxRef | undefined) {
        const instanceId = ref?.sandboxId ?? ""
        if (instanceId === "") {
          return yield* new InvalidArgument({ field: "sandbox.sandbox_id", problem: "is missing" })
        }
        const entry = instances.get(instanceId)
        if (entry === undefined) {
          return yield* new NotFound({ kind: "instance", name: instanceId })
        }
        if (entry.instance.state !== InstanceState.RUNNING) {
          return yield* notRunning(entry)
        }
        return { entry, containerId: entry.containerId, pid: yield* pidOf(entry) }
      })

      return Targets.of({
        find,
        enterable: (ref) =>
          runtimeType === "container"
            ? find(ref)
            : Effect.fail(
              new FailedPrecondition({
                reason: "NotEnterable",
                problem: `a sandbox of ${runtimeType} has a kernel of its own and can't be entered; run a program in it`
              })
            ),
        processOf: Effect.fn("Targets.processOf")(function*({ containerId, entry }) {
          const known = processes.get(entry)
          if (known !== undefined) return known
          const { spec } = entry.spec === undefined
            ? yield* containers.get(containerId).pipe(Effect.mapError(toBoundary))
            : { spec: undefined }
          const { process } = yield* (spec === undefined ? Effect.succeed<unknown>(entry.spec) : toJson(spec)).pipe(
            Effect.flatMap(ExecProcess.decode),
            Effect.mapError((error) =>
              new Internal({ problem: `the spec of container ${containerId} can't be read: ${error.message}` })
            )
          )
          processes.set(entry, process)
          return process
        })
      })
    })
  )
}

const nameOf = ({ id, instance: { claim } }: Entry): string => claim?.sandboxName || id

const notRunning = (entry: Entry): FailedPrecondition =>
  new FailedPrecondition({ reason: "NotRunning", problem: `sandbox ${nameOf(entry)} does not run` })

/** The end of a session whose sandbox ended first. */
export const sandboxEnded = ({ entry }: Target): FailedPrecondition =>
  new FailedPrecondition({ reason: "SandboxEnded", problem: `sandbox ${nameOf(entry)} ended meanwhile` })

/** Fails when the sandbox's program ends. */
export const awaitEnd = (target: Target): Effect.Effect<never, FailedPrecondition> =>
  Effect.andThen(Deferred.await(target.entry.exit), Effect.fail(sandboxEnded(target)))

/** Ends a stream with {@link sandboxEnded} when the sandbox's program ends first. */
export const whileRunning = (target: Target) => <A, E, R>(self: Stream.Stream<A, E, R>) =>
  Stream.interruptWhen(self, awaitEnd(target))
