/**
 * Who a sandbox runs as. Images name users; the kernel wants numbers, and the names are defined by files inside the
 * image. The files are read from the unpacked layers, so nothing has to be mounted.
 */
import * as Cache from "effect/Cache"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { randomUUID } from "node:crypto"
import * as Path from "node:path/posix"
import { type ContainerdError, ignoreNotFound } from "./ContainerdError.ts"
import { HostRoot } from "./HostRoot.ts"
import type { ResolvedImage } from "./Images.ts"
import { Leases } from "./Leases.ts"
import type { User } from "./OciSpec.ts"
import { type Mount, Snapshots } from "./Snapshots.ts"

/** The user can't be found in the image. Give a number, or a name that the image's /etc/passwd has. */
export class UnknownUser extends Schema.TaggedError<UnknownUser>()("UnknownUser", {
  user: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `user ${JSON.stringify(this.user)}: ${this.problem}`
  }
}

/** The directories that a snapshot's mounts put on top of each other, topmost first. */
export const layerDirectories = (mounts: ReadonlyArray<Mount>): ReadonlyArray<string> =>
  mounts.flatMap((mount) => {
    if (mount.type !== "overlay") {
      return [mount.source]
    }
    const option = (name: string) =>
      mount.options.find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1)
    const upper = option("upperdir")
    return [...(upper === undefined ? [] : [upper]), ...(option("lowerdir") ?? "").split(":")]
  })

/** The largest passwd or group file that is read. */
const maxFileBytes = 1024 * 1024

/** As many symbolic links as the kernel follows. */
const maxLinks = 40

/**
 * Where `path` really is below `root`, never outside of it: an image's link to /etc/passwd must not lead to the node's.
 * Undefined when it is not there.
 */
const locate = Effect.fnUntraced(function*(
  root: string,
  path: string
): Effect.fn.Return<string | undefined, never, FileSystem.FileSystem> {
  const fileSystem = yield* FileSystem.FileSystem
  const pending = path.split("/").toReversed()
  let inside = "/"
  let links = 0
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    if (name === "" || name === ".") {
      continue
    }
    const next = Path.join(inside, name)
    const target = yield* Effect.option(fileSystem.readLink(Path.join(root, next)))
    if (target._tag === "None") {
      inside = next
    } else {
      links++
      if (links > maxLinks) {
        return undefined
      }
      inside = target.value.startsWith("/") ? "/" : inside
      pending.push(...target.value.split("/").toReversed())
    }
  }
  return Path.join(root, inside)
})

const readLines = Effect.fnUntraced(function*(
  directories: ReadonlyArray<string>,
  path: string
): Effect.fn.Return<ReadonlyArray<ReadonlyArray<string>>, never, FileSystem.FileSystem> {
  const fileSystem = yield* FileSystem.FileSystem
  for (const directory of directories) {
    const file = yield* locate(directory, path)
    const info = file === undefined ? undefined : yield* Effect.orElseSucceed(fileSystem.stat(file), () => undefined)
    // A whiteout is a character device: the layer has removed the file.
    if (file === undefined || info?.type === "CharacterDevice") {
      return []
    }
    if (info?.type === "File") {
      return info.size > maxFileBytes
        ? []
        : (yield* Effect.orElseSucceed(fileSystem.readFileString(file), () => "")).split("\n").map((line) =>
          line.split(":")
        )
    }
  }
  return []
})

const numeric = /^\d{1,10}$/

/**
 * Resolves what an image's USER or a sandbox says (`""`, `uid`, `uid:gid`, `name`, `name:group`), with the rules of
 * docker: a group given explicitly replaces the user's own groups. `directories` are {@link layerDirectories}.
 */
