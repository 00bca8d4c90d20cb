/**
 * A cluster of one node: the embedded API server, a containerd, and the least of a kubelet: it runs Pods from images as
 * their specs say (environment, mounts, user, privileges, service account, probes), all of them in the node's network.
 * The node's folders and its containerd are others than manifests name; their paths are replaced wherever they occur.
 */
import { NodeServices } from "@effect/platform-node"
import { version } from "@fast-sandbox/core/Version"
import { Pod, ServiceAccount } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import * as Reflector from "@fast-sandbox/kube/Reflector"
import { ApiServer } from "@fast-sandbox/local/apiserver/ApiServer"
import * as AgentProcess from "@fast-sandbox/local/pods/AgentProcess"
import * as PodEnvironment from "@fast-sandbox/local/pods/PodEnvironment"
import * as Kubectl from "@fast-sandbox/testkit/Kubectl"
import * as PrivateContainerd from "@fast-sandbox/testkit/PrivateContainerd"
import { Effect, FiberMap, FileSystem, Layer, Result, Schedule, Schema, type Scope, Stream } from "effect"
import * as Context from "effect/Context"
import { dirname } from "node:path"
import { fileURLToPath } from "node:url"
import * as LocalStack from "./LocalStack.ts"
import * as TraceCollector from "./TraceCollector.ts"

const repository = fileURLToPath(new URL("../../../..", import.meta.url))

const images = ["controller", "agent", "janitor"] as const

/** An archive of each image. */
export type Archives = Readonly<Record<typeof images[number], string>>

/** What `make images` has built. */
export const builtArchives: Archives = {
  controller: `${repository}/dist/images/controller.tar`,
  agent: `${repository}/dist/images/agent.tar`,
  janitor: `${repository}/dist/images/janitor.tar`
}

/** Where a Pod finds its service account; the API server's own credentials stand for all of them. */
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

const nodeName = "node-1"

/**
 * Stands for the node's process 1, whose namespaces and root some machines close even to root: ours are the same, and a Pod
 * that shares the node's process ids sees this one.
 */
const ownProcess = `/proc/${process.pid}`

/** What containerd gives to containers; `ctr` drops by name only. */
// dprint-ignore
const defaultCapabilities = [
  "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
  "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"
]

/** Longer than a controller's start on a machine that is busy with other tests. */
const readyWithin = "15 seconds"

/** A Pod on its way to the node: what of it is read here. */
const RunnablePod = Schema.Struct({
  metadata: Schema.Struct({
    name: Schema.String,
    namespace: Schema.optionalKey(Schema.String),
    uid: Schema.optionalKey(Schema.String)
  }),
  spec: Schema.Struct({
    hostPID: Schema.optionalKey(Schema.Boolean),
    volumes: Schema.optionalKey(Schema.Array(Schema.Struct({
      name: Schema.String,
      hostPath: Schema.optionalKey(Schema.Struct({ path: Schema.String, type: Schema.String })),
      projected: Schema.optionalKey(Schema.Struct({
        sources: Schema.Tuple([Schema.Struct({
          serviceAccountToken: Schema.Struct({ audience: Schema.String, path: Schema.String })
        })])
      }))
    }))),
    containers: Schema.Array(Schema.Struct({
      name: Schema.String,
      image: Schema.String,
      env: Schema.optionalKey(Schema.Array(Schema.Struct({
        name: Schema.String,
        value: Schema.optionalKey(Schema.String),
        valueFrom: Schema.optionalKey(Schema.Unknown)
      }))),
      ports: Schema.optionalKey(Schema.Array(Schema.Struct({ name: Schema.String, containerPort: Schema.Int }))),
      readinessProbe: Schema.optionalKey(Schema.Struct({
        httpGet: Schema.Struct({ path: Schema.String, port: Schema.Union([Schema.String, Schema.Int]) })
      })),
      securityContext: Schema.optionalKey(Schema.Struct({
        privileged: Schema.optionalKey(Schema.Boolean),
        readOnlyRootFilesystem: Schema.optionalKey(Schema.Boolean),
        capabilities: Schema.optionalKey(Schema.Struct({ drop: Schema.Array(Schema.String) }))
      })),
      volumeMounts: Schema.optionalKey(Schema.Array(Schema.Struct({
        name: Schema.String,
        mountPath: Schema.String,
        mountPropagation: Schema.optionalKey(Schema.String)
      })))
    }))
  })
})
type RunnablePod = typeof RunnablePod.Type

