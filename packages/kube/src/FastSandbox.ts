/**
 * The kinds of Fast Sandbox's own resources, as the Kubernetes API knows them. What the server sends is decoded with
 * the schemas of `core`, so that nobody downstream ever sees a malformed resource.
 */
import * as Names from "@fast-sandbox/core/Names"
import * as Core from "@fast-sandbox/core/Sandbox"
import * as CorePool from "@fast-sandbox/core/SandboxPool"
import type { KubeKind } from "./KubeObject.ts"

const own = { group: Names.group, version: Names.version, namespaced: true } as const

/** `sandbox.fast.io/v1alpha1/Sandbox` */
export const Sandbox: KubeKind<Core.Sandbox> = {
  ...own,
  kind: "Sandbox",
  plural: "sandboxes",
  schema: Core.Sandbox
}

/** `sandbox.fast.io/v1alpha1/SandboxPool` */
export const SandboxPool: KubeKind<CorePool.SandboxPool> = {
  ...own,
  kind: "SandboxPool",
  plural: "sandboxpools",
  schema: CorePool.SandboxPool
}
