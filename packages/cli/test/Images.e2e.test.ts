import { assert, describe, layer } from "@effect/vitest"
import { Effect, FileSystem, Schema } from "effect"
import { fileURLToPath } from "node:url"
import { leavesNothing } from "./e2e/Census.ts"
import * as ClusterNode from "./e2e/ClusterNode.ts"
import { eventually } from "./e2e/Eventually.ts"
import * as Installation from "./e2e/Installation.ts"

leavesNothing()

const repository = fileURLToPath(new URL("../../..", import.meta.url))

/** The user that a process runs as. */
const userOf = (pid: number) =>
  Effect.map(
    FileSystem.FileSystem.use((files) => files.readFileString(`/proc/${pid}/status`)),
    (text) => Number(/^Uid:\s+(\d+)/m.exec(text)?.[1])
  )

/** A node's image store holds an image as it is unpacked. */
const maxUnpackedBytes = 150e6

const Sbom = Schema.fromJsonString(Schema.Struct({
  bomFormat: Schema.Literal("CycloneDX"),
  components: Schema.Array(Schema.Struct({ purl: Schema.String }))
}))

/** What a program tells Prometheus: for each metric the labels of each of its series. */
const scrape = Effect.fnUntraced(function*({ ip }: ClusterNode.RunningPod) {
  const text = yield* Effect.promise(() => fetch(`http://${ip}:9091/metrics`).then((response) => response.text()))
  const series = new Map<string, Array<Readonly<Record<string, string>>>>()
  for (const [, name = "", labels = ""] of text.matchAll(/^([a-z_]+)(?:\{(.*)\})? \S+$/gm)) {
    const pairs = [...labels.matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)].map((
      [, label = "", value = ""]
    ) => [label, value])
    series.set(name, [...series.get(name) ?? [], Object.fromEntries(pairs)])
  }
  return series
})

/** The labels that metrics may have. What a caller chooses, such as a name or an image, is none of them. */
// dprint-ignore
const knownLabels = new Set([
  "action", "cause", "code", "connection", "grpc_code", "grpc_method", "grpc_service", "kind", "le", "lease", "mode", "outcome",
  "quantile", "queue", "reason", "result", "state", "step", "tier", "verb", "verdict"
])

/** Series of one program: dozens of metrics, few labels with few values each, and the buckets of histograms. */
const maxSeries = 4_000

/** The ids of the traces in whose course a program wrote something that fits. */
const tracesOf = (log: string, pattern: RegExp): ReadonlyArray<string> =>
  log.split("\n").filter((line) => pattern.test(line)).flatMap((line) =>
    /"traceId":"([0-9a-f]{32})"/.exec(line)?.[1] ?? []
  )

describe("the images", () => {
  layer(Installation.layer({ isTraced: true, archives: ClusterNode.builtArchives }), {
    timeout: 120_000,
    excludeTestServices: true
  })((it) => {
    it.effect("run a sandbox on a node, as their manifests say", () =>
      Effect.gen(function*() {
        const node = yield* ClusterNode.ClusterNode
        const { controller, fsbCtl } = yield* Installation.Installation
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
          assert.isTrue(isPart("fast-sandbox-agent", "/containerd.services.snapshots.v1.Snapshots/Prepare"))
        }))
        assert.strictEqual(yield* userOf(controller.pid), 65532)
      }).pipe(Installation.explained))

    it.effect("name the trace in their logs", () =>
      Effect.gen(function*() {
        const { logs } = yield* ClusterNode.ClusterNode
        const { fsbCtl } = yield* Installation.Installation
        const { code } = yield* fsbCtl("run", "--image", "busybox", "--", "/no/such/program")
        assert.strictEqual(code, 127)
        yield* eventually(Effect.gen(function*() {
          const atController = tracesOf(yield* logs("controller"), /"operation":"create".*"outcome":"(?!ok")/)
          const atAgent = tracesOf(yield* logs("default-pool"), /a create failed/)
          assert.isNotEmpty(atAgent)
          assert.includeMembers([...atController], [...atAgent])
        }))
      }).pipe(Installation.explained))

    it.effect("tell what they do by metrics whose labels are bounded", () =>
      Effect.gen(function*() {
        const { agent, controller, janitor } = yield* Installation.Installation
        const told = {
          controller: yield* scrape(controller),
          agent: yield* scrape(agent),
          janitor: yield* scrape(janitor)
        }
        const expected = {
          controller: [
            "fsb_creates_total",
            "fsb_create_step_duration_seconds_bucket",
            "fsb_registry_reservations_total",
            "fsb_workqueue_depth",
            "fsb_write_behind_depth",
            "fsb_sandbox_actions_total",
            "fsb_kube_client_calls_total",
            "fsb_leader",
            "nodejs_eventloop_lag_seconds"
          ],
          agent: [
            "fsb_agent_slots",
            "fsb_agent_slots_used",
            "fsb_agent_slots_parked",
            "fsb_agent_creates_total",
            "fsb_agent_create_step_duration_seconds_bucket",
            "fsb_agent_instance_ends_total",
            "fsb_grpc_client_calls_total",
            "nodejs_eventloop_lag_seconds"
          ],
          janitor: ["fsb_janitor_findings", "fsb_janitor_scan_duration_seconds_count", "nodejs_eventloop_lag_seconds"]
        } as const
        for (const program of ["controller", "agent", "janitor"] as const) {
          const series = told[program]
          for (const name of expected[program]) assert.isTrue(series.has(name), `${program}: ${name}`)
          const labels = new Set([...series.values()].flat().flatMap((one) => Object.keys(one)))
          assert.deepStrictEqual([...labels].filter((label) => !knownLabels.has(label)), [], program)
          assert.isBelow([...series.values()].flat().length, maxSeries, program)
        }
        const steps = told.agent.get("fsb_agent_create_step_duration_seconds_count") ?? []
        assert.isTrue(steps.every(({ step, tier }) => step !== undefined && tier !== undefined))
      }).pipe(Installation.explained))

    it.effect("are ready when all is there that they need", () =>
      Effect.gen(function*() {
        const { agent, controller, janitor } = yield* Installation.Installation
        const readiness = ({ ip }: ClusterNode.RunningPod) =>
          Effect.promise(() => fetch(`http://${ip}:9091/readyz`).then((response) => response.text()))
        assert.deepStrictEqual(
          yield* Effect.all([controller, agent, janitor].map(readiness)),
          [
            "ok Kubernetes API: ok\nok sandboxes: ok\nok pools: ok\nok API: ok\n",
            "ok containerd: ok\nok API: ok\n",
            "ok Kubernetes API: ok\nok containerd: ok\n"
          ]
        )
      }).pipe(Installation.explained))

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
