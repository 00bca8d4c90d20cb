/**
 * Everything that docs/security.md says about networks, tried between real sandboxes, a node and an internet that are
 * network namespaces of this test: who reaches whom, over which protocol, under which policy.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { maxConnections } from "@fast-sandbox/agent/network/RuleSet"
import { Images } from "@fast-sandbox/containerd/Images"
import * as NetworkNamespaces from "@fast-sandbox/containerd/NetworkNamespaces"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import { layer as privateContainerd, PrivateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import * as TestImages from "@fast-sandbox/testkit/TestImages"
import { Effect, FileSystem, Layer } from "effect"
import { execFileSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { isDeepStrictEqual } from "node:util"
import * as Fixture from "./AgentFixture.ts"
import * as Machines from "./internet/Machines.ts"

const source = fileURLToPath(new URL("internet/prober.c", import.meta.url))

const loadProber = Effect.gen(function*() {
  const { directory } = yield* PrivateContainerd
  const files = yield* FileSystem.FileSystem
  execFileSync("cc", ["-O1", "-static", "-o", `${directory}/prober`, source])
  const content = yield* files.readFile(`${directory}/prober`)
  yield* files.remove(`${directory}/prober`)
  const recipe = yield* TestImages.busybox
  yield* Images.use((images) =>
    images.load(OciArchive.make([{
      ...recipe,
      names: ["docker.io/library/prober:latest"],
      layers: [...recipe.layers, [{ _tag: "File", path: "bin/prober", content, mode: 0o755 }]]
    }]))
  )
})

const containerd = Layer.effectDiscard(Effect.andThen(Fixture.prepareNode, loadProber)).pipe(
  Layer.provideMerge(privateContainerd()),
  Layer.provideMerge(NodeServices.layer)
)

const { internet, node, ports } = Machines

/** Kind, address and port. */
type Target = readonly [kind: string, address: string, port: number]

const both = (addresses: ReadonlyArray<string>, port: number): ReadonlyArray<Target> =>
  addresses.flatMap((address) => [["tcp", address, port], ["udp", address, port]] as const)

const sandbox = (command: ReadonlyArray<string>, exposedPorts: ReadonlyArray<number> = []) =>
  Fixture.request(command, { image: "prober", exposedPorts: [...exposedPorts] })

/** What a sandbox that was started in `tier` gets from each of its targets, by `kind address port`. */
const probe = Effect.fnUntraced(function*(
  client: Fixture.AgentClient,
  targets: ReadonlyArray<Target>,
  tier = "prepared"
) {
  const request = sandbox(["prober", ...targets.flat().map(String)])
  const { instance } = yield* client.create(request)
  assert.strictEqual(instance?.startup?.tier, tier)
  const lines = yield* Fixture.logsOf(client, request.instanceId, true)
  yield* client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
  return Object.fromEntries(lines.map((line) => {
    const end = line.lastIndexOf(" ")
    return [line.slice(0, end), line.slice(end + 1)] as const
  }))
})

/** How the node says no: at once, so that programs don't wait. */
const refusals = new Set(["ECONNREFUSED", "EHOSTUNREACH", "EACCES"])

/** The kernel sends few ICMP messages a second to one receiver, and no reset to a link-local address. */
const mayBeSilent = ([kind, address]: Target): boolean => kind === "udp" || address.startsWith("fe80")

/** Fails with all targets that answered, were not refused, or were never tried. */
const assertRefused = (found: Readonly<Record<string, string>>, targets: ReadonlyArray<Target>) => {
  const results = targets.map((target) => ({ target, result: found[target.join(" ")] ?? "never tried" }))
  const reached = results.filter(({ result, target }) =>
    !refusals.has(result) && !(result === "TIMEDOUT" && mayBeSilent(target))
  )
  assert.deepStrictEqual(reached, [])
}

/** A sandbox that serves, and its addresses. */
const server = Effect.fnUntraced(function*(client: Fixture.AgentClient, port: number, exposed: ReadonlyArray<number>) {
  const request = sandbox(["sh", "-c", `cat /etc/hosts; prober serve ${port}`], exposed)
  const { instance } = yield* client.create(request)
  yield* Fixture.eventually(
    "it serves",
    Effect.map(Fixture.logsOf(client, request.instanceId), (lines) => lines.includes("serving"))
  )
  const own = (yield* Fixture.logsOf(client, request.instanceId)).filter((line) => line.endsWith("\tbox"))
  const [ipv4 = "", ipv6 = ""] = own.map((line) => line.split("\t")[0] ?? "")
  return { instanceId: request.instanceId, ipv4, ipv6, endpoints: instance?.endpoints }
})

