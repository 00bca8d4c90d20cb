import { assert, describe, it } from "@effect/vitest"
import { PermissionDenied, Unauthenticated } from "@fast-sandbox/core/Errors"
import { EchoService } from "@fast-sandbox/grpc/gen/test/v1/echo_pb"
import type { Caller, Metadata, Peer } from "@fast-sandbox/grpc/GrpcCaller"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import * as GrpcHealth from "@fast-sandbox/grpc/GrpcHealth"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import { Context, Deferred, Duration, Effect, Exit, Fiber, Layer, Redacted, Ref, Scope, Stream } from "effect"
import { spawnSync } from "node:child_process"
import { existsSync, lstatSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { makeCertificates } from "./Certificates.ts"
import * as Echo from "./Echo.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "fsb-grpc-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
)

const serve = (...listeners: GrpcServer.Options<[], never>["listeners"]) =>
  Layer.build(Layer.fresh(
    GrpcServer.layer({ services: [Echo.echo], listeners, grace: "200 millis" }).pipe(
      Layer.provideMerge(Echo.Probe.layer)
    )
  ))

const echoes = Effect.fnUntraced(function*(options: GrpcClient.Options) {
  const api = yield* GrpcClient.makeBoundary(EchoService, options)
  return (yield* api.echo({ text: "hello" })).text
})

const addressesOf = (context: Context.Context<GrpcServer.GrpcServer>) =>
  Context.get(context, GrpcServer.GrpcServer).addresses

const PERMISSION_BITS = 0o777

describe("unix sockets", () => {
  it.live("listen with mode 0600 and leave nothing behind", () =>
    Effect.gen(function*() {
      const home = yield* folder
      const path = join(home, "a.sock")
      yield* Effect.scoped(Effect.gen(function*() {
        const context = yield* serve(GrpcServer.unix(path))
        assert.deepStrictEqual(addressesOf(context), [`unix:${path}`])
        assert.strictEqual(statSync(path).mode & PERMISSION_BITS, 0o600)
        assert.deepStrictEqual(readdirSync(home), ["a.sock"])
        assert.strictEqual(yield* echoes({ address: `unix:${path}` }), "hello")
      }))
      assert.deepStrictEqual(readdirSync(home), [])
    }))

  it.live("take another mode", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "a.sock")
      yield* serve(GrpcServer.unix(path, { mode: 0o660 }))
      assert.strictEqual(statSync(path).mode & PERMISSION_BITS, 0o660)
    }))

  it.live("replace the socket of a server that was killed", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "a.sock")
      spawnSync(process.execPath, [
        "-e",
        `require("net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`
      ])
      assert.isTrue(lstatSync(path).isSocket())
      yield* serve(GrpcServer.unix(path))
      assert.strictEqual(yield* echoes({ address: `unix:${path}` }), "hello")
    }))

  it.live("spare the socket of a server that lives", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "a.sock")
      yield* serve(GrpcServer.unix(path))
      const error = yield* Effect.flip(Effect.scoped(serve(GrpcServer.unix(path))))
      assert.strictEqual(error._tag, "BindError")
      assert.include(error.message, "another process listens there")
      assert.strictEqual(yield* echoes({ address: `unix:${path}` }), "hello")
    }))

  it.live("spare files that are no sockets", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "a.sock")
      writeFileSync(path, "precious")
      assert.strictEqual((yield* Effect.flip(Effect.scoped(serve(GrpcServer.unix(path)))))._tag, "BindError")
      assert.isTrue(existsSync(path))
    }))

  it.live("say when their folder is missing", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Effect.scoped(serve(GrpcServer.unix(join(yield* folder, "no/a.sock")))))
      assert.include(error.message, "ENOENT")
    }))

  it.live("leave a successor's socket alone", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "a.sock")
      const first = yield* Scope.make()
      yield* serve(GrpcServer.unix(path)).pipe(Scope.provide(first))
      rmSync(path)
      yield* serve(GrpcServer.unix(path))
      yield* Scope.close(first, Exit.void)
      assert.strictEqual(yield* echoes({ address: `unix:${path}` }), "hello")
    }))
})

