/**
 * Unpacks a tar archive that a sandbox gave. What is in it is not trusted: no entry leads out of the target, no link is
 * written through, and neither devices nor set-user-id bits come out of it. What did not come whole never gets its name.
 */
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import * as Effect from "effect/Effect"
import * as Tar from "effect/encoding/Tar"
import * as Stream from "effect/Stream"
import { randomBytes } from "node:crypto"
import { constants, type Stats } from "node:fs"
import {
  chmod,
  type FileHandle,
  lchown,
  link,
  lstat,
  lutimes,
  mkdir,
  open,
  rename,
  rm,
  stat,
  symlink,
  unlink
} from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { LocalError } from "../Failure.ts"

/** Permissions, and the bit that keeps people from removing each other's files; never those that change the user. */
const BITS_KEPT = 0o1777

const DIRECTORY_MODE_MEANWHILE = 0o700
const FILE_MODE_MEANWHILE = 0o600

/** Folders whose mode and time are set when everything is in them. */
interface Folder {
  readonly path: string
  readonly header: Tar.Header
}

/** What was written. */
export interface Unpacked {
  readonly entries: number
  readonly bytes: number
}

/** Where it goes, and how. */
export interface Options {
  readonly target: string
  /** Give everything the owners that the archive names, as far as this user may. */
  readonly keepOwner: boolean
  readonly onBytes: (bytes: number) => Effect.Effect<void>
}

const unsafe = (path: string): LocalError =>
  new LocalError({ problem: `the sandbox's archive is refused: ${JSON.stringify(path)} leads out of the target` })

const fromCause = (path: string) => (cause: unknown): LocalError =>
  cause instanceof LocalError
    ? cause
    : new LocalError({ problem: `can't write ${path}: ${cause instanceof Error ? cause.message : String(cause)}` })

const infoOf = (path: string): Promise<Stats | undefined> =>
  lstat(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return undefined
    throw cause
  })

const partsOf = (path: string): ReadonlyArray<string> => {
  const parts = path.split("/").filter((part) => part !== "" && part !== ".")
  if (parts.includes("..")) throw unsafe(path)
  return parts
}

/** The place of an archive's topmost entry, under a name that nobody has yet when it is new. */
interface Root {
  readonly final: string
  readonly current: string
  /** The archive's word for it; undefined: the root is the folder itself. */
  readonly top: string | undefined
}

class Unpacking {
  readonly options: Options
  readonly folders: Array<Folder> = []
  /** Folders below the root that are no links, as far as was looked. */
  readonly known = new Set<string>()
  root: Root | undefined
  entries = 0
  bytes = 0

  constructor(options: Options) {
    this.options = options
  }

  /** An existing folder takes the entry with its own name; anything else gets the target's name. */
  async open(first: Tar.Header): Promise<Root> {
    const { target } = this.options
    const [top] = partsOf(first.path)
    const existing = await stat(target).catch(() => undefined)
    if (existing?.isDirectory() !== true && target.endsWith("/")) {
      throw new LocalError({ problem: `there is no folder ${target}` })
    }
    const final = existing?.isDirectory() === true && top !== undefined ? join(target, top) : target
    const isNew = (await infoOf(final)) === undefined
    if (isNew && (await stat(dirname(final)).catch(() => undefined))?.isDirectory() !== true) {
      throw new LocalError({ problem: `there is no folder ${dirname(final)}` })
    }
    return { final, current: isNew ? join(dirname(final), temporaryName()) : final, top }
  }

  /** Where an entry goes. Every folder above it is one of ours or a real one. */
  async locate(path: string): Promise<string> {
    const { root } = this
    if (root === undefined) throw unsafe(path)
    const parts = partsOf(path)
    const below = root.top === undefined ? parts : parts.slice(1)
    if (root.top !== undefined && parts[0] !== root.top) throw unsafe(path)
    let at = root.current
    for (const part of below) {
      if (!this.known.has(at)) {
        const info = await infoOf(at)
        if (info === undefined) await mkdir(at, { mode: DIRECTORY_MODE_MEANWHILE })
        else if (!info.isDirectory()) throw unsafe(path)
        this.known.add(at)
      }
      at = join(at, part)
    }
    return at
  }

  async settle(path: string, header: Tar.Header): Promise<void> {
    if (this.options.keepOwner) await lchown(path, header.uid, header.gid)
    if (header.type !== "Symlink") await chmod(path, header.mode & BITS_KEPT)
    await lutimes(path, header.mtime, header.mtime)
  }

  /** Makes something under a name of its own and gives it the right one at the end. */
  async place(path: string, make: (temporary: string) => Promise<void>): Promise<void> {
    const temporary = join(dirname(path), temporaryName())
    try {
      await make(temporary)
      await rename(temporary, path)
      this.known.delete(path)
    } catch (cause) {
      await rm(temporary, { force: true })
      throw cause
    }
  }

