/**
 * What the contract suite runs against: the cluster that `FSB_TEST_KUBECONFIG` names, else the embedded API server. On
 * either it has a namespace and a custom resource of its own, and both are gone afterwards.
 */
import { NodeServices } from "@effect/platform-node"
import { CustomResourceDefinition, Namespace } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import type { KubeError } from "@fast-sandbox/kube/KubeError"
import { ApiServer } from "@fast-sandbox/local/apiserver/ApiServer"
import { Config, Context, Effect, FileSystem, Layer, Option, Schedule } from "effect"
import { randomUUID } from "node:crypto"
import * as Widget from "./Widget.ts"

/** Reads again until the condition holds; a contract is never about how long a server takes. */
export const until = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  condition: (value: A) => boolean
): Effect.Effect<A, E, R> =>
  effect.pipe(
    Effect.repeat({ until: condition, schedule: Schedule.spaced("50 millis") }),
    Effect.timeoutOrElse({
      duration: "30 seconds",
      orElse: () => Effect.die(new Error(`never: ${condition}`))
    })
  )

/** The namespace of the suite. */
export class Contract extends Context.Service<Contract, { readonly namespace: string }>()("Contract") {}

const embedded = Layer.unwrap(
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const dataDirectory = yield* fs.makeTempDirectoryScoped({ prefix: "fsb-contract-" })
    return Layer.unwrap(
      ApiServer.use((server) => Effect.succeed(KubeConfig.layerFile(server.kubeconfigPath)))
    ).pipe(Layer.provide(ApiServer.layer({ dataDirectory })))
  })
).pipe(Layer.provide(NodeServices.layer))

const config = Layer.unwrap(
  Effect.gen(function*() {
    const file = yield* Config.option(Config.NonEmptyString("FSB_TEST_KUBECONFIG"))
    yield* Effect.log(
      Option.isSome(file)
        ? `contract: runs against the cluster of ${file.value}`
        : "contract: runs against the embedded API server; FSB_TEST_KUBECONFIG names another one"
    )
    return Option.isSome(file) ? KubeConfig.layerFile(file.value) : embedded
  })
)

const forget = (deletion: Effect.Effect<void, KubeError>) =>
  deletion.pipe(Effect.catchReason("KubeError", "NotFound", () => Effect.void), Effect.orDie)

const isEstablished = (crd: CustomResourceDefinition): boolean =>
  crd.status?.conditions?.some(({ status, type }) => type === "Established" && status === "True") === true

const contract = Layer.effect(
  Contract,
  Effect.gen(function*() {
    const client = yield* KubeClient
    const namespace = `fsb-contract-${randomUUID().slice(0, 8)}`
    const { name = "" } = Widget.definition.metadata
    yield* Effect.acquireRelease(
      client.apply(CustomResourceDefinition, { ...Widget.definition, metadata: { name } }, {
        fieldManager: "contract",
        force: true
      }),
      () => forget(client.delete(CustomResourceDefinition, { name }))
    )
    yield* until(client.get(CustomResourceDefinition, { name }), isEstablished)
    yield* until(
      client.list(Widget.Widget).pipe(
        Effect.as(true),
        Effect.catchReason("KubeError", "NotFound", () => Effect.succeed(false))
      ),
      (served) => served
    )
    yield* Effect.acquireRelease(
      client.create(Namespace, { metadata: { name: namespace } }),
      () => forget(client.delete(Namespace, { name: namespace }))
    )
    return { namespace }
  })
)

/** A client and a namespace of its own. */
export const layer = contract.pipe(
  Layer.provideMerge(KubeClient.layer),
  Layer.provideMerge(config)
)
