/**
 * Everything that talks to one containerd, as one layer.
 */
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import { ContainerdClient } from "./ContainerdClient.ts"
import { Containers } from "./Containers.ts"
import { Content } from "./Content.ts"
import { Events } from "./Events.ts"
import { Images } from "./Images.ts"
import { ImageUsers } from "./ImageUser.ts"
import { Introspection } from "./Introspection.ts"
import { Leases } from "./Leases.ts"
import { Snapshots } from "./Snapshots.ts"
import { Tasks } from "./Tasks.ts"

/** The services of one containerd. */
export type Containerd =
  | ContainerdClient
  | Containers
  | Content
  | Events
  | Images
  | ImageUsers
  | Introspection
  | Leases
  | Snapshots
  | Tasks

/** All services over one connection, in the containerd namespace `namespace`. */
export const layer = (options: {
  readonly socket?: string | undefined
  readonly namespace: string
}): Layer.Layer<Containerd, never, FileSystem.FileSystem> =>
  Layer.merge(Images.layer, ImageUsers.layer).pipe(
    Layer.provideMerge(Layer.mergeAll(
      Containers.layer,
      Content.layer,
      Events.layer,
      Introspection.layer,
      Leases.layer,
      Snapshots.layer,
      Tasks.layer
    )),
    Layer.provideMerge(ContainerdClient.layer(options))
  )
