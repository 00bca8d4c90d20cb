import { assert, describe, layer } from "@effect/vitest"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import { Effect, FileSystem } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { leavesNothing } from "./e2e/Census.ts"
import { eventually } from "./e2e/Eventually.ts"
import * as LocalStack from "./e2e/LocalStack.ts"
import * as Resources from "./e2e/Resources.ts"
import * as TestStack from "./e2e/TestStack.ts"

leavesNothing()

const repository = fileURLToPath(new URL("../../..", import.meta.url))

const path = (name: string) => `${repository}/infra/examples/${name}.ts`

/** Runs an example to its end against the stack. */
const example = (name: string, env?: Readonly<Record<string, string>>) =>
  Effect.gen(function*() {
    const { home } = yield* LocalStack.LocalStack
    return yield* LocalStack.run(process.execPath, [path(name)], {
      env: { FSB_ENDPOINT: `unix:${home}/run/fastpath.sock`, ...env }
    })
  })

/** Starts an example that goes on; it is asked to end with the scope. Gives all that it printed so far. */
const service = (name: string, env: Readonly<Record<string, string>>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(process.execPath, [path(name)], { cwd: repository, env: { ...process.env, ...env } })
      let output = ""
      const keep = (chunk: Buffer) => {
        output += chunk.toString()
      }
      child.stdout.on("data", keep)
      child.stderr.on("data", keep)
      return { child, output: () => output }
    }),
    ({ child }) => end(child)
  )

const end = (child: ChildProcess) =>
  Effect.callback<void>((resume) => {
    child.once("close", () => resume(Effect.void))
    if (child.exitCode !== null || !child.kill("SIGTERM")) resume(Effect.void)
  })

describe("examples", () => {
  layer(TestStack.layer, TestStack.options)((it) => {
    it.effect("script", () =>
      Effect.gen(function*() {
        const { code, stderr, stdout } = yield* example("script")
        assert.strictEqual(code, 0, stderr)
        assert.match(stdout, /^\S+ ended with 0 and said 5050\n$/)
      }), 60_000)

    it.effect("agent-loop", () =>
      Effect.gen(function*() {
        const { code, stderr, stdout } = yield* example("agent-loop")
        assert.strictEqual(code, 0, stderr)
        assert.match(
          stdout,
          /^--- count the primes\n.*not found\n--- there is no Python.*\n83\n89\n97\n25 primes\n=== There are 25 primes up to 100\.\n$/
        )
        yield* eventually(Effect.gen(function*() {
          assert.deepStrictEqual(yield* Effect.flatMap(Sandboxes, ({ list }) => list()), [])
        }))
      }), 60_000)

    it.effect("node-report", () =>
      Effect.gen(function*() {
        const { fsbCtl, home } = yield* LocalStack.LocalStack
        yield* Resources.stdoutOf(fsbCtl("run", "-d", "shown", "--image", "busybox", "--", "sleep", "600"))
        const { code, stderr, stdout } = yield* example("node-report", {
          CONTAINERD_SOCKET: `${home}/containerd/containerd.sock`
        })
        assert.strictEqual(code, 0, stderr)
        assert.match(
          stdout,
          /^containerd \S+ at \S+, namespace k8s\.io\n[^]* {2}shown of docker\.io\/library\/busybox:latest: pid \d+\n/
        )
        yield* Resources.stdoutOf(fsbCtl("delete", "shown", "--force"))
      }), 60_000)

    it.effect("greeting-controller", () =>
      Effect.gen(function*() {
        const { home, kubectl, kubectlApply } = yield* LocalStack.LocalStack
        const { output } = yield* service("greeting-controller", { KUBECONFIG: `${home}/kubeconfig` })
        yield* eventually(Effect.sync(() => assert.include(output(), "watching")))
        const greeting = (to: string) =>
          `{ apiVersion: example.com/v1, kind: Greeting, metadata: { name: a }, spec: { to: ${to} } }`
        for (const to of ["world", "moon"]) {
          yield* eventually(Resources.stdoutOf(kubectlApply(greeting(to))))
          yield* eventually(Effect.gen(function*() {
            assert.strictEqual(
              (yield* kubectl("get", "greeting", "a", "-o", "jsonpath={.status.text}")).stdout,
              `hello, ${to}`
            )
          }))
        }
        yield* Resources.stdoutOf(kubectl("delete", "crd", "greetings.example.com"))
      }).pipe(Effect.scoped), 60_000)

    it.effect("code-service, with a stack of its own", () =>
      Effect.gen(function*() {
        const { archive, fsbCtl } = yield* LocalStack.LocalStack
        const files = yield* FileSystem.FileSystem
        const home = `${yield* files.makeTempDirectoryScoped({ prefix: "code-service-" })}/home`
        const endpoint = `unix:${home}/run/fastpath.sock`
        // a stack that ends leaves its data for the next start
        yield* Effect.addFinalizer(() => Effect.ignore(fsbCtl("down", "--wipe", "--home", home)))
        const { output } = yield* service("code-service", { FSB_HOME: home, PORT: "18080" })
        const post = (code: string) =>
          Effect.tryPromise(async () => {
            const response = await fetch("http://127.0.0.1:18080/run", { method: "POST", body: code })
            return response.text()
          })
        yield* eventually(Effect.map(post("true"), (answer) => assert.include(answer, "busybox")))
        yield* Resources.stdoutOf(fsbCtl("--endpoint", endpoint, "image", "load", archive))
        assert.strictEqual(yield* post("echo hello; echo again"), "hello\nagain\n", output())
        yield* eventually(Effect.gen(function*() {
          assert.strictEqual((yield* fsbCtl("--endpoint", endpoint, "ls", "-q")).stdout, "")
        }))
      }).pipe(Effect.scoped), 90_000)
  })
})