const decodePod = Schema.decodeUnknownEffect(RunnablePod)

/** A Pod that runs and is ready. */
export interface RunningPod {
  readonly ip: string
  /** The process of its container. */
  readonly pid: number
}

/** One node, and what runs on it. */
export class ClusterNode extends Context.Service<ClusterNode, {
  /** A token that the API takes. */
  readonly token: string
  /** Runs a Pod from a controller's template until the scope closes. Done when it is ready. */
  runPod(pod: unknown): Effect.Effect<RunningPod, never, Scope.Scope>
  kubectl(...args: ReadonlyArray<string>): Effect.Effect<string>
  /** What a Pod's container has written. */
  logs(pod: string): Effect.Effect<string>
  /** Names of the images, and the bytes of their files. */
  readonly imageBytes: Effect.Effect<ReadonlyArray<readonly [string, number]>>
  /** Where programs send their traces, and the spans that came. */
  readonly collector: TraceCollector.TraceCollector
  /** The agents' Pods that run. */
  readonly agents: ReadonlyMap<string, RunningPod>
}>()("@fast-sandbox/cli/test/e2e/ClusterNode") {}

const must = (what: string, ran: Effect.Effect<LocalStack.Ran>) =>
  Effect.flatMap(
    ran,
    ({ code, stderr, stdout }) =>
      code === 0 ? Effect.succeed(stdout) : Effect.die(new Error(`${what} ended with ${code}: ${stderr}${stdout}`))
  )

const answers = (url: string) =>
  Effect.tryPromise(() => fetch(url)).pipe(
    Effect.repeat({ schedule: Schedule.spaced("50 millis"), until: ({ ok }) => ok }),
    Effect.retry(Schedule.spaced("50 millis"))
  )

/** How the node is set up. */
export interface Options {
  /** Whether Pods send their traces to the collector: what sends them is loaded only then. */
  readonly isTraced: boolean
  readonly archives: Archives
}

