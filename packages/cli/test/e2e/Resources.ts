/**
 * The stack's resources, written and read with kubectl.
 */
import { assert } from "@effect/vitest"
import * as Core from "@fast-sandbox/core/Sandbox"
import * as CorePool from "@fast-sandbox/core/SandboxPool"
import { Effect, Schema } from "effect"
import * as LocalStack from "./LocalStack.ts"
import type { Ran } from "./LocalStack.ts"

const AgentPod = Schema.Struct({
  metadata: Schema.Struct({
    name: Schema.String,
    uid: Schema.String,
    deletionTimestamp: Schema.optionalKey(Schema.String),
    annotations: Schema.optionalKey(Schema.Record(Schema.String, Schema.String))
  })
})

/** An agent Pod, as far as tests look at it. */
export type AgentPod = typeof AgentPod.Type

const AgentPods = Schema.Struct({ items: Schema.Array(AgentPod) })

/** The output of a program that has to succeed. */
export const stdoutOf = <E, R>(ran: Effect.Effect<Ran, E, R>) =>
  Effect.map(ran, ({ code, stderr, stdout }) => {
    assert.strictEqual(code, 0, stderr)
    return stdout
  })

const decodeSandbox = Schema.decodeUnknownEffect(Schema.fromJsonString(Core.Sandbox))
const decodePool = Schema.decodeUnknownEffect(Schema.fromJsonString(CorePool.SandboxPool))
const decodePods = Schema.decodeUnknownEffect(Schema.fromJsonString(AgentPods))

const kubectl = (...args: ReadonlyArray<string>) =>
  Effect.flatMap(LocalStack.LocalStack, (stack) => stdoutOf(stack.kubectl(...args)))

/** What the API holds about a sandbox. */
export const sandbox = (name: string) =>
  Effect.flatMap(kubectl("get", "sandbox", name, "-o", "json"), (json) => decodeSandbox(json))

/** The status of a sandbox; empty where it has none yet. */
export const status = (name: string): Effect.Effect<
  Core.SandboxStatus,
  Schema.SchemaError,
  LocalStack.LocalStack
> => Effect.map(sandbox(name), ({ status }) => status ?? {})

/** What the API holds about a pool. */
export const pool = (name: string) =>
  Effect.flatMap(kubectl("get", "sandboxpool", name, "-o", "json"), (json) => decodePool(json))

/** The Pods of a pool's agents, also those that are going. */
export const agentPods = (pool: string) =>
  kubectl("get", "pods", "-l", `fast-sandbox.io/pool=${pool}`, "-o", "json").pipe(
    Effect.flatMap((json) => decodePods(json)),
    Effect.map(({ items }) => items)
  )

/** The manifest of a sandbox. */
export const sandboxManifest = (name: string, spec: object, namespace = "default"): string =>
  JSON.stringify({ apiVersion: "sandbox.fast.io/v1alpha1", kind: "Sandbox", metadata: { name, namespace }, spec })

/** Declares a sandbox as `kubectl apply` does. */
export const declareSandbox = (name: string, spec: Core.SandboxSpec) =>
  Effect.flatMap(LocalStack.LocalStack, (stack) => stdoutOf(stack.kubectlApply(sandboxManifest(name, spec))))

/** Declares a pool; the same name again changes it. */
export const declarePool = (name: string, spec: CorePool.SandboxPoolSpec, namespace = "default") =>
  Effect.flatMap(LocalStack.LocalStack, (stack) =>
    stdoutOf(stack.kubectlApply(JSON.stringify({
      apiVersion: "sandbox.fast.io/v1alpha1",
      kind: "SandboxPool",
      metadata: { name, namespace },
      spec
    }))))

/** Merges into a resource's spec. */
export const patchSpec = (resource: string, name: string, spec: object) =>
  kubectl("patch", resource, name, "--type", "merge", "-p", JSON.stringify({ spec }))

/** Deletes resources of one kind and waits until they are gone. */
export const deleteAll = (resource: string, ...names: ReadonlyArray<string>) =>
  Effect.asVoid(kubectl("delete", resource, ...names, "--wait", "--timeout=60s"))