export const resolveUser = Effect.fn("ImageUser.resolveUser")(function*(
  directories: ReadonlyArray<string>,
  user: string
): Effect.fn.Return<User, UnknownUser, FileSystem.FileSystem> {
  const [name = "", group] = user.split(":", 2)
  if ((name === "" || name === "0") && group === undefined) {
    return { uid: 0, gid: 0 }
  }
  const passwd = yield* readLines(directories, "/etc/passwd")
  const entry = passwd.find(([login, , uid]) => login === name || (numeric.test(name) && uid === name))
  const uid = numeric.test(name) ? name : name === "" ? "0" : entry?.[2]
  if (uid === undefined || !numeric.test(uid)) {
    return yield* new UnknownUser({ user, problem: "the image's /etc/passwd has no such user" })
  }
  const groups = yield* readLines(directories, "/etc/group")
  if (group !== undefined && group !== "") {
    const gid = numeric.test(group) ? group : groups.find(([title]) => title === group)?.[2]
    return gid === undefined || !numeric.test(gid)
      ? yield* new UnknownUser({ user, problem: "the image's /etc/group has no such group" })
      : { uid: Number(uid), gid: Number(gid) }
  }
  const login = entry?.[0]
  const additionalGids = login === undefined ? [] : groups
    .filter(([, , gid = "", members = ""]) => numeric.test(gid) && members.split(",").includes(login))
    .map(([, , gid]) => Number(gid))
  return {
    uid: Number(uid),
    gid: Number(numeric.test(entry?.[3] ?? "") ? entry?.[3] : 0),
    ...(additionalGids.length > 0 ? { additionalGids } : {})
  }
})

/** How many answers are remembered. */
const cacheCapacity = 512

/** A look into the layers takes milliseconds. */
const leaseExpiry = "5 minutes"

/**
 * Users of unpacked images, remembered by image. The layers' directories are containerd's, so a program in another mount
 * namespace must see them below {@link HostRoot}; where it does not, only root and `uid:gid` can be resolved.
 */
export class ImageUsers extends Context.Service<ImageUsers, {
  /** `user` as in {@link resolveUser}; the image's own when absent. The image must be unpacked. */
  readonly resolve: (image: ResolvedImage, user?: string) => Effect.Effect<User, UnknownUser | ContainerdError>
}>()("@fast-sandbox/containerd/ImageUsers") {
  static readonly layer: Layer.Layer<ImageUsers, never, Snapshots | Leases | FileSystem.FileSystem> = Layer.effect(
    ImageUsers,
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      const leases = yield* Leases
      const snapshots = yield* Snapshots
      const root = yield* HostRoot

      const look = Effect.fnUntraced(function*(chainId: string, user: string) {
        const { id } = yield* leases.scoped("fast-sandbox-user", leaseExpiry)
        const key = `user-${yield* Effect.sync(() => randomUUID())}`
        const mounts = yield* Effect.acquireRelease(
          snapshots.view(key, chainId, { leaseId: id }),
          () => snapshots.remove(key, { leaseId: id }).pipe(ignoreNotFound, Effect.ignore({ log: "Warn" }))
        )
        const directories = layerDirectories(mounts).map((directory) => `${root}${directory}`)
        const visible = yield* Effect.filter(
          directories,
          (directory) => Effect.orElseSucceed(fileSystem.exists(directory), () => false)
        )
        if (visible.length < directories.length) {
          return yield* new UnknownUser({
            user,
            problem:
              "the image's files can't be seen from here; give uid:gid, or let the agent share the node's process ids"
          })
        }
        return yield* resolveUser(directories, user).pipe(Effect.provideService(FileSystem.FileSystem, fileSystem))
      }, Effect.scoped)

      const cache = yield* Cache.makeWith(
        (key: string) => {
          const [chainId = "", user = ""] = key.split(" ")
          return look(chainId, user)
        },
        { capacity: cacheCapacity, timeToLive: (exit) => Exit.isSuccess(exit) ? "1 day" : "0 millis" }
      )

      return ImageUsers.of({
        resolve: Effect.fn("ImageUsers.resolve")((image, user = image.config.user) =>
          isSelfContained(user)
            ? resolveUser([], user).pipe(Effect.provideService(FileSystem.FileSystem, fileSystem))
            : Cache.get(cache, `${image.chainId} ${user}`)
        )
      })
    })
  )
}

/** Whether no file of the image is needed. */
const isSelfContained = (user: string): boolean => user === "" || user === "0" || /^\d{1,10}:\d{1,10}$/.test(user)
