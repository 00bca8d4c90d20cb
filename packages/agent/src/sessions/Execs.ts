/**
 * Further programs in running sandboxes. containerd's shim runs them as it runs the sandbox's own; their streams are
 * FIFOs (see `Fifos`). An exec lives as long as its caller: one that is left is hung up, then killed, and what an earlier
 * life of the agent left is removed at the next start.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { ignoreNotFound } from "@fast-sandbox/containerd/ContainerdError"
import * as ContainerRemoval from "@fast-sandbox/containerd/ContainerRemoval"
import * as ImageUser from "@fast-sandbox/containerd/ImageUser"
import type { User } from "@fast-sandbox/containerd/OciSpec"
import { RuntimeProfile } from "@fast-sandbox/containerd/RuntimeProfile"
import { Snapshots } from "@fast-sandbox/containerd/Snapshots"
import { type Exit, Tasks } from "@fast-sandbox/containerd/Tasks"
import { type BoundaryError, InvalidArgument, ResourceExhausted } from "@fast-sandbox/core/Errors"
import { limits } from "@fast-sandbox/core/Sandbox"
import type { ExecHeader, ExecRequest, ExecResponseSchema } from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import * as Pipe from "@fast-sandbox/grpc/Pipe"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { randomBytes } from "node:crypto"
import type { Socket } from "node:net"
import { toBoundary } from "../ContainerdFailure.ts"
import { fromStart } from "../StartFailure.ts"
import * as ExecProcess from "./ExecProcess.ts"
import { type ExecName, Fifos, type Streams } from "./Fifos.ts"
import { awaitEnd, sandboxEnded, type Target, Targets } from "./Target.ts"

/** What a caller hears. */
export type Answer = MessageInitShape<typeof ExecResponseSchema>

/** Execs that run at once. Each one is a process, four open files and some buffers; more of them is a caller's loop. */
const maxExecs = 256

const busyRetryMillis = 1000

/** Programs that a caller left end by SIGHUP, or by SIGKILL after this time. */
const hangUpTime = "500 millis"

/**
 * A program may leave others behind that keep its output open. When its output is silent for so long after its end, the
 * rest of it is nobody's any more.
 */
const silence = "1 second"

/** The sandbox's own end comes about when the kernel kills everything in it, and may be told a moment later. */
const endNotice = "200 millis"

/** 10, 20 ... 640 ms: the shim buries an exec in its own time. */
const buryPolicy = Schedule.exponential("10 millis").pipe(Schedule.upTo({ times: 6 }))

const execIdBytes = 8

/** What a terminal takes for the end of its input: control-D. */
const endOfTransmission = new Uint8Array([4])

const SIGHUP = 1
const SIGKILL = 9
const maxSignal = 64

/** The exit code of what SIGKILL ended. */
const killedCode = 128 + SIGKILL

/** `run` runs what the header says, with the further requests as its input. */
export class Execs extends Context.Service<Execs, {
  readonly run: (
    header: ExecHeader,
    requests: Stream.Stream<ExecRequest, BoundaryError>
  ) => Stream.Stream<Answer, BoundaryError>
}>()("@fast-sandbox/agent/sessions/Execs") {
  static readonly layer: Layer.Layer<
    Execs,
    never,
    Fifos | FileSystem.FileSystem | RuntimeProfile | Snapshots | Targets | Tasks
  > = Layer.effect(Execs, Effect.suspend(() => make))
}

const invalid = (field: string, problem: string) => new InvalidArgument({ field, problem })

