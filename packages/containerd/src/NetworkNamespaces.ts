/**
 * The network namespaces that agents make for sandboxes, by the names under which they find them again after a crash: a
 * file in /run/netns and the near end of a veth pair, both beginning with a key of their agent's. A machine has one such
 * directory for everybody, so the key must differ between all agents of all installations: it is made from the agent's
 * state directory.
 *
 * Removing a namespace removes the pair; the end that stays is only seen while somebody still holds the namespace.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import { createHash } from "node:crypto"
import { type CommandError, run } from "./internal/command.ts"
import type { System } from "./MachineSetup.ts"

/** Where iproute2 and OCI runtimes look for named network namespaces. */
const directory = "/run/netns"

const linksDirectory = "/sys/class/net"

/** Eight hex digits: Linux takes names of interfaces of 15 bytes, and the prefix and a counter need the rest. */
const keyLength = 8

const namespacePattern = /^fsb-([0-9a-f]{8})-[0-9a-z]+$/
const linkPattern = /^fsb([0-9a-f]{8})[0-9a-z]{1,4}$/

/** What the names of an agent's namespaces and links contain, made from the absolute path of its state directory. */
export const keyOf = (stateDirectory: string): string =>
  createHash("sha256").update(stateDirectory).digest("hex").slice(0, keyLength)

/** The name of an agent's `n`th namespace. Numbers are never used again: a namespace outlives its name. */
export const nameOf = (stateDirectory: string, n: number): string => `fsb-${keyOf(stateDirectory)}-${n.toString(36)}`

/** The name of the near end of the `n`th pair. */
export const linkOf = (stateDirectory: string, n: number): string => `fsb${keyOf(stateDirectory)}${n.toString(36)}`

/** A namespace or a link that an agent made, and the key of that agent. */
export interface Named {
  readonly name: string
  readonly ownerKey: string
}

const named = (path: string, pattern: RegExp) =>
  Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const names = yield* Effect.orElseSucceed(fileSystem.readDirectory(path), (): ReadonlyArray<string> => [])
    return names.toSorted().flatMap((name): ReadonlyArray<Named> => {
      const ownerKey = pattern.exec(name)?.[1]
      return ownerKey === undefined ? [] : [{ name, ownerKey }]
    })
  })

/** The namespaces of ours that have a name. */
export const list: Effect.Effect<ReadonlyArray<Named>, never, FileSystem.FileSystem> = named(
  directory,
  namespacePattern
)

/** The links of ours in this program's own network namespace. */
export const links: Effect.Effect<ReadonlyArray<Named>, never, FileSystem.FileSystem> = named(
  linksDirectory,
  linkPattern
)

/** Takes the name away; the namespace ends with its last process. Safe to repeat. */
export const remove = Effect.fn("NetworkNamespaces.remove")(function*(
  name: string
): Effect.fn.Return<void, PlatformError.PlatformError, System> {
  const fileSystem = yield* FileSystem.FileSystem
  // What is no mount is a file whose making was cut short.
  yield* Effect.ignore(run("umount", "-l", `${directory}/${name}`))
  yield* fileSystem.remove(`${directory}/${name}`, { force: true })
})

/** Removes a link. Safe to repeat. */
export const removeLink = Effect.fn("NetworkNamespaces.removeLink")(function*(
  name: string
): Effect.fn.Return<void, CommandError | PlatformError.PlatformError, System> {
  const fileSystem = yield* FileSystem.FileSystem
  if (yield* fileSystem.exists(`${linksDirectory}/${name}`)) {
    yield* run("ip", "link", "delete", name)
  }
})
