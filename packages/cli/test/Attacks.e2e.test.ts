/**
 * Attacks on a one-machine stack from outside: who has no token, a wrong one, one that has ended or one of another
 * namespace; who replays, floods, stalls and cuts off. Each fails in the way that docs/security.md says, and the service
 * goes on for everybody else.
 */
import { assert, describe, layer } from "@effect/vitest"
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import { FastPathService } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import * as ServiceAccountTokens from "@fast-sandbox/local/apiserver/ServiceAccountTokens"
import { Clock, Effect, FileSystem, Redacted, Schema, Stream } from "effect"
import * as Http2 from "node:http2"
import * as Tls from "node:tls"
import * as Census from "./e2e/Census.ts"
import * as Listening from "./e2e/Listening.ts"
import * as LocalStack from "./e2e/LocalStack.ts"
import * as Resources from "./e2e/Resources.ts"
import * as TestStack from "./e2e/TestStack.ts"

const { stdoutOf } = Resources

const port = 19_090
const listen = `127.0.0.1:${port}`

Census.leavesNothing()

const ClientConfig = Schema.fromJsonString(Schema.Struct({
  endpoint: Schema.String,
  token: Schema.String,
  tls: Schema.Struct({ ca: Schema.String })
}))

/** What the stack tells its clients, with the authority's certificate. */
const told = Effect.gen(function*() {
  const { home } = yield* LocalStack.LocalStack
  const files = yield* FileSystem.FileSystem
  const text = yield* files.readFileString(`${home}/client.json`)
  const config = yield* Schema.decodeUnknownEffect(ClientConfig)(text)
  return { ...config, ca: yield* files.readFileString(config.tls.ca) }
})

/** A client of the TCP port, on a connection of its own. */
const connect = Effect.fnUntraced(function*(token: string | undefined) {
  const { ca, endpoint } = yield* told
  return yield* GrpcClient.makeBoundary(FastPathService, {
    address: endpoint,
    credentials: { tls: { ca }, token: token === undefined ? undefined : Effect.succeed(Redacted.make(token)) }
  })
})

/** A program that ends at once when it is asked to. */
const endless = ["sh", "-c", "trap exit TERM; sleep 1000 & wait"]

const create = Effect.fnUntraced(function*(token: string | undefined, name: string, requestId = "") {
  const api = yield* connect(token)
  return yield* api.createSandbox({
    name,
    requestId,
    image: "busybox",
    poolRef: "default-pool",
    command: endless
  }, { deadline: "30 seconds" })
})

const kubectl = (...args: ReadonlyArray<string>) =>
  Effect.flatMap(LocalStack.LocalStack, (stack) => stdoutOf(stack.kubectl(...args)))

/** A service account that may handle sandboxes in its own namespace; gives its token. */
const account = Effect.fnUntraced(function*(namespace: string, name: string) {
  const n = ["-n", namespace]
  yield* kubectl("create", "serviceaccount", name, ...n)
  yield* kubectl("create", "rolebinding", name, "--role=handler", `--serviceaccount=${namespace}:${name}`, ...n)
  return (yield* kubectl("create", "token", name, ...n)).trim()
})

const handler = (namespace: string) =>
  kubectl(
    "create",
    "role",
    "handler",
    "--verb=create,get,list,watch,delete",
    "--resource=sandboxes.sandbox.fast.io",
    "-n",
    namespace
  )

/** An HTTP/2 session below gRPC. */
const session = Effect.gen(function*() {
  const { ca } = yield* told
  return yield* Effect.acquireRelease(
    Effect.sync(() => Http2.connect(`https://${listen}`, { ca }).on("error", () => {})),
    (session) => Effect.sync(() => session.destroy())
  )
})

const call = (session: Http2.ClientHttp2Session, token: string, method: string) =>
  session.request({
    ":method": "POST",
    ":path": `/fastpath.v1.FastPathService/${method}`,
    "content-type": "application/grpc",
    authorization: `Bearer ${token}`,
    te: "trailers"
  }).on("error", () => {})