  async folder(path: string, header: Tar.Header): Promise<void> {
    const info = await infoOf(path)
    if (info === undefined) await mkdir(path, { mode: DIRECTORY_MODE_MEANWHILE })
    // the user's own link to a folder is where the user wanted it; below it there are none
    else if (!info.isDirectory() && !(path === this.root?.current && (await stat(path)).isDirectory())) {
      throw new LocalError({ problem: `${path} exists and is no folder` })
    }
    this.known.add(path)
    if (info === undefined || this.root?.top !== undefined) this.folders.push({ path, header })
  }

  async simple(path: string, header: Tar.Header): Promise<void> {
    switch (header.type) {
      case "Directory":
        return await this.folder(path, header)
      case "Symlink":
        return await this.place(path, async (temporary) => {
          await symlink(header.linkTarget ?? "", temporary)
          await this.settle(temporary, header)
        })
      case "Hardlink": {
        const source = await this.locate(header.linkTarget ?? "")
        if ((await infoOf(source))?.isFile() !== true) throw unsafe(header.linkTarget ?? "")
        return await this.place(path, (temporary) => link(source, temporary))
      }
      default:
        throw new LocalError({ problem: `${header.path} is neither a file nor a folder nor a link; it is not copied` })
    }
  }

  async finish(): Promise<void> {
    for (const { header, path } of this.folders.toReversed()) await this.settle(path, header)
    const { root } = this
    if (root !== undefined && root.current !== root.final) await rename(root.current, root.final)
    this.root = undefined
  }

  /** Nothing half-made stays. */
  async giveUp(): Promise<void> {
    const { root } = this
    if (root !== undefined && root.current !== root.final) {
      await rm(root.current, { recursive: true, force: true })
    }
  }
}

const temporaryName = (): string => `.fsb-${randomBytes(6).toString("hex")}.part`

const writeAll = async (handle: FileHandle, bytes: Uint8Array): Promise<void> => {
  for (let at = 0; at < bytes.length;) {
    at += (await handle.write(bytes, at)).bytesWritten
  }
}

/** A regular file, whose content comes as it comes. */
const writeFile = (unpacking: Unpacking, path: string, { body, header }: Tar.Entry<Tar.TarError | BoundaryError>) => {
  const temporary = join(dirname(path), temporaryName())
  const attempt = <A>(evaluate: () => Promise<A>) => Effect.tryPromise({ try: evaluate, catch: fromCause(path) })
  return Effect.acquireUseRelease(
    attempt(() =>
      open(
        temporary,
        constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
        FILE_MODE_MEANWHILE
      )
    ),
    (handle) =>
      Stream.runForEach(body, (bytes) => {
        unpacking.bytes += bytes.length
        return Effect.andThen(attempt(() => writeAll(handle, bytes)), unpacking.options.onBytes(unpacking.bytes))
      }).pipe(
        Effect.andThen(attempt(async () => {
          await unpacking.settle(temporary, header)
          await rename(temporary, path)
          unpacking.known.delete(path)
        }))
      ),
    (handle) =>
      Effect.promise(async () => {
        await handle.close()
        await unlink(temporary).catch(() => {})
      })
  )
}

/** Unpacks an archive with one topmost entry. */
export const unpack = (
  archive: Stream.Stream<Uint8Array, BoundaryError>,
  options: Options
): Effect.Effect<Unpacked, BoundaryError | LocalError> =>
  Effect.suspend(() => {
    const unpacking = new Unpacking(options)
    const attempt = <A>(path: string, evaluate: () => Promise<A>) =>
      Effect.tryPromise({ try: evaluate, catch: fromCause(path) })
    return archive.pipe(
      Stream.pipeThroughChannel(Tar.decode<BoundaryError>()),
      Stream.runForEach((entry) =>
        Effect.gen(function*() {
          const { header } = entry
          if (unpacking.root === undefined) {
            const root = yield* attempt(options.target, () => unpacking.open(header))
            unpacking.root = root
          }
          unpacking.entries++
          const path = yield* attempt(basename(header.path), () => unpacking.locate(header.path))
          yield* header.type === "File"
            ? writeFile(unpacking, path, entry)
            : attempt(path, () => unpacking.simple(path, header))
        })
      ),
      Effect.andThen(attempt(options.target, () => unpacking.finish())),
      Effect.map((): Unpacked => ({ entries: unpacking.entries, bytes: unpacking.bytes })),
      Effect.onExit(() => Effect.promise(() => unpacking.giveUp())),
      Effect.catchTag("TarError", ({ message }) =>
        Effect.fail(new LocalError({ problem: `the sandbox's archive is broken: ${message}` })))
    )
  })
