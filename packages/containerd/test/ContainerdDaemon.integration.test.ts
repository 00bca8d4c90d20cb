import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import * as Containerd from "@fast-sandbox/containerd/Containerd"
import * as ContainerdDaemon from "@fast-sandbox/containerd/ContainerdDaemon"
import { Events } from "@fast-sandbox/containerd/Events"
import { Images } from "@fast-sandbox/containerd/Images"
import { Introspection } from "@fast-sandbox/containerd/Introspection"
import * as MachineSetup from "@fast-sandbox/containerd/MachineSetup"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import * as Proc from "@fast-sandbox/containerd/Proc"
import * as ShimRuntime from "@fast-sandbox/containerd/ShimRuntime"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import * as PrivateContainerd from "@fast-sandbox/testkit/PrivateContainerd"
import * as TestImages from "@fast-sandbox/testkit/TestImages"
import { Effect, FileSystem, Layer, Ref, Schedule, Stream } from "effect"
import { createServer } from "node:http"
import { eventually, start } from "./Sandbox.ts"

const temporary = Effect.gen(function*() {
  const fileSystem = yield* FileSystem.FileSystem
  return `${yield* fileSystem.makeTempDirectoryScoped({ prefix: "fsb-" })}/containerd`
})

describe("ContainerdDaemon", () => {
  it.live("outlives its starter, is found again, and stops with everything that it runs", () =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      const directory = yield* temporary
      const mountsBefore = (yield* Proc.mounts).map(({ path }) => path).filter((path) => path.startsWith(directory))
      const cgroupsPath = "/fsb-daemon-test"
      yield* Effect.addFinalizer(() => MachineSetup.removeCgroups(cgroupsPath))
      const daemon = yield* Effect.scoped(ContainerdDaemon.start({ directory }))
      yield* Effect.addFinalizer(() => Effect.orDie(ContainerdDaemon.remove(directory)))
      assert.deepStrictEqual(yield* ContainerdDaemon.start({ directory }), daemon)
      assert.deepStrictEqual(yield* ContainerdDaemon.find(directory), daemon)

      const Private = Layer.succeed(PrivateContainerd.PrivateContainerd, {
        daemon,
        namespace: "daemon-test",
        directory: `${directory}/..`,
        cgroupsPath
      }).pipe(Layer.provideMerge(Containerd.layer({ socket: daemon.socket, namespace: "daemon-test" })))
      yield* Effect.gen(function*() {
        yield* (yield* Images).load(OciArchive.make([yield* TestImages.busybox]))
        const runtime = ShimRuntime.make({ binary: `${daemon.runtimeDirectory}/crun` })
        const { pid } = yield* start({ runtime, args: ["sleep", "1000"] })
        assert.isTrue(yield* fileSystem.exists(`/proc/${pid}`))
        yield* ContainerdDaemon.stop(directory)
        assert.isFalse(yield* fileSystem.exists(`/proc/${pid}`))
        assert.isUndefined(yield* ContainerdDaemon.find(directory))
        assert.lengthOf(yield* Proc.shims(daemon.socket), 0)
        const mounts = (yield* Proc.mounts).map(({ path }) => path).filter((path) => path.startsWith(directory))
        assert.deepStrictEqual(mounts, mountsBefore)
        assert.isFalse(yield* fileSystem.exists("/run/containerd/runc/daemon-test"))
        yield* ContainerdDaemon.stop(directory)
        // What was loaded is there after the next start.
        yield* ContainerdDaemon.start({ directory })
        yield* (yield* Images).resolve("busybox").pipe(
          Effect.retry(Schedule.spaced("50 millis").pipe(Schedule.upTo({ duration: "5 seconds" })))
        )
      }).pipe(Effect.scoped, Effect.provide(Private))
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("comes back after kill -9 with its sandboxes, and the client with it", () =>
    Effect.gen(function*() {
      const { daemon } = yield* PrivateContainerd.PrivateContainerd
      const tasks = yield* Tasks
      yield* (yield* Images).load(OciArchive.make([yield* TestImages.busybox]))
      const runtime = ShimRuntime.make({ binary: `${daemon.runtimeDirectory}/crun` })
      const sandbox = yield* start({ runtime, args: ["sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done"] })
      const seen = yield* Ref.make<ReadonlyArray<string>>([])
      yield* (yield* Events).all.pipe(
        Stream.runForEach((event) =>
          Ref.update(seen, (all) => [
            ...all,
            event._tag === "Subscribed"
              ? `Subscribed ${event.generation}`
              : event._tag === "TaskExited"
              ? `TaskExited ${event.exitCode}`
              : event._tag
          ])
        ),
        Effect.forkScoped
      )
      yield* eventually(Ref.get(seen), (all) => all.includes("Subscribed 1"))
      process.kill(daemon.pid, "SIGKILL")
      const error = yield* Effect.flip(eventually(tasks.list, () => false))
      assert.isTrue(error._tag === "ContainerdError" && error.isUnavailable)
      const again = yield* eventually(ContainerdDaemon.find(daemon.directory), (found) => found === undefined).pipe(
        Effect.andThen(ContainerdDaemon.start({ directory: daemon.directory }))
      )
      assert.notStrictEqual(again.pid, daemon.pid)
      yield* eventually(Ref.get(seen), (all) => all.includes("Subscribed 2"))
      assert.strictEqual((yield* tasks.get({ containerId: sandbox.id })).status, "running")
      yield* tasks.kill({ containerId: sandbox.id }, 15)
      yield* eventually(Ref.get(seen), (all) => all.includes("TaskExited 9"))
    }).pipe(
      Effect.scoped,
      Effect.provide(PrivateContainerd.layer().pipe(Layer.provideMerge(NodeServices.layer)))
    ))

  it.live("is started again while somebody keeps it, and no longer", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      yield* Effect.addFinalizer(() => Effect.orDie(ContainerdDaemon.remove(directory)))
      const found = ContainerdDaemon.find(directory)
      const again = yield* Effect.gen(function*() {
        const { pid } = yield* ContainerdDaemon.keep({ directory })
        process.kill(pid, "SIGKILL")
        return yield* eventually(found, (daemon) => daemon !== undefined && daemon.pid !== pid)
      }).pipe(Effect.scoped)
      assert.isDefined(again)
      assert.deepStrictEqual(yield* found, again)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("says why it can't start", () =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      const directory = yield* temporary
      yield* fileSystem.makeDirectory(`${directory}/containerd.sock/occupied`, { recursive: true })
      yield* Effect.addFinalizer(() => Effect.orDie(ContainerdDaemon.remove(directory)))
      const error = yield* Effect.flip(ContainerdDaemon.start({ directory }))
      assert.strictEqual(error._tag, "DaemonError")
      assert.include(error.message, "containerd.sock")
    }).pipe(Effect.provide(NodeServices.layer)))
})

