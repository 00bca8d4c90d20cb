/**
 * Fast Sandbox on a node of a cluster as its manifests install it: the Pods of `infra/manifests`, the sample pool with one
 * agent, an image, and fsb-ctl as a caller from outside, with a token and the published certificate.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { fileURLToPath } from "node:url"
import { parseAllDocuments } from "yaml"
import * as ClusterNode from "./ClusterNode.ts"
import { eventually } from "./Eventually.ts"
import * as LocalStack from "./LocalStack.ts"

const repository = fileURLToPath(new URL("../../../..", import.meta.url))

const Workload = Schema.Struct({
  kind: Schema.Literals(["Deployment", "DaemonSet"]),
  metadata: Schema.Struct({ name: Schema.String, namespace: Schema.String }),
  spec: Schema.Struct({ template: Schema.Struct({ spec: Schema.Unknown }) })
})
const isWorkload = Schema.is(Workload)

/** The Pods of the installation by name, from `kubectl kustomize`. */
const pods = Effect.gen(function*() {
  const { kubectl } = yield* ClusterNode.ClusterNode
  const rendered = yield* kubectl("kustomize", `${repository}/infra/manifests`)
  const documents = parseAllDocuments(rendered).map((document): unknown => document.toJS())
  return new Map(
    documents.filter(isWorkload).map(({ metadata, spec }) =>
      [metadata.name, { metadata, spec: spec.template.spec }] as const
    )
  )
})

/** The program of each Pod, and fsb-ctl on them. */
export class Installation extends Context.Service<Installation, {
  readonly controller: ClusterNode.RunningPod
  readonly agent: ClusterNode.RunningPod
  readonly janitor: ClusterNode.RunningPod
  fsbCtl(...args: ReadonlyArray<string>): Effect.Effect<LocalStack.Ran>
}>()("@fast-sandbox/cli/test/e2e/Installation") {}

/** Shows what the Pods have written when something does not work. */
export const explained = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.tapCause(self, () =>
    Effect.gen(function*() {
      const { logs } = yield* ClusterNode.ClusterNode
      for (const pod of ["controller", "janitor", "default-pool"]) yield* Effect.logInfo(yield* logs(pod))
    }))

const make = Effect.gen(function*() {
  const node = yield* ClusterNode.ClusterNode
  const files = yield* FileSystem.FileSystem
  const wanted = yield* pods
  const janitor = yield* node.runPod(wanted.get("janitor"))
  const controller = yield* node.runPod(wanted.get("controller"))
  yield* node.kubectl("apply", "-f", `${repository}/infra/manifests/samples/pool.yaml`)
  const agent = yield* eventually(Effect.suspend(() => {
    const [first] = node.agents.values()
    return first === undefined ? Effect.die(new Error("no agent runs")) : Effect.succeed(first)
  }))
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
  const archive = yield* LocalStack.busyboxArchive
  yield* eventually(Effect.gen(function*() {
    const { code, stderr } = yield* fsbCtl("image", "load", archive)
    if (code !== 0) return yield* Effect.die(new Error(stderr))
  }))
  return Installation.of({ controller, agent, janitor, fsbCtl })
})

/** Runs it; done when sandboxes of busybox can be started. */
export const layer = (options: ClusterNode.Options) =>
  Layer.effect(Installation, explained(make)).pipe(Layer.orDie, Layer.provideMerge(ClusterNode.layer(options)))
