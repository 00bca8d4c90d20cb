/**
 * What this machine offers for fast starts, found out once: which OCI runtimes, which cgroup hierarchy, and which of the
 * optimisations are on. Everything here is optional; whatever is missing has a fallback and a reason that people read in
 * `fsb-ctl doctor` and in the agent's health.
 */
import * as Context from "effect/Context"
import * as Schema from "effect/Schema"

/** An OCI runtime that was found. `problem` says why it can't be used on this machine. */
export const OciRuntime = Schema.Struct({
  name: Schema.Literals(["crun", "runc"]),
  path: Schema.String,
  version: Schema.String,
  problem: Schema.optionalKey(Schema.String)
})
export type OciRuntime = typeof OciRuntime.Type

/** An optimisation: whether it is on, and what was found. */
export const Optimisation = Schema.Struct({
  name: Schema.Literals(["crun", "favordynmods", "readOnlyRuntime", "groupedShim", "volatileOverlay"]),
  isOn: Schema.Boolean,
  reason: Schema.String
})
export type Optimisation = typeof Optimisation.Type

/** The cgroup hierarchy: one unified, the old one, or the old one beside an empty unified one. */
export const CgroupMode = Schema.Literals(["v2", "v1", "hybrid"])
export type CgroupMode = typeof CgroupMode.Type

/** What was found. `runtime` is the one that sandboxes should use. */
export const Profile = Schema.Struct({
  containerdVersion: Schema.String,
  cgroupMode: CgroupMode,
  snapshotter: Schema.String,
  runtime: OciRuntime,
  runtimes: Schema.Array(OciRuntime),
  optimisations: Schema.Array(Optimisation)
})
export type Profile = typeof Profile.Type

/** No OCI runtime can be used: install crun or runc. */
export class NoRuntime extends Schema.TaggedError<NoRuntime>()("NoRuntime", {
  problem: Schema.String
}) {
  override get message(): string {
    return this.problem
  }
}

/** The profile of this machine and its containerd. */
export class RuntimeProfile extends Context.Service<RuntimeProfile, Profile>()(
  "@fast-sandbox/containerd/RuntimeProfile"
) {}
