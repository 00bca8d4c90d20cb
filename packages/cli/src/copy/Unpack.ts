/**
 * Unpacks a tar archive that a sandbox gave. What is in it is not trusted: no entry leads out of the target, no link is
 * written through, and neither devices nor set-user-id bits come out of it. What did not come whole never gets its name.
 */
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import * as Effect from "effect/Effect"
import * as Tar from "effect/encoding/Tar"
import * as Stream from "effect/Stream"
import { randomBytes } from "node:crypto"
import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  futimesSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  symlinkSync,
  write,
  writeSync
} from "node:fs"
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

/** What was asked for, where it goes, and how. */
export interface Options {
  /** The path that was asked for. An archive whose topmost entry has another name is not the answer to it. */
  readonly source: string
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

const infoOf = (path: string): Stats | undefined => lstatSync(path, { throwIfNoEntry: false })

/** Whether a folder is there, also at the end of links. */
const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true

const attempt = <A>(path: string, evaluate: () => A): Effect.Effect<A, LocalError> =>
  Effect.try({ try: evaluate, catch: fromCause(path) })

const partsOf = (path: string): ReadonlyArray<string> => {
  const parts = path.split("/").filter((part) => part !== "" && part !== ".")
  if (parts.includes("..")) throw unsafe(path)
  return parts
}

/** The name of the topmost entry of what is at a path; undefined: what is in the folder there, without the folder. */
const topOf = (source: string): string | undefined => source.endsWith("/.") ? undefined : partsOf(source).at(-1)

/** The place of an archive's topmost entry, under a name that nobody has yet when it is new. */
interface Root {
  readonly final: string
  readonly current: string
  /** Its name in the archive; undefined: the root is the folder itself. */
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
  open(): Root {
    const { source, target } = this.options
    const top = topOf(source)
    const isIntoFolder = isFolder(target)
    if (!isIntoFolder && target.endsWith("/")) {
      throw new LocalError({ problem: `there is no folder ${target}` })
    }
    const final = isIntoFolder && top !== undefined ? join(target, top) : target
    const isNew = infoOf(final) === undefined
    if (isNew && !isFolder(dirname(final))) {
      throw new LocalError({ problem: `there is no folder ${dirname(final)}` })
    }
    return { final, current: isNew ? join(dirname(final), temporaryName()) : final, top }
  }

  /** Where an entry goes. Every folder above it is one of ours or a real one. */
  locate(path: string): string {
    const { root } = this
    if (root === undefined) throw unsafe(path)
    const parts = partsOf(path)
    const below = root.top === undefined ? parts : parts.slice(1)
    if (root.top !== undefined && parts[0] !== root.top) throw unsafe(path)
    let at = root.current
    for (const part of below) {
      if (!this.known.has(at)) {
        const info = infoOf(at)
        if (info === undefined) mkdirSync(at, { mode: DIRECTORY_MODE_MEANWHILE })
        else if (!info.isDirectory()) throw unsafe(path)
        this.known.add(at)
      }
      at = join(at, part)
    }
    return at
  }

  settle(path: string, header: Tar.Header): void {
    if (this.options.keepOwner) lchownSync(path, header.uid, header.gid)
    if (header.type !== "Symlink") chmodSync(path, header.mode & BITS_KEPT)
    lutimesSync(path, header.mtime, header.mtime)
  }

  /** Like {@link settle}, for a file that is still open. */
  settleOpen(fd: number, header: Tar.Header): void {
    if (this.options.keepOwner) fchownSync(fd, header.uid, header.gid)
    fchmodSync(fd, header.mode & BITS_KEPT)
    futimesSync(fd, header.mtime, header.mtime)
  }

  /** Makes something under a name of its own and gives it the right one at the end. */
  place(path: string, make: (temporary: string) => void): void {
    const temporary = join(dirname(path), temporaryName())
    try {
      make(temporary)
      this.show(temporary, path)
    } catch (cause) {
      rmSync(temporary, { force: true })
      throw cause
    }
  }

  /** Gives what was made under another name its own. */
  show(temporary: string, path: string): void {
    renameSync(temporary, path)
    this.known.delete(path)
  }

