/** What sandboxes reach, and who reaches them: an agent in this machine's own network, which is not touched. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { next } from "@fast-sandbox/agent/network/Addresses"
import * as Kernel from "@fast-sandbox/agent/network/Kernel"
import { NetworkHelper } from "@fast-sandbox/agent/network/NetworkHelper"
import * as Networks from "@fast-sandbox/agent/network/Networks"
import * as NetworkNamespaces from "@fast-sandbox/containerd/NetworkNamespaces"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import { layer as privateContainerd, PrivateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import { Effect, Layer } from "effect"
import { execFileSync } from "node:child_process"
import { existsSync } from "node:fs"
import { createServer } from "node:net"
import { dirname } from "node:path"
import * as Fixture from "./AgentFixture.ts"

const node = Layer.effectDiscard(Fixture.prepareNode).pipe(
  Layer.provideMerge(privateContainerd()),
  Layer.provideMerge(NodeServices.layer)
)

/** A service of the node's that listens everywhere, and how often somebody came through to it. */
const service = Effect.acquireRelease(
  Effect.callback<{ readonly port: number; readonly visits: () => number; readonly close: () => void }>((resume) => {
    let visits = 0
    const server = createServer((socket) => {
      visits++
      socket.destroy()
    })
    server.listen(0, "::", () => {
      const address = server.address()
      const port = typeof address === "object" ? address?.port ?? 0 : 0
      resume(Effect.succeed({ port, visits: () => visits, close: () => server.close() }))
    })
  }),
  ({ close }) => Effect.sync(close)
)

/** The name of the agent's table of rules. */
const ownTable = Effect.map(
  PrivateContainerd,
  ({ directory }) => NetworkNamespaces.tableOf(`${directory}/agent`)
)

/** The size of packets of the link with that name, in the network at `netns`. */
const mtuOf = (netns: string, link: string) =>
  /mtu (\d+)/.exec(execFileSync("nsenter", [`--net=${netns}`, "ip", "-o", "link", "show", link], { encoding: "utf8" }))
    ?.[1]

const served = "mkdir /www; echo hello > /www/index.html; cat /etc/hosts; cat /etc/hostname; httpd -f -p 8080 -h /www"