describe("TCP", () => {
  it.live("one server, several listeners", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "a.sock")
      const context = yield* serve(GrpcServer.tcp("127.0.0.1", 0), GrpcServer.tcp("::1", 0), GrpcServer.unix(path))
      const addresses = addressesOf(context)
      assert.strictEqual(addresses.length, 3)
      for (const address of addresses) assert.strictEqual(yield* echoes({ address }), "hello")
    }))

  it.live("a port that is taken is a BindError with the address", () =>
    Effect.gen(function*() {
      const [address = ""] = addressesOf(yield* serve(GrpcServer.tcp("127.0.0.1", 0)))
      const port = Number(address.split(":").at(-1))
      const error = yield* Effect.flip(Effect.scoped(serve(GrpcServer.tcp("127.0.0.1", port))))
      assert.strictEqual(error._tag, "BindError")
      assert.include(error.message, address)
    }))
})

const byCertificate = (_: Metadata, peer: Peer): Effect.Effect<Caller> => {
  const name = peer.certificate?.subject.CN
  return Effect.succeed({ name: Array.isArray(name) ? name.join() : name ?? "nobody", groups: [] })
}

describe("TLS", () => {
  it.live("encrypts and verifies the server", () =>
    Effect.gen(function*() {
      const { ca, otherCa, server } = yield* makeCertificates
      const context = yield* serve(GrpcServer.tcp("127.0.0.1", 0, { tls: { certificate: server } }))
      const [address = ""] = addressesOf(context)
      assert.strictEqual(yield* echoes({ address, credentials: { tls: { ca } } }), "hello")
      const error = yield* Effect.flip(echoes({ address, credentials: { tls: { ca: otherCa } } }))
      assert.strictEqual(error._tag, "Unavailable")
      const plain = yield* Effect.flip(echoes({ address }))
      assert.strictEqual(plain._tag, "Unavailable")
      const named = { ca, serverName: "agent.fast-sandbox" }
      assert.strictEqual(yield* echoes({ address, credentials: { tls: named } }), "hello")
      const misnamed = { ca, serverName: "somebody.else" }
      assert.strictEqual((yield* Effect.flip(echoes({ address, credentials: { tls: misnamed } })))._tag, "Unavailable")
    }))

  it.live("asks callers for a certificate, and tells the handler whose it is", () =>
    Effect.gen(function*() {
      const { ca, client, server, strangerClient } = yield* makeCertificates
      const context = yield* Layer.build(
        GrpcServer.layer({
          services: [Echo.echo],
          listeners: [GrpcServer.tcp("127.0.0.1", 0, { tls: { certificate: server, clientCa: ca } })],
          authenticate: byCertificate
        }).pipe(Layer.provide(Echo.Probe.layer))
      )
      const [address = ""] = addressesOf(context)
      const api = yield* GrpcClient.makeBoundary(EchoService, {
        address,
        credentials: { tls: { ca, certificate: client } }
      })
      assert.strictEqual((yield* api.echo({ text: "caller" })).text, "controller")
      assert.strictEqual(
        (yield* Effect.flip(echoes({ address, credentials: { tls: { ca } } })))._tag,
        "Unavailable"
      )
      assert.strictEqual(
        (yield* Effect.flip(echoes({ address, credentials: { tls: { ca, certificate: strangerClient } } })))._tag,
        "Unavailable"
      )
    }))
})