const grpcStatus = (stream: Http2.ClientHttp2Stream) =>
  Effect.callback<number>((resume) => {
    const look = (headers: Http2.IncomingHttpHeaders) => {
      const status = headers["grpc-status"]
      if (status !== undefined) resume(Effect.succeed(Number(status)))
    }
    stream.on("response", look)
    stream.on("trailers", look)
    stream.resume()
  }).pipe(Effect.timeout("20 seconds"))

const RESOURCE_EXHAUSTED = 8

const FRAME_HEADER_BYTES = 5

const frame = (promised: number, held: number): Buffer => {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + held)
  bytes.writeUInt32BE(promised, 1)
  return bytes
}

/** A TLS connection that says nothing more. */
const idle = Effect.flatMap(told, ({ ca }) =>
  Effect.acquireRelease(
    Effect.callback<Tls.TLSSocket>((resume) => {
      const socket = Tls.connect({ host: "127.0.0.1", port, ca, ALPNProtocols: ["h2"] }, () =>
        resume(Effect.succeed(socket)))
      socket.on("error", () => {})
    }),
    (socket) =>
      Effect.sync(() => socket.destroy())
  ))

describe("attacks from outside", () => {
  layer(TestStack.layerWith({ listen }), TestStack.options)((it) => {
    it.effect("nothing listens that is not documented: the port that was asked for, and the API server's", () =>
      Effect.gen(function*() {
        const { home } = yield* LocalStack.LocalStack
        const files = yield* FileSystem.FileSystem
        yield* Listening.assertOnly(home, [listen, yield* Listening.apiServer(home)])
        assert.strictEqual((yield* files.stat(`${home}/client.json`)).mode & 0o777, 0o600)
        assert.strictEqual((yield* files.stat(`${home}/run/fastpath.sock`)).mode & 0o777, 0o600)
      }))

    it.effect("fsb-ctl speaks to the port with the file that the stack wrote", () =>
      Effect.gen(function*() {
        const { fsbCtl, home } = yield* LocalStack.LocalStack
        yield* stdoutOf(fsbCtl("--config", `${home}/client.json`, "list"))
        const other = yield* fsbCtl("--endpoint", listen, "list")
        assert.notStrictEqual(other.code, 0, "without TLS")
      }))

    it.effect("no token, a wrong token, a token that has ended: UNAUTHENTICATED", () =>
      Effect.gen(function*() {
        const { home } = yield* LocalStack.LocalStack
        const files = yield* FileSystem.FileSystem
        yield* handler("default")
        const valid = yield* account("default", "short-lived")
        yield* create(valid, "known")
        const key = Redacted.make(yield* files.readFileString(`${home}/apiserver/serviceaccounts.key`))
        const uid = yield* kubectl("get", "serviceaccount", "short-lived", "-o", "jsonpath={.metadata.uid}")
        const hourAgo = (yield* Clock.currentTimeMillis) - 3_600_000
        const ended = ServiceAccountTokens.sign(key, {
          namespace: "default",
          account: { name: "short-lived", uid },
          audiences: [ServiceAccountTokens.issuer],
          nowMillis: hourAgo,
          expirationSeconds: 600
        })
        for (const token of [undefined, "", "wrong", `${valid}x`, ended]) {
          const error = yield* Effect.flip(create(token, "nobody"))
          assert.strictEqual(error._tag, "Unauthenticated", token)
        }
        // streams as well, before they are read
        const api = yield* connect("wrong")
        assert.strictEqual((yield* Effect.flip(Stream.runDrain(api.exec(Stream.never))))._tag, "Unauthenticated")
        const { fsbCtl } = yield* LocalStack.LocalStack
        yield* stdoutOf(fsbCtl("delete", "known"))
      }))

    it.effect("a token of another namespace: PERMISSION_DENIED, for every call", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        yield* stdoutOf(fsbCtl("run", "-d", "target", "--image", "busybox", "--", ...endless))
        yield* kubectl("create", "namespace", "elsewhere")
        yield* handler("elsewhere")
        const api = yield* connect(yield* account("elsewhere", "mallory"))
        const target = { sandboxName: "target" }
        const sandbox = { sandboxName: "target", namespace: "default" }
        const pool = { name: "default-pool" }
        const inPool = { poolRef: "default-pool" }
        const image = { ...inPool, image: "busybox" }
        const resource = Buffer.from(JSON.stringify({
          apiVersion: "sandbox.fast.io/v1alpha1",
          kind: "SandboxPool",
          metadata: { name: "mine", namespace: "default" },
          spec: {}
        }))
        const header = <A>(value: A) => Stream.make({ part: { case: "header" as const, value } })
        /** A call that this table lacks does not compile. */
        const calls: Readonly<
          Record<
            Exclude<keyof typeof FastPathService.method, "getVersion">,
            Effect.Effect<unknown, BoundaryError> | Stream.Stream<unknown, BoundaryError>
          >
        > = {
          createSandbox: api.createSandbox({ image: "busybox", ...inPool }),
          deleteSandbox: api.deleteSandbox(target),
          updateSandbox: api.updateSandbox(target),
          resetSandbox: api.resetSandbox(target),
          getSandbox: api.getSandbox(target),
          listSandboxes: api.listSandboxes({}),
          watchSandboxes: api.watchSandboxes({}),
          logs: api.logs(target),
          exec: api.exec(header({ sandbox, command: ["id"] })),
          attach: api.attach(header({ sandbox })),
          copyTo: api.copyTo(header({ sandbox, path: "/tmp" })),
          copyFrom: api.copyFrom({ sandbox, path: "/etc" }),
          copyDirectly: api.copyDirectly({ part: { case: "from", value: { sandbox, path: "/etc" } } }),
          portForward: api.portForward(header({ sandbox, port: 80 })),
          stats: api.stats({ sandbox }),
          processes: api.processes({ sandbox }),
          listImages: api.listImages(inPool),
          pullImage: api.pullImage(image),
          loadImage: api.loadImage(header(inPool)),
          removeImage: api.removeImage(image),
          listPools: api.listPools({}),
          getPool: api.getPool(pool),
          createPool: api.createPool({ resource }),
          scalePool: api.scalePool({ ...pool, poolMin: 0 }),
          deletePool: api.deletePool({ ...pool, force: true }),
          listAgents: api.listAgents(inPool),
          drainAgent: api.drainAgent({ name: "any" }),
          resumeAgent: api.resumeAgent({ name: "any" }),
          watchEvents: api.watchEvents({})
        }
        const denied = (
          what: string,
          call: Effect.Effect<unknown, BoundaryError> | Stream.Stream<unknown, BoundaryError>
        ) =>
          Effect.map(
            Effect.flip(Stream.isStream(call) ? Stream.runDrain(call) : call),
            ({ _tag }) => assert.strictEqual(_tag, "PermissionDenied", what)
          )
        for (const [what, call] of Object.entries(calls)) yield* denied(what, call)
        yield* denied("sandboxes everywhere", api.listSandboxes({ namespace: "*" }))
        yield* denied("watch everywhere", api.watchSandboxes({ namespace: "*" }))
        yield* denied("images of all nodes", api.listImages({}))
        yield* denied("pools beside one's own sandboxes", api.listPools({ namespace: "elsewhere" }))
        assert.strictEqual((yield* api.listSandboxes({ namespace: "elsewhere" })).items.length, 0)
        yield* stdoutOf(fsbCtl("delete", "target"))
      }))

    it.effect("a request that somebody else made before is theirs: ALREADY_EXISTS", () =>
      Effect.gen(function*() {
        const { token } = yield* told
        const alice = yield* account("default", "alice")
        const bob = yield* account("default", "bob")
        const first = yield* create(alice, "replayed", "request-1")
        assert.strictEqual((yield* create(alice, "replayed", "request-1")).sandboxId, first.sandboxId)
        assert.strictEqual((yield* Effect.flip(create(bob, "replayed", "request-1")))._tag, "AlreadyExists")
        assert.strictEqual((yield* Effect.flip(create(bob, "replayed")))._tag, "AlreadyExists")
        const api = yield* connect(token)
        yield* api.deleteSandbox({ sandboxName: "replayed" })
      }))

    it.effect("a thousand idle connections, slow senders, large and cut-off frames: a create goes on", () =>
      Effect.gen(function*() {
        const { token } = yield* told
        yield* Effect.forEach(Array.from({ length: 1000 }), () => idle, { concurrency: 50, discard: true })
        const raw = yield* session
        const large = call(raw, token, "CreateSandbox")
        large.write(frame(0xffff_ffff, 10))
        assert.strictEqual(yield* grpcStatus(large), RESOURCE_EXHAUSTED)
        for (let index = 0; index < 100; index++) call(raw, token, "CreateSandbox").write(frame(1000, 1))
        const cut = yield* session
        call(cut, token, "CreateSandbox").write(frame(1000, 500))
        cut.destroy()
        const created = yield* create(token, "beside-them")
        assert.notStrictEqual(created.sandboxId, "")
        const api = yield* connect(token)
        yield* api.deleteSandbox({ sandboxName: "beside-them" })
      }))

    it.effect("each change and each refused one is in the audit log, and no token is", () =>
      Effect.gen(function*() {
        const { fsbCtl, home } = yield* LocalStack.LocalStack
        const files = yield* FileSystem.FileSystem
        const { token } = yield* told
        const [agent] = yield* Resources.agentPods("default-pool")
        const name = agent?.metadata.name ?? ""
        for (
          const command of [
            ["run", "-d", "audited", "--image", "busybox", "--", ...endless],
            ["update", "audited", "--failure-policy", "AutoRecreate"],
            ["exec", "audited", "--", "true"],
            ["cp", "package.json", "audited:/tmp"],
            ["cp", "audited:/tmp/package.json", `${home}/copied`],
            ["reset", "audited"],
            ["agent", "drain", name],
            ["agent", "resume", name],
            ["pool", "scale", "default-pool", "--max", "7"],
            ["delete", "audited"]
          ]
        ) {
          yield* stdoutOf(fsbCtl(...command))
        }
        yield* fsbCtl("image", "rm", "nowhere:1")
        const log = yield* files.readFileString(`${home}/log/stack.log`)
        const records = log.split("\n").filter((line) => line.includes("\"audit\":true"))
        const has = (...parts: ReadonlyArray<string>) =>
          records.some((record) => parts.every((part) => record.includes(part)))
        assert.isTrue(
          has("\"create\"", "default/replayed", "system:serviceaccount:default:alice", "\"ok\"", "request-1")
        )
        assert.isTrue(has("\"create\"", "system:serviceaccount:default:bob", "AlreadyExists"))
        assert.isTrue(has("DeleteSandbox", "system:serviceaccount:elsewhere:mallory", "PermissionDenied"))
        assert.isTrue(has("\"create\"", "fast-sandbox:machine-owner", "default/target"))
        for (const operation of ["create", "update", "exec", "copyTo", "copyFrom", "reset", "delete"]) {
          assert.isTrue(has(`"operation":"${operation}"`, "default/audited", "machine-owner", "\"ok\""), operation)
        }
        assert.isTrue(has("drain agent", `default/${name}`) && has("resume agent", `default/${name}`))
        assert.isTrue(has("scale pool", "default/default-pool") && has("\"remove\"", "nowhere:1"))
        for (
          const method of ["ScalePool", "DrainAgent", "PullImage", "Exec", "CopyTo", "PortForward", "ResetSandbox"]
        ) {
          assert.isTrue(has(method, "mallory", "PermissionDenied"), method)
        }
        assert.notInclude(log, token)
      }))
  })
})
