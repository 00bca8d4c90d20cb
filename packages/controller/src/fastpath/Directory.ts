/**
 * Which sandboxes exist, for every reader: the resources that the cache shows, what this controller wrote that the
 * cache does not show yet, and the instances that agents run for sandboxes whose resource is still to be written.
 */
import * as Assignment from "@fast-sandbox/core/Assignment"
import * as Instant from "@fast-sandbox/core/Instant"
import { RecentSet } from "@fast-sandbox/core/RecentSet"
import { key as keyOf, type Sandbox } from "@fast-sandbox/core/Sandbox"
import type { SandboxPool } from "@fast-sandbox/core/SandboxPool"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Agents } from "../agents/Agents.ts"
import { Caches } from "../Caches.ts"
import { Registry } from "../registry/Registry.ts"
import * as FirstStatus from "./FirstStatus.ts"
import * as KeyFeed from "./internal/KeyFeed.ts"

/** A sandbox whose resource is still to be written. */
export interface Unwritten {
  /** What is to be written. */
  readonly manifest: Sandbox
  readonly assignment: Assignment.Assignment
  /** When it was created, in milliseconds since the epoch. */
  readonly since: number
  /** Its caller was told that it exists; otherwise it exists as long as an agent shows it. */
  readonly acknowledged: boolean
}

/** What is known beyond the cache, by `namespace/name`. */
type Recent =
  | { readonly _tag: "Unwritten"; readonly unwritten: Unwritten }
  | { readonly _tag: "Written"; readonly sandbox: Sandbox; readonly at: number }
  | { readonly _tag: "Deleted"; readonly uid: string; readonly at: number }

/** A sandbox as it is known now. */
export interface Entry {
  /** With a status, also before its resource has one. */
  readonly sandbox: Sandbox
  readonly unwritten: Option.Option<Unwritten>
}

/** Which sandboxes exist. */
export class Directory extends Context.Service<Directory, {
  get(namespace: string, name: string): Effect.Effect<Option.Option<Entry>>
  /** Of one namespace, or of all (`*`), in the order of their keys. */
  list(namespace: string): Effect.Effect<ReadonlyArray<Entry>>
  pool(namespace: string, name: string): Effect.Effect<Option.Option<SandboxPool>>
  /** Subscribes to the keys (`namespace/name`) at which something may have changed. A slow subscriber misses none. */
  readonly hints: Effect.Effect<Stream.Stream<string>, never, Scope.Scope>
  /** The sandbox exists from now on, although its resource does not. */
  admit(unwritten: Unwritten): Effect.Effect<void>
  unwritten(namespace: string, name: string): Effect.Effect<Option.Option<Unwritten>>
  /** The sandbox does not exist any more, if it is still the one with this instance and was not written. */
  drop(namespace: string, name: string, instanceId: string): Effect.Effect<void>
  /** What the API answered to a write: shown until the cache has caught up. */
  wrote(sandbox: Sandbox): Effect.Effect<void>
  /** The API has taken the deletion of this incarnation. */
  deleted(sandbox: Sandbox): Effect.Effect<void>
  /** Whether the resource of this claim has been there: when it is no more, it must not be written again. */
  wasWritten(claimUid: string): Effect.Effect<boolean>
  /** Sandboxes whose resource is still to be written. */
  readonly backlog: Effect.Effect<number>
  /** How long the oldest of them has waited, in milliseconds. */
  readonly oldestMillis: Effect.Effect<number>
  /** Waits until the caches are filled. */
  readonly synced: Effect.Effect<void>
}>()("@fast-sandbox/controller/fastpath/Directory") {
  /** Also tells the Registry which pools there are. */
  static get layer(): Layer.Layer<Directory, never, Caches | Agents | Registry> {
    return Layer.effect(Directory, make)
  }
}

/** How long what this controller wrote is believed over a cache that shows nothing of it. */
const cacheLag = Duration.seconds(10)

/** Claims that are remembered to have had a resource: those that are not bound to it yet are among the latest. */
const maxWritten = 10_000

/** Stands for all namespaces. */
const everything = "*"

const ref = ({ metadata: { name = "", namespace = "" } }: Sandbox) => ({ namespace, name })

/** Resource versions of one object grow; one that is no number is taken for new. */
const isCaughtUp = (cached: Sandbox, written: Sandbox): boolean =>
  !(Number(cached.metadata.resourceVersion) < Number(written.metadata.resourceVersion))

