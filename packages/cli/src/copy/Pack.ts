/**
 * A file or a folder of this machine as a tar archive: modes, times, symbolic and hard links are kept.
 */
import * as Effect from "effect/Effect"
import * as Tar from "effect/encoding/Tar"
import * as Stream from "effect/Stream"
import { lstatSync, readdirSync, readFileSync, readlinkSync, type Stats, statSync } from "node:fs"
import { type FileHandle, open } from "node:fs/promises"
import { basename, join } from "node:path"
import { LocalError } from "../Failure.ts"

/** One read: large enough that its cost does not show beside the copy's. */
const CHUNK_BYTES = 256 * 1024

/** Files up to this size are read at once: for them the way to another thread and back takes longer than the read. */
const SMALL_BYTES = 64 * 1024

/** Entries and bytes of small files that are gathered before they are sent, and after which other work gets its turn. */
const MAX_BATCH = { entries: 256, bytes: 1024 * 1024 } as const

/** Names of files with several names that are remembered; further ones become files of their own. */
const MAX_LINKS = 65_536

const BITS_PERMISSIONS = 0o7777

const failed = (path: string) => (cause: unknown): LocalError =>
  cause instanceof LocalError
    ? cause
    : new LocalError({ problem: `can't read ${path}: ${cause instanceof Error ? cause.message : String(cause)}` })

/** Exactly the bytes that the archive's header promises; a file that became shorter ends the copy. */
const contentOf = (path: string, size: number): Stream.Stream<Uint8Array, LocalError> =>
  Stream.fromAsyncIterable(read(path, size), failed(path))

async function* read(path: string, size: number): AsyncGenerator<Uint8Array> {
  let handle: FileHandle | undefined
  // taken in turn: a piece has been written, or copied into a message, when the one after the next is asked for
  const buffers = [Buffer.allocUnsafeSlow(CHUNK_BYTES), Buffer.allocUnsafeSlow(CHUNK_BYTES)] as const
  try {
    handle = await open(path, "r")
    for (let left = size, turn = 0; left > 0; turn++) {
      const buffer = buffers[turn % 2 === 0 ? 0 : 1]
      const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, left))
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
function* walk(path: string, name: string, info: Stats, links: Map<string, string>): Generator<Tar.Entry<LocalError>> {
  const options = { mode: info.mode & BITS_PERMISSIONS, uid: info.uid, gid: info.gid, mtime: info.mtime }
  if (info.isDirectory()) {
    yield Tar.directory(`${name}/`, options)
    for (const child of readdirSync(path).toSorted()) {
      const childPath = join(path, child)
      yield* walk(childPath, `${name}/${child}`, lstatSync(childPath), links)
    }
  } else if (info.isSymbolicLink()) {
    yield Tar.symlink(name, readlinkSync(path), options)
  } else if (info.isFile()) {
    const inode = `${info.dev}:${info.ino}`
    const earlier = info.nlink > 1 ? links.get(inode) : undefined
    if (earlier !== undefined) {
      yield Tar.hardlink(name, earlier, options)
      return
    }
    if (info.nlink > 1 && links.size < MAX_LINKS) links.set(inode, name)
    yield info.size <= SMALL_BYTES
      ? Tar.file(name, readFileSync(path), options)
      : Tar.fileStream(name, info.size, contentOf(path, info.size), options)
  } else {
    throw new LocalError({ problem: `${path} is neither a file nor a folder nor a link; it can't be copied` })
  }
}

/** The entries in batches, so that many small ones cost little each. */
async function* batches(entries: Iterable<Tar.Entry<LocalError>>): AsyncGenerator<Array<Tar.Entry<LocalError>>> {
  let batch: Array<Tar.Entry<LocalError>> = []
  let bytes = 0
  for (const entry of entries) {
    batch.push(entry)
    bytes += entry.header.size
    if (batch.length < MAX_BATCH.entries && bytes < MAX_BATCH.bytes) continue
    yield batch
    batch = []
    bytes = 0
  }
  yield batch
}

/** The archive of what is at a path. With `followLink` a link at the path itself is followed. */
export const archive = (
  path: string,
  options: { readonly followLink: boolean }
): Stream.Stream<Uint8Array, LocalError> =>
  Stream.unwrap(Effect.gen(function*() {
    const name = rootName(path)
    const info = yield* Effect.try({
      try: () => (options.followLink || name === "." ? statSync : lstatSync)(path, { throwIfNoEntry: false }),
      catch: failed(path)
    })
    if (info === undefined) return yield* new LocalError({ problem: `there is no file ${path}` })
    return Stream.fromAsyncIterable(batches(walk(path, name, info, new Map())), failed(path)).pipe(
      Stream.flattenIterable,
      Stream.pipeThroughChannel(Tar.encode<LocalError, unknown, Tar.Entry<LocalError>>()),
      Stream.catchTag("TarError", ({ message }) => Stream.fail(new LocalError({ problem: `${path}: ${message}` })))
    )
  }))
