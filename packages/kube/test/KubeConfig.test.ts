import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import { ConfigProvider, Effect, FileSystem, Layer } from "effect"
import { TestClock } from "effect/testing"
import { createServer } from "node:http"

const base64 = (text: string) => Buffer.from(text).toString("base64")

const kubeconfig = (users: string) => `
apiVersion: v1
kind: Config
current-context: main
clusters:
- name: one
  cluster:
    server: https://one:6443/
    certificate-authority-data: ${base64("ONE CA")}
    tls-server-name: kubernetes
- name: two
  cluster:
    server: http://two:8080
    certificate-authority: ca.crt
contexts:
- name: main
  context: { cluster: one, user: me, namespace: work }
- name: other
  context: { cluster: two, user: me }
- name: broken
  context: { cluster: nowhere, user: me }
users:
${users}
`

/** Writes files into a folder of their own and gives its path. */
const folder = Effect.fnUntraced(function*(files: Record<string, string>) {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "kubeconfig-" })
  for (const [name, content] of Object.entries(files)) {
    yield* fs.writeFileString(`${directory}/${name}`, content, { mode: 0o700 })
  }
  return directory
})

const load = (layer: typeof KubeConfig.layerDefault, env: Record<string, string> = {}) =>
  KubeConfig.pipe(
    Effect.provide(layer, { local: true }),
    Effect.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env })))
  )

describe("KubeConfig", () => {
  it.effect("reads the current context, or another one", () =>
    Effect.gen(function*() {
      const directory = yield* folder({
        config: kubeconfig("- name: me\n  user: { token: abc, as: someone }"),
        "ca.crt": "TWO CA"
      })
      const main = yield* load(KubeConfig.layerFile(`${directory}/config`))
      assert.strictEqual(main.namespace, "work")
      assert.deepInclude(main.cluster, { server: "https://one:6443", ca: "ONE CA", tlsServerName: "kubernetes" })
      assert.deepStrictEqual((yield* main.credentials).headers, {
        authorization: "Bearer abc",
        "impersonate-user": "someone"
      })
      const other = yield* load(KubeConfig.layerFile(`${directory}/config`, "other"))
      assert.strictEqual(other.namespace, "default")
      assert.deepInclude(other.cluster, { server: "http://two:8080", ca: "TWO CA" })
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("says what is missing", () =>
    Effect.gen(function*() {
      const directory = yield* folder({
        config: kubeconfig("- name: me\n  user: {}"),
        bad: "clusters: [{}]",
        yaml: "{"
      })
      const problem = (file: string, context?: string) =>
        Effect.map(
          Effect.flip(load(KubeConfig.layerFile(`${directory}/${file}`, context))),
          (error) => error.message
        )
      assert.include(yield* problem("config", "nope"), "there is no context named \"nope\"")
      assert.include(yield* problem("config", "broken"), "there is no cluster named \"nowhere\"")
      assert.include(yield* problem("missing"), "missing")
      assert.include(yield* problem("bad"), "clusters[0].name is missing")
      assert.include(yield* problem("yaml"), `${directory}/yaml`)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("reads rotating token files again, client certificates, and passwords", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* folder({
        config: kubeconfig("- name: me\n  user: { tokenFile: token, client-certificate: c, client-key: k }"),
        basic: kubeconfig("- name: me\n  user: { username: u, password: p }"),
        token: "first\n",
        c: "CERT",
        k: "KEY"
      })
      const { credentials } = yield* load(KubeConfig.layerFile(`${directory}/config`))
      assert.deepStrictEqual(yield* credentials, {
        headers: { authorization: "Bearer first" },
        certificate: { cert: "CERT", key: "KEY" }
      })
      yield* fs.writeFileString(`${directory}/token`, "second")
      assert.strictEqual((yield* credentials).headers.authorization, "Bearer first")
      yield* TestClock.adjust("61 seconds")
      assert.strictEqual((yield* credentials).headers.authorization, "Bearer second")
      const basic = yield* load(KubeConfig.layerFile(`${directory}/basic`))
      assert.strictEqual((yield* basic.credentials).headers.authorization, `Basic ${base64("u:p")}`)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("asks exec plugins, once for concurrent calls, and tells them about the cluster", () =>
    Effect.gen(function*() {
      const directory = yield* folder({
        config: kubeconfig(
          "- name: me\n  user: { exec: { apiVersion: client.authentication.k8s.io/v1, command: ./plugin, provideClusterInfo: true } }"
        ),
        plugin: `#!/bin/sh
echo ran >> "$(dirname "$0")/runs"
server=$(echo "$KUBERNETES_EXEC_INFO" | grep -o 'https://one:6443')
echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"'$server'"}}'
`
      })
      const { credentials } = yield* load(KubeConfig.layerFile(`${directory}/config`))
      const all = yield* Effect.all([credentials, credentials, credentials], { concurrency: 3 })
      assert.deepStrictEqual(all.map(({ headers }) => headers.authorization), [
        "Bearer https://one:6443",
        "Bearer https://one:6443",
        "Bearer https://one:6443"
      ])
      const fs = yield* FileSystem.FileSystem
      assert.strictEqual(yield* fs.readFileString(`${directory}/runs`), "ran\n")
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("by default: KUBECONFIG, several files merged, else the home folder, else the Pod", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* folder({
        first: "current-context: other\nusers: [{ name: me, user: { token: mine } }]",
        second: kubeconfig("- name: me\n  user: { token: theirs }"),
        "ca.crt": "TWO CA"
      })
      const merged = yield* load(KubeConfig.layerDefault, { KUBECONFIG: `${directory}/first:${directory}/second` })
      assert.strictEqual(merged.cluster.server, "http://two:8080")
      assert.strictEqual((yield* merged.credentials).headers.authorization, "Bearer mine")
      const none = yield* Effect.flip(load(KubeConfig.layerDefault, { HOME: directory }))
      assert.include(none.message, "not in a Pod")
      yield* fs.makeDirectory(`${directory}/.kube`)
      yield* fs.copyFile(`${directory}/second`, `${directory}/.kube/config`)
      const home = yield* load(KubeConfig.layerDefault, { HOME: directory })
      assert.strictEqual(home.cluster.server, "https://one:6443")
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("reaches a server on a unix socket", () =>
    Effect.gen(function*() {
      const socket = `${yield* folder({})}/api.sock`
      yield* Effect.acquireRelease(
        Effect.callback<ReturnType<typeof createServer>>((resume) => {
          const server = createServer((request, response) => response.end(`${request.headers.authorization} here`))
          server.listen(socket, () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
      )
      const answer = yield* KubeClient.use((client) => client.request({ path: "/healthz" })).pipe(
        Effect.provide(KubeClient.layer.pipe(
          Layer.provide(KubeConfig.layer({ server: `unix://${socket}`, token: "t" }))
        ))
      )
      assert.strictEqual(answer, "Bearer t here")
    }).pipe(Effect.provide(NodeServices.layer)))
})
