/**
 * Attacks from inside of a sandbox. Each asserts how it fails: what docs/security.md promises is what stands here.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, layer } from "@effect/vitest"
import { Images } from "@fast-sandbox/containerd/Images"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import { type InstanceSpecSchema, InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type { ExecRequestSchema } from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import * as NullDevice from "@fast-sandbox/testkit/NullDevice"
import { layer as privateContainerd, PrivateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import * as TestImages from "@fast-sandbox/testkit/TestImages"
import { Clock, Effect, FileSystem, Layer, Option, Stream } from "effect"
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import * as Fixture from "./AgentFixture.ts"

const source = fileURLToPath(new URL("attacks/attacker.c", import.meta.url))

/** Where images' links lead that try to leave the sandbox. */
const outside = mkdtempSync("/tmp/fsb-outside-")

/**
 * - `attack`: busybox with the attacker, as a plain program and as root's setuid one, and with places for devices.
 * - `attack-user`: the same for a user without privileges.
 * - `attack-links`: a root file system whose mount points lead out of it.
 */
const loadAttackers = Effect.gen(function*() {
  const { directory } = yield* PrivateContainerd
  const fileSystem = yield* FileSystem.FileSystem
  execFileSync("cc", ["-O1", "-static", "-o", `${directory}/attacker`, source])
  const attacker = yield* fileSystem.readFile(`${directory}/attacker`)
  yield* fileSystem.remove(`${directory}/attacker`)
  const recipe = yield* TestImages.busybox
  const armed: OciArchive.ImageRecipe = {
    ...recipe,
    names: ["docker.io/library/attack:latest"],
    layers: [...recipe.layers, [
      { _tag: "File", path: "bin/attacker", content: attacker, mode: 0o755 },
      { _tag: "File", path: "bin/rootme", content: attacker, mode: 0o4755 },
      { _tag: "Directory", path: "planted" }
    ]]
  }
  const wayOut = `/../../../../../../../..${outside}`
  const leaving: OciArchive.ImageRecipe = {
    ...recipe,
    names: ["docker.io/library/attack-links:latest"],
    layers: recipe.layers.map((files) =>
      files.map((file) =>
        file.path === "sys" || file.path === "dev" ? { _tag: "Symlink", path: file.path, target: wayOut } : file
      )
    )
  }
  yield* Images.use((images) =>
    images.load(
      OciArchive.make([
        armed,
        { ...armed, names: ["docker.io/library/attack-user:latest"], user: "1000:1000" },
        leaving
      ])
    )
  )
})

const node = Layer.effectDiscard(
  Effect.andThen(
    Effect.addFinalizer(() => Effect.sync(() => rmSync(outside, { recursive: true }))),
    Effect.andThen(Fixture.prepareNode, loadAttackers)
  )
).pipe(
  Layer.provideMerge(privateContainerd()),
  Layer.provideMerge(NodeServices.layer),
  // By its owner it could be closed to everybody; crun gives its program the input, unless it can't.
  Layer.provide(NullDevice.unchanged)
)

const runtimes = ["crun", "runc"] as const

type Changes = Omit<MessageInitShape<typeof InstanceSpecSchema>, "$typeName">

/** One record per line of `name result`. */
const recordsOf = (lines: ReadonlyArray<string>): Readonly<Record<string, string>> =>
  Object.fromEntries(lines.map((line) => {
    const space = line.indexOf(" ")
    return [line.slice(0, space), line.slice(space + 1)] as const
  }))

/** What a program printed until its end. */
const results = Effect.fnUntraced(
  function*(client: Fixture.AgentClient, command: ReadonlyArray<string>, spec?: Changes) {
    const request = Fixture.request(command, { image: "attack", ...spec })
    yield* client.create(request)
    const lines = yield* Fixture.logsOf(client, request.instanceId, true)
    yield* client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
    return recordsOf(lines)
  }
)

/** What a program that goes on has printed, once it has said `tried`. */
const triedBy = (client: Fixture.AgentClient, instanceId: string) =>
  Effect.andThen(
    Fixture.eventually(
      "it has tried",
      Effect.map(Fixture.logsOf(client, instanceId), (lines) => lines.includes("tried"))
    ),
    Fixture.logsOf(client, instanceId)
  )