  folder(path: string, header: Tar.Header): void {
    const info = infoOf(path)
    if (info === undefined) mkdirSync(path, { mode: DIRECTORY_MODE_MEANWHILE })
    // the user's own link to a folder is where the user wanted it; below it there are none
    else if (!info.isDirectory() && !(path === this.root?.current && isFolder(path))) {
      throw new LocalError({ problem: `${path} exists and is no folder` })
    }
    this.known.add(path)
    if (info === undefined || this.root?.top !== undefined) this.folders.push({ path, header })
  }

  simple(path: string, header: Tar.Header): void {
    switch (header.type) {
      case "Directory":
        return this.folder(path, header)
      case "Symlink":
        return this.place(path, (temporary) => {
          symlinkSync(header.linkTarget ?? "", temporary)
          this.settle(temporary, header)
        })
      case "Hardlink": {
        const source = this.locate(header.linkTarget ?? "")
        if (infoOf(source)?.isFile() !== true) throw unsafe(header.linkTarget ?? "")
        return this.place(path, (temporary) => linkSync(source, temporary))
      }
      default:
        throw new LocalError({ problem: `${header.path} is neither a file nor a folder nor a link; it is not copied` })
    }
  }

  finish(): void {
    for (const { header, path } of this.folders.toReversed()) this.settle(path, header)
    const { root } = this
    if (root !== undefined && root.current !== root.final) renameSync(root.current, root.final)
    this.root = undefined
  }

  /** Nothing half-made stays. */
  giveUp(): void {
    const { root } = this
    if (root !== undefined && root.current !== root.final) {
      rmSync(root.current, { recursive: true, force: true })
    }
  }
}

const temporaryName = (): string => `.fsb-${randomBytes(6).toString("hex")}.part`

/** Up to this size a write is done at once: the way to another thread and back would take longer. */
const SMALL_BYTES = 64 * 1024

const writeNow = (fd: number, bytes: Uint8Array): void => {
  for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at)
}

/** Larger pieces are written while the next ones come. */
const writeAll = (path: string, fd: number, bytes: Uint8Array): Effect.Effect<void, LocalError> =>
  bytes.length <= SMALL_BYTES
    ? attempt(path, () => writeNow(fd, bytes))
    : Effect.callback<number, LocalError>((resume) => {
      write(
        fd,
        bytes,
        (cause, written) => resume(cause === null ? Effect.succeed(written) : Effect.fail(fromCause(path)(cause)))
      )
    }).pipe(
      Effect.flatMap((written) => written < bytes.length ? writeAll(path, fd, bytes.subarray(written)) : Effect.void)
    )

/** A regular file, whose content comes as it comes. */
const writeFile = (unpacking: Unpacking, path: string, { body, header }: Tar.Entry<Tar.TarError | BoundaryError>) => {
  const temporary = join(dirname(path), temporaryName())
  let isOpen = true
  let isShown = false
  return Effect.acquireUseRelease(
    attempt(path, () =>
      openSync(
        temporary,
        constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
        FILE_MODE_MEANWHILE
      )),
    (fd) =>
      Stream.runForEach(body, (bytes) => {
        unpacking.bytes += bytes.length
        return Effect.andThen(
          Effect.uninterruptible(writeAll(path, fd, bytes)),
          unpacking.options.onBytes(unpacking.bytes)
        )
      }).pipe(
        Effect.andThen(attempt(path, () => {
          unpacking.settleOpen(fd, header)
          // some file systems tell only now that they are full
          isOpen = false
          closeSync(fd)
          unpacking.show(temporary, path)
          isShown = true
        }))
      ),
    (fd) =>
      Effect.sync(() => {
        if (isOpen) closeSync(fd)
        if (!isShown) rmSync(temporary, { force: true })
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
    return archive.pipe(
      Stream.pipeThroughChannel(Tar.decode<BoundaryError>()),
      Stream.runForEach((entry) =>
        Effect.gen(function*() {
          const { header } = entry
          if (unpacking.root === undefined) {
            const root = yield* attempt(options.target, () => unpacking.open())
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
      Effect.onExit(() => Effect.sync(() => unpacking.giveUp())),
      Effect.catchTag("TarError", ({ message }) =>
        Effect.fail(new LocalError({ problem: `the sandbox's archive is broken: ${message}` })))
    )
  })
