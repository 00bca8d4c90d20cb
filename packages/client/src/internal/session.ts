/**
 * The calls about the inside of a sandbox over gRPC.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { type BoundaryError, Internal, InvalidArgument, ResourceExhausted } from "@fast-sandbox/core/Errors"
import type { FastPathService } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import type * as Wire from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import type * as GrpcConnection from "@fast-sandbox/grpc/GrpcConnection"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Tar from "effect/encoding/Tar"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type {
  AttachEvent,
  AttachOptions,
  Control,
  Copied,
  ExecEvent,
  ExecOptions,
  GetOptions,
  ProcessInfo,
  PutOptions,
  Session,
  Stats
} from "../Session.ts"
import type * as DirectCopy from "./directCopy.ts"
import * as Time from "./time.ts"

type Api = GrpcConnection.GrpcClient<typeof FastPathService, BoundaryError>

/** Which sandbox. */
export interface Reference {
  readonly sandboxName: string
  readonly namespace: string
}

type ExecRequest = MessageInitShape<typeof Wire.ExecRequestSchema>
type AttachRequest = MessageInitShape<typeof Wire.AttachRequestSchema>
type CopyToRequest = MessageInitShape<typeof Wire.CopyToRequestSchema>
type PortForwardRequest = MessageInitShape<typeof Wire.PortForwardRequestSchema>

/** What a program prints is kept up to here: enough for any answer that a program is waited for, too little to hurt. */
const maxOutputBytes = 16 * 1024 * 1024

const controlRequest = (control: Control) =>
  control._tag === "Resize"
    ? { part: { case: "resize", value: control.size } } as const
    : { part: { case: "signal", value: control.signal } } as const

const execRequests = <E, R>(sandbox: Reference, options: ExecOptions<E, R>): Stream.Stream<ExecRequest, E, R> => {
  const { command, control, envs, stdin, terminal, user, workingDir } = options
  const header: ExecRequest = {
    part: {
      case: "header",
      value: {
        sandbox,
        command: [...command],
        envs: { ...envs },
        user: user ?? "",
        workingDir: workingDir ?? "",
        stdin: stdin !== undefined,
        tty: terminal !== undefined,
        ...(terminal === undefined ? {} : { size: terminal })
      }
    }
  }
  const closed: ExecRequest = { part: { case: "closeStdin", value: {} } }
  const input = stdin === undefined ? Stream.empty : Stream.concat(
    Stream.map(stdin, (value): ExecRequest => ({ part: { case: "stdin", value } })),
    Stream.make(closed)
  )
  return Stream.concat(
    Stream.make(header),
    Stream.merge(input, control === undefined ? Stream.empty : Stream.map(control, controlRequest))
  )
}

/** One event, or none for a kind that only newer servers tell. */
const execEvents = ({ part }: Wire.ExecResponse): ReadonlyArray<ExecEvent> => {
  switch (part.case) {
    case "started":
      return [{ _tag: "Started" }]
    case "stdout":
    case "stderr":
      return [{ _tag: "Output", stream: part.case, bytes: part.value }]
    case "ended":
      return [{ _tag: "Exited", exitCode: part.value.exitCode }]
    default:
      return []
  }
}

const attachRequests = <E, R>(
  sandbox: Reference,
  { closesStdin, control, replay, size, stdin }: AttachOptions<E, R>
): Stream.Stream<AttachRequest, E, R> => {
  const header: AttachRequest = {
    part: {
      case: "header",
      value: {
        sandbox,
        stdin: stdin !== undefined,
        replay: replay ?? false,
        ...(size === undefined ? {} : { size })
      }
    }
  }
  const closed: AttachRequest = { part: { case: "closeStdin", value: {} } }
  const input = stdin === undefined ? Stream.empty : Stream.concat(
    Stream.map(stdin, (value): AttachRequest => ({ part: { case: "stdin", value } })),
    closesStdin ? Stream.make(closed) : Stream.empty
  )
  return Stream.concat(
    Stream.make(header),
    Stream.merge(input, control === undefined ? Stream.empty : Stream.map(control, controlRequest))
  )
}

const attachEvents = ({ part }: Wire.AttachResponse): ReadonlyArray<AttachEvent> => {
  switch (part.case) {
    case "started":
      return [{ _tag: "Attached", tty: part.value.tty }]
    case "stdout":
    case "stderr":
      return [{ _tag: "Output", stream: part.case, bytes: part.value }]
    default:
      return []
  }
}

const statsOf = (stats: Wire.StatsResponse): Stats => ({
  time: stats.time === undefined ? DateTime.makeUnsafe(0) : Time.toDateTime(stats.time),
  cpuNanos: Number(stats.cpuNanos),
  cpuLimitMillis: Number(stats.cpuLimitMillis),
  memoryBytes: Number(stats.memoryBytes),
  memoryLimitBytes: Number(stats.memoryLimitBytes),
  pids: Number(stats.pids),
  pidsLimit: Number(stats.pidsLimit),
  readBytes: stats.readBytes === undefined ? undefined : Number(stats.readBytes),
  writtenBytes: stats.writtenBytes === undefined ? undefined : Number(stats.writtenBytes)
})

const processOf = (process: Wire.Process): ProcessInfo => ({
  pid: process.pid,
  parentPid: process.parentPid,
  userId: process.userId,
  state: process.state,
  cpuNanos: Number(process.cpuNanos),
  memoryBytes: Number(process.memoryBytes),
  startedAt: process.startedAt === undefined ? DateTime.makeUnsafe(0) : Time.toDateTime(process.startedAt),
  command: process.command
})

