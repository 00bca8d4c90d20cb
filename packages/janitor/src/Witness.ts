/**
 * What the Kubernetes API says, and whether it says anything at all. Between scans it is followed by watches; right
 * before something is removed the API is asked itself, because a cache may be late and only an answer is one.
 */
import * as Assignment from "@fast-sandbox/core/Assignment"
import * as Sandbox from "@fast-sandbox/core/Sandbox"
import * as FastSandbox from "@fast-sandbox/kube/FastSandbox"
import { type Pod, Pod as PodKind } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { KubeError } from "@fast-sandbox/kube/KubeError"
import { keyOf } from "@fast-sandbox/kube/KubeObject"
import * as Reflector from "@fast-sandbox/kube/Reflector"
import type { Health } from "@fast-sandbox/kube/Store"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ApiState, KnownSandbox, Suspicion } from "./Findings.ts"

/**
 * - `state` is what the watches know.
 * - `confirm` asks about what one suspicion rests on. Fails when there is no answer.
 * - `synced` is done when the watches have begun.
 * - `forget` drops Pods that were seen going, but those named.
 */
export interface Witness {
  readonly state: Effect.Effect<ApiState>
  readonly confirm: (suspicion: Suspicion) => Effect.Effect<ApiState, KubeError>
  readonly synced: Effect.Effect<void>
  readonly forget: (butPodUids: ReadonlySet<string>) => Effect.Effect<void>
}

/** Pods that were seen going and are remembered; more are simply confirmed by a second scan. */
const maxDeletedPods = 1000

/** A node's cache needs no more of a Sandbox than who it is and which instance it has. */
const trim = (sandbox: Sandbox.Sandbox): Sandbox.Sandbox => ({
  ...sandbox,
  spec: { image: sandbox.spec.image, poolRef: sandbox.spec.poolRef }
})

const known = (sandbox: Sandbox.Sandbox): KnownSandbox => ({
  uid: sandbox.metadata.uid,
  claimUid: Assignment.claimUid(sandbox),
  instanceId: sandbox.status?.sandboxID ??
    Option.getOrUndefined(Option.map(Assignment.ofCreator(sandbox), ({ instanceId }) => instanceId))
})

/** It exists, but another version wrote it. */
const malformed: KnownSandbox = { uid: undefined, claimUid: undefined, instanceId: undefined }

const keyOfObject = (object: { readonly metadata: { readonly name?: string; readonly namespace?: string } }): string =>
  keyOf({ name: object.metadata.name ?? "", namespace: object.metadata.namespace })

const problemOf = (what: string, { problem, synced }: Health): Option.Option<string> =>
  synced
    ? Option.map(problem, (reason) => `${what}: ${reason.problem}`)
    : Option.some(`${what}: the first list is still to come`)

/** Follows this node's Pods and all Sandboxes. `onPodGone` runs when a Pod was seen going. */
export const make = Effect.fnUntraced(function*(options: {
  readonly nodeName: string
  readonly onPodGone: Effect.Effect<void>
}): Effect.fn.Return<Witness, never, KubeClient | Scope.Scope> {
  const { nodeName } = options
  const client = yield* KubeClient
  // Not by label: a Pod whose labels somebody edits must not look as if it had gone.
  const pods = yield* Reflector.make(PodKind, { fieldSelector: `spec.nodeName=${nodeName}` })
  const sandboxes = yield* Reflector.make(FastSandbox.Sandbox, { transform: trim })
  const deletedPods = new Set<string>()

  const isHere = (pod: Pod): boolean => pod.spec.nodeName === nodeName

  yield* pods.changes.pipe(
    Stream.runForEach((change) => {
      if (change._tag !== "Deleted" || !isHere(change.object) || deletedPods.size >= maxDeletedPods) {
        return Effect.void
      }
      deletedPods.add(change.object.metadata.uid)
      return options.onPodGone
    }),
    Effect.forkScoped
  )

  const state: Effect.Effect<ApiState> = Effect.gen(function*() {
    const problem = Option.firstSomeOf([
      problemOf("Pods", yield* pods.health),
      problemOf("Sandboxes", yield* sandboxes.health)
    ])
    if (Option.isSome(problem)) {
      return { _tag: "Unanswered", problem: problem.value }
    }
    const here = (yield* pods.list).filter(isHere)
    return {
      _tag: "Answered",
      pods: new Map(here.map(({ metadata }) => [metadata.uid, metadata.name])),
      sandboxes: new Map([
        ...(yield* sandboxes.list).map((sandbox) => [keyOfObject(sandbox), known(sandbox)] as const),
        ...[...(yield* sandboxes.malformed).keys()].map((key) => [key, malformed] as const)
      ]),
      deletedPods: new Set(deletedPods)
    }
  })

  /** On every node: an agent that is found elsewhere was only looked for in the wrong place. */
  const podsNamed = (name: string) =>
    Effect.map(
      client.list(PodKind, { fieldSelector: `metadata.name=${name}` }),
      ({ items }) => items.filter((pod) => pod.metadata.name === name)
    )

  // A list, because the absence in a list is an answer; a 404 may also mean that the kind is not served just now.
  const sandboxNamed = ({ name, namespace }: NonNullable<Suspicion["sandbox"]>) =>
    Effect.map(
      client.list(FastSandbox.Sandbox, { namespace, fieldSelector: `metadata.name=${name}` }),
      ({ items }) => items.find(({ metadata }) => metadata.name === name)
    )

  return {
    state,
    confirm: Effect.fn("Witness.confirm")(function*({ agent, sandbox }) {
      const before = yield* state
      if (before._tag === "Unanswered") {
        return before
      }
      const pods = new Map(before.pods)
      for (const { metadata } of agent === undefined ? [] : yield* podsNamed(agent.name)) {
        pods.set(metadata.uid, metadata.name)
      }
      const found = new Map(before.sandboxes)
      if (sandbox !== undefined) {
        const now = yield* sandboxNamed(sandbox)
        const key = Sandbox.key(sandbox.namespace, sandbox.name)
        if (now === undefined) {
          found.delete(key)
        } else {
          found.set(key, known(now))
        }
      }
      return { ...before, pods, sandboxes: found }
    }),
    synced: Effect.andThen(pods.synced, sandboxes.synced),
    forget: (butPodUids) =>
      Effect.sync(() => {
        for (const uid of deletedPods) {
          if (!butPodUids.has(uid)) {
            deletedPods.delete(uid)
          }
        }
      })
  }
})
