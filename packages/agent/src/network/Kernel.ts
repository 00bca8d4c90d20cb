/**
 * What the kernel must be told about the agent's own network namespace before sandboxes can reach the internet through it,
 * and what is to be known about it. Nothing is taken back later: others may have come to rely on it.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"

const settings = "/proc/sys/net"
const forwarding4 = `${settings}/ipv4/ip_forward`
const interfaces6 = `${settings}/ipv6/conf`
const forwarding6 = `${interfaces6}/all/forwarding`

/** Ethernet's, where no default route says otherwise. */
const defaultMtu = 1500

const read = Effect.fnUntraced(function*(path: string) {
  const files = yield* FileSystem.FileSystem
  return (yield* files.readFileString(path)).trim()
})

const write = Effect.fnUntraced(function*(path: string, value: string) {
  const files = yield* FileSystem.FileSystem
  yield* files.writeFileString(path, value)
})

/** Whether this kernel has IPv6. */
export const hasIpv6 = Effect.flatMap(
  FileSystem.FileSystem,
  (files) => Effect.orElseSucceed(files.exists(forwarding6), () => false)
)

/** A router ignores router advertisements unless it is told not to, and the machine may have its own address from them. */
const keepRouterAdvertisements = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  for (const name of yield* files.readDirectory(interfaces6)) {
    const path = `${interfaces6}/${name}/accept_ra`
    if ((yield* Effect.orElseSucceed(read(path), () => "")) === "1") {
      yield* write(path, "2")
    }
  }
})

/** Lets the kernel pass packets on. Gives what was changed, for people. */
export const forward: Effect.Effect<ReadonlyArray<string>, PlatformError.PlatformError, FileSystem.FileSystem> = Effect
  .gen(function*() {
    const changes: Array<string> = []
    if ((yield* read(forwarding4)) !== "1") {
      yield* write(forwarding4, "1")
      changes.push("net.ipv4.ip_forward was turned on")
    }
    if ((yield* hasIpv6) && (yield* read(forwarding6)) !== "1") {
      yield* keepRouterAdvertisements
      yield* write(forwarding6, "1")
      changes.push("net.ipv6.conf.all.forwarding was turned on")
    }
    return changes
  })

/** Lets connections from this machine's own loopback pass over a link, so that 127.x.x.x can be where a port is published. */
export const routeLoopback = (link: string): Effect.Effect<void, PlatformError.PlatformError, FileSystem.FileSystem> =>
  write(`${settings}/ipv4/conf/${link}/route_localnet`, "1")

/** The size of packets that the default route takes: a larger one would be lost behind a tunnel. */
export const uplinkMtu: Effect.Effect<number, never, FileSystem.FileSystem> = Effect.gen(function*() {
  const routes = yield* read("/proc/net/route")
  // Columns: interface, destination, gateway ...; a destination of zero is the default.
  const link = routes.split("\n").map((line) => line.split("\t")).find(([, destination]) => destination === "00000000")
  const mtu = Number(yield* read(`/sys/class/net/${link?.[0] ?? "lo"}/mtu`))
  return link !== undefined && Number.isInteger(mtu) ? mtu : defaultMtu
}).pipe(Effect.orElseSucceed(() => defaultMtu))