/** How each call that reaches beyond a sandbox is answered. */
const answers = {
  EPERM: [
    "mount",
    "remount",
    "umount",
    "umount-odd",
    "pivot_root",
    "fsopen",
    "open_tree",
    "unshare-user",
    "unshare-mount",
    "setns",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "reboot",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring",
    "keyctl",
    "add_key",
    "request_key",
    "syslog",
    "acct",
    "swapon",
    "settimeofday",
    "adjtimex",
    "sethostname",
    "open_by_handle_at",
    "name_to_handle_at",
    "quotactl",
    "raw-socket",
    "mknod-memory",
    "mknod-disk",
    "raise-core",
    "raise-files",
    "realtime",
    ...(process.arch === "x64" ? ["iopl"] : [])
  ],
  // As on a kernel without it, so that libraries use what is left.
  ENOSYS: ["clone-user", "clone-net", "clone3", "personality"],
  EAFNOSUPPORT: ["packet-socket", "vsock", "crypto-socket"],
  EPROTONOSUPPORT: ["audit-socket"],
  // The host's processes have no number here.
  ESRCH: ["ptrace-host", "kill-host", "read-host-memory"],
  EACCES: ["unkillable", "nice"],
  ENOTTY: ["terminal-input"],
  // Calls of another architecture are not answered at all: SIGSYS.
  "SIGNAL 31": ["x32"]
} as const

/** How the kernel's files and devices answer. */
const refusals = / (EACCES|ENODATA|ENOENT|EPERM|EROFS)$/

/** All answers to `attacker syscalls`. */
const expectedAnswers = Object.fromEntries(
  Object.entries(answers).flatMap(([answer, names]) => names.map((name) => [name, answer] as const))
)

/** What gVisor's kernel may do for its programs: it is their own, and nobody else's. */
const ownKernels: ReadonlySet<string> = new Set([
  "unshare-user",
  "unshare-mount",
  "clone-user",
  "clone-net",
  "io_uring",
  "syslog",
  "mknod-memory",
  "mknod-disk",
  "unkillable",
  "nice",
  "close-input",
  "own-input"
])

/** The files below `path`, or a folder that was tampered with. */
const isUntouched = () => readdirSync(outside).length === 0

