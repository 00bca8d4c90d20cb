import type { MessageInitShape } from "@bufbuild/protobuf"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { type BoundaryError, FailedPrecondition } from "@fast-sandbox/core/Errors"
import { InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type {
  DirectCopyRequestSchema,
  ExecHeaderSchema,
  ExecRequestSchema
} from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import { layer as privateContainerd, PrivateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import { Deferred, Effect, Fiber, Layer, Option, Queue, Schedule, Sink, Stream } from "effect"
import { execFileSync } from "node:child_process"
import { existsSync, linkSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { connect as connectTo, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Fixture from "./AgentFixture.ts"

const node = Layer.effectDiscard(Fixture.prepareNode).pipe(
  Layer.provideMerge(privateContainerd()),
  Layer.provideMerge(NodeServices.layer)
)

type Header = Omit<MessageInitShape<typeof ExecHeaderSchema>, "$typeName">
type Request = MessageInitShape<typeof ExecRequestSchema>
type DirectCopyRequest = NonNullable<MessageInitShape<typeof DirectCopyRequestSchema>["part"]>

/** What an exec printed, and how it ended. */
const exec = Effect.fnUntraced(function*(
  sessions: Fixture.SessionClient,
  instanceId: string,
  header: Header,
  requests: Stream.Stream<Request> = Stream.never
) {
  const answers = yield* sessions.exec(
    Stream.concat(
      Stream.make<[Request]>({ part: { case: "header", value: { sandbox: { sandboxId: instanceId }, ...header } } }),
      requests
    )
  ).pipe(Stream.runCollect, Effect.timeout("10 seconds"))
  const text = (stream: "stdout" | "stderr") =>
    Buffer.concat(answers.flatMap(({ part }) => part.case === stream ? [part.value] : [])).toString()
  const last = answers.at(-1)?.part
  return {
    stdout: text("stdout"),
    stderr: text("stderr"),
    exitCode: last?.case === "ended" ? last.value.exitCode : undefined
  }
})

const input = (text: string) => Stream.make<[Request]>({ part: { case: "stdin", value: Buffer.from(text) } })

/** As a sender would cut it. */
const pieces = (bytes: Buffer): ReadonlyArray<Buffer> =>
  Array.from({ length: Math.ceil(bytes.length / 100_000) }, (_, at) => bytes.subarray(at * 100_000, (at + 1) * 100_000))

layer(node, { excludeTestServices: true })("Sessions", (it) => {
  it.effect("runs programs in a sandbox with its privileges, and takes all of them back", () =>
    Effect.gen(function*() {
      const client = yield* Fixture.start()
      const sessions = yield* Fixture.sessions()
      const { directory } = yield* PrivateContainerd
      const { instanceId, ...request } = Fixture.request(Fixture.sleeper, { envs: [{ name: "A", value: "b" }] })
      yield* client.create({ instanceId, ...request })
      const run = (header: Header, requests?: Stream.Stream<Request>) => exec(sessions, instanceId, header, requests)

      assert.deepStrictEqual(
        yield* run({
          command: ["sh", "-c", "echo $A $B; pwd; id -u; echo oops >&2; exit 7"],
          envs: { B: "c" },
          workingDir: "/tmp"
        }),
        { stdout: "b c\n/tmp\n0\n", stderr: "oops\n", exitCode: 7 }
      )
      assert.deepStrictEqual(yield* run({ command: ["id"], user: "app" }), {
        stdout: "uid=1000(app) gid=1000(app) groups=2000(staff)\n",
        stderr: "",
        exitCode: 0
      })
      const status = "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status"
      const own = yield* run({ command: ["sh", "-c", "grep -E '^(Cap|NoNew|Seccomp:)' /proc/1/status"] })
      assert.strictEqual((yield* run({ command: ["sh", "-c", status] })).stdout, own.stdout)
      assert.match((yield* run({ command: ["sh", "-c", status], user: "1000" })).stdout, /CapEff:\t0000000000000000/)

      assert.strictEqual((yield* run({ command: ["cat"], stdin: true }, input("hello"))).stdout, "hello")
      assert.strictEqual((yield* run({ command: ["cat"] })).stdout, "")
      const big = yield* run({ command: ["sh", "-c", "yes | head -c 3000000; echo done >&2"] })
      assert.deepStrictEqual([big.stdout.length, big.stderr], [3_000_000, "done\n"])
      const terminal = yield* run({
        command: ["sh", "-c", "tty; stty size"],
        tty: true,
        size: { columns: 123, rows: 45 }
      })
      assert.strictEqual(terminal.stdout, "/dev/pts/0\r\n45 123\r\n")
      const typed = yield* run(
        { command: ["sh"], tty: true, stdin: true },
        input("stty -echo; PS1=; stty size; exit 3\n")
      )
      assert.strictEqual(typed.exitCode, 3)
      const late = yield* run({ command: ["sh", "-c", "sleep 30 & echo started"] })
      assert.deepStrictEqual(late, { stdout: "started\n", stderr: "", exitCode: 0 })
      const runs = (program: string) =>
        Fixture.eventually(
          `${program} runs`,
          Effect.map(run({ command: ["ps"] }), ({ stdout }) => stdout.includes(program))
        ).pipe(Effect.orDie)
      assert.strictEqual(
        (yield* run(
          { command: ["sleep", "76"] },
          Stream.fromEffect(Effect.as(runs("sleep 76"), { part: { case: "signal", value: 15 } } as const))
        )).exitCode,
        143
      )

      const failure = (header: Header) => Effect.flip(run(header))
      const missing = yield* failure({ command: ["nope"] })
      assert.strictEqual(missing._tag === "FailedPrecondition" && missing.reason, "CommandNotFound")
      const directoryAsProgram = yield* failure({ command: ["/tmp"] })
      assert.strictEqual(
        directoryAsProgram._tag === "FailedPrecondition" && directoryAsProgram.reason,
        "CommandNotExecutable"
      )
      for (
        const [header, field] of [
          [{ command: [] }, "command"],
          [{ command: ["true"], user: "nobody-at-all" }, "user"],
          [{ command: ["true"], workingDir: "tmp" }, "working_dir"],
          [{ command: ["true"], envs: { "": "x" } }, "envs[\"\"]"]
        ] as const
      ) {
        const error = yield* failure({ ...header, command: [...header.command] })
        assert.strictEqual(error._tag === "InvalidArgument" && error.field, field)
      }

      // a caller that goes away takes its program along
      const leaving = yield* Effect.forkChild(run({ command: ["sleep", "77"] }))
      yield* runs("sleep 77")
      yield* Fiber.interrupt(leaving)
      yield* Fixture.eventually(
        "the program is gone",
        Effect.map(run({ command: ["ps"] }), ({ stdout }) => !stdout.includes("sleep 77"))
      )
      yield* Fixture.eventually(
        "no exec is left",
        Effect.sync(() => readdirSync(`${directory}/agent/execs`).length === 0)
      )

      const cutOff = yield* Effect.forkChild(failure({ command: ["sleep", "79"] }))
      yield* runs("sleep 79")
      yield* client.stop({ instanceId })
      const ended = yield* Fiber.join(cutOff)
      assert.strictEqual(ended._tag === "FailedPrecondition" && ended.reason, "SandboxEnded")
      const after = yield* failure({ command: ["true"] })
      assert.strictEqual(after._tag === "FailedPrecondition" && after.reason, "NotRunning")
      yield* client.delete({ instanceId })
    }).pipe(Effect.scoped))

  it.effect("copies, connects and counts inside of a sandbox", () =>
    Effect.gen(function*() {
      const client = yield* Fixture.start()
      const sessions = yield* Fixture.sessions()
      const { directory } = yield* PrivateContainerd
      const { instanceId, ...request } = Fixture.request([
        "sh",
        "-c",
        "ln -s / /tmp/out; while :; do nc -l -p 81 -e cat; done"
      ])
      yield* client.create({ instanceId, ...request })
      const sandbox = { sandboxId: instanceId }
      const run = (command: string) =>
        Effect.map(exec(sessions, instanceId, { command: ["sh", "-c", command] }), ({ stdout }) => stdout)
      const put = (
        path: string,
        archive: Buffer,
        header: { readonly intoFolder?: boolean; readonly keepOwner?: boolean } = {}
      ) =>
        sessions.copyTo(Stream.concat(
          Stream.make({ part: { case: "header", value: { sandbox, path, ...header } } } as const),
          Stream.fromIterable(pieces(archive)).pipe(
            Stream.map((value) => ({ part: { case: "data", value } }) as const)
          )
        ))
      const get = (path: string) =>
        sessions.copyFrom({ sandbox, path }).pipe(
          Stream.runCollect,
          Effect.map((parts) => Buffer.concat(parts.map(({ data }) => data)))
        )

      const source = mkdtempSync(join(tmpdir(), "fsb-copies-"))
      yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(source, { recursive: true })))
      const long = "n".repeat(120)
      mkdirSync(`${source}/tree/${long}`, { recursive: true })
      writeFileSync(`${source}/tree/program`, "#!/bin/sh\n", { mode: 0o751 })
      writeFileSync(`${source}/tree/${long}/big`, Buffer.alloc(3_000_000, 7))
      symlinkSync("program", `${source}/tree/link`)
      linkSync(`${source}/tree/program`, `${source}/tree/same`)
      const archive = execFileSync("tar", ["-C", source, "-c", "tree"], { maxBuffer: 2 ** 24 })

      const { bytes, entries } = yield* put("/tmp", archive)
      assert.deepStrictEqual([Number(bytes), Number(entries)], [3_000_010, 6])
      assert.strictEqual(
        yield* run(`cd /tmp/tree; stat -c '%a %h %u' program; readlink link; wc -c < ${long}/big; ls -A /tmp`),
        "751 2 0\nprogram\n3000000\nout\ntree\n"
      )
      yield* put("/tmp/renamed", archive)
      yield* put("/tmp/into", archive.subarray(0, 4096), {}).pipe(Effect.flip)
      assert.strictEqual(yield* run("ls -A /tmp"), "out\nrenamed\ntree\n")
      const back = yield* get("/tmp/renamed/.")
      mkdirSync(`${source}/back`)
      execFileSync("tar", ["-C", `${source}/back`, "-x"], { input: back })
      execFileSync("diff", ["-r", "--no-dereference", `${source}/tree`, `${source}/back`])
      // a link leads to the sandbox's own root
      assert.notInclude((yield* get("/tmp/out/etc/passwd")).toString(), "daemon")
      writeFileSync(`${source}/escape`, "x")
      yield* put("/tmp/out/etc", execFileSync("tar", ["-C", source, "-c", "escape"]), { intoFolder: true })
      assert.strictEqual(yield* run("cat /etc/escape"), "x")
      assert.isFalse(existsSync("/etc/escape"))

      for (
        const [attempt, expected] of [
          [get("/nowhere"), "NotFound"],
          [get("relative"), "InvalidArgument"],
          [put("/nowhere/deep/x", archive), "NotFound"],
          [put("/etc/passwd", archive, { intoFolder: true }), "FailedPrecondition"],
          [put("/tmp", Buffer.alloc(2048, 1)), "InvalidArgument"],
          [put("/proc", archive), "FailedPrecondition"]
        ] as const
      ) {
        assert.strictEqual((yield* Effect.flip<unknown, BoundaryError, never>(attempt))._tag, expected)
      }

      // the archive's own way: one connection, and nothing half-made when it breaks
      const folder = `${directory}/agent/copies`
      const direct = <A>(request: DirectCopyRequest, use: (socket: Socket) => Promise<A>) =>
        Effect.gen(function*() {
          const [first, rest] = yield* Stream.peel(sessions.copyDirectly({ part: request }), Sink.head())
          const told = Option.getOrUndefined(first)?.part
          assert.isTrue(told?.case === "socket" && told.value.path.startsWith(`${folder}/`))
          const socket = connectTo(told?.case === "socket" ? told.value.path : "")
          const used = yield* Effect.promise(() => use(socket))
          const last = yield* Stream.runLast(rest)
          socket.destroy()
          return { used, last: Option.getOrUndefined(last)?.part }
        }).pipe(Effect.scoped, Effect.timeout("10 seconds"))
      const put1 = yield* direct({ case: "to", value: { sandbox, path: "/tmp/direct" } }, async (socket) => {
        socket.end(archive)
      })
      assert.deepStrictEqual(put1.last?.case === "done" && Number(put1.last.value.bytes), 3_000_010)
      const got = yield* direct({ case: "from", value: { sandbox, path: "/tmp/direct/." } }, async (socket) => {
        const parts: Array<Buffer> = []
        for await (const part of socket) parts.push(part)
        return Buffer.concat(parts)
      })
      mkdirSync(`${source}/direct`)
      execFileSync("tar", ["-C", `${source}/direct`, "-x"], { input: got.used })
      execFileSync("diff", ["-r", "--no-dereference", `${source}/tree`, `${source}/direct`])
      const broken = yield* direct({ case: "to", value: { sandbox, path: "/tmp/broken" } }, async (socket) => {
        socket.write(archive.subarray(0, 100_000), () => socket.destroy())
      }).pipe(Effect.flip)
      assert.strictEqual(broken._tag, "InvalidArgument")
      assert.strictEqual(yield* run("ls -A /tmp"), "direct\nout\nrenamed\ntree\n")
      assert.strictEqual(
        (yield* Effect.flip(direct({ case: "from", value: { sandbox, path: "/nowhere" } }, async () => {})))._tag,
        "NotFound"
      )
      yield* Fixture.eventually("no socket is left", Effect.sync(() => readdirSync(folder).length === 0))

      const connect = (port: number, text: string) =>
        sessions.portForward(Stream.make(
          { part: { case: "header", value: { sandbox, port } } } as const,
          { part: { case: "data", value: Buffer.from(text) } } as const
        )).pipe(Stream.runCollect, Effect.map((parts) => Buffer.concat(parts.map(({ data }) => data)).toString()))
      const isRefused = (error: unknown) => error instanceof FailedPrecondition && error.reason === "ConnectionRefused"
      // between two connections nobody listens for a moment
      const echoed = (text: string) =>
        Effect.retry(connect(81, text), { schedule: Schedule.spaced("20 millis"), while: isRefused }).pipe(
          Effect.timeout("10 seconds")
        )
      assert.strictEqual(yield* echoed("hello"), "hello")
      assert.strictEqual((yield* echoed("x".repeat(300_000))).length, 300_000)
      const refused = yield* Effect.flip(connect(82, ""))
      assert.strictEqual(refused._tag === "FailedPrecondition" && refused.reason, "ConnectionRefused")

      const [used] = yield* Stream.runCollect(sessions.stats({ sandbox }))
      assert.isAbove(Number(used?.cpuNanos), 0)
      assert.isAbove(Number(used?.memoryBytes), 0)
      assert.deepStrictEqual([Number(used?.memoryLimitBytes), Number(used?.cpuLimitMillis)], [512 * 2 ** 20, 1000])
      const { processes } = yield* sessions.processes({ sandbox })
      assert.deepStrictEqual(
        processes.map(({ command, parentPid, pid, userId }) => [pid, parentPid, userId, command[0]])[0],
        [
          1,
          0,
          0,
          "sh"
        ]
      )

      const isFollowed = yield* Deferred.make<void>()
      const following = yield* sessions.stats({ sandbox, intervalMillis: 100 }).pipe(
        Stream.runForEach(() => Deferred.succeed(isFollowed, undefined)),
        Effect.flip,
        Effect.forkChild({ startImmediately: true })
      )
      yield* Deferred.await(isFollowed)
      yield* client.delete({ instanceId })
      const end = yield* Fiber.join(following)
      assert.strictEqual(end._tag === "FailedPrecondition" && end.reason, "SandboxEnded")
    }).pipe(Effect.scoped))

  it.effect("attaches to a terminal, which outlives those who were attached", () =>
    Effect.gen(function*() {
      const client = yield* Fixture.start()
      const sessions = yield* Fixture.sessions()
      const { instanceId, ...request } = Fixture.request(["sh"], {
        tty: true,
        stdin: true,
        envs: [{ name: "PS1", value: "? " }]
      })
      yield* client.create({ instanceId, ...request })
      const typed = yield* Queue.unbounded<string>()
      const header = { sandbox: { sandboxId: instanceId }, stdin: true, size: { columns: 70, rows: 20 } }
      const attach = (replay: boolean) =>
        sessions.attach(Stream.concat(
          Stream.make({ part: { case: "header", value: { ...header, replay } } } as const),
          Stream.fromQueue(typed).pipe(
            Stream.map((text) => ({ part: { case: "stdin", value: Buffer.from(text) } }) as const)
          )
        )).pipe(
          Stream.flatMap(({ part }) =>
            part.case === "stdout" ? Stream.make(Buffer.from(part.value).toString()) : Stream.empty
          ),
          Stream.scan(() => "", (seen: string, more: string) => seen + more)
        )
      const until = (text: string) => (seen: string) => seen.includes(text)
      yield* Queue.offer(typed, "stty size; echo $((40 + 2))\r")
      const first = yield* attach(true).pipe(
        Stream.takeUntil(until("\n42\r\n")),
        Stream.runLast,
        Effect.timeout("10 seconds")
      )
      assert.include(Option.getOrElse(first, () => ""), "20 70\r\n42\r\n")
      // left and back again: what was printed before is only told on request
      yield* Queue.offer(typed, "echo $((50 + 2)); exit 5\r")
      const second = yield* attach(false).pipe(Stream.runLast, Effect.timeout("10 seconds"))
      const seen = Option.getOrElse(second, () => "")
      assert.include(seen, "52\r\n")
      assert.notInclude(seen, "42\r\n")
      const instance = yield* Fixture.untilState(client, instanceId, InstanceState.EXITED)
      assert.strictEqual(instance?.exitCode, 5)
      yield* client.delete({ instanceId })
      const wantsStdin = Fixture.request(["sleep", "1000"], { tty: true })
      yield* client.create(wantsStdin)
      const refused = yield* sessions.attach(Stream.make(
        {
          part: { case: "header", value: { sandbox: { sandboxId: wantsStdin.instanceId }, stdin: true } }
        } as const
      )).pipe(Stream.runDrain, Effect.flip)
      assert.strictEqual(refused._tag === "FailedPrecondition" && refused.reason, "NoStdin")
      yield* client.delete({ instanceId: wantsStdin.instanceId })
    }).pipe(Effect.scoped))

  it.effect("an exec in a parked sandbox has the program's privileges, not those of its init", () =>
    Effect.gen(function*() {
      const { directory } = yield* PrivateContainerd
      const client = yield* Fixture.start({
        FSB_INIT_BINARY: `${directory}/bin/fsb-init`,
        FSB_WARM_IMAGES: JSON.stringify([{ image: "busybox", parked: 1 }])
      })
      const sessions = yield* Fixture.sessions()
      const parked = yield* Effect.gen(function*() {
        const request = Fixture.request(Fixture.sleeper, { envs: [{ name: "A", value: "b" }], workingDir: "/tmp" })
        const { instance } = yield* client.create(request)
        if (instance?.startup?.tier !== "parked") yield* client.delete({ instanceId: request.instanceId })
        return { ...request, tier: instance?.startup?.tier }
      }).pipe(
        Effect.repeat({ schedule: Schedule.spaced("100 millis"), until: ({ tier }) => tier === "parked" }),
        Effect.timeout("15 seconds")
      )
      const run = (command: string) => exec(sessions, parked.instanceId, { command: ["sh", "-c", command] })
      const status = (pid: string) => `grep -E '^(Cap|NoNew|Seccomp:)' /proc/${pid}/status`
      assert.strictEqual((yield* run(status("self"))).stdout, (yield* run(status("1"))).stdout)
      assert.strictEqual((yield* run("echo $A; pwd; hostname")).stdout, "b\n/tmp\nbox\n")
      yield* client.delete({ instanceId: parked.instanceId })
    }).pipe(Effect.scoped))

  it.effect("an agent that was killed leaves no exec behind", () =>
    Effect.gen(function*() {
      const identity = { POD_UID: "uid-sessions", FSB_ON_TERM: "stop" }
      const { directory } = yield* PrivateContainerd
      const first = yield* Fixture.startProcess(identity)
      const sessions = yield* Fixture.sessions(identity)
      const { instanceId, ...request } = Fixture.request(Fixture.sleeper)
      yield* first.client.create({ instanceId, ...request })
      yield* exec(sessions, instanceId, { command: ["sleep", "78"] }).pipe(Effect.ignore, Effect.forkScoped)
      yield* Fixture.eventually(
        "it runs",
        Effect.map(exec(sessions, instanceId, { command: ["ps"] }), ({ stdout }) => stdout.includes("sleep 78"))
      )
      yield* Fixture.kill(first, "SIGKILL")
      const client = yield* Fixture.start(identity)
      const again = yield* Fixture.sessions(identity)
      yield* Fixture.eventually(
        "it is gone",
        Effect.map(exec(again, instanceId, { command: ["ps"] }), ({ stdout }) => !stdout.includes("sleep 78"))
      )
      yield* Fixture.eventually(
        "no exec is left",
        Effect.sync(() => readdirSync(`${directory}/agent/execs`).length === 0)
      )
      yield* client.delete({ instanceId })
    }).pipe(Effect.scoped))
})
