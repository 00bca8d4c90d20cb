import { assert, describe, it } from "@effect/vitest"
import * as Resolution from "@fast-sandbox/agent/network/Resolution"

const stub = "# made by systemd\nnameserver 127.0.0.53\noptions edns0\n"
const real = "nameserver 10.0.0.2\nnameserver fe80::1\nnameserver 2001:db8::53\n"

describe("Resolution", () => {
  it.each(
    [
      ["the pool's", { nameservers: ["9.9.9.9"] }, {}, [real], ["9.9.9.9"]],
      ["the node's that a sandbox can reach", {}, {}, [real], ["10.0.0.2", "2001:db8::53"]],
      ["those behind a stub of the node's", {}, {}, [stub, real], ["10.0.0.2", "2001:db8::53"]],
      ["public ones where none is known", {}, {}, [stub, ""], ["1.1.1.1", "8.8.8.8"]],
      ["none where egress is closed", {}, { policy: "closed" }, [real], []],
      ["the pool's where egress is closed", { nameservers: ["10.9.9.9"] }, { policy: "closed" }, [real], ["10.9.9.9"]],
      ["no more than three", {}, {}, [1, 2, 3, 4].map((n) => `nameserver 10.0.0.${n}\n`), ["10.0.0.1"]]
    ] as const
  )("takes %s", (_, dns, egress, node, expected) => {
    assert.deepStrictEqual(Resolution.nameservers(dns, egress, node), expected)
  })

  it("writes the files of a sandbox", () => {
    assert.strictEqual(
      Resolution.resolvConf(["1.1.1.1"], { searches: ["a.b"], options: ["ndots:1"] }),
      "nameserver 1.1.1.1\nsearch a.b\noptions ndots:1\n"
    )
    assert.match(Resolution.hosts("box", ["198.18.0.5"]), /^127\.0\.0\.1\tlocalhost\n[^]*\n198\.18\.0\.5\tbox\n$/)
  })
})
