/**
 * What the containerd at the socket is and can do.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { ContainerdClient, named } from "./ContainerdClient.ts"
import type { ContainerdError } from "./ContainerdError.ts"

/** A release such as 1.6.20; suffixes of distributors are cut off `major` and `minor`. */
export interface Version {
  readonly version: string
  readonly revision: string
  readonly major: number
  readonly minor: number
}

/** A loaded plugin; `problem` says why it could not be loaded. */
export interface Plugin {
  readonly type: string
  readonly id: string
  readonly problem: string | undefined
}

/** `snapshotters` are those that work; `hasCriImages` says whether images can be pulled over this socket. */
export class Introspection extends Context.Service<Introspection, {
  readonly version: Effect.Effect<Version, ContainerdError>
  readonly plugins: Effect.Effect<ReadonlyArray<Plugin>, ContainerdError>
  readonly snapshotters: Effect.Effect<ReadonlyArray<string>, ContainerdError>
  readonly hasCriImages: Effect.Effect<boolean, ContainerdError>
}>()("@fast-sandbox/containerd/Introspection") {
  static readonly layer: Layer.Layer<Introspection, never, ContainerdClient> = Layer.effect(
    Introspection,
    Effect.gen(function*() {
      const { options, raw } = yield* ContainerdClient

      const version = raw.version.version({}, options.call).pipe(
        Effect.map(({ revision, version }): Version => {
          const [, major = "0", minor = "0"] = /^v?(\d+)\.(\d+)/.exec(version) ?? []
          return { version, revision, major: Number(major), minor: Number(minor) }
        }),
        named("Introspection.version")
      )

      const plugins = raw.introspection.plugins({}, options.call).pipe(
        Effect.map(({ plugins }) =>
          plugins.map(({ id, initErr, type }): Plugin => ({ type, id, problem: initErr?.message }))
        ),
        named("Introspection.plugins")
      )

      return Introspection.of({
        version,
        plugins,
        snapshotters: Effect.map(plugins, (plugins) =>
          plugins
            .filter(({ problem, type }) => type === snapshotterType && problem === undefined)
            .map(({ id }) => id)),
        hasCriImages: Effect.map(
          plugins,
          (plugins) => plugins.some((plugin) => plugin.problem === undefined && isCriImages(plugin))
        )
      })
    })
  )
}

const snapshotterType = "io.containerd.snapshotter.v1"

// One plugin until containerd 1.7; since 2.0 the gRPC service is still called so.
const isCriImages = ({ id, type }: Plugin): boolean => type === "io.containerd.grpc.v1" && id === "cri"
