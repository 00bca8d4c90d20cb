/**
 * A controller for a resource of its own, on `KubeClient`, `Reflector` and `WorkQueue`: every Greeting gets the text that
 * it asks for in its status. It runs against the cluster of the kubeconfig, or the one-machine stack's API server.
 *
 *     KUBECONFIG=/var/lib/fast-sandbox/kubeconfig node infra/examples/greeting-controller.ts
 *     kubectl apply -f - <<< '{ apiVersion: example.com/v1, kind: Greeting, metadata: { name: a }, spec: { to: world } }'
 *     kubectl get greeting a -o jsonpath='{.status.text}'
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { CustomResourceDefinition } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import { type KubeKind, type KubeObject, refOf, type StoredMeta } from "@fast-sandbox/kube/KubeObject"
import * as Reflector from "@fast-sandbox/kube/Reflector"
import * as WorkQueue from "@fast-sandbox/kube/WorkQueue"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"

interface Greeting extends KubeObject {
  readonly metadata: StoredMeta
  readonly spec: { readonly to: string }
  readonly status?: { readonly text: string } | undefined
}

const Greeting: KubeKind<Greeting> = {
  group: "example.com",
  version: "v1",
  kind: "Greeting",
  plural: "greetings",
  namespaced: true
}

const schema = {
  type: "object",
  required: ["spec"],
  properties: {
    spec: { type: "object", required: ["to"], properties: { to: { type: "string", minLength: 1 } } },
    status: { type: "object", properties: { text: { type: "string" } } }
  }
}

const definition = {
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: { name: "greetings.example.com" },
  spec: {
    group: Greeting.group,
    scope: "Namespaced" as const,
    names: { kind: Greeting.kind, plural: Greeting.plural },
    versions: [{
      name: Greeting.version,
      served: true,
      storage: true,
      schema: { openAPIV3Schema: schema },
      subresources: { status: {} }
    }]
  }
}

const fieldManager = "greeting-controller"

const controller = Effect.gen(function*() {
  const kube = yield* KubeClient
  yield* kube.apply(CustomResourceDefinition, definition, { fieldManager })
  // a copy that stays right through lost connections; until the definition is served it tries again by itself
  const greetings = yield* Reflector.make(Greeting)
  const queue = yield* WorkQueue.make({ name: "greetings" })

  /** Level-triggered: looks at what is there now, whatever woke it. */
  const reconcile = Effect.fnUntraced(function*(key: string) {
    const found = yield* greetings.get(refOf(key))
    if (Option.isNone(found)) return
    const text = `hello, ${found.value.spec.to}`
    if (found.value.status?.text === text) return
    yield* kube.patchStatus(Greeting, refOf(key), { type: "merge", body: { status: { text } } }, { fieldManager })
    yield* Console.log(`greeted ${key}`)
  })

  yield* greetings.changes.pipe(
    Stream.runForEach((change) =>
      change._tag === "Synced"
        ? Console.log("watching")
        : queue.add(`${change.object.metadata.namespace}/${change.object.metadata.name}`)
    ),
    Effect.forkScoped
  )
  yield* queue.run({ workers: 2 }, reconcile)
  return yield* Effect.never
}).pipe(Effect.scoped)

controller.pipe(
  Effect.provide(Layer.provide(KubeClient.layer, KubeConfig.layerDefault)),
  NodeRuntime.runMain
)
