import { assert, describe, layer } from "@effect/vitest"
import { Effect, FileSystem, Schema } from "effect"
import { readlinkSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { parseAllDocuments } from "yaml"
import { leavesNothing } from "./e2e/Census.ts"
import * as ClusterNode from "./e2e/ClusterNode.ts"
import { eventually } from "./e2e/Eventually.ts"
import * as LocalStack from "./e2e/LocalStack.ts"

leavesNothing()

const repository = fileURLToPath(new URL("../../..", import.meta.url))

/** Agents and janitors share the node's process ids (`hostPID`): those of process 1, which some machines keep closed. */
const isNode = (() => {
  try {
    readlinkSync("/proc/1/ns/pid")
    return true
  } catch {
    process.stderr.write(
      "not run: a sandbox from the images, because the namespaces of this machine's process 1 are closed\n"
    )
    return false
  }
})()

const Workload = Schema.Struct({
  kind: Schema.Literals(["Deployment", "DaemonSet"]),
  metadata: Schema.Struct({ name: Schema.String, namespace: Schema.String }),
  spec: Schema.Struct({ template: Schema.Struct({ spec: Schema.Unknown }) })
})
const isWorkload = Schema.is(Workload)

/** The Pods of the installation, from `kubectl kustomize`. */
const installation = Effect.gen(function*() {
  const { kubectl } = yield* ClusterNode.ClusterNode
  const rendered = yield* kubectl("kustomize", `${repository}/infra/manifests`)
  const documents = parseAllDocuments(rendered).map((document): unknown => document.toJS())
  return new Map(
    documents.filter(isWorkload).map(({ metadata, spec }) =>
      [metadata.name, { metadata, spec: spec.template.spec }] as const
    )
  )
})

const statusOf = (pid: number) =>
  Effect.map(FileSystem.FileSystem.use((files) => files.readFileString(`/proc/${pid}/status`)), (text) => ({
    megabytes: Number(/^VmRSS:\s+(\d+)/m.exec(text)?.[1]) / 1024,
    uid: Number(/^Uid:\s+(\d+)/m.exec(text)?.[1])
  }))

/** A node's image store holds an image as it is unpacked. */
const maxUnpackedBytes = 150e6

const Sbom = Schema.fromJsonString(Schema.Struct({
  bomFormat: Schema.Literal("CycloneDX"),
  components: Schema.Array(Schema.Struct({ purl: Schema.String }))
}))

describe("the images", () => {
  layer(ClusterNode.layer, { timeout: 120_000, excludeTestServices: true })((it) => {
    it.effect.skipIf(!isNode)("run a sandbox on a node, as their manifests say", () =>
      Effect.gen(function*() {
        const node = yield* ClusterNode.ClusterNode
        const pods = yield* installation
        yield* node.runPod(pods.get("janitor"))
        const controller = yield* node.runPod(pods.get("controller"))
        yield* node.kubectl("apply", "-f", `${repository}/infra/manifests/samples/pool.yaml`)
        yield* eventually(Effect.sync(() => assert.strictEqual(node.agents.size, 1)))
        const files = yield* FileSystem.FileSystem
        const folder = yield* files.makeTempDirectoryScoped({ prefix: "fsb-client-" })
        const published = ["get", "configmap", "fast-sandbox-ca", "-n", "fast-sandbox-system"]
        const ca = yield* node.kubectl(...published, "-o", "jsonpath={.data.ca\\.crt}")
        yield* files.writeFileString(`${folder}/ca.crt`, ca)
        const client = { endpoint: `${controller.ip}:9090`, token: node.token, tls: { ca: `${folder}/ca.crt` } }
        yield* files.writeFileString(`${folder}/config.json`, JSON.stringify(client))
        const fsbCtl = (...args: ReadonlyArray<string>) =>
          LocalStack.run(LocalStack.fsbCtlPath, ["--config", `${folder}/config.json`, ...args], {
            env: node.collector.environment
          })
        yield* eventually(Effect.gen(function*() {
          const loaded = yield* fsbCtl("image", "load", `${repository}/dist/images/busybox.tar`)
          assert.strictEqual(loaded.code, 0, loaded.stderr)
        }))
        const ran = yield* fsbCtl("run", "--rm", "--image", "busybox", "--", "sh", "-c", "echo hello; exit 3")
        assert.deepStrictEqual({ code: ran.code, stdout: ran.stdout }, { code: 3, stdout: "hello\n" }, ran.stderr)
        // The spans of one command, from all programs that had a part in it, are one trace.
        const { spans } = node.collector
        yield* eventually(Effect.sync(() => {
          const create = "/fastpath.v1.FastPathService/CreateSandbox"
          const { traceId } = spans.find(({ name, service }) => service === "fsb-ctl" && name === create) ?? {}
          const isPart = (service: string, name: string) =>
            spans.some((span) => span.traceId === traceId && span.service === service && span.name.includes(name))
          assert.isDefined(traceId)
          assert.isTrue(isPart("fast-sandbox-controller", create))
          assert.isTrue(isPart("fast-sandbox-agent", "/agent.v1.AgentService/Create"))
          assert.isTrue(isPart("fast-sandbox-agent", "/containerd.services.tasks.v1.Tasks/Start"))
        }))
        const { uid } = yield* statusOf(controller.pid)
        assert.strictEqual(uid, 65532)
      }).pipe(
        Effect.tapCause(() =>
          Effect.gen(function*() {
            const node = yield* ClusterNode.ClusterNode
            for (const pod of ["controller", "janitor", "default-pool"]) yield* Effect.logInfo(yield* node.logs(pod))
          })
        ),
        Effect.scoped
      ))

    it.effect("say what they are made of, and stay small", () =>
      Effect.gen(function*() {
        const files = yield* FileSystem.FileSystem
        for (const image of ["controller", "agent", "janitor"]) {
          const archive = `${repository}/dist/images/${image}`
          const text = yield* files.readFileString(`${archive}.cdx.json`)
          const { components } = yield* Schema.decodeUnknownEffect(Sbom)(text)
          const purls = components.map(({ purl }) => purl)
          for (const part of [/^pkg:npm\/effect@/, /^pkg:deb\/debian\/libc6@/, /^pkg:generic\/node@24/]) {
            assert.isTrue(purls.some((purl) => part.test(purl)), `${image}: ${part}`)
          }
        }
        const node = yield* ClusterNode.ClusterNode
        for (const [name, bytes] of yield* node.imageBytes) {
          assert.isBelow(bytes, maxUnpackedBytes, name)
        }
      }))
  })
})