/** Links and tables of rules that are left on the node. */
const leftOn = ({ netns }: Machines.Machine) => ({
  links: Machines.within(netns, ["ip", "-o", "link"]).match(/\d+: (\w+)/g),
  tables: Machines.within(netns, ["nft", "list", "tables"])
})

const agentOn = ({ netns }: Machines.Machine, changes: Fixture.Environment = {}) =>
  Fixture.startProcess({ POD_IP: node.ipv4, POD_UID: "uid-matrix", ...changes }, [
    "nsenter",
    `--net=${netns}`
  ])

const egress = (policy: object): Fixture.Environment => ({ FSB_EGRESS: JSON.stringify(policy) })

layer(containerd, { excludeTestServices: true })("networks of sandboxes and the internet", (it) => {
  it.effect(
    "by default reach public addresses and nothing else, and are reached by published ports only",
    () =>
      Effect.gen(function*() {
        const before = yield* Fixture.world
        const { inside, outside } = yield* Machines.make
        const empty = leftOn(inside)
        const first = yield* agentOn(inside, { FSB_DNS: JSON.stringify({ nameservers: [internet.private4[0]] }) })
        const { client } = first
        const web = yield* server(client, 8080, [8080])
        assert.deepStrictEqual(web.endpoints, [`${node.ipv4}:8080`])

        // Through NAT, under the node's address.
        const open = both([internet.public4, internet.public6], ports.web)
        // 198.18.0.1 and fe80::1 are where the node answers its sandboxes' packets.
        const closed = [
          ...both(
            [...internet.private4, ...internet.private6, ...internet.metadata4, ...internet.metadata6],
            ports.web
          ),
          ...both([node.ipv4, node.ipv6, "198.18.0.1", "fe80::1"], ports.node),
          ...both([web.ipv4, web.ipv6, node.ipv4], 8080)
        ]
        const raw: Target = ["raw", internet.public4, 0]
        const found = yield* probe(client, [...open, ...closed, raw])
        assert.deepStrictEqual(open.map((target) => found[target.join(" ")]), [
          node.ipv4,
          node.ipv4,
          node.ipv6,
          node.ipv6
        ])
        assertRefused(found, closed)
        assert.strictEqual(found[raw.join(" ")], "EPERM")

        // The pool's nameserver may be asked although it is in a private range, and for nothing but names.
        const asking = sandbox(["sh", "-c", "cat /etc/resolv.conf; nslookup some.where.example"])
        yield* client.create(asking)
        const said = yield* Fixture.logsOf(client, asking.instanceId, true)
        assert.include(said, `nameserver ${internet.private4[0]}`)
        assert.include(said.join("\n"), `Address: ${internet.public4}`)
        yield* client.delete({ instanceId: asking.instanceId })

        // Who connects from outside is seen as who it is; a port that is not published, and the sandbox itself, are not there.
        assert.strictEqual(yield* outside.tcp(node.ipv4, 8080), "203.0.113.1")
        assert.strictEqual(yield* outside.udp(node.ipv4, 8080), "203.0.113.1")
        assert.strictEqual(yield* inside.tcp(node.ipv4, 8080), node.ipv4)
        assert.strictEqual(yield* outside.tcp(node.ipv4, 8081), "ECONNREFUSED")
        assert.strictEqual(yield* outside.tcp(web.ipv4, 8080), "TIMEDOUT")
        assert.strictEqual(yield* outside.udp(web.ipv4, 8080), "TIMEDOUT")

        // Packets under others' names, by somebody who may do on the sandbox's link what no sandbox may.
        const { directory } = yield* PrivateContainerd
        const { pid } = yield* Tasks.use((tasks) => tasks.get({ containerId: web.instanceId }))
        const netns = `/proc/${pid}/ns/net`
        yield* outside.heard
        for (const forged of ["198.18.77.77", "10.9.9.9", node.ipv4, "203.0.113.99"]) {
          Machines.within(netns, ["ip", "addr", "add", `${forged}/32`, "dev", "eth0"])
          const script = `const s = require("node:dgram").createSocket("udp4"); s.bind(0, "${forged}", () => ` +
            `s.send("forged", ${ports.web}, "${internet.public4}", () => s.close()))`
          Machines.within(netns, [process.execPath, "-e", script])
          Machines.within(netns, ["ip", "addr", "del", `${forged}/32`, "dev", "eth0"])
        }
        const honest = `const s = require("node:dgram").createSocket("udp4"); s.bind(0, "${web.ipv4}", () => ` +
          `s.send("honest", ${ports.web}, "${internet.public4}", () => s.close()))`
        Machines.within(netns, [process.execPath, "-e", honest])
        yield* Fixture.eventually(
          "the honest packet has come, and none of those before it",
          Effect.map(outside.heard, (heard) => {
            assert.notInclude(heard.join("\n"), "forged")
            return heard.includes(`${node.ipv4} honest`)
          })
        )

        // One sandbox can't take all of the node's connections; the others go on meanwhile.
        const flood = sandbox(["prober", "flood", internet.public4, String(ports.web), String(maxConnections * 2)])
        yield* client.create(flood)
        yield* Fixture.eventually(
          "the limit is reached",
          Effect.map(
            Fixture.logsOf(client, flood.instanceId),
            (lines) => lines.some((line) => line.startsWith("flood"))
          )
        )
        const [, opened, refusal] = (yield* Fixture.logsOf(client, flood.instanceId)).at(-1)?.split(" ") ?? []
        assert.strictEqual(refusal, "ECONNREFUSED")
        assert.approximately(Number(opened), maxConnections, 2)
        const meanwhile = yield* probe(client, [["tcp", internet.public4, ports.web]])
        assert.strictEqual(meanwhile[`tcp ${internet.public4} ${ports.web}`], node.ipv4)
        yield* client.delete({ instanceId: flood.instanceId, gracePeriodSeconds: 0 })

        // A killed agent leaves its sandboxes connected and fenced in; its successor knows them.
        yield* Fixture.kill(first, "SIGKILL")
        assert.strictEqual(yield* outside.tcp(node.ipv4, 8080), "203.0.113.1")
        assert.strictEqual(yield* outside.tcp(web.ipv4, 8080), "TIMEDOUT")
        const second = yield* agentOn(inside)
        assert.strictEqual(yield* outside.tcp(node.ipv4, 8080), "203.0.113.1")
        yield* second.client.delete({ instanceId: web.instanceId, gracePeriodSeconds: 0 })
        assert.strictEqual(yield* outside.tcp(node.ipv4, 8080), "ECONNREFUSED")
        yield* Fixture.kill(second, "SIGTERM")
        // The kernel takes the links of a namespace that is gone away behind the agent's back.
        yield* Fixture.eventually(
          "nothing of the sandboxes is left on the node",
          Effect.sync(() => isDeepStrictEqual(leftOn(inside), empty))
        )
        assert.deepStrictEqual(yield* Fixture.world, before)
        assert.deepStrictEqual(
          (yield* NetworkNamespaces.list).filter(({ ownerKey }) =>
            ownerKey === NetworkNamespaces.keyOf(`${directory}/agent`)
          ),
          []
        )
      }).pipe(Effect.scoped),
    90_000
  )

  it.effect("reach what their pool allows, and not what it denies", () =>
    Effect.gen(function*() {
      const { inside } = yield* Machines.make
      const [allowed, ...others] = internet.private4
      const open = yield* agentOn(
        inside,
        egress({
          allow: [
            { cidr: `${allowed}/32`, ports: [{ protocol: "TCP", port: 79, endPort: ports.web }] },
            { cidr: "fd12:3456::/32", ports: [{ protocol: "UDP" }] },
            // What no policy opens.
            { cidr: "169.254.0.0/16" },
            { cidr: "fd00:ec2::/32" },
            { cidr: "127.0.0.0/8" },
            { cidr: "198.18.0.0/15" }
          ],
          deny: [`${internet.denied4}/32`, `${internet.denied6}/128`]
        })
      )
      const sibling = yield* server(open.client, 8080, [])
      const reached: ReadonlyArray<Target> = [
        ["tcp", allowed, ports.web],
        ["udp", internet.private6[0], ports.web],
        ["tcp", internet.public4, ports.web]
      ]
      const refused: ReadonlyArray<Target> = [
        ["udp", allowed, ports.web],
        ["tcp", allowed, ports.names],
        ["tcp", internet.private6[0], ports.web],
        ...both([...others, internet.denied4, internet.denied6], ports.web),
        ...both([internet.metadata4[0], internet.metadata6[0]], ports.web),
        ...both([sibling.ipv4, sibling.ipv6], 8080),
        ...both(["198.18.0.1"], ports.node)
      ]
      const found = yield* probe(open.client, [...reached, ...refused])
      assert.deepStrictEqual(reached.map((target) => found[target.join(" ")]), [node.ipv4, node.ipv6, node.ipv4])
      assertRefused(found, refused)
      yield* Fixture.kill(open, "SIGTERM")

      // The same pool with the internet closed: published ports are not egress.
      const closed = yield* agentOn(inside, {
        ...egress({ policy: "closed", allow: [{ cidr: `${internet.public6}/128` }] }),
        POD_IP: node.ipv6
      })
      const web = yield* server(closed.client, 8080, [8080])
      assert.deepStrictEqual(web.endpoints, [`[${node.ipv6}]:8080`])
      const allowed6: Target = ["tcp", internet.public6, ports.web]
      const shut = both([internet.public4, internet.denied6, allowed], ports.web)
      const names = both([internet.public4], ports.names)
      const answers = yield* probe(closed.client, [allowed6, ...shut, ...names])
      assert.strictEqual(answers[allowed6.join(" ")], node.ipv6)
      assertRefused(answers, [...shut, ...names])
      yield* Fixture.kill(closed, "SIGTERM")
    }).pipe(Effect.scoped), 60_000)

  it.effect("are the same under gVisor and in slots that were parked", () =>
    Effect.gen(function*() {
      const { inside } = yield* Machines.make
      const open = both([internet.public4, internet.public6], ports.web)
      const closed = both([internet.private4[0], internet.metadata4[0], internet.private6[0], "198.18.0.1"], ports.web)
      const assertFenced = (found: Readonly<Record<string, string>>) => {
        const answers = open.map((target) => found[target.join(" ")])
        assert.deepStrictEqual(answers, [node.ipv4, node.ipv4, node.ipv6, node.ipv6])
        assertRefused(found, closed)
      }
      const gvisor = yield* agentOn(inside, { FSB_RUNTIME_TYPE: "gvisor", FSB_RUNTIME_BINARY: "/usr/bin/runsc" })
      assertFenced(yield* probe(gvisor.client, [...open, ...closed]))
      yield* Fixture.kill(gvisor, "SIGTERM")

      const { directory } = yield* PrivateContainerd
      const parking = yield* agentOn(inside, {
        FSB_INIT_BINARY: `${directory}/bin/fsb-init`,
        FSB_WARM_IMAGES: JSON.stringify([{ image: "prober", parked: 1 }])
      })
      yield* Fixture.untilParked(parking.client, 1, "prober")
      assertFenced(yield* probe(parking.client, [...open, ...closed], "parked"))
      yield* Fixture.kill(parking, "SIGTERM")
    }).pipe(Effect.scoped), 60_000)

  it.effect("are the agent's own, or none, where a pool wants it so", () =>
    Effect.gen(function*() {
      const { inside, outside } = yield* Machines.make
      const targets: ReadonlyArray<Target> = [
        ["tcp", "127.0.0.1", ports.node],
        ["tcp", internet.metadata4[0], ports.web]
      ]
      const pod = yield* agentOn(inside, { FSB_NETWORK: "pod" })
      const shared = yield* probe(pod.client, targets)
      assert.deepStrictEqual(targets.map((target) => shared[target.join(" ")]), ["127.0.0.1", node.ipv4])
      const web = yield* server(pod.client, 8080, [8080])
      assert.deepStrictEqual(web.endpoints, [`${node.ipv4}:8080`])
      assert.strictEqual(yield* outside.tcp(node.ipv4, 8080), "203.0.113.1")
      yield* Fixture.kill(pod, "SIGTERM")

      const none = yield* agentOn(inside, { FSB_NETWORK: "none" })
      const more: ReadonlyArray<Target> = [...targets, ["udp", internet.public6, ports.web]]
      const found = yield* probe(none.client, more)
      assert.deepStrictEqual(more.map((target) => found[target.join(" ")]), [
        "ECONNREFUSED",
        "ENETUNREACH",
        "ENETUNREACH"
      ])
      yield* Fixture.kill(none, "SIGTERM")
    }).pipe(Effect.scoped), 60_000)
})