/** What is wrong with a header, if anything is. */
const problemOf = ({ command, envs, user, workingDir }: ExecHeader): InvalidArgument | undefined => {
  const [program] = command
  if (program === undefined || program === "") {
    return invalid("command", "is missing; say what to run")
  }
  if (command.length > limits.args || command.some((word) => word.includes("\0"))) {
    return invalid("command", `must have at most ${limits.args} words, and none with a zero byte`)
  }
  const name = Object.keys(envs).find((name) => name === "" || /[=\0]/.test(name) || envs[name]?.includes("\0"))
  if (name !== undefined) {
    return invalid(`envs[${JSON.stringify(name)}]`, "a name must not be empty, and have neither = nor a zero byte")
  }
  if (workingDir !== "" && (!workingDir.startsWith("/") || workingDir.includes("\0"))) {
    return invalid("working_dir", "must be an absolute path")
  }
  return /^[^\s\0]*$/.test(user) ? undefined : invalid("user", "must be uid, uid:gid, name or name:group")
}

const make = Effect.gen(function*() {
  const fifos = yield* Fifos
  const files = yield* FileSystem.FileSystem
  const { snapshotter } = yield* RuntimeProfile
  const snapshots = yield* Snapshots
  const targets = yield* Targets
  const tasks = yield* Tasks
  const scope = yield* Effect.scope
  let running = 0

  const slot = Effect.acquireRelease(
    Effect.suspend(() =>
      running >= maxExecs
        ? Effect.fail(
          new ResourceExhausted({
            resource: "exec",
            problem: `${maxExecs} execs run on this agent`,
            retryAfterMillis: busyRetryMillis
          })
        )
        : Effect.sync(() => {
          running++
        })
    ),
    () =>
      Effect.sync(() => {
        running--
      })
  )

  /** By the sandbox's own files as they are now, not only by its image's. */
  const userOf = Effect.fnUntraced(function*({ containerId }: Target, user: string) {
    if (user === "") return undefined
    const mounts = yield* snapshots.mounts(containerId, { snapshotter }).pipe(Effect.mapError(toBoundary))
    const found: User = yield* ImageUser.resolveUser(ImageUser.layerDirectories(mounts), user).pipe(
      Effect.provideService(FileSystem.FileSystem, files),
      Effect.mapError(({ message }) => invalid("user", message))
    )
    return found
  })

  /** Until containerd knows nothing of it. */
  const bury = (exec: ExecName) =>
    tasks.delete(exec).pipe(
      ignoreNotFound,
      Effect.retry(buryPolicy),
      Effect.ignore({ log: "Debug" }),
      Effect.andThen(fifos.remove(exec))
    )

  const signal = (exec: ExecName, number: number) =>
    Effect.ignore(ContainerRemoval.unheard(tasks.kill(exec, number)), { log: "Debug" })

  const abandon = Effect.fnUntraced(function*(exec: ExecName, exit: Deferred.Deferred<Exit>) {
    if (!(yield* Deferred.isDone(exit))) {
      yield* signal(exec, SIGHUP)
      yield* Effect.timeoutOption(Deferred.await(exit), hangUpTime)
    }
    if (!(yield* Deferred.isDone(exit))) {
      yield* signal(exec, SIGKILL)
    }
    yield* bury(exec)
  })

  /** Registered with containerd, and buried in the background when the scope closes: nobody waits for that. */
  const register = (exec: ExecName, target: Target, process: ReturnType<typeof ExecProcess.make>, streams: Streams) =>
    Effect.acquireRelease(
      tasks.exec({
        containerId: target.containerId,
        execId: exec.execId,
        process,
        stdio: {
          stdin: streams.stdin,
          stdout: streams.stdout,
          stderr: process.terminal ? "" : streams.stderr,
          terminal: process.terminal
        }
      }).pipe(
        Effect.as(Deferred.makeUnsafe<Exit>()),
        Effect.tapError(() => fifos.remove(exec)),
        Effect.mapError(fromStart(process.args[0] ?? ""))
      ),
      (exit) => Effect.asVoid(Effect.forkIn(abandon(exec, exit), scope))
    )

  /** Gives the program what its caller sends. The end of the requests is the end of its input. */
  const feed = (
    exec: ExecName,
    header: ExecHeader,
    stdin: Socket | undefined,
    requests: Stream.Stream<ExecRequest, BoundaryError>
  ) => {
    const close = stdin === undefined
      ? Effect.void
      : header.tty
      // the end of its FIFO would be taken for the end of the terminal
      ? Pipe.write(stdin, endOfTransmission)
      : Effect.andThen(Pipe.end(stdin), Effect.ignore(tasks.closeStdin(exec), { log: "Debug" }))
    return Stream.runForEach(requests, ({ part }) => {
      switch (part.case) {
        case "stdin":
          return stdin === undefined ? Effect.void : Pipe.write(stdin, part.value)
        case "closeStdin":
          return close
        case "resize": {
          const { columns, rows } = part.value
          return header.tty
            ? Effect.ignore(tasks.resizePty(exec, { columns, rows }), { log: "Debug" })
            : Effect.void
        }
        case "signal":
          return part.value > 0 && part.value <= maxSignal ? signal(exec, part.value) : Effect.void
        default:
          return Effect.void
      }
    }).pipe(Effect.andThen(header.tty ? Effect.void : close), Effect.ignore)
  }

  const open = Effect.fn("Execs.run")(function*(
    header: ExecHeader,
    requests: Stream.Stream<ExecRequest, BoundaryError>
  ) {
    const problem = problemOf(header)
    if (problem !== undefined) return yield* problem
    const target = yield* targets.find(header.sandbox)
    yield* slot
    const { containerId, entry } = target
    const exec: ExecName = { containerId, execId: randomBytes(execIdBytes).toString("hex") }
    const process = ExecProcess.make(
      yield* targets.processOf(target),
      entry.instance,
      header,
      yield* userOf(target, header.user)
    )
    const streams = yield* fifos.take(exec)
    const exit = yield* register(exec, target, process, streams)
    const idle = Effect.andThen(Deferred.await(exit), Effect.sleep(silence))
    const stdout = yield* Pipe.openFifo(streams.stdout, "read")
    const stderr = header.tty ? undefined : yield* Pipe.openFifo(streams.stderr, "read")
    const stdin = yield* Pipe.openFifo(streams.stdin, "write")
    yield* tasks.wait(exec).pipe(
      Effect.flatMap((ended) => Deferred.succeed(exit, ended)),
      Effect.ignore({ log: "Debug" }),
      Effect.forkScoped({ startImmediately: true })
    )
    yield* tasks.start(exec).pipe(Effect.mapError(fromStart(header.command[0] ?? "")))
    if (!header.stdin) {
      yield* feed(exec, header, stdin, Stream.empty)
    }
    yield* feed(exec, header, header.stdin ? stdin : undefined, requests).pipe(Effect.forkScoped)
    const output = Pipe.read(stdout, idle).pipe(
      Stream.map((value): Answer => ({ part: { case: "stdout", value } }))
    )
    const errors = stderr === undefined ? Stream.empty : Pipe.read(stderr, idle).pipe(
      Stream.map((value): Answer => ({ part: { case: "stderr", value } }))
    )
    const ended = Effect.gen(function*() {
      const { exitCode } = yield* Effect.raceFirst(
        Deferred.await(exit),
        Effect.catch(awaitEnd(target), (error) => Effect.delay(Effect.fail(error), endNotice))
      )
      if (exitCode === killedCode) {
        const isSandboxOver = yield* Effect.timeoutOption(Deferred.await(entry.exit), endNotice)
        if (isSandboxOver._tag === "Some") return yield* sandboxEnded(target)
      }
      return { part: { case: "ended", value: { exitCode } } } satisfies Answer
    })
    return Stream.make<[Answer]>({ part: { case: "started", value: {} } }).pipe(
      Stream.concat(Stream.merge(output, errors)),
      Stream.concat(Stream.fromEffect(ended))
    )
  })

  yield* Effect.forEach(
    fifos.found,
    (exec) => Effect.andThen(signal(exec, SIGKILL), bury(exec)),
    { concurrency: "unbounded", discard: true }
  ).pipe(Effect.forkScoped)

  return Execs.of({ run: (header, requests) => Stream.unwrap(open(header, requests)) })
})
