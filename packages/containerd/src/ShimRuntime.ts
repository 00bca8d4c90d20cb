/**
 * Which shim starts a container, and with which OCI runtime: what a container's record and its task must agree on.
 */
import { create, toBinary } from "@bufbuild/protobuf"
import { OptionsSchema } from "@fast-sandbox/grpc/gen/containerd/runc_options_pb"
import { type Any, runcOptionsTypeUrl } from "./Any.ts"

/** The stock shim for runc-like runtimes. */
export const stockShim = "io.containerd.runc.v2"

/** Where it lets runtimes keep their records, for each namespace of any containerd. */
export const runtimeState = "/run/containerd/runc"

/**
 * `name` is a shim's name (`io.containerd.runc.v2`) or an absolute path to one; `options` are the shim's own, where it
 * takes any. `annotations`
 * must stand in the container's spec: they are how a shim learns which group the container belongs to.
 */
export interface ShimRuntime {
  readonly name: string
  readonly options: Any | undefined
  readonly annotations: Readonly<Record<string, string>>
}

/**
 * The shim `name` (stock by default) driving the OCI runtime at the absolute path `binary`. `systemdCgroup` lets systemd
 * own the cgroups, which the spec's cgroup path must then be written for.
 */
export const make = (options: {
  readonly binary: string
  readonly name?: string | undefined
  readonly annotations?: Readonly<Record<string, string>> | undefined
  readonly systemdCgroup?: boolean | undefined
}): ShimRuntime => ({
  name: options.name ?? stockShim,
  annotations: options.annotations ?? {},
  options: {
    typeUrl: runcOptionsTypeUrl,
    value: toBinary(
      OptionsSchema,
      create(OptionsSchema, { binaryName: options.binary, systemdCgroup: options.systemdCgroup ?? false })
    )
  }
})

/** Kata's shim: it starts a virtual machine for each container, configured on the node. */
export const kata: ShimRuntime = { name: "io.containerd.kata.v2", options: undefined, annotations: {} }