describe("authentication", () => {
  const authenticate = Effect.fnUntraced(function*(metadata: Metadata): Effect.fn.Return<
    Caller,
    Unauthenticated | PermissionDenied
  > {
    const token = metadata.get("Authorization")
    if (token === undefined) return yield* new Unauthenticated({ problem: "send a bearer token" })
    if (token !== "Bearer good") return yield* new PermissionDenied({ problem: "not this one" })
    return { name: "alice", groups: [] }
  })

  it.live("decides before the handler, for every kind of method", () =>
    Effect.gen(function*() {
      const nobody = yield* Echo.connect()
      assert.strictEqual((yield* Effect.flip(nobody.echo({ text: "caller" })))._tag, "Unauthenticated")
      assert.strictEqual((yield* Effect.flip(Stream.runDrain(nobody.count({ to: 1 }))))._tag, "Unauthenticated")
      assert.strictEqual((yield* Effect.flip(nobody.sum(Stream.never)))._tag, "Unauthenticated")
      assert.strictEqual((yield* Effect.flip(Stream.runDrain(nobody.chat(Stream.never))))._tag, "Unauthenticated")
      const { produced } = yield* Echo.Probe
      assert.strictEqual(yield* Ref.get(produced), 0)
    }).pipe(Effect.provide(Echo.layer({ authenticate }))))

  it.live("knows the caller by a token that may change", () =>
    Effect.gen(function*() {
      const token = yield* Ref.make("bad")
      const api = yield* Echo.connect({ credentials: { token: Effect.map(Ref.get(token), Redacted.make) } })
      assert.strictEqual((yield* Effect.flip(api.echo({ text: "caller" })))._tag, "PermissionDenied")
      yield* Ref.set(token, "good")
      assert.strictEqual((yield* api.echo({ text: "caller" })).text, "alice")
    }).pipe(Effect.provide(Echo.layer({ authenticate }))))

  it.live("takes everybody for anonymous without it", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      assert.strictEqual((yield* api.echo({ text: "caller" })).text, "system:anonymous")
    }).pipe(Effect.provide(Echo.layer())))
})

describe("the end of a server", () => {
  it.live("waits for calls that end in time and takes no new ones", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(Layer.fresh(Echo.layer({ grace: "5 seconds" })), scope)
      const [address = ""] = addressesOf(context)
      const { release, started } = Context.get(context, Echo.Probe)
      const api = yield* GrpcClient.makeBoundary(EchoService, { address })
      const call = yield* Effect.forkChild(api.echo({ text: "wait" }))
      yield* Echo.soon(Deferred.await(started))
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* Effect.gen(function*() {
        const late = yield* GrpcClient.makeBoundary(EchoService, {
          address
        })
        return yield* Effect.flip(late.echo({ text: "late" }))
      }).pipe(
        Effect.scoped,
        Effect.tap((error) => Effect.sync(() => assert.strictEqual(error._tag, "Unavailable")))
      )
      assert.isUndefined(call.pollUnsafe())
      yield* Deferred.succeed(release, undefined)
      assert.strictEqual((yield* Fiber.join(call)).text, "released")
      yield* Echo.soon(Fiber.join(closing))
    }))

  it.live("ends what outlives the grace period with UNAVAILABLE", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(Layer.fresh(Echo.layer({ grace: "200 millis" })), scope)
      const [address = ""] = addressesOf(context)
      const { interrupted, started } = Context.get(context, Echo.Probe)
      const api = yield* GrpcClient.makeBoundary(EchoService, { address })
      const watch = yield* api.count({ to: 0 }).pipe(Stream.runDrain, Effect.flip, Effect.forkChild)
      yield* Echo.soon(Deferred.await(started))
      const [took] = yield* Effect.timed(Scope.close(scope, Exit.void))
      assert.isAtLeast(Duration.toMillis(took), 190)
      assert.isBelow(Duration.toMillis(took), 2000)
      const error = yield* Fiber.join(watch)
      assert.strictEqual(error._tag, "Unavailable")
      assert.include(error.message, "going away")
      yield* Echo.soon(Deferred.await(interrupted))
    }))

  it.live("says NOT_SERVING while it drains", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(
        Layer.fresh(
          GrpcServer.layer({
            services: [Echo.echo, GrpcHealth.service],
            listeners: [GrpcServer.tcp("127.0.0.1", 0)]
          }).pipe(Layer.provideMerge(Layer.merge(Echo.Probe.layer, GrpcHealth.layer)))
        ),
        scope
      )
      const health = Context.get(context, GrpcHealth.GrpcHealth)
      assert.strictEqual((yield* health.statuses).get("test.v1.EchoService"), "SERVING")
      assert.isUndefined(yield* GrpcHealth.problem(health))
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(new Set((yield* health.statuses).values()), new Set(["NOT_SERVING"]))
      assert.strictEqual(yield* GrpcHealth.problem(health), "takes no calls")
    }))
})
