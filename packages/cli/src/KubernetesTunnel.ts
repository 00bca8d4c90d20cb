/**
 * A way to a Service in a cluster through the cluster's Kubernetes API, without any other program: a unix socket that
 * only this user can reach, each connection of which goes on to a Pod of the Service.
 */
import * as Names from "@fast-sandbox/core/Names"
import { ConfigMap, type Pod, Pod as PodKind, Service as ServiceKind } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import type { KubeError } from "@fast-sandbox/kube/KubeError"
import * as PodPortForward from "@fast-sandbox/kube/PodPortForward"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Net from "node:net"
import type { Duplex } from "node:stream"
import { LocalError } from "./Failure.ts"
import type { KubernetesTarget } from "./KubernetesTarget.ts"

const kubeConfig = ({ context, kubeconfig }: KubernetesTarget) => {
  const path = kubeconfig ?? (context === undefined ? undefined : process.env.KUBECONFIG?.split(":")[0])
  if (path !== undefined) return KubeConfig.layerFile(path, context)
  return context === undefined
    ? KubeConfig.layerDefault
    : KubeConfig.layerFile(`${process.env.HOME ?? ""}/.kube/config`, context)
}

const isReady = ({ metadata, status }: Pod): boolean =>
  metadata.deletionTimestamp === undefined &&
  status?.conditions?.some(({ status, type }) => type === "Ready" && status === "True") === true

/** The number of a port that may be a name. */
const portNumber = ({ spec }: Pod, port: number | string): number | undefined =>
  typeof port === "number"
    ? port
    : spec.containers.flatMap(({ ports }) => ports ?? []).find(({ name }) => name === port)?.containerPort

const problem = (error: KubeError): string => `the Kubernetes API says: ${error.message}`

/** How the server is known: by its authority and its Service's name; plain text where there is no authority. */
const trust = Effect.fnUntraced(function*({ namespace, service }: KubernetesTarget) {
  const { certificates, name } = Names.authority
  const found = yield* KubeClient.use((kube) => kube.get(ConfigMap, { namespace, name })).pipe(
    Effect.catchIf(({ reason }) => reason._tag === "NotFound", () => Effect.succeed(undefined)),
    Effect.mapError((error) =>
      new LocalError({ problem: `can't read the server's authority (set tls.ca to do without); ${problem(error)}` })
    )
  )
  const ca = found?.data?.[certificates]
  return ca === undefined ? undefined : { ca, serverName: `${service}.${namespace}.svc` }
})

/** A Pod of the Service that is ready, and its port. */
const find = Effect.fnUntraced(function*(target: KubernetesTarget) {
  const kube = yield* KubeClient
  const { namespace } = target
  const name = `${namespace}/${target.service}`
  const fail = (problem: string) => new LocalError({ problem })
  const service = yield* kube.get(ServiceKind, { namespace, name: target.service }).pipe(
    Effect.mapError((error) =>
      fail(
        error.reason._tag === "NotFound"
          ? `there is no Service ${name} in that cluster; say which it is with kubernetes.namespace and kubernetes.service`
          : problem(error)
      )
    )
  )
  const port = service.spec?.ports?.find(({ port }) => port === target.port)
  if (port === undefined) return yield* fail(`the Service ${name} has no port ${target.port}; set kubernetes.port`)
  const labelSelector = Object.entries(service.spec?.selector ?? {}).map(([key, value]) => `${key}=${value}`).join(",")
  const { items } = yield* kube.list(PodKind, { namespace, labelSelector }).pipe(
    Effect.mapError((error) => fail(problem(error)))
  )
  const pod = items.find(isReady)
  if (pod === undefined) return yield* fail(`no Pod of the Service ${name} is ready; look with 'kubectl get pods'`)
  const number = portNumber(pod, port.targetPort ?? port.port)
  if (number === undefined) {
    return yield* fail(`the Pod ${pod.metadata.name} has no port called ${port.targetPort}`)
  }
  return { pod: { namespace, name: pod.metadata.name }, port: number, tls: yield* trust(target) }
})

/** A server that is there speaks first, as HTTP/2 has it. */
const FIRST_WORD_LIMIT = "10 seconds"

/** Waits until the other end has said something, or fails with why it does not. */
const firstWord = (remote: Duplex, what: string): Effect.Effect<void, LocalError> =>
  Effect.callback<void, LocalError>((resume) => {
    const settle = (outcome: Effect.Effect<void, LocalError>) => {
      remote.off("close", failed)
      remote.off("readable", spoke)
      resume(outcome)
    }
    const failed = () =>
      settle(Effect.fail(
        new LocalError({ problem: `${what}: ${remote.errored?.message ?? "it closed the connection at once"}` })
      ))
    const spoke = () => {
      if (remote.readableLength > 0) settle(Effect.void)
    }
    remote.once("close", failed)
    remote.on("readable", spoke)
    if (remote.destroyed) failed()
  }).pipe(Effect.timeoutOrElse({
    duration: FIRST_WORD_LIMIT,
    orElse: () => Effect.fail(new LocalError({ problem: `${what}: it does not answer` }))
  }))

/** Opens the way; gives its endpoint, and how the server at its end is known. It closes with the scope. */
export const open = Effect.fn("KubernetesTunnel.open")(function*(target: KubernetesTarget) {
  const files = yield* FileSystem.FileSystem
  const scope = yield* Effect.scope
  const { config, found } = yield* Effect.gen(function*() {
    return { config: yield* KubeConfig, found: yield* find(target) }
  }).pipe(
    Effect.provide(Layer.provideMerge(KubeClient.layer, kubeConfig(target))),
    Effect.catchTag(
      "KubeConfigError",
      ({ message }) => Effect.fail(new LocalError({ problem: `the kubeconfig can't be used: ${message}` }))
    )
  )
  const connect = yield* PodPortForward.make(config)
  const directory = yield* files.makeTempDirectoryScoped({ prefix: "fsb-tunnel-" }).pipe(
    Effect.mapError(({ message }) => new LocalError({ problem: `can't make a socket for the tunnel: ${message}` }))
  )
  // The first connection is made at once: what keeps it from being made is told in the words of its cause.
  const first = yield* Scope.provide(connect(found.pod, found.port), scope).pipe(
    Effect.mapError(({ message }) => new LocalError({ problem: message }))
  )
  // a server with certificates lets its clients speak first
  if (found.tls === undefined) {
    yield* firstWord(first, `port ${found.port} of Pod ${found.pod.namespace}/${found.pod.name}`)
  }
  let ready: Duplex | undefined = first
  const context = yield* Effect.context<never>()
  const serve = (socket: Net.Socket) =>
    Effect.runForkWith(context)(
      Effect.gen(function*() {
        const remote = ready ?? (yield* Scope.provide(connect(found.pod, found.port), scope))
        ready = undefined
        socket.on("error", () => remote.destroy())
        remote.on("error", () => socket.destroy())
        socket.pipe(remote).pipe(socket)
      }).pipe(Effect.onExit((exit) => Exit.isSuccess(exit) ? Effect.void : Effect.sync(() => socket.destroy())))
    )
  const path = `${directory}/socket`
  yield* Effect.acquireRelease(
    Effect.callback<Net.Server, LocalError>((resume) => {
      const server = Net.createServer(serve)
      server.once(
        "error",
        ({ message }) =>
          resume(Effect.fail(new LocalError({ problem: `can't make a socket for the tunnel: ${message}` })))
      )
      server.listen(path, () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )
  return { endpoint: `unix:${path}`, tls: found.tls }
})