layer(node, { excludeTestServices: true })("networks of sandboxes", (it) => {
  it.effect("publish ports to the machine, and reach neither it nor a sibling", () =>
    Effect.gen(function*() {
      const before = yield* Fixture.world
      const { port, visits } = yield* service
      const client = yield* Fixture.start()
      const web = Fixture.request(["sh", "-c", served], { exposedPorts: [8080] })
      const { instance } = yield* client.create(web)
      assert.deepStrictEqual(instance?.endpoints, ["127.0.0.9:8080"])
      const served8080 = Effect.promise(() =>
        fetch("http://127.0.0.9:8080/", { signal: AbortSignal.timeout(2000) }).then(
          async (answer) => await answer.text() === "hello\n",
          () => false
        )
      )
      yield* Fixture.eventually("the page", served8080)
      const lines = yield* Fixture.logsOf(client, web.instanceId)
      const [address = ""] = lines.find((line) => line.endsWith("\tbox"))?.split("\t") ?? []
      assert.match(address, /^198\.1[89]\./)
      assert.include(lines, "box")
      const { pid } = yield* Tasks.use((tasks) => tasks.get({ containerId: web.instanceId }))
      assert.strictEqual(mtuOf(`/proc/${pid}/ns/net`, "eth0"), String(yield* Kernel.uplinkMtu))

      const targets = [
        `${address}:8080`,
        `127.0.0.9:8080`,
        `198.18.0.1:${port}`,
        `198.18.0.1:8080`,
        `169.254.169.254:80`,
        `10.0.0.1:80`
      ]
      const attempts = targets.map((target) =>
        `wget -T 3 -q -O /dev/null http://${target}/ 2>&1 && echo reached ${target}`
      )
      const attacker = Fixture.request(["sh", "-c", `${attempts.join("\n")}\necho done`])
      yield* client.create(attacker)
      const said = yield* Fixture.logsOf(client, attacker.instanceId, true)
      assert.include(said, "done")
      assert.deepStrictEqual(said.filter((line) => line.startsWith("reached")), [])
      assert.strictEqual(visits(), 0)

      // Somebody's firewall is loaded anew, and all rules with it.
      execFileSync("nft", ["delete", "table", "inet", yield* ownTable])
      yield* Fixture.eventually("the rules are back", served8080)

      yield* client.delete({ instanceId: web.instanceId, gracePeriodSeconds: 0 })
      const closed = yield* Effect.promise(() => fetch("http://127.0.0.9:8080/").then(() => false, () => true))
      assert.isTrue(closed)
      yield* client.delete({ instanceId: attacker.instanceId, gracePeriodSeconds: 0 })
      assert.deepStrictEqual(yield* Fixture.world, before)
    }).pipe(Effect.scoped), 60_000)

  it.effect("are taken away where nobody can keep their rules any more", () =>
    Effect.gen(function*() {
      const who = { POD_UID: "uid-fallback" }
      const first = yield* Fixture.startProcess(who)
      const left = Fixture.request(Fixture.sleeper)
      yield* first.client.create(left)
      const { pid } = yield* Tasks.use((tasks) => tasks.get({ containerId: left.instanceId }))
      const links = () =>
        execFileSync("nsenter", [`--net=/proc/${pid}/ns/net`, "ip", "-o", "link"], { encoding: "utf8" })
      assert.include(links(), "eth0")
      yield* Fixture.kill(first, "SIGKILL")
      const { directory } = yield* PrivateContainerd
      const key = NetworkNamespaces.keyOf(`${directory}/agent`)
      const ours = Effect.map(
        Effect.all([NetworkNamespaces.list, NetworkNamespaces.links, NetworkNamespaces.tables]),
        (all) => all.flat().filter(({ ownerKey }) => ownerKey === key)
      )
      assert.isAbove((yield* ours).length, 0)
      const second = yield* Fixture.startProcess({ ...who, FSB_NETWORK_BINARY: "/nowhere" })
      assert.notInclude(links(), "eth0")
      assert.deepStrictEqual(yield* ours, [])
      assert.include(second.output(), "fsb-network is not there")
      yield* second.client.delete({ instanceId: left.instanceId, gracePeriodSeconds: 0 })
      yield* Fixture.kill(second, "SIGTERM")
    }).pipe(Effect.scoped), 60_000)

  it.effect("of two agents never have the same address, and take packets as large as they are told", () =>
    Effect.gen(function*() {
      const { directory } = yield* PrivateContainerd
      const helper = yield* Layer.build(NetworkHelper.layer(`${directory}/bin/fsb-network`))
      const make = (stateDirectory: string, n: number) =>
        Effect.acquireRelease(
          Networks.make(n, { stateDirectory, mtu: 1380, hasIpv6: true, routesLoopback: false }),
          ({ path }) => Effect.ignore(NetworkHelper.use((all) => all.drop(path)))
        ).pipe(Effect.provideContext(helper))
      const [one, other] = [`${directory}/one`, `${directory}/other`] as const
      const mine = yield* make(one, 1)
      assert.deepStrictEqual([mtuOf(mine.path, "eth0"), mtuOf("/proc/self/ns/net", mine.link)], ["1380", "1380"])
      // The other agent's number that has the same address.
      let n = 1
      while (Networks.numbered(other, n).ipv4 !== mine.ipv4) {
        n = next(n)
      }
      const theirs = yield* make(other, n)
      assert.strictEqual(theirs.n, next(n))
      assert.notStrictEqual(theirs.ipv4, mine.ipv4)
      assert.notStrictEqual(theirs.ipv6, mine.ipv6)
    }).pipe(Effect.scoped))

  it.effect("are made on a machine that never had one, where not even their folder is there", () =>
    Effect.gen(function*() {
      const { directory } = yield* PrivateContainerd
      const helper = yield* NetworkHelper
      const path = `${directory}/netns/first`
      assert.isFalse(existsSync(dirname(path)))
      yield* Effect.acquireUseRelease(
        helper.share(path),
        () =>
          Effect.sync(() =>
            assert.match(execFileSync("stat", ["-f", "-c", "%T", path], { encoding: "utf8" }), /^nsfs/)
          ),
        () => Effect.ignore(helper.drop(path))
      )
      assert.isFalse(existsSync(path))
    }).pipe(Effect.provide(Layer.unwrap(
      Effect.map(PrivateContainerd, ({ directory }) => NetworkHelper.layer(`${directory}/bin/fsb-network`))
    ))))
})
