import { assert, describe, layer } from "@effect/vitest"
import { maxAhead } from "@fast-sandbox/agent/network/NetworkPool"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import { version } from "@fast-sandbox/core/Version"
import * as MachineCensus from "@fast-sandbox/testkit/MachineCensus"
import * as Grpc from "@grpc/grpc-js"
import { loadSync } from "@grpc/proto-loader"
import { Effect, FileSystem, Schema } from "effect"
import { fileURLToPath } from "node:url"
import { leavesNothing } from "./e2e/Census.ts"
import { eventually } from "./e2e/Eventually.ts"
import * as Listening from "./e2e/Listening.ts"
import * as LocalStack from "./e2e/LocalStack.ts"
import * as Machine from "./e2e/Machine.ts"
import * as TestStack from "./e2e/TestStack.ts"

const Listed = Schema.fromJsonString(Schema.Struct({
  kind: Schema.Literal("List"),
  items: Schema.Array(Schema.Struct({ metadata: Schema.Struct({ name: Schema.String }) }))
}))

const Shown = Schema.fromJsonString(Schema.Struct({
  kind: Schema.Literal("Sandbox"),
  metadata: Schema.Struct({ name: Schema.String, uid: Schema.optionalKey(Schema.String) }),
  status: Schema.Struct({
    phase: Schema.String,
    sandboxID: Schema.String,
    exitCode: Schema.optionalKey(Schema.Int),
    reason: Schema.optionalKey(Schema.String)
  })
}))

const shown = (name: string) =>
  Effect.gen(function*() {
    const { fsbCtl } = yield* LocalStack.LocalStack
    const { code, stderr, stdout } = yield* fsbCtl("get", name, "-o", "json")
    assert.strictEqual(code, 0, stderr)
    return yield* Schema.decodeUnknownEffect(Shown)(stdout)
  })

/** Waits for ever, and ends at once when it is told to: process 1 of a container ignores signals that it does not handle. */
const idleScript = "trap 'exit 0' TERM; sleep 600 & wait"
const idle = ["sh", "-c", idleScript] as const

leavesNothing()

/** Files, mounts and links of sandboxes' networks, as a census names them. */
const isNetwork = /fsb-?[0-9a-f]{8}-?n$/

/** Node is 125 MB of it. */
const maxExecutableBytes = 150e6

