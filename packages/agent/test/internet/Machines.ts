/**
 * A node and an internet for network tests: two network namespaces with a cable between them, so that what leaves the
 * node can be seen from outside. They end with the processes that hold them; nothing has a name on this machine.
 */
import { Effect, type Scope } from "effect"
import { execFileSync, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"

const peer = fileURLToPath(new URL("peer.ts", import.meta.url))

/** What runs in every machine of the test answers here; 53 also knows names. */
export const ports = { web: 80, names: 53, node: 22 } as const

/** The node's addresses towards the internet. */
export const node = { ipv4: "203.0.113.2", ipv6: "2001:db8:ff::2" } as const

/** Addresses that answer in the internet: public ones, and those that a network behind the node might have. */
export const internet = {
  public4: "198.51.100.10",
  denied4: "198.51.100.66",
  public6: "2001:db8:9::10",
  denied6: "2001:db8:9::66",
  private4: ["10.1.2.3", "172.16.9.9", "192.168.7.7", "100.64.0.1"],
  private6: ["fd12:3456::10"],
  metadata4: ["169.254.169.254", "100.100.100.200", "168.63.129.16"],
  metadata6: ["fd00:ec2::254"]
} as const

const gateway = { ipv4: "203.0.113.1", ipv6: "2001:db8:ff::1" } as const

/**
 * - `netns` is its network namespace, for `nsenter`.
 * - `tcp` and `udp` try an address from it: what was answered there, or the name of the error.
 * - `heard` gives what came to it by UDP since the last time, as `source text`.
 */
export interface Machine {
  readonly netns: string
  readonly tcp: (host: string, port: number) => Effect.Effect<string>
  readonly udp: (host: string, port: number) => Effect.Effect<string>
  readonly heard: Effect.Effect<ReadonlyArray<string>>
}

/** Runs a program in a machine's network. */
export const within = (netns: string, command: ReadonlyArray<string>, input = ""): string =>
  execFileSync("nsenter", [`--net=${netns}`, ...command], { input, encoding: "utf8" })

/** `answerAt` lets it answer by UDP at one of its addresses. */
interface Started extends Machine {
  readonly pid: number
  readonly answerAt: (address: string) => Effect.Effect<unknown>
}

const start = (open: ReadonlyArray<number>): Effect.Effect<Started, never, Scope.Scope> =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn("unshare", ["--net", process.execPath, peer, ...open.map(String)], {
          stdio: ["pipe", "pipe", "inherit"]
        })
      ),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
    const lines = createInterface({ input: child.stdout })
    const waiting: Array<(answer: unknown) => void> = []
    lines.on("line", (line) => waiting.shift()?.(JSON.parse(line)))
    const ask = (line: string): Effect.Effect<unknown> =>
      Effect.callback<unknown>((resume) => {
        waiting.push((answer) => resume(Effect.succeed(answer)))
        child.stdin.write(`${line}\n`)
      }).pipe(Effect.timeout("10 seconds"), Effect.orDie)
    // It answers when it listens, and its namespace is there then.
    yield* ask("heard")
    return {
      pid: child.pid ?? 0,
      netns: `/proc/${child.pid}/ns/net`,
      answerAt: (address: string) => ask(`answer ${address}`),
      tcp: (host, port) => Effect.map(ask(`tcp ${host} ${port}`), String),
      udp: (host, port) => Effect.map(ask(`udp ${host} ${port}`), String),
      heard: Effect.map(ask("heard"), (all) => Array.isArray(all) ? all.map(String) : [])
    }
  })

/** The node, which serves on {@link ports}.node, and the internet, which has no way back to sandboxes but one that it made up. */
export const make = Effect.gen(function*() {
  const outside = yield* start([ports.web, ports.names])
  const inside = yield* start([ports.node])
  const { denied4, denied6, metadata4, metadata6, private4, private6, public4, public6 } = internet
  const addresses = [public4, denied4, ...private4, ...metadata4, public6, denied6, ...private6, ...metadata6]
  within(
    inside.netns,
    ["ip", "-batch", "-"],
    `link set lo up
link add up0 type veth peer name down0 netns ${outside.pid}
addr add ${node.ipv4}/24 dev up0
addr add ${node.ipv6}/64 dev up0 nodad
link set up0 up
`
  )
  within(
    outside.netns,
    ["ip", "-batch", "-"],
    `link set lo up
addr add ${gateway.ipv4}/24 dev down0
addr add ${gateway.ipv6}/64 dev down0 nodad
link set down0 up
${
      addresses.map((address) => `addr add ${address}/${address.includes(":") ? "128 dev lo nodad" : "32 dev lo"}`)
        .join("\n")
    }
route add 198.18.0.0/15 via ${node.ipv4}
`
  )
  within(
    inside.netns,
    ["ip", "-batch", "-"],
    `route add default via ${gateway.ipv4}
route add ::/0 via ${gateway.ipv6}
`
  )
  yield* Effect.forEach(addresses, outside.answerAt, { discard: true })
  yield* Effect.forEach([node.ipv4, node.ipv6], inside.answerAt, { discard: true })
  return { outside, inside }
})
