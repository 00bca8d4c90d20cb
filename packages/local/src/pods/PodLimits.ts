/**
 * The limits of a Pod as its container has them, which the kubelet would give to the Pod's cgroup. They hold for all
 * sandboxes of its agent together.
 */
import * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import * as Quantity from "@fast-sandbox/core/Quantity"
import type { Container } from "@fast-sandbox/kube/Kinds"
import * as Option from "effect/Option"

const millisPerCore = 1000

/** What is not limited is absent; what is no quantity limits nothing. */
export const resourcesOf = ({ resources }: Pick<Container, "resources">): OciSpec.LinuxResources => {
  const { cpu, memory } = resources?.limits ?? {}
  const millis = Option.getOrUndefined(Quantity.parseCpuMillis(String(cpu ?? "")))
  const bytes = Option.getOrUndefined(Quantity.parseBytes(String(memory ?? "")))
  return {
    ...(millis === undefined || millis === 0 ? {} : { cpu: OciSpec.quotaOf(millis / millisPerCore) }),
    ...(bytes === undefined || bytes === 0 ? {} : { memory: { limit: bytes } })
  }
}