/** What a reader is to see. */
const resolve = (
  cached: Sandbox | undefined,
  recent: Recent | undefined,
  now: number
): Sandbox | Unwritten | undefined => {
  switch (recent?._tag) {
    case undefined:
      return cached
    case "Unwritten":
      return cached !== undefined && Assignment.claimUid(cached) === Assignment.claimUid(recent.unwritten.manifest)
        ? cached
        : recent.unwritten
    case "Written":
      if (cached === undefined) {
        return now < recent.at + Duration.toMillis(cacheLag) ? recent.sandbox : undefined
      }
      return isCaughtUp(cached, recent.sandbox) ? cached : recent.sandbox
    case "Deleted":
      return cached !== undefined && cached.metadata.uid === recent.uid &&
          cached.metadata.deletionTimestamp === undefined
        ? { ...cached, metadata: { ...cached.metadata, deletionTimestamp: Instant.format(recent.at) } }
        : cached
  }
}

const isUnwritten = (resolved: Sandbox | Unwritten): resolved is Unwritten => "manifest" in resolved

/** Follows the caches and the agents until the scope closes. */
export const make: Effect.Effect<Directory["Service"], never, Caches | Agents | Registry | Scope.Scope> = Effect
  .gen(
    function*() {
      const agents = yield* Agents
      const registry = yield* Registry
      const { pools, sandboxes } = yield* Caches
      const recents = new Map<string, Recent>()
      const written = new RecentSet<string>(maxWritten)
      const feed = KeyFeed.make()
      let depth = 0

      const hint = (key: string) => Effect.sync(() => feed.publish(key))

      const waits = (recent: Recent | undefined): number => recent?._tag === "Unwritten" ? 1 : 0

      const put = (key: string, recent: Recent) =>
        Effect.sync(() => {
          depth += waits(recent) - waits(recents.get(key))
          recents.set(key, recent)
          feed.publish(key)
        })

      const forget = (key: string): void => {
        depth -= waits(recents.get(key))
        recents.delete(key)
      }

      const show = Effect.fnUntraced(function*(resolved: Sandbox | Unwritten): Effect.fn.Return<Option.Option<Entry>> {
        const now = yield* Clock.currentTimeMillis
        if (!isUnwritten(resolved)) {
          if (resolved.status?.phase !== undefined) {
            return Option.some({ sandbox: resolved, unwritten: Option.none() })
          }
          const assignment = Assignment.ofCreator(resolved)
          const agent = Option.isNone(assignment) ? Option.none() : yield* agents.get(assignment.value.podUid)
          return Option.some({ sandbox: FirstStatus.show(resolved, agent, now), unwritten: Option.none() })
        }
        const agent = yield* agents.get(resolved.assignment.podUid)
        const isShown = Option.exists(agent, ({ instances }) => instances.has(resolved.assignment.instanceId))
        if (!isShown && !resolved.acknowledged) {
          return Option.none()
        }
        const manifest: Sandbox = {
          ...resolved.manifest,
          metadata: { ...resolved.manifest.metadata, creationTimestamp: Instant.format(resolved.since) }
        }
        return Option.some({ sandbox: FirstStatus.show(manifest, agent, now), unwritten: Option.some(resolved) })
      })

      const look = Effect.fnUntraced(function*(namespace: string, name: string) {
        const cached = Option.getOrUndefined(yield* sandboxes.get({ namespace, name }))
        const now = yield* Clock.currentTimeMillis
        return resolve(cached, recents.get(keyOf(namespace, name)), now)
      })

      const get = Effect.fnUntraced(function*(namespace: string, name: string) {
        const resolved = yield* look(namespace, name)
        return resolved === undefined ? Option.none() : yield* show(resolved)
      })

      /** Forgets what the cache knows by now, and what it ought to know after so long. */
      const forgetKnown = Effect.fnUntraced(function*(key: string, recent: Recent) {
        if (recent._tag === "Unwritten") {
          const { assignment, acknowledged, manifest } = recent.unwritten
          const cached = Option.getOrUndefined(yield* sandboxes.get(ref(manifest)))
          const agent = yield* agents.get(assignment.podUid)
          const isGone = !acknowledged &&
            !Option.exists(agent, ({ instances }) => instances.has(assignment.instanceId))
          const isWritten = cached !== undefined && Assignment.claimUid(cached) === Assignment.claimUid(manifest)
          if ((isGone || isWritten) && recents.get(key) === recent) {
            forget(key)
          }
          return
        }
        const now = yield* Clock.currentTimeMillis
        if (now >= recent.at + Duration.toMillis(cacheLag) && recents.get(key) === recent) {
          forget(key)
        }
      })

      yield* sandboxes.changes.pipe(
        Stream.runForEach((change) => {
          if (change._tag === "Synced") {
            return Effect.void
          }
          const { name, namespace } = ref(change.object)
          const key = keyOf(namespace, name)
          const recent = recents.get(key)
          const uid = change.object.metadata.uid
          if (change._tag === "Added") {
            written.add(Assignment.claimUid(change.object))
          }
          if (
            recent?._tag === "Written" && uid === recent.sandbox.metadata.uid &&
            (change._tag === "Deleted" || isCaughtUp(change.object, recent.sandbox))
          ) {
            forget(key)
          }
          return hint(key)
        }),
        Effect.forkScoped
      )
      yield* agents.changes.pipe(
        Stream.runForEach((change) =>
          change._tag === "InstanceChanged"
            ? hint(keyOf(change.namespace, change.sandboxName))
            : Effect.sync(() => {
              for (const [key, recent] of recents) {
                if (recent._tag === "Unwritten" && recent.unwritten.assignment.podUid === change.uid) {
                  feed.publish(key)
                }
              }
            })
        ),
        Effect.forkScoped
      )
      yield* pools.changes.pipe(
        Stream.runForEach((change) => {
          if (change._tag === "Synced") {
            return Effect.void
          }
          const { name = "", namespace = "" } = change.object.metadata
          return change._tag === "Deleted" ? registry.removePool(namespace, name) : registry.addPool(namespace, name)
        }),
        Effect.forkScoped
      )
      yield* Effect.suspend(() =>
        Effect.forEach([...recents], ([key, recent]) => forgetKnown(key, recent), { discard: true })
      )
        .pipe(Effect.repeat(Schedule.spaced("1 second")), Effect.forkScoped)

      return Directory.of({
        get,
        list: Effect.fnUntraced(function*(namespace) {
          const cached = yield* sandboxes.list
          const keys = new Set([
            ...cached.map((sandbox) => ref(sandbox)).map(({ name, namespace }) => keyOf(namespace, name)),
            ...recents.keys()
          ])
          const entries: Array<Entry> = []
          for (const key of [...keys].toSorted()) {
            const [space = "", name = ""] = key.split("/")
            if (namespace === everything || namespace === space) {
              const entry = yield* get(space, name)
              if (Option.isSome(entry)) {
                entries.push(entry.value)
              }
            }
          }
          return entries
        }),
        pool: (namespace, name) => pools.get({ namespace, name }),
        hints: feed.subscribe,
        admit: (unwritten) => {
          const { name, namespace } = ref(unwritten.manifest)
          return put(keyOf(namespace, name), { _tag: "Unwritten", unwritten })
        },
        unwritten: (namespace, name) =>
          Effect.map(
            look(namespace, name),
            (resolved) => resolved !== undefined && isUnwritten(resolved) ? Option.some(resolved) : Option.none()
          ),
        drop: (namespace, name, instanceId) =>
          Effect.suspend(() => {
            const key = keyOf(namespace, name)
            const recent = recents.get(key)
            if (recent?._tag !== "Unwritten" || recent.unwritten.assignment.instanceId !== instanceId) {
              return Effect.void
            }
            forget(key)
            return hint(key)
          }),
        wrote: Effect.fnUntraced(function*(sandbox) {
          const { name, namespace } = ref(sandbox)
          const cached = Option.getOrUndefined(yield* sandboxes.get({ name, namespace }))
          const at = yield* Clock.currentTimeMillis
          const key = keyOf(namespace, name)
          written.add(Assignment.claimUid(sandbox))
          if (cached !== undefined && cached.metadata.uid === sandbox.metadata.uid && isCaughtUp(cached, sandbox)) {
            forget(key)
            yield* hint(key)
          } else {
            yield* put(key, { _tag: "Written", sandbox, at })
          }
        }),
        deleted: Effect.fnUntraced(function*(sandbox) {
          const { name, namespace } = ref(sandbox)
          const at = yield* Clock.currentTimeMillis
          yield* put(keyOf(namespace, name), { _tag: "Deleted", uid: sandbox.metadata.uid ?? "", at })
        }),
        wasWritten: (claimUid) => Effect.sync(() => written.has(claimUid)),
        backlog: Effect.sync(() => depth),
        oldestMillis: Effect.map(Clock.currentTimeMillis, (now) => {
          const since = [...recents.values()].flatMap((recent) =>
            recent._tag === "Unwritten" ? [recent.unwritten.since] : []
          )
          return since.reduce((oldest, since) => Math.max(oldest, now - since), 0)
        }),
        synced: Effect.all([sandboxes.synced, pools.synced, agents.firstSync], {
          concurrency: "unbounded",
          discard: true
        })
      })
    }
  )
