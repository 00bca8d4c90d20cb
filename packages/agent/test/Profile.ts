/** What unit tests take for the profile of a machine. */
import { type Profile, RuntimeProfile } from "@fast-sandbox/containerd/RuntimeProfile"
import { Layer } from "effect"

export const profile: Profile = {
  containerdVersion: "1.6.20",
  cgroupMode: "v2",
  snapshotter: "overlayfs",
  runtime: { name: "crun", path: "/usr/bin/crun", version: "1.8.1" },
  runtimes: [],
  optimisations: []
}

/** A machine on which everything is as it should be, but for the changes. */
export const layer = (changes: Partial<Profile> = {}): Layer.Layer<RuntimeProfile> =>
  Layer.succeed(RuntimeProfile, { ...profile, ...changes })