/** A registry that serves one image, read-only. */
const registry = (image: OciArchive.BuiltImage) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
      const blobs = new Map(image.blobs.map((blob) => [blob.digest, blob.bytes]))
      const server = createServer((request, response) => {
        const reference = request.url?.split("/").at(-1) ?? ""
        const isManifest = request.url?.includes("/app/manifests/") === true
        const digest = isManifest && reference === "1" ? image.manifest.digest : reference
        const bytes = request.url?.startsWith("/v2/app/") === true ? blobs.get(digest) : undefined
        if (request.url === "/v2/") {
          response.end("{}")
        } else if (bytes === undefined) {
          response.writeHead(404).end("{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\"}]}")
        } else {
          response.writeHead(200, {
            "content-type": isManifest ? "application/vnd.oci.image.manifest.v1+json" : "application/octet-stream",
            "docker-content-digest": digest,
            "content-length": bytes.length
          })
          response.end(request.method === "HEAD" ? undefined : bytes)
        }
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed({
          port: typeof address === "object" && address !== null ? address.port : 0,
          close: () => server.close()
        }))
      })
    }),
    ({ close }) => Effect.sync(close)
  )

describe("Images.pull", () => {
  it.live("pulls from a registry on loopback, unpacks, and says why it can't", () =>
    Effect.gen(function*() {
      const images = yield* Images
      assert.isTrue(yield* (yield* Introspection).hasCriImages)
      const { port } = yield* registry(yield* OciArchive.build(yield* TestImages.busybox))
      const name = `127.0.0.1:${port}/app:1`
      const steps = yield* Stream.runCollect(images.pull(name))
      const last = steps.at(-1)
      assert.strictEqual(last?._tag, "Pulled")
      const image = yield* images.resolve(name)
      assert.isTrue(yield* images.isUnpacked(image))
      assert.deepStrictEqual((yield* images.list).map((listed) => listed.name), [name])
      const missing = yield* Effect.flip(Stream.runDrain(images.pull(`127.0.0.1:${port}/app:2`)))
      assert.deepInclude({ ...missing }, { _tag: "ImagePullFailed", retryable: false })
      const unreachable = yield* Effect.flip(Stream.runDrain(images.pull("127.0.0.1:1/app:1")))
      assert.deepInclude({ ...unreachable }, { _tag: "ImagePullFailed", retryable: true })
      yield* images.remove(name)
      assert.strictEqual((yield* Effect.flip(images.resolve(name)))._tag, "ImageNotFound")
    }).pipe(
      Effect.scoped,
      Effect.provide(
        PrivateContainerd.layer({ namespace: "k8s.io", pullsImages: true }).pipe(Layer.provideMerge(NodeServices.layer))
      )
    ))
})