const putHeader = (sandbox: Reference, path: string, options: PutOptions | undefined) => ({
  sandbox,
  path,
  intoFolder: options?.intoFolder ?? false,
  keepOwner: options?.keepOwner ?? false
})

const getRequest = (sandbox: Reference, path: string, options: GetOptions | undefined) => ({
  sandbox,
  path,
  followLink: options?.followLink ?? false
})

const copied = ({ bytes, entries }: Wire.CopyToResponse): Copied => ({
  bytes: Number(bytes),
  entries: Number(entries)
})

const baseName = (path: string): string => path.slice(path.lastIndexOf("/") + 1)

/** The session of a sandbox; `direct` copies to and from sandboxes of this machine. */
export const make = (api: Api, sandbox: Reference, direct: DirectCopy.DirectCopy | undefined): Session => {
  const exec: Session["exec"] = (options) =>
    api.exec(execRequests(sandbox, options)).pipe(
      Stream.flatMap((answer) => Stream.fromIterable(execEvents(answer)))
    )

  const output: Session["output"] = (options) =>
    Effect.gen(function*() {
      const printed = { stdout: Array<Uint8Array>(), stderr: Array<Uint8Array>() }
      let size = 0
      let exitCode: number | undefined
      yield* Stream.runForEach(exec(options), (event) => {
        if (event._tag === "Exited") exitCode = event.exitCode
        if (event._tag !== "Output") return Effect.void
        size += event.bytes.length
        printed[event.stream].push(event.bytes)
        return size <= maxOutputBytes ? Effect.void : Effect.fail(
          new ResourceExhausted({
            resource: "memory for output",
            problem: `the program printed more than ${maxOutputBytes} bytes; use exec, which is a stream`,
            retryAfterMillis: 0
          })
        )
      })
      if (exitCode === undefined) {
        return yield* new Internal({ problem: "the server did not tell how the program ended" })
      }
      const text = (parts: ReadonlyArray<Uint8Array>) => Buffer.concat(parts).toString("utf8")
      return { exitCode, stdout: text(printed.stdout), stderr: text(printed.stderr) }
    })

  const sendArchive: Session["files"]["put"] = (path, archive, options) => {
    const header: CopyToRequest = { part: { case: "header", value: putHeader(sandbox, path, options) } }
    const data = Stream.map(archive, (value): CopyToRequest => ({ part: { case: "data", value } }))
    return Effect.map(api.copyTo(Stream.concat(Stream.make(header), data)), copied)
  }

  const put: Session["files"]["put"] = (path, archive, options) =>
    direct === undefined
      ? sendArchive(path, archive, options)
      : direct.put(putHeader(sandbox, path, options), archive).pipe(
        Effect.flatMap(Option.match({
          onNone: () => sendArchive(path, archive, options),
          onSome: (done) => Effect.succeed(copied(done))
        }))
      )

  const receiveArchive: Session["files"]["get"] = (path, options) =>
    Stream.map(api.copyFrom(getRequest(sandbox, path, options)), ({ data }) => data)

  const get: Session["files"]["get"] = (path, options) =>
    direct === undefined
      ? receiveArchive(path, options)
      : Stream.unwrap(Effect.map(
        direct.get(getRequest(sandbox, path, options)),
        Option.getOrElse(() => receiveArchive(path, options))
      ))

  const unreadable = (path: string) =>
    new InvalidArgument({ field: "path", problem: `${path} is no file; use files.get for anything else` })

  const write: Session["files"]["write"] = (path, content, options) => {
    const archive = Stream.make(Tar.file(baseName(path), content, { mode: options?.mode, mtime: new Date() })).pipe(
      Stream.pipeThroughChannel(Tar.encode())
    )
    return sendArchive(path, archive).pipe(
      Effect.catchTag(
        "TarError",
        ({ message }) => Effect.fail(new InvalidArgument({ field: "path", problem: message }))
      ),
      Effect.asVoid
    )
  }

  const read: Session["files"]["read"] = (path) =>
    receiveArchive(path, { followLink: true }).pipe(
      Stream.pipeThroughChannelOrFail(Tar.decode()),
      Stream.take(1),
      Stream.mapEffect(({ body, header }) =>
        header.type === "File"
          ? Effect.map(Stream.runCollect(body), (parts): Uint8Array => Buffer.concat(parts))
          : Effect.fail(unreadable(path))
      ),
      Stream.runHead,
      Effect.flatMap(Option.match({ onNone: () => Effect.fail(unreadable(path)), onSome: Effect.succeed })),
      Effect.catchTag("TarError", ({ message }) => Effect.fail(new Internal({ problem: message })))
    )

  const connect: Session["connect"] = (port, sent) => {
    const header: PortForwardRequest = { part: { case: "header", value: { sandbox, port } } }
    const data = Stream.map(sent, (value): PortForwardRequest => ({ part: { case: "data", value } }))
    return Stream.map(api.portForward(Stream.concat(Stream.make(header), data)), ({ data }) => data)
  }

  return {
    exec,
    output,
    attach: (options = {}) =>
      api.attach(attachRequests(sandbox, options)).pipe(
        Stream.flatMap((answer) => Stream.fromIterable(attachEvents(answer)))
      ),
    files: { put, get, write, read },
    connect,
    stats: (options) => Stream.map(api.stats({ sandbox, intervalMillis: options?.intervalMillis ?? 0 }), statsOf),
    processes: Effect.map(api.processes({ sandbox }), ({ processes }) => processes.map(processOf))
  }
}
