/** What sandboxes reach, and who reaches them: an agent in this machine's own network, which is not touched. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import * as NetworkNamespaces from "@fast-sandbox/containerd/NetworkNamespaces"
import { layer as privateContainerd, PrivateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import { Effect, Layer } from "effect"
import { execFileSync } from "node:child_process"
import { createServer } from "node:net"
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
})
