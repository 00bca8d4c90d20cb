/**
 * The limits of a Pod as its container has them, which the kubelet would give to the Pod's cgroup. They hold for all
 * sandboxes of its agent together.
 */
import type { LinuxResources } from "@fast-sandbox/containerd/OciSpec"
import * as Quantity from "@fast-sandbox/core/Quantity"
import type { Container } from "@fast-sandbox/kube/Kinds"
import * as Option from "effect/Option"

/** The kubelet's own: `cpu.cfs_period_us`, and the least quota that the kernel takes. */
const cpuPeriodMicros = 100_000
const minCpuQuotaMicros = 1000
const millisPerCore = 1000

/** What is not limited is absent; what is no quantity limits nothing. */
export const resourcesOf = ({ resources }: Pick<Container, "resources">): LinuxResources => {
  const { cpu, memory } = resources?.limits ?? {}
  const millis = Option.getOrUndefined(Quantity.parseCpuMillis(String(cpu ?? "")))
  const bytes = Option.getOrUndefined(Quantity.parseBytes(String(memory ?? "")))
  return {
    ...(millis === undefined || millis === 0 ? {} : {
      cpu: {
        period: cpuPeriodMicros,
        quota: Math.max(minCpuQuotaMicros, millis * cpuPeriodMicros / millisPerCore)
      }
    }),
    ...(bytes === undefined || bytes === 0 ? {} : { memory: { limit: bytes } })
  }
}
