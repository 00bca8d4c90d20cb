/**
 * The names that Fast Sandbox gives to things outside of itself: API groups, labels, annotations, finalizers, ports.
 * They are part of the contract with users, manifests and existing installations.
 */

/** API group of the custom resources. */
export const group = "sandbox.fast.io"

/** API version of the custom resources. */
export const version = "v1alpha1"

/** `apiVersion` of the custom resources. */
export const apiVersion = `${group}/${version}` as const

/** Held by every Sandbox from its first write until its instance is proven gone. */
export const finalizer = `${group}/cleanup` as const

/** Prefix of the labels and annotations that Fast Sandbox reserves for itself. */
export const reservedPrefix = "fast-sandbox.io/"

/** Label of agent Pods, beside {@link poolLabel}: `app=sandbox-agent`. */
export const agentAppLabel = { key: "app", value: "sandbox-agent" } as const

/** Label of agent Pods: the name of their pool. */
export const poolLabel = `${reservedPrefix}pool` as const

/** Annotation of agent Pods: hash of the pool's template they were made from. */
export const templateHashAnnotation = `${reservedPrefix}template-hash` as const

/** Annotation of agent Pods: a drain was asked for, so the agent admits nothing and is removed when it is empty. */
export const drainAnnotation = `${reservedPrefix}drain` as const

/** Annotation of agent Pods, beside {@link drainAnnotation}: who asked. Then the pool's controller never takes it back. */
export const drainedByAnnotation = `${reservedPrefix}drained-by` as const

/** Annotation of Sandboxes that a fast create wrote: the claim uid that their first instance carries. */
export const claimUidAnnotation = `${reservedPrefix}claim-uid` as const

/** Annotation of Sandboxes that Fast-Path created: where their first instance was started. See `Assignment`. */
export const assignmentAnnotation = `${reservedPrefix}assignment` as const

/** Annotation of Sandboxes that a fast create wrote: the request id that makes the create a replay. */
export const requestIdAnnotation = `${reservedPrefix}request-id` as const

/** Annotation of Sandboxes that Fast-Path created: whose request it was. Nobody else's request is a replay of it. */
export const createdByAnnotation = `${reservedPrefix}created-by` as const

/** Annotation of Sandboxes, set by people: the deletion does not wait for an agent that is silent. Any value but "false". */
export const forceDeleteAnnotation = `${reservedPrefix}force-delete` as const

/** Labels of containers, for whoever collects what nobody owns. */
export const containerLabels = {
  managed: `${reservedPrefix}managed`,
  agentName: `${reservedPrefix}agent-name`,
  agentUid: `${reservedPrefix}agent-uid`,
  namespace: `${reservedPrefix}namespace`,
  id: `${reservedPrefix}id`,
  claimUid: `${reservedPrefix}claim-uid`,
  sandboxName: `${reservedPrefix}sandbox-name`
} as const

/** The containerd namespace in which sandboxes live on a cluster's node. */
export const containerdNamespace = "k8s.io"

/**
 * What the controllers' authority is called, in their own namespace: a Secret with its keys, and a ConfigMap with what
 * its clients believe, under `certificates`.
 */
export const authority = { name: "fast-sandbox-ca", certificates: "ca.crt" } as const

/** TCP ports of the services. */
export const ports = { fastPath: 9090, metrics: 9091, agent: 5758 } as const

/** The namespace that an empty one means. */
export const defaultNamespace = "default"

/** The pool that a request without one means. */
export const defaultPool = "default-pool"
