/**
 * A file or a folder of this machine as a tar archive: modes, times, symbolic and hard links are kept.
 */
import * as Effect from "effect/Effect"
import * as Tar from "effect/encoding/Tar"
import * as Stream from "effect/Stream"
import type { Stats } from "node:fs"
import { type FileHandle, lstat, open, readdir, readlink, stat } from "node:fs/promises"
import { basename, join } from "node:path"
import { LocalError } from "../Failure.ts"

/** One read: large enough that its cost does not show beside the copy's. */
const CHUNK_BYTES = 512 * 1024

/** Names of files with several names that are remembered; further ones become files of their own. */
const MAX_LINKS = 65_536

const BITS_PERMISSIONS = 0o7777

const failed = (path: string) => (cause: unknown): LocalError =>
  new LocalError({ problem: `can't read ${path}: ${cause instanceof Error ? cause.message : String(cause)}` })

const attempt = <A>(path: string, evaluate: () => Promise<A>): Effect.Effect<A, LocalError> =>
  Effect.tryPromise({ try: evaluate, catch: failed(path) })

/** Exactly the bytes that the archive's header promises; a file that became shorter ends the copy. */
const contentOf = (path: string, size: number): Stream.Stream<Uint8Array, LocalError> =>
  Stream.fromAsyncIterable(read(path, size), (cause) => cause instanceof LocalError ? cause : failed(path)(cause))

async function* read(path: string, size: number): AsyncGenerator<Uint8Array> {
  let handle: FileHandle | undefined
  try {
    handle = await open(path, "r")
    for (let left = size; left > 0;) {
      // a fresh buffer each time: the last one is still on its way
      const buffer = Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, left))
      const { bytesRead } = await handle.read(buffer, 0, buffer.length)
      if (bytesRead === 0) throw new LocalError({ problem: `${path} became shorter while it was copied` })
      left -= bytesRead
      yield buffer.subarray(0, bytesRead)
    }
  } finally {
    await handle?.close()
  }
}

/** How the root entry is called in the archive: `.` for what is in a folder. */
const rootName = (path: string): string => /(?:^|\/)\.\/*$/.test(path) ? "." : basename(path)

/** A tree, walked in the order of its names. */
async function* walk(path: string, name: string, info: Stats, links: Map<string, string>): AsyncGenerator<
  Tar.Entry<LocalError>
> {
  const options = { mode: info.mode & BITS_PERMISSIONS, uid: info.uid, gid: info.gid, mtime: info.mtime }
  if (info.isDirectory()) {
    yield Tar.directory(`${name}/`, options)
    for (const child of (await readdir(path)).toSorted()) {
      const childPath = join(path, child)
      yield* walk(childPath, `${name}/${child}`, await lstat(childPath), links)
    }
  } else if (info.isSymbolicLink()) {
    yield Tar.symlink(name, await readlink(path), options)
  } else if (info.isFile()) {
    const inode = `${info.dev}:${info.ino}`
    const earlier = info.nlink > 1 ? links.get(inode) : undefined
    if (earlier !== undefined) {
      yield Tar.hardlink(name, earlier, options)
      return
    }
    if (info.nlink > 1 && links.size < MAX_LINKS) links.set(inode, name)
    yield Tar.fileStream(name, info.size, contentOf(path, info.size), options)
  } else {
    throw new LocalError({ problem: `${path} is neither a file nor a folder nor a link; it can't be copied` })
  }
}

/** The archive of what is at a path. With `followLink` a link at the path itself is followed. */
export const archive = (
  path: string,
  options: { readonly followLink: boolean }
): Stream.Stream<Uint8Array, LocalError> =>
  Stream.unwrap(Effect.gen(function*() {
    const name = rootName(path)
    const info = yield* attempt(path, () => options.followLink || name === "." ? stat(path) : lstat(path)).pipe(
      Effect.mapError((error) =>
        error.message.includes("ENOENT")
          ? new LocalError({ problem: `there is no file ${path}` })
          : error
      )
    )
    return Stream.fromAsyncIterable(
      walk(path, name, info, new Map()),
      (cause) => cause instanceof LocalError ? cause : failed(path)(cause)
    ).pipe(
      Stream.rechunk(1),
      Stream.pipeThroughChannel(Tar.encode<LocalError, unknown, Tar.Entry<LocalError>>()),
      Stream.catchTag("TarError", ({ message }) => Stream.fail(new LocalError({ problem: `${path}: ${message}` })))
    )
  }))