describe("one machine", () => {
  layer(TestStack.layer, TestStack.options)((it) => {
    it.effect("runs a program, shows its output and ends with its exit code", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const hello = yield* fsbCtl(
          "run",
          "--rm",
          "hello",
          "--image",
          "busybox",
          "--",
          "sh",
          "-c",
          "echo out; echo err >&2"
        )
        assert.strictEqual(hello.stdout, "out\n", hello.stderr)
        assert.include(hello.stderr, "err\n")
        assert.strictEqual(hello.code, 0)
        const seven = yield* fsbCtl("run", "--rm", "seven", "--image", "busybox", "--", "sh", "-c", "exit 7")
        assert.strictEqual(seven.code, 7, seven.stderr)
      }))

    it.effect("listens on the network for nobody, but on the loopback device for its own API", () =>
      Effect.gen(function*() {
        const { home } = yield* LocalStack.LocalStack
        yield* Listening.assertOnly(home, [yield* Listening.apiServer(home)])
      }))

    it.effect("takes fsb-ctl as one file, without a node or a repository around it", () =>
      Effect.gen(function*() {
        const { home } = yield* LocalStack.LocalStack
        const repository = fileURLToPath(new URL("../../..", import.meta.url))
        const built = yield* LocalStack.run(process.execPath, [`${repository}/packages/cli/build/executable.ts`])
        assert.strictEqual(built.code, 0, built.stderr)
        const [path = ""] = built.stdout.split(": ")
        const files = yield* FileSystem.FileSystem
        const folder = yield* files.makeTempDirectoryScoped({ prefix: "fsb-executable-" })
        const alone = `${folder}/fsb-ctl`
        yield* files.copyFile(path, alone)
        assert.isBelow(Number((yield* files.stat(alone)).size), maxExecutableBytes)
        const fsbCtl = (...args: ReadonlyArray<string>) =>
          LocalStack.run(alone, args, { env: { PATH: "/nonexistent", FSB_ENDPOINT: `unix:${home}/run/fastpath.sock` } })
        assert.deepStrictEqual(yield* fsbCtl("--version"), { code: 0, stdout: `fsb-ctl ${version}\n`, stderr: "" })
        const ran = yield* fsbCtl("run", "--rm", "--image", "busybox", "--", "sh", "-c", "echo out; exit 7")
        assert.deepStrictEqual({ code: ran.code, stdout: ran.stdout }, { code: 7, stdout: "out\n" }, ran.stderr)
        const listed = yield* fsbCtl("list", "-o", "yaml")
        assert.match(listed.stdout, /^kind: List$/m, listed.stderr)
        assert.match((yield* fsbCtl("up")).stderr, /this build of fsb-ctl can't run the server: .*take the archive/)
      }).pipe(Effect.scoped))

    it.effect("runs in the background, is listed, logs, and is deleted", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const run = yield* fsbCtl("run", "-d", "web", "--image", "busybox", "--", "sh", "-c", `echo up; ${idleScript}`)
        assert.strictEqual(run.code, 0, run.stderr)
        assert.strictEqual(run.stdout.trim(), "web")
        assert.match(run.stderr, /prepared|parked/)
        assert.strictEqual((yield* shown("web")).status.phase, "Running")
        const list = yield* fsbCtl("list", "-o", "json")
        const { items } = yield* Schema.decodeUnknownEffect(Listed)(list.stdout)
        assert.include(items.map(({ metadata }) => metadata.name), "web")
        yield* eventually(Effect.gen(function*() {
          assert.strictEqual((yield* fsbCtl("logs", "web")).stdout, "up\n")
        }))
        assert.strictEqual((yield* fsbCtl("delete", "web")).code, 0)
        const gone = yield* fsbCtl("get", "web")
        assert.strictEqual(gone.code, 125)
        assert.match(gone.stderr, /not found/)
      }))

    it.effect("gives the same name a new instance, four times", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const ids = new Set<string>()
        for (let n = 0; n < 4; n++) {
          const run = yield* fsbCtl("run", "-d", "again", "--image", "busybox", "--", ...idle)
          assert.strictEqual(run.code, 0, run.stderr)
          ids.add((yield* shown("again")).status.sandboxID)
          assert.strictEqual((yield* fsbCtl("delete", "again")).code, 0)
        }
        assert.strictEqual(ids.size, 4)
      }))

    it.effect("shows how a program ended", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        yield* fsbCtl("run", "-d", "ends", "--image", "busybox", "--", "sh", "-c", "echo last words; exit 3")
        yield* eventually(Effect.gen(function*() {
          const { status } = yield* shown("ends")
          assert.deepInclude(status, { phase: "Failed", exitCode: 3, reason: "Error" })
        }))
        assert.strictEqual((yield* fsbCtl("logs", "ends")).stdout, "last words\n")
        assert.strictEqual((yield* fsbCtl("delete", "ends")).code, 0)
      }))

    it.effect("is a Kubernetes to kubectl", () =>
      Effect.gen(function*() {
        const { fsbCtl, kubectl, kubectlApply } = yield* LocalStack.LocalStack
        yield* fsbCtl("run", "-d", "seen", "--image", "busybox", "--", ...idle)
        const all = yield* eventually(
          Effect.tap(kubectl("get", "sandboxes,sandboxpools,pods"), ({ stdout }) =>
            Effect.sync(() => assert.match(stdout, /sandbox\.sandbox\.fast\.io\/seen +Running/)))
        )
        assert.match(all.stdout, /sandboxpool\.sandbox\.fast\.io\/default-pool/)
        assert.match(all.stdout, /pod\/default-pool-agent-\S+ +1\/1 +Running/)
        const applied = yield* kubectlApply(
          "{ apiVersion: sandbox.fast.io/v1alpha1, kind: SandboxPool, metadata: { name: small }, " +
            "spec: { capacity: { poolMin: 1, poolMax: 1 }, maxSandboxesPerPod: 3 } }"
        )
        assert.strictEqual(applied.code, 0, applied.stderr)
        const declared = yield* kubectlApply(
          "{ apiVersion: sandbox.fast.io/v1alpha1, kind: Sandbox, metadata: { name: declared }, " +
            `spec: { image: busybox, poolRef: small, command: ${JSON.stringify(idle)} } }`
        )
        assert.strictEqual(declared.code, 0, declared.stderr)
        const waited = yield* kubectl(
          "wait",
          "--for=jsonpath={.status.phase}=Running",
          "sandbox/declared",
          "--timeout=30s"
        )
        assert.strictEqual(waited.code, 0, waited.stderr)
        assert.strictEqual((yield* kubectl("delete", "sandbox", "seen", "declared", "--wait")).code, 0)
        assert.strictEqual((yield* kubectl("delete", "sandboxpool", "small", "--wait")).code, 0)
        yield* eventually(Effect.gen(function*() {
          const { stdout } = yield* kubectl("get", "pods", "-l", "fast-sandbox.io/pool=small", "-o", "name")
          assert.strictEqual(stdout, "")
        }))
      }))

    it.effect("never sells more than its slots: 40 creates on 3", () =>
      Effect.gen(function*() {
        const { kubectl, kubectlApply } = yield* LocalStack.LocalStack
        yield* kubectlApply(
          "{ apiVersion: sandbox.fast.io/v1alpha1, kind: SandboxPool, metadata: { name: three }, " +
            "spec: { capacity: { poolMin: 1, poolMax: 1 }, maxSandboxesPerPod: 3 } }"
        )
        yield* eventually(Effect.gen(function*() {
          const { stdout } = yield* kubectl("get", "sandboxpool", "three", "-o", "jsonpath={.status.ready}")
          assert.strictEqual(stdout, "1")
        }))
        const sandboxes = yield* Sandboxes
        const results = yield* Effect.forEach(
          Array.from({ length: 40 }, (_, n) => `race-${n}`),
          (name) =>
            Effect.result(
              sandboxes.create({
                name,
                image: "busybox",
                pool: "three",
                args: ["sleep", "600"],
                terminationGracePeriodSeconds: 0
              })
            ),
          { concurrency: "unbounded" }
        )
        const refused = results.flatMap((result) => result._tag === "Failure" ? [result.failure] : [])
        assert.strictEqual(results.length - refused.length, 3)
        assert.isTrue(refused.every(({ _tag }) => _tag === "ResourceExhausted"))
        const left = yield* sandboxes.list()
        const mine = left.filter(({ name }) => name.startsWith("race-"))
        assert.strictEqual(mine.length, 3)
        yield* Effect.forEach(
          mine,
          ({ name }) => sandboxes.delete(name).pipe(Effect.andThen(sandboxes.waitForDeletion(name)))
        )
        yield* kubectl("delete", "sandboxpool", "three", "--wait")
      }))

    it.effect("talks to a client that another tool made from fastpath.v1", () =>
      Effect.gen(function*() {
        const { home } = yield* LocalStack.LocalStack
        const proto = loadSync("fastpath/v1/fastpath.proto", {
          includeDirs: [fileURLToPath(new URL("../../../proto", import.meta.url))],
          keepCase: true,
          longs: Number
        })
        const service = proto["fastpath.v1.FastPathService"]
        assert.isOk(service)
        const client = new (Grpc.makeGenericClientConstructor(service as Grpc.ServiceDefinition, "FastPathService"))(
          `unix:${home}/run/fastpath.sock`,
          Grpc.credentials.createInsecure()
        )
        const call = (method: string, request: object) =>
          Effect.callback<Record<string, unknown>, Grpc.ServiceError>((resume) => {
            client[method]?.(request, (error: Grpc.ServiceError | null, response: Record<string, unknown>) =>
              resume(error === null ? Effect.succeed(response) : Effect.fail(error)))
          })
        const created = yield* call("CreateSandbox", {
          name: "foreign",
          image: "busybox",
          pool_ref: "default-pool",
          command: ["sh"],
          args: ["-c", idleScript]
        })
        assert.strictEqual(created["sandbox_name"], "foreign")
        const got = yield* call("GetSandbox", { sandbox_name: "foreign" })
        assert.deepInclude(got, { phase: "Running", sandbox_id: created["sandbox_id"] })
        const { items } = yield* call("ListSandboxes", {})
        assert.isTrue(
          Array.isArray(items) && items.some((item) =>
            item.sandbox_name === "foreign"
          )
        )
        assert.deepInclude(yield* call("DeleteSandbox", { sandbox_name: "foreign" }), { success: true })
        yield* eventually(Effect.gen(function*() {
          const error = yield* Effect.flip(call("GetSandbox", { sandbox_name: "foreign" }))
          assert.strictEqual(error.code, Grpc.status.NOT_FOUND)
        }))
        client.close()
      }))

    it.effect.each<{ what: string; args: ReadonlyArray<string>; says: RegExp }>([
      { what: "an unknown pool", args: ["run", "-d", "bad", "--image", "busybox", "--pool", "nope"], says: /nope/ },
      { what: "an image that is not there", args: ["run", "-d", "bad", "--image", "nope:1"], says: /image/ },
      { what: "port 0", args: ["run", "-d", "bad", "--image", "busybox", "--ports", "0"], says: /port/i },
      { what: "a port twice", args: ["run", "-d", "bad", "--image", "busybox", "--ports", "80,80"], says: /port/i },
      {
        what: "a program that is not there",
        args: ["run", "-d", "bad", "--image", "busybox", "--", "/nope"],
        says: /nope/
      },
      { what: "a broken archive", args: ["image", "load", "/etc/hostname"], says: /archive/ },
      { what: "an image that no node holds", args: ["image", "remove", "nope:1"], says: /image .*nope:1 not found/ },
      { what: "a folder that is no home", args: ["down", "--wipe", "--home", "/proc/tty"], says: /holds no stack/ },
      { what: "a limit that is none", args: ["pool", "create", "bad", "--cpu", "much"], says: /--cpu .*500m/ },
      { what: "nobody at the endpoint", args: ["--endpoint", "unix:/nowhere.sock", "list"], says: /nowhere\.sock/ },
      { what: "a sandbox that is not there", args: ["delete", "nope"], says: /nope.*not found/ }
    ])("refuses $what in one line and leaves nothing", ({ args, says }) =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const { code, stderr, stdout } = yield* fsbCtl(...args)
        assert.include([125, 127], code)
        assert.strictEqual(stdout, "")
        assert.match(stderr, says)
        assert.strictEqual(stderr.trim().split("\n").length, 1, stderr)
        const { items } = yield* Schema.decodeUnknownEffect(Listed)((yield* fsbCtl("list", "-o", "json")).stdout)
        assert.notInclude(items.map(({ metadata }) => metadata.name), "bad")
      }))

    it.effect("refuses a taken name", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        yield* fsbCtl("run", "-d", "taken", "--image", "busybox", "--", ...idle)
        const second = yield* fsbCtl("run", "-d", "taken", "--image", "busybox", "--", "sleep", "601")
        assert.strictEqual(second.code, 125)
        assert.match(second.stderr, /taken.*already exists/)
        yield* fsbCtl("delete", "taken")
      }))

    it.effect("keeps sandboxes through kill -9 of everything that is ours", () =>
      Effect.gen(function*() {
        const { fsbCtl, home } = yield* LocalStack.LocalStack
        const files = yield* FileSystem.FileSystem
        yield* fsbCtl(
          "run",
          "-d",
          "survivor",
          "--image",
          "busybox",
          "--",
          "sh",
          "-c",
          "while :; do date +%s; sleep 1; done"
        )
        const { status: { sandboxID } } = yield* shown("survivor")
        const { pid } = JSON.parse(yield* files.readFileString(`${home}/run/stack.pid`))
        process.kill(pid, "SIGKILL")
        const again = yield* fsbCtl("up", "--detach", "--containerd", "own")
        assert.strictEqual(again.code, 0, again.stderr)
        yield* eventually(Effect.gen(function*() {
          assert.deepInclude((yield* shown("survivor")).status, { phase: "Running", sandboxID })
        }))
        const lines = (yield* fsbCtl("logs", "survivor")).stdout.trim().split("\n")
        yield* eventually(Effect.gen(function*() {
          assert.isAbove((yield* fsbCtl("logs", "survivor")).stdout.trim().split("\n").length, lines.length)
        }))
        assert.strictEqual((yield* fsbCtl("delete", "survivor")).code, 0)
      }))

    it.effect("leaves nothing behind after 200 sandboxes", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        const run = (name: string) =>
          sandboxes.create({ name, image: "busybox", args: ["sleep", "600"], terminationGracePeriodSeconds: 0 }).pipe(
            Effect.andThen(sandboxes.delete(name)),
            Effect.andThen(sandboxes.waitForDeletion(name))
          )
        // An agent mounts the layers of an image once, for its first sandbox, and keeps them.
        yield* run("first")
        const before = yield* MachineCensus.take
        yield* Effect.forEach(Array.from({ length: 200 }, (_, n) => `many-${n}`), run, { concurrency: 4 })
        assert.deepStrictEqual(yield* sandboxes.list({ allNamespaces: true }), [])
        yield* eventually(Effect.gen(function*() {
          const waiting = yield* Machine.waiting
          const after = yield* MachineCensus.take
          const stayed = Object.values(MachineCensus.added(before, after)).flat()
          assert.deepStrictEqual(
            stayed.filter((entry) => !isNetwork.test(entry) && !waiting.some((id) => entry.includes(id))),
            []
          )
          // One for each slot that waits, whose name it does not bear, and those that are made ahead.
          assert.isAtMost(
            after.networkNamespaces.filter((name) => isNetwork.test(name)).length,
            waiting.length + maxAhead
          )
        }))
      }), 120_000)
  })
})
