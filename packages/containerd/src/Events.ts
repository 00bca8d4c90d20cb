/**
 * What happens in containerd, as a stream that never ends by itself. Events are not stored: what happens while nobody
 * listens is lost. The stream therefore says each time when it (again) hears everything, and the consumer looks for
 * itself at that moment.
 */
import * as Context from "effect/Context"
import type * as Stream from "effect/Stream"

/** From here on nothing is missed; look at the world now. The first element, and again after every lost connection. */
export interface Subscribed {
  readonly _tag: "Subscribed"
  /** 1 for the first subscription; a higher number means that events may have been missed. */
  readonly generation: number
}

/** A process ended. `execId` is the container's id for its init. */
export interface TaskExited {
  readonly _tag: "TaskExited"
  readonly containerId: string
  readonly execId: string
  readonly pid: number
  readonly exitCode: number
  readonly exitedAtMillis: number
}

/** The kernel killed a process of the container because its memory limit was reached. */
export interface TaskOutOfMemory {
  readonly _tag: "TaskOutOfMemory"
  readonly containerId: string
}

/** A step in a task's life. */
export interface TaskChanged {
  readonly _tag: "TaskCreated" | "TaskStarted" | "TaskDeleted" | "TaskPaused" | "TaskResumed"
  readonly containerId: string
}

/** A container's record changed. */
export interface ContainerChanged {
  readonly _tag: "ContainerCreated" | "ContainerUpdated" | "ContainerDeleted"
  readonly containerId: string
}

/** An image's name changed. */
export interface ImageChanged {
  readonly _tag: "ImageCreated" | "ImageUpdated" | "ImageDeleted"
  readonly name: string
}

/** Everything that is told. */
export type ContainerdEvent =
  | Subscribed
  | TaskExited
  | TaskOutOfMemory
  | TaskChanged
  | ContainerChanged
  | ImageChanged

/**
 * `all` reconnects for ever (capped, jittered pauses) and never fails; a lost connection is logged and shows as another
 * {@link Subscribed}. Each run of the stream is a subscription of its own.
 */
export class Events extends Context.Service<Events, {
  readonly all: Stream.Stream<ContainerdEvent>
}>()("@fast-sandbox/containerd/Events") {}
