import { assert, describe, it } from "@effect/vitest"
import * as Kernel from "@fast-sandbox/agent/network/Kernel"
import { Effect, FileSystem, PlatformError } from "effect"

const header = "Iface\tDestination\tGateway \tFlags\n"
const lan = "eth0\t0000A8C0\t00000000\t0001\n"
const tunnel = "tun0\t00000000\t00000000\t0001\n"

const missing = (path: string) =>
  PlatformError.systemError({
    _tag: "NotFound",
    module: "FileSystem",
    method: "readFileString",
    pathOrDescriptor: path
  })

/** A node with these files and no other. */
const withFiles = (files: Readonly<Record<string, string>>) =>
  FileSystem.layerNoop({
    readFileString: (path) => files[path] === undefined ? Effect.fail(missing(path)) : Effect.succeed(files[path])
  })

describe("Kernel", () => {
  it.effect.each(
    [
      ["the default route's link's", `${header}${lan}${tunnel}`, 1380],
      ["Ethernet's without a default route", `${header}${lan}`, 1500],
      ["Ethernet's where the link is not to be seen", `${header}wg0\t00000000\t00000000\t0001\n`, 1500]
    ] as const
  )("takes packets' size: %s", ([, routes, expected]) =>
    Kernel.uplinkMtu.pipe(
      Effect.map((mtu) => assert.strictEqual(mtu, expected)),
      Effect.provide(withFiles({
        "/proc/net/route": routes,
        "/sys/class/net/eth0/mtu": "9000\n",
        "/sys/class/net/tun0/mtu": "1380\n"
      }))
    ))
})
