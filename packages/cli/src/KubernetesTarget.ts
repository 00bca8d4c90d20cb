/**
 * A server in a cluster that is reached through the cluster's Kubernetes API: what applies where the configuration
 * leaves something out, and how it is spoken of.
 */
import * as Names from "@fast-sandbox/core/Names"
import type { Kubernetes } from "./Config.ts"

/** What the manifests of this project make. */
const defaults = { namespace: "fast-sandbox-system", service: "fastpath", port: Names.ports.fastPath } as const

/** A Service, and which kubeconfig leads to its cluster. */
export interface KubernetesTarget {
  readonly kubeconfig: string | undefined
  readonly context: string | undefined
  readonly namespace: string
  readonly service: string
  readonly port: number
}

/** With what the configuration leaves out. */
export const complete = (said: Kubernetes): KubernetesTarget => ({
  kubeconfig: said.kubeconfig,
  context: said.context,
  namespace: said.namespace ?? defaults.namespace,
  service: said.service ?? defaults.service,
  port: said.port ?? defaults.port
})

/** For people: `fast-sandbox-system/fastpath:9090 through the context prod of ~/.kube/config`. */
export const describe = (said: Kubernetes): string => {
  const { context, kubeconfig, namespace, port, service } = complete(said)
  const of = kubeconfig === undefined ? "the kubeconfig" : kubeconfig
  return `${namespace}/${service}:${port} through ${context === undefined ? "" : `the context ${context} of `}${of}`
}