layer(node, { excludeTestServices: true })("Attacks", (it) => {
  describe.each(runtimes)("with %s", (runtime) => {
    const start = Effect.fnUntraced(function*(changes: Fixture.Environment = {}) {
      const { daemon } = yield* PrivateContainerd
      return yield* Fixture.start({ FSB_RUNTIME_BINARY: `${daemon.runtimeDirectory}/${runtime}`, ...changes })
    })

    it.effect("by system calls", () =>
      Effect.gen(function*() {
        const command = ["attacker", "syscalls", String(process.pid)]
        const found = yield* results(yield* start(), command)
        // Its input is a null device, its own or the node's: the next test.
        const { "close-input": _close, "own-input": _own, ...others } = found
        assert.deepStrictEqual(others, expectedAnswers)
      }).pipe(Effect.scoped))

    it.effect("by owning the node's null device", () =>
      Effect.gen(function*() {
        const client = yield* start({ FSB_HOST_USERS: "true" })
        yield* results(client, ["attacker", "syscalls", String(process.pid)], { runAsUser: 1000 })
        const { mode, uid } = yield* FileSystem.FileSystem.use((files) => files.stat("/dev/null"))
        assert.deepStrictEqual([uid, mode & 0o777], [Option.some(0), 0o666])
      }).pipe(Effect.scoped))

    for (const slot of ["parked", "blank"] as const) {
      it.effect(`by system calls and files of a sandbox from a ${slot} slot, and of what is executed in it`, () =>
        Effect.gen(function*() {
          const { directory } = yield* PrivateContainerd
          const client = yield* start({
            FSB_INIT_BINARY: `${directory}/bin/fsb-init`,
            FSB_WARM_IMAGES: JSON.stringify([{ image: "attack", parked: slot === "parked" ? 1 : 0 }]),
            FSB_BLANK_SLOTS: slot === "blank" ? "1" : "0"
          })
          yield* slot === "parked" ? Fixture.untilParked(client, 1, "attack") : Fixture.untilBlank(client, 1)
          const command = ["attacker", "syscalls", String(process.pid)]
          const request = Fixture.request(["sh", "-c", `${command.join(" ")}; echo tried; exec sleep 1000`], {
            image: "attack"
          })
          const { instance } = yield* client.create(request)
          assert.include(instance?.startup?.steps.map(({ name }) => name) ?? [], slot === "parked" ? "exec" : "rootfs")
          const sessions = yield* Fixture.sessions()
          const executed = Effect.fnUntraced(function*(...command: ReadonlyArray<string>) {
            const header: MessageInitShape<typeof ExecRequestSchema> = {
              part: { case: "header", value: { sandbox: { sandboxId: request.instanceId }, command: [...command] } }
            }
            const said = yield* Stream.runCollect(sessions.exec(Stream.make(header)))
            return Buffer.concat(said.flatMap(({ part }) => part.case === "stdout" ? [part.value] : [])).toString()
              .trim().split("\n")
          })
          assert.deepInclude(recordsOf(yield* executed(...command)), expectedAnswers)
          assert.deepInclude(recordsOf(yield* triedBy(client, request.instanceId)), expectedAnswers)
          const files = yield* executed("attacker", "files")
          assert.isAbove(files.length, 15)
          assert.deepStrictEqual(files.filter((line) => !refusals.test(line)), [])
          yield* client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
        }).pipe(Effect.scoped))
    }

    it.effect("by the kernel's files and by devices", () =>
      Effect.gen(function*() {
        const client = yield* start()
        const request = Fixture.request(
          ["sh", "-c", "until [ -e /planted/disk ]; do sleep 0.02; done; attacker files"],
          { image: "attack" }
        )
        yield* client.create(request)
        const { pid } = yield* Tasks.use((tasks) => tasks.get({ containerId: request.instanceId }))
        const planted = `/proc/${pid}/root/planted`
        // As an image's layer or a helpful operator may have brought them.
        execFileSync("mknod", ["-m", "666", `${planted}/mem`, "c", "1", "1"])
        execFileSync("mknod", ["-m", "666", `${planted}/disk`, "b", "254", "0"])
        const lines = yield* Fixture.logsOf(client, request.instanceId, true)
        assert.isAbove(lines.length, 20)
        assert.deepStrictEqual(lines.filter((line) => !refusals.test(line)), [])
        assert.includeMembers(lines, [
          "/planted/mem EPERM",
          "/planted/disk EPERM",
          "/dev/mem ENOENT",
          "/dev/kmsg ENOENT",
          "/proc/keys ENODATA",
          "/proc/interrupts ENODATA"
        ])
        yield* client.delete({ instanceId: request.instanceId })
      }).pipe(Effect.scoped))

    it.effect("by more privileges than it was given", () =>
      Effect.gen(function*() {
        const client = yield* start()
        const none = "0000000000000000"
        // OciSpec.rootCapabilities.
        const few = "00000000000405fb"
        assert.deepInclude(yield* results(client, ["attacker", "status"]), {
          NoNewPrivs: "1",
          Seccomp: "2",
          CapBnd: few,
          CapPrm: few,
          CapEff: few,
          CapInh: none,
          CapAmb: none,
          InheritedFiles: "0"
        })
        // The setuid bit changes nothing.
        assert.deepInclude(yield* results(client, ["rootme", "status"], { image: "attack-user" }), {
          Uid: "1000",
          NoNewPrivs: "1",
          CapEff: none,
          CapPrm: none
        })
      }).pipe(Effect.scoped))

    it.effect("by writing where it may not, or as who it may not be", () =>
      Effect.gen(function*() {
        const client = yield* start()
        const script = "touch /x 2>/dev/null || echo root refused; touch /tmp/x && echo tmp kept; " +
          "echo uid $(id -u); echo gid $(id -g); echo shm $(df -k /dev/shm | tail -1 | awk '{print $2}')"
        assert.deepStrictEqual(
          yield* results(client, ["sh", "-c", script], {
            readOnlyRootFilesystem: true,
            runAsUser: 1234,
            runAsGroup: 99,
            shmBytes: 8n * 1024n * 1024n
          }),
          { root: "refused", tmp: "kept", uid: "1234", gid: "99", shm: "8192" }
        )
        assert.deepInclude(
          yield* results(client, ["attacker", "status"], { runAsUser: 1000 }),
          { Uid: "1000", CapEff: "0000000000000000", CapPrm: "0000000000000000" }
        )
        const refused = yield* Effect.flip(client.create(Fixture.request(["true"], { runAsNonRoot: true })))
        assert.deepInclude(refused, { _tag: "FailedPrecondition", reason: "RunsAsRoot" })
        assert.deepStrictEqual((yield* client.list({})).instances, [])
      }).pipe(Effect.scoped))

    it.effect("by links and directories that lead out", () =>
      Effect.gen(function*() {
        const client = yield* start()
        writeFileSync(`${outside}/secret`, "host")
        // A runtime that keeps a folder of the host open would let a program begin in it.
        for (let file = 3; file < 12; file++) {
          const request = Fixture.request(
            [
              "sh",
              "-c",
              `cat ../../../../../..${outside}/secret 2>&1; [ -d ../../../../../../var/lib/dpkg ] && echo dpkg`
            ],
            { image: "attack", workingDir: `/proc/self/fd/${file}` }
          )
          const lines = yield* client.create(request).pipe(
            Effect.andThen(Fixture.logsOf(client, request.instanceId, true)),
            Effect.ensuring(Effect.ignore(client.delete({ instanceId: request.instanceId }))),
            Effect.orElseSucceed(() => [])
          )
          assert.notInclude(lines, "host", request.spec.workingDir)
          assert.notInclude(lines, "dpkg", request.spec.workingDir)
        }
        rmSync(`${outside}/secret`)
        // Mount points that are links stay inside, or the sandbox does not start.
        const request = Fixture.request(["true"], { image: "attack-links" })
        yield* Effect.exit(client.create(request))
        yield* Effect.ignore(client.delete({ instanceId: request.instanceId }))
        assert.isTrue(isUntouched())
        mkdirSync(`${outside}/shm`)
        const again = Fixture.request(["touch", "/dev/shm/escaped"], { image: "attack-links" })
        yield* Effect.exit(client.create(again))
        yield* Effect.ignore(client.delete({ instanceId: again.instanceId }))
        assert.deepStrictEqual(readdirSync(`${outside}/shm`), [])
        rmSync(`${outside}/shm`, { recursive: true })
      }).pipe(Effect.scoped))

    it.effect("by taking all there is", () =>
      Effect.gen(function*() {
        const before = yield* Fixture.world
        const client = yield* start({ FSB_LOG_RATE: "1Mi" })
        const limits = { image: "attack", memoryBytes: 64n * 1024n * 1024n, pids: 32n }
        const bomb = Fixture.request(["attacker", "fork-forever"], limits)
        yield* client.create(bomb)
        yield* Fixture.eventually(
          "the bomb has reached its limit",
          Effect.map(
            Tasks.use((tasks) => tasks.usage(bomb.instanceId)),
            (usage) => (usage?.pids ?? 0) >= 30
          )
        )
        // What it may not have as memory it does not get as swap.
        const { cgroupsPath } = yield* PrivateContainerd
        const legacy = `/sys/fs/cgroup/memory${cgroupsPath}/${bomb.instanceId}/memory.memsw.limit_in_bytes`
        const unified = `/sys/fs/cgroup${cgroupsPath}/${bomb.instanceId}/memory.swap.max`
        const [file, most] = existsSync(legacy) ? [legacy, limits.memoryBytes] : [unified, 0n]
        assert.strictEqual(readFileSync(file, "utf8"), `${most}\n`)
        // Who prints more than the log may take waits for it.
        const printer = Fixture.request(
          ["sh", "-c", `yes ${"x".repeat(100)} | head -c 1500000; cat /proc/self/limits`],
          limits
        )
        const begun = yield* Clock.currentTimeMillis
        yield* client.create(printer)
        yield* Fixture.untilState(client, printer.instanceId, InstanceState.EXITED)
        // Half a second at least: what the pipe and the logger hold at once is not waited for.
        assert.isAbove((yield* Clock.currentTimeMillis) - begun, 500)
        const bounds = (yield* Fixture.logsOf(client, printer.instanceId)).map((line) => line.split(/ {2,}/))
        const boundOf = (name: string) => bounds.find(([title]) => title === name)?.slice(1, 3).map(Number)
        assert.deepStrictEqual(boundOf("Max core file size"), [0, 0])
        const [openFiles = 0] = boundOf("Max open files") ?? []
        assert.isAtMost(openFiles, 65_536)
        assert.deepStrictEqual(boundOf("Max open files"), [openFiles, openFiles])
        yield* client.delete({ instanceId: printer.instanceId })
        // The neighbours start meanwhile.
        const files = yield* results(client, ["sh", "-c", "attacker open-forever | sed 's/^/opened /'"], limits)
        const [opened = "", refusal] = files["opened"]?.split(" ") ?? []
        assert.strictEqual(refusal, "EMFILE")
        assert.isAtMost(Number(opened), openFiles)
        const shared = yield* results(
          client,
          [
            "sh",
            "-c",
            "dd if=/dev/zero of=/dev/shm/x bs=1M count=100 2>&1 | grep -o 'No space' | head -1 | sed 's/^/full /'"
          ],
          { image: "attack", memoryBytes: 256n * 1024n * 1024n }
        )
        assert.strictEqual(shared["full"], "No space")
        const disk = Fixture.request(
          ["sh", "-c", "dd if=/dev/zero of=/full bs=1M count=64 2>/dev/null; sleep 1000"],
          { ...limits, diskBytes: 32n * 1024n * 1024n }
        )
        yield* client.create(disk)
        const full = yield* Fixture.untilState(client, disk.instanceId, InstanceState.EXITED)
        assert.deepInclude(full, { reason: "DiskExceeded", signal: 9 })
        yield* client.delete({ instanceId: disk.instanceId })
        const usage = yield* Tasks.use((tasks) => tasks.usage(bomb.instanceId))
        assert.isAtMost(usage?.pids ?? 0, 32)
        yield* client.delete({ instanceId: bomb.instanceId, gracePeriodSeconds: 0 })
        assert.deepStrictEqual(yield* Fixture.world, before)
      }).pipe(Effect.scoped))
  })

  it.effect("on a kernel of gVisor's, and through it", () =>
    Effect.gen(function*() {
      const client = yield* Fixture.start({ FSB_RUNTIME_TYPE: "gvisor", FSB_RUNTIME_BINARY: "/usr/bin/runsc" })
      const found = yield* results(client, ["attacker", "syscalls", String(process.pid)])
      const succeeded = Object.keys(found).filter((name) => found[name] === "SUCCEEDED")
      assert.isAbove(Object.keys(found).length, 40)
      assert.deepStrictEqual(succeeded.filter((name) => !ownKernels.has(name)), [])
      const script = "attacker files; for at in /planted /tmp; do mknod $at/mem c 1 1; mknod $at/disk b 254 0; " +
        "for file in $at/*; do echo $file $(head -c 1 $file | wc -c) bytes; done; done; " +
        "echo -1000 > /proc/self/oom_score_adj; echo tried; exec sleep 1000"
      const request = Fixture.request(["sh", "-c", script], { image: "attack" })
      yield* client.create(request)
      const { pid } = yield* Tasks.use((tasks) => tasks.get({ containerId: request.instanceId }))
      const rootfs = new RegExp(` (/\\S+/${request.instanceId}/rootfs) `).exec(
        readFileSync("/proc/self/mountinfo", "utf8")
      )
      const lines = yield* triedBy(client, request.instanceId)
      assert.isAbove(lines.length, 20)
      assert.deepStrictEqual(lines.filter((line) => / (SUCCEEDED|1 bytes)$/.test(line)), [])
      // The node has no device of its making, and sees a process of nobody's that has a filter and goes first.
      const devices = execFileSync("find", [rootfs?.[1] ?? "", "-type", "b", "-o", "-type", "c"], { encoding: "utf8" })
      assert.strictEqual(devices, "")
      const status = readFileSync(`/proc/${pid}/status`, "utf8")
      assert.match(status, /^Uid:\t65534\t65534\t65534\t65534$/m)
      assert.match(status, /^NoNewPrivs:\t1\nSeccomp:\t2$/m)
      assert.strictEqual(readFileSync(`/proc/${pid}/oom_score_adj`, "utf8"), "500\n")
      yield* client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
    }).pipe(Effect.scoped))
})
