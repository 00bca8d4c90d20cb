/**
 * What goes on inside of running sandboxes: programs, files, connections. Every call is passed on to the agent that holds
 * the sandbox, with the instance that was current when it began; both directions have back-pressure from end to end, and
 * whichever end leaves, the other one hears of it.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Assignment from "@fast-sandbox/core/Assignment"
import { type BoundaryError, FailedPrecondition, InvalidArgument } from "@fast-sandbox/core/Errors"
import { defaultNamespace } from "@fast-sandbox/core/Names"
import { key as keyOf, type Phase, terminalPhases } from "@fast-sandbox/core/Sandbox"
import type {
  AttachRequest,
  AttachRequestSchema,
  AttachResponse,
  CopyFromRequest,
  CopyFromResponse,
  CopyToRequest,
  CopyToRequestSchema,
  CopyToResponse,
  DirectCopyRequest,
  DirectCopyResponse,
  ExecRequest,
  ExecRequestSchema,
  ExecResponse,
  PortForwardRequest,
  PortForwardRequestSchema,
  PortForwardResponse,
  ProcessesRequest,
  ProcessesResponse,
  SandboxRef,
  StatsRequest,
  StatsResponse
} from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import * as HeaderFirst from "@fast-sandbox/grpc/HeaderFirst"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { Agents } from "../agents/Agents.ts"
import * as Audit from "./Audit.ts"
import { FastPath } from "./FastPath.ts"

type Requests<A> = Stream.Stream<A, BoundaryError>
type Answers<A> = Stream.Stream<A, BoundaryError>

/** The calls of the Fast-Path API about the inside of sandboxes; they mean what the protocol says. */
export class Sessions extends Context.Service<Sessions, {
  exec(requests: Requests<ExecRequest>): Answers<ExecResponse>
  attach(requests: Requests<AttachRequest>): Answers<AttachResponse>
  copyTo(requests: Requests<CopyToRequest>): Effect.Effect<CopyToResponse, BoundaryError>
  copyFrom(request: CopyFromRequest): Answers<CopyFromResponse>
  copyDirectly(request: DirectCopyRequest): Answers<DirectCopyResponse>
  portForward(requests: Requests<PortForwardRequest>): Answers<PortForwardResponse>
  stats(request: StatsRequest): Answers<StatsResponse>
  processes(request: ProcessesRequest): Effect.Effect<ProcessesResponse, BoundaryError>
}>()("@fast-sandbox/controller/fastpath/Sessions") {
  static get layer(): Layer.Layer<Sessions, never, Agents | FastPath> {
    return Layer.effect(Sessions, make)
  }
}

/** The phases in which a sandbox has an inside. */
const running: ReadonlySet<Phase> = new Set<Phase>(["Running"])

/** The phases in which there is, or was, a program whose output can be read. */
const started: ReadonlySet<Phase> = new Set<Phase>([...running, ...terminalPhases, "Stopping"])

/** An agent answers from the kernel's memory. */
const shortDeadline = Duration.seconds(10)

const make = Effect.gen(function*() {
  const agents = yield* Agents
  const fastPath = yield* FastPath

  /** The agent that holds a sandbox, and the reference that it understands. */
  const located = Effect.fnUntraced(function*(ref: SandboxRef | undefined, phases: ReadonlySet<Phase> = running) {
    if (ref === undefined || ref.sandboxName === "") {
      return yield* new InvalidArgument({ field: "sandbox.sandbox_name", problem: "is missing" })
    }
    const key = keyOf(ref.namespace === "" ? defaultNamespace : ref.namespace, ref.sandboxName)
    const sandbox = yield* fastPath.get(ref.namespace, ref.sandboxName)
    const assignment = Assignment.of(sandbox)
    const { phase } = sandbox.status ?? {}
    if (Option.isNone(assignment) || (phase !== undefined && !phases.has(phase))) {
      return yield* new FailedPrecondition({
        reason: "NotRunning",
        problem: `sandbox ${key} does not run (${phase ?? "Pending"})`
      })
    }
    const { instanceId, podUid } = assignment.value
    if (ref.sandboxId !== "" && ref.sandboxId !== instanceId) {
      return yield* new FailedPrecondition({
        reason: "StaleInstance",
        problem: `sandbox ${key} was started anew since; its instance is ${instanceId}`
      })
    }
    return { key, client: yield* agents.sessions(podUid), sandbox: { ...ref, sandboxId: instanceId } }
  })

  return Sessions.of({
    exec: (requests) =>
      Stream.unwrap(Effect.gen(function*() {
        const { header, rest } = yield* HeaderFirst.open(requests)
        const { client, key, sandbox } = yield* located(header.value.sandbox)
        const first: MessageInitShape<typeof ExecRequestSchema> = {
          part: { case: "header", value: { ...header.value, sandbox } }
        }
        return client.exec(Stream.concat(Stream.make(first), rest)).pipe(Audit.session("exec", key))
      })),
    attach: (requests) =>
      Stream.unwrap(Effect.gen(function*() {
        const { header, rest } = yield* HeaderFirst.open(requests)
        const { client, key, sandbox } = yield* located(header.value.sandbox, started)
        const first: MessageInitShape<typeof AttachRequestSchema> = {
          part: { case: "header", value: { ...header.value, sandbox } }
        }
        yield* Audit.mutation("attach", key)(Effect.void)
        return client.attach(Stream.concat(Stream.make(first), rest))
      })),
    copyTo: Effect.fn("Sessions.copyTo")(function*(requests) {
      const { header, rest } = yield* HeaderFirst.open(requests)
      const { client, key, sandbox } = yield* located(header.value.sandbox)
      const first: MessageInitShape<typeof CopyToRequestSchema> = {
        part: { case: "header", value: { ...header.value, sandbox } }
      }
      return yield* client.copyTo(Stream.concat(Stream.make(first), rest)).pipe(Audit.mutation("copyTo", key))
    }, Effect.scoped),
    copyFrom: (request) =>
      Stream.unwrap(Effect.map(
        located(request.sandbox),
        ({ client, key, sandbox }) => client.copyFrom({ ...request, sandbox }).pipe(Audit.session("copyFrom", key))
      )),
    copyDirectly: ({ part }) =>
      Stream.unwrap(Effect.gen(function*() {
        if (part.case === undefined) {
          return yield* new InvalidArgument({ field: "part", problem: "is missing; say what to copy" })
        }
        const { client, key, sandbox } = yield* located(part.value.sandbox)
        const [operation, here] = part.case === "to"
          ? ["copyTo", { case: part.case, value: { ...part.value, sandbox } }] as const
          : ["copyFrom", { case: part.case, value: { ...part.value, sandbox } }] as const
        return client.copyDirectly({ part: here }).pipe(Audit.session(operation, key))
      })),
    portForward: (requests) =>
      Stream.unwrap(Effect.gen(function*() {
        const { header, rest } = yield* HeaderFirst.open(requests)
        const { client, key, sandbox } = yield* located(header.value.sandbox)
        const first: MessageInitShape<typeof PortForwardRequestSchema> = {
          part: { case: "header", value: { ...header.value, sandbox } }
        }
        return client.portForward(Stream.concat(Stream.make(first), rest)).pipe(Audit.session("portForward", key))
      })),
    stats: (request) =>
      Stream.unwrap(Effect.map(
        located(request.sandbox),
        ({ client, sandbox }) => client.stats({ ...request, sandbox })
      )),
    processes: Effect.fn("Sessions.processes")(function*(request) {
      const { client, sandbox } = yield* located(request.sandbox)
      return yield* client.processes({ ...request, sandbox }, { deadline: shortDeadline })
    })
  })
})
