import { assert, describe, it } from "@effect/vitest"
import { Effect, Ref } from "effect"
import { readdirSync } from "node:fs"
import { tmpdir } from "node:os"
import { Fake } from "../../client/test/FakeFastPath.ts"
import * as FsbCtl from "./FsbCtl.ts"
import * as Api from "./PortForwardingApi.ts"

/** A cluster whose controller is the fake server, and a context of fsb-ctl that leads there. */
const prepare = Effect.gen(function*() {
  const { run, write } = yield* FsbCtl.FsbCtl
  const shown = yield* run(["config", "view", "-o", "jsonpath={.endpoint}"])
  const cluster: Api.Cluster = {
    podPort: Number(shown.stdout.split(":").at(-1)),
    token: "s3cret",
    hasService: true,
    isReady: true,
    refusal: undefined,
    connections: 0
  }
  const server = yield* Api.serve(cluster)
  const kubeconfig = write(
    "kubeconfig",
    JSON.stringify({
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name: "c", cluster: { server } }],
      users: [{ name: "u", user: { token: cluster.token } }],
      contexts: [{ name: "admin", context: { cluster: "c", user: "u" } }]
    })
  )
  const env = { FSB_ENDPOINT: "" }
  const call = (...args: ReadonlyArray<string>) => run(args, { env })
  yield* call("config", "set", "contexts.far.kubernetes.kubeconfig", kubeconfig)
  yield* call("config", "set", "contexts.far.kubernetes.context", "admin")
  yield* call("config", "use-context", "far")
  return { call, cluster }
})

const tunnels = () => readdirSync(tmpdir()).filter((name) => name.startsWith("fsb-tunnel-"))

describe("a context that leads through the Kubernetes API", () => {
  it.live("carries calls, streams and a megabyte, and leaves nothing", () =>
    Effect.gen(function*() {
      const before = tunnels()
      const { call, cluster } = yield* prepare
      const { write } = yield* FsbCtl.FsbCtl
      const hello = yield* call("run", "--rm", "--image", "alpine", "--", "echo", "hello")
      assert.deepStrictEqual([hello.code, hello.stdout], [0, "hello\n"], hello.stderr)
      yield* call("run", "n", "-d", "--image", "alpine", "--", "count", "5000")
      const { stdout } = yield* call("logs", "n")
      assert.strictEqual(stdout.trim().split("\n").length, 5000)
      write("image.tar", "x".repeat(1_000_000))
      assert.strictEqual((yield* call("image", "load", "image.tar")).code, 0)
      assert.strictEqual(yield* Fake.use(({ loaded }) => Ref.get(loaded)), 1_000_000)
      assert.isAtLeast(cluster.connections, 4)
      assert.deepStrictEqual(tunnels(), before)
    }).pipe(Effect.scoped, Effect.provide(FsbCtl.layer())), 60_000)

  it.live("says in one line why there is no way", () =>
    Effect.gen(function*() {
      const { call, cluster } = yield* prepare
      const refused = Effect.gen(function*() {
        const { code, stderr, stdout } = yield* call("ls")
        assert.deepStrictEqual([code, stdout], [125, ""])
        assert.strictEqual(stderr.trim().split("\n").length, 1, stderr)
        return stderr
      })
      cluster.refusal = "error forwarding port: connection refused"
      assert.match(
        yield* refused,
        /^fsb-ctl: port \d+ of Pod fast-sandbox-system\/controller-0: .*connection refused$/m
      )
      cluster.isReady = false
      assert.match(yield* refused, /no Pod of the Service fast-sandbox-system\/fastpath is ready/)
      cluster.hasService = false
      assert.match(yield* refused, /there is no Service fast-sandbox-system\/fastpath in that cluster/)
      yield* call("config", "set", "contexts.far.kubernetes.context", "nope")
      assert.match(yield* refused, /the kubeconfig can't be used: .*no context named "nope"/)
      yield* call("config", "set", "contexts.far.kubernetes.kubeconfig", "/nowhere")
      assert.match(yield* refused, /the kubeconfig can't be used: \/nowhere/)
    }).pipe(Effect.scoped, Effect.provide(FsbCtl.layer())), 60_000)
})
