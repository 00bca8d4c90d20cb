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
export const directory = "/run/netns"

const linksDirectory = "/sys/class/net"

/** Eight hex digits: Linux takes names of interfaces of 15 bytes, and the prefix and a counter need the rest. */
const keyLength = 8

const namespacePattern = /^fsb-([0-9a-f]{8})-([0-9a-z]+)$/
const linkPattern = /^fsb([0-9a-f]{8})([0-9a-z]{1,4})$/
const tablePattern = /^table inet fsb_([0-9a-f]{8})$/

/** What the names of an agent's namespaces and links contain, made from the absolute path of its state directory. */
export const keyOf = (stateDirectory: string): string =>
  createHash("sha256").update(stateDirectory).digest("hex").slice(0, keyLength)

/** The name of an agent's `n`th namespace. Numbers are never used again: a namespace outlives its name. */
export const nameOf = (stateDirectory: string, n: number): string => `fsb-${keyOf(stateDirectory)}-${n.toString(36)}`

/** The name of the near end of the `n`th pair. */
export const linkOf = (stateDirectory: string, n: number): string => `${linkPrefixOf(stateDirectory)}${n.toString(36)}`

/** The start that the names of all links of an agent have in common. */
export const linkPrefixOf = (stateDirectory: string): string => `fsb${keyOf(stateDirectory)}`

/** The name of the nftables table (family inet) with an agent's rules. */
export const tableOf = (stateDirectory: string): string => `fsb_${keyOf(stateDirectory)}`

/** A namespace, link or table that an agent made, and the key of that agent. */
export interface Named {
  readonly name: string
  readonly ownerKey: string
}

/** The `n` of an agent's namespace. */
export const numberOf = (stateDirectory: string, name: string): number | undefined => {
  const [, ownerKey, digits] = namespacePattern.exec(name) ?? []
  return ownerKey === keyOf(stateDirectory) && digits !== undefined ? Number.parseInt(digits, 36) : undefined
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

/** The tables of ours in this program's own network namespace; none where nftables is missing. */
export const tables: Effect.Effect<ReadonlyArray<Named>, never, System> = run("nft", "list", "tables", "inet").pipe(
  Effect.orElseSucceed(() => ""),
  Effect.map((output) =>
    output.split("\n").flatMap((line): ReadonlyArray<Named> => {
      const ownerKey = tablePattern.exec(line.trim())?.[1]
      return ownerKey === undefined ? [] : [{ name: `fsb_${ownerKey}`, ownerKey }]
    })
  )
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

/** Removes a table of an agent with all its rules. Safe to repeat. */
export const removeTable = Effect.fn("NetworkNamespaces.removeTable")(function*(
  name: string
): Effect.fn.Return<void, CommandError, System> {
  // Made first, because only what is there can be deleted; both in one transaction.
  yield* run("nft", `table inet ${name}; delete table inet ${name}`)
})

/**
 * Removes all networks of an agent that is no more, then its rules: what still runs in a network loses it before it loses
 * what holds it back. Safe to repeat.
 */
export const removeAll = Effect.fn("NetworkNamespaces.removeAll")(function*(
  stateDirectory: string
): Effect.fn.Return<void, CommandError | PlatformError.PlatformError, System> {
  const isOwn = ({ ownerKey }: Named) => ownerKey === keyOf(stateDirectory)
  yield* Effect.forEach((yield* list).filter(isOwn), ({ name }) => remove(name), { discard: true })
  yield* Effect.forEach((yield* links).filter(isOwn), ({ name }) => Effect.ignore(removeLink(name)), { discard: true })
  yield* Effect.forEach((yield* tables).filter(isOwn), ({ name }) => removeTable(name), { discard: true })
})