const make = Effect.fnUntraced(function*({ archives, isTraced }: Options) {
  const files = yield* FileSystem.FileSystem
  const kube = yield* KubeClient
  const { caCertificate, kubeconfigPath, token, url } = yield* ApiServer
  const { cgroupsPath, daemon, directory, namespace } = yield* PrivateContainerd.PrivateContainerd
  const kubectlPath = yield* Kubectl.path
  const kubectl = (...args: ReadonlyArray<string>) =>
    must(`kubectl ${args.join(" ")}`, LocalStack.run(kubectlPath, ["--kubeconfig", kubeconfigPath, ...args]))
  const ctr = (...args: ReadonlyArray<string>) =>
    must(`ctr ${args.join(" ")}`, LocalStack.run("ctr", ["-a", daemon.socket, "-n", namespace, ...args]))

  const collector = yield* TraceCollector.make
  for (const image of images) {
    yield* ctr("images", "import", archives[image])
  }
  yield* kubectl("apply", "-k", `${repository}/infra/crds`)
  yield* kubectl("apply", "-f", `${repository}/infra/manifests/namespace.yaml`)
  const credentials = `${directory}/service-account`
  yield* files.makeDirectory(credentials)
  yield* files.writeFileString(`${credentials}/namespace`, "fast-sandbox-system")
  yield* files.writeFileString(`${credentials}/token`, token)
  yield* files.writeFileString(`${credentials}/ca.crt`, caCertificate)
  // A Pod's programs run as anybody; this folder is in nobody else's reach.
  yield* files.chmod(directory, 0o755)

  const places: Array<readonly [string, string]> = [
    ["/run/containerd", dirname(daemon.socket)],
    ["/var/lib/fast-sandbox-node", `${directory}/state`],
    ["/var/log/fast-sandbox", `${directory}/logs`],
    ["/proc/1/root", `${ownProcess}/root`]
  ]
  const relocate = (pod: RunnablePod) =>
    Effect.flatMap(
      Effect.try(() => JSON.parse(places.reduce((text, [from, to]) => text.replaceAll(from, to), JSON.stringify(pod)))),
      decodePod
    )

  const imageBytes = Effect.forEach(images, (image) =>
    Effect.acquireUseRelease(
      Effect.tap(Effect.succeed(`${directory}/image-${image}`), (path) => files.makeDirectory(path)),
      (path) =>
        Effect.gen(function*() {
          const reference = `docker.io/fast-sandbox/${image}:${version}`
          yield* ctr("images", "mount", reference, path)
          const { stdout } = yield* LocalStack.run("du", ["--summarize", "--bytes", path])
          yield* ctr("images", "unmount", "--rm", path)
          return [image, Number.parseInt(stdout, 10)] as const
        }),
      (path) => files.remove(path, { recursive: true })
    )).pipe(Effect.orDie)

  const logs = (pod: string) =>
    files.readDirectory(directory).pipe(
      Effect.flatMap((names) =>
        Effect.forEach(
          names.filter((name) => name.startsWith(pod) && name.endsWith(".log")),
          (name) => files.readFileString(`${directory}/${name}`)
        )
      ),
      Effect.map((texts) => texts.join("")),
      Effect.orDie
    )

  /** A token of a Pod, as the kubelet mounts it. */
  const podToken = Effect.fnUntraced(function*(
    { name, namespace = "default" }: RunnablePod["metadata"],
    audience: string
  ) {
    yield* Effect.ignore(kube.create(ServiceAccount, { metadata: { name: "default", namespace } }))
    const bound = ["--bound-object-kind", "Pod", "--bound-object-name", name]
    return (yield* kubectl("create", "token", "default", "-n", namespace, "--audience", audience, ...bound)).trim()
  })

  let addresses = 0
  const runPod = Effect.fnUntraced(function*(input: unknown) {
    const { metadata, spec } = yield* relocate(yield* decodePod(input))
    const ip = `127.89.0.${++addresses}`
    const [container] = spec.containers
    const id = `${metadata.name}-${addresses}`
    if (container === undefined) return yield* Effect.die(new Error(`${id} has no container`))
    const environment = PodEnvironment.resolve(
      {
        metadata: {
          namespace: "fast-sandbox-system",
          uid: id,
          resourceVersion: "",
          creationTimestamp: "",
          ...metadata
        },
        spec: { containers: [] }
      },
      { name: container.name, env: container.env },
      { nodeName, podIP: ip }
    )
    if (Result.isFailure(environment)) return yield* Effect.die(new Error(`unknown source of ${environment.failure}`))
    // No names are resolved here; the controller's own address stands for the Service in front of it.
    if (container.name === "controller") places.push(["fastpath.fast-sandbox-system.svc:9090", `${ip}:9090`])
    const { hostname, port } = new URL(url)
    const variables = {
      ...environment.success,
      KUBERNETES_SERVICE_HOST: hostname,
      KUBERNETES_SERVICE_PORT: port,
      ...(isTraced ? collector.environment : {}),
      // Pods have no network of their own here, so each keeps to its own address.
      FSB_LISTEN: `${ip}:9090`,
      FSB_METRICS_LISTEN: `${ip}:9091`,
      FSB_CONTAINERD_SOCKET: daemon.socket,
      FSB_CONTAINERD_NAMESPACE: namespace,
      FSB_CGROUP_PARENT: cgroupsPath,
      // `ctr` can't share a container's mounts with its node as a kubelet does; layers with other owners and named networks
      // are mounts.
      FSB_HOST_USERS: "true",
      FSB_NETWORK: "none"
    }
    const mounts = yield* Effect.forEach(
      container.volumeMounts ?? [],
      Effect.fnUntraced(function*({ mountPath, mountPropagation, name }) {
        const volume = spec.volumes?.find((volume) => volume.name === name)
        if (volume?.projected !== undefined) {
          const [{ serviceAccountToken: { audience, path } }] = volume.projected.sources
          const folder = `${directory}/${id}-${name}`
          yield* files.makeDirectory(folder)
          yield* files.writeFileString(`${folder}/${path}`, yield* podToken(metadata, audience))
          return `type=bind,src=${folder},dst=${mountPath},options=rbind:ro`
        }
        const source = volume?.hostPath
        if (source === undefined) return yield* Effect.die(new Error(`${id} has no volume ${name}`))
        if (source.type === "DirectoryOrCreate") yield* files.makeDirectory(source.path, { recursive: true })
        return `type=bind,src=${source.path},dst=${mountPath},options=rbind:rw:${
          mountPropagation === "Bidirectional" ? "rshared" : "rprivate"
        }`
      })
    )
    const security = container.securityContext
    yield* AgentProcess.start({
      file: "ctr",
      args: [
        "-a",
        daemon.socket,
        "-n",
        namespace,
        "run",
        "--rm",
        "--net-host",
        "--cgroup",
        `${cgroupsPath}/${id}`,
        ...(spec.hostPID === true ? ["--with-ns", `pid:${ownProcess}/ns/pid`] : []),
        ...(security?.privileged === true ? ["--privileged"] : []),
        ...(security?.readOnlyRootFilesystem === true ? ["--read-only"] : []),
        ...(security?.capabilities?.drop.includes("ALL") === true
          ? defaultCapabilities.flatMap((name) => ["--cap-drop", `CAP_${name}`])
          : []),
        ...Object.entries(variables).flatMap(([name, value]) => ["--env", `${name}=${value}`]),
        ...[`type=bind,src=${credentials},dst=${serviceAccount},options=rbind:ro`, ...mounts].flatMap((mount) => [
          "--mount",
          mount
        ]),
        `docker.io/${container.image}`,
        id
      ],
      environment: {},
      workingDirectory: directory,
      log: `${directory}/${id}.log`
    }, "20 seconds")
    const { path, port: probed } = container.readinessProbe?.httpGet ?? { path: "/", port: 0 }
    const probedPort = container.ports?.find(({ name }) => name === probed)?.containerPort ?? probed
    yield* answers(`http://${ip}:${probedPort}${path}`).pipe(
      Effect.timeoutOrElse({
        duration: readyWithin,
        orElse: () =>
          Effect.flatMap(
            files.readFileString(`${directory}/${id}.log`),
            (log) => Effect.die(new Error(`${id} does not get ready; its log:\n${log}`))
          )
      })
    )
    const pid = new RegExp(`^${id}\\s+(\\d+)`, "m").exec(yield* ctr("tasks", "list"))?.[1]
    return { ip, pid: Number(pid) }
  }, Effect.orDie)

  const agents = new Map<string, RunningPod>()
  const agentPods = yield* Reflector.make(Pod, { labelSelector: "app=sandbox-agent" })
  const runs = yield* FiberMap.make<string>()
  const runAgent = ({ metadata: { name, namespace = "default", uid }, spec }: Pod) =>
    Effect.gen(function*() {
      const running = yield* runPod({ metadata: { name, namespace, uid }, spec })
      agents.set(name, running)
      yield* Effect.addFinalizer(() => Effect.sync(() => agents.delete(name)))
      yield* kube.patch(Pod, { namespace, name }, { type: "merge", body: { spec: { nodeName } } })
      yield* kube.patchStatus(Pod, { namespace, name }, {
        type: "merge",
        body: {
          status: { phase: "Running", podIP: running.ip, conditions: [{ type: "Ready", status: "True" }] }
        }
      })
      return yield* Effect.never
    }).pipe(Effect.scoped, Effect.tapCause((cause) => Effect.logError("agent", name, cause)), Effect.orDie)
  yield* agentPods.changes.pipe(
    Stream.runForEach((change) => {
      if (change._tag === "Synced") return Effect.void
      const { metadata: { deletionTimestamp, name, namespace = "default", uid } } = change.object
      if (change._tag === "Added") return FiberMap.run(runs, uid, runAgent(change.object))
      return deletionTimestamp === undefined
        ? Effect.void
        : FiberMap.remove(runs, uid).pipe(
          Effect.andThen(kube.delete(Pod, { namespace, name }, { gracePeriodSeconds: 0 })),
          Effect.ignore
        )
    }),
    Effect.forkScoped
  )
  return ClusterNode.of({
    token,
    runPod,
    kubectl,
    logs,
    imageBytes,
    collector,
    agents
  })
})

const kubeClient = KubeClient.layer.pipe(
  Layer.provide(Layer.unwrap(
    Effect.map(
      ApiServer,
      ({ caCertificate, token, url }) => KubeConfig.layer({ server: url, token, ca: caCertificate })
    )
  ))
)

const apiServer = Layer.unwrap(
  Effect.map(
    PrivateContainerd.PrivateContainerd,
    ({ directory }) => ApiServer.layer({ dataDirectory: `${directory}/api` })
  )
)

/** The node, with nothing on it. Wants root, and the archives beforehand. */
export const layer = (options: Options) =>
  Layer.effect(ClusterNode, make(options)).pipe(
    Layer.provideMerge(kubeClient),
    Layer.provide(apiServer),
    Layer.provide(PrivateContainerd.layer()),
    Layer.provideMerge(NodeServices.layer),
    Layer.orDie
  )
