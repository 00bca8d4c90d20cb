/**
 * What of a stack takes connections or packets, as the kernel tells it.
 */
import { assert } from "@effect/vitest"
import { Effect, FileSystem } from "effect"
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { run } from "./LocalStack.ts"
import { stdoutOf } from "./Resources.ts"

/** A socket that somebody can reach. Unix sockets have a path, or `@` and a name. */
interface Listener {
  readonly kind: "tcp" | "udp" | "unix"
  readonly address: string
  readonly program: string
}

/** Whether a process belongs to the stack of `home`: all that it starts are told so by an argument or a variable. */
const isOf = (home: string) => (pid: string): boolean =>
  ["cmdline", "environ"].some((file) => {
    try {
      return readFileSync(`/proc/${pid}/${file}`, "utf8").includes(home)
    } catch {
      // It ended meanwhile.
      return false
    }
  })

const kindOf = (netid: string): Listener["kind"] => netid === "tcp" || netid === "udp" ? netid : "unix"

/** Every socket of the stack of `home` that takes connections or packets. */
const listeners = (home: string) =>
  Effect.map(
    stdoutOf(run("ss", ["-lntuxpH"])),
    (text) =>
      text.trim().split("\n").flatMap((line): ReadonlyArray<Listener> => {
        const [netid = "", , , , address = ""] = line.trim().split(/\s+/)
        const [, program = "", pid = ""] = /users:\(\("([^"]+)",pid=(\d+)/.exec(line) ?? []
        // Datagram sockets of the unix family without a name are a library's own ends of pairs.
        return pid !== "" && address !== "*" && isOf(home)(pid) ? [{ kind: kindOf(netid), address, program }] : []
      })
  )

/** The unix sockets that docs/security.md lists, by the names under which they were made. */
const documented = (home: string): ReadonlyArray<RegExp> => [
  // The servers' own, which get their names in `run`, or in an agent's folder there, only once they are nobody else's.
  new RegExp(`^${home}/run/([0-9a-f]{12}/)?\\.fsb-\\w+/s$`),
  new RegExp(`^${home}/containerd/(containerd|debug)\\.sock(\\.ttrpc)?$`),
  /^@?\/run\/containerd\/s\/[0-9a-f]{64}$/,
  // A parked slot's, in a folder of the agent's that is too deep for the path of a socket.
  /^\/proc\/self\/fd\/\d+\/ctl$/
]

/** Whether nobody but its owner can get to a path: by its own mode, or by that of a folder above it. */
const isPrivate = (path: string): boolean =>
  path.split("/").some((_, count, names) => {
    const ancestor = names.slice(0, count + 1).join("/")
    return ancestor !== "" && (statSync(ancestor).mode & 0o077) === 0
  })

/** Fails unless the stack of `home` listens on these addresses of the network, and else only where docs/security.md says. */
export const assertOnly = Effect.fnUntraced(function*(home: string, addresses: ReadonlyArray<string>) {
  const found = yield* listeners(home)
  const [unix, network] = [true, false].map((isUnix) => found.filter(({ kind }) => (kind === "unix") === isUnix))
  assert.deepStrictEqual(
    unix?.filter(({ address }) => !documented(home).some((pattern) => pattern.test(address))),
    []
  )
  const named = readdirSync(`${home}/run`, { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(".sock")
  )
    .map((name) => `${home}/run/${name}`)
  assert.isAtLeast(named.length, 2, "the API's and an agent's")
  const others = unix?.map(({ address }) => address).filter((address) => existsSync(address)) ?? []
  assert.deepStrictEqual([...named, ...others].filter((path) => !isPrivate(path)), [])
  // Its image service brings a streaming server along: loopback, a one-time token for each connection.
  const ofContainerd = network?.filter(({ program }) => program === "containerd") ?? []
  assert.isAtMost(ofContainerd.length, 1)
  for (const { address, kind } of ofContainerd) assert.match(`${kind} ${address}`, /^tcp 127\.0\.0\.1:/)
  const ours = network?.filter(({ program }) => program !== "containerd").map(({ address, kind }) =>
    `${kind} ${address}`
  )
  assert.deepStrictEqual(new Set(ours), new Set(addresses.map((address) => `tcp ${address}`)))
})

/** Where the stack's API server listens: a port of the loopback device that was free. */
export const apiServer = Effect.fnUntraced(function*(home: string) {
  const files = yield* FileSystem.FileSystem
  const address = /https:\/\/([0-9.:]+)/.exec(yield* files.readFileString(`${home}/kubeconfig`))?.[1] ?? ""
  assert.match(address, /^127\.0\.0\.1:\d+$/)
  return address
})
