/**
 * Slots without an image against a real containerd: that whatever an image is like, it is served, and as it would be by a
 * container of its own; and that nothing that goes wrong leaves anything behind. That a program can't tell the two apart
 * is in `Parked.integration.test.ts`.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { Images } from "@fast-sandbox/containerd/Images"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import { type CreateResponse, InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { layer as privateContainerd, PrivateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import * as TestImages from "@fast-sandbox/testkit/TestImages"
import { Effect, Layer, Stream } from "effect"
import { execFileSync } from "node:child_process"
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs"
import * as Fixture from "./AgentFixture.ts"
import { surviveKills } from "./surviveKills.ts"

const root = "etc proc dev sys".split(" ")

/** Images whose mount points are missing, links that lead elsewhere, or of the wrong type. */
const odd: Readonly<Record<string, ReadonlyArray<OciArchive.ImageFile>>> = {
  bare: [],
  "linked-proc": [{ _tag: "Symlink", path: "proc", target: "/tmp" }],
  "linked-dev": [{ _tag: "Symlink", path: "dev", target: "../../../../tmp" }],
  "linked-sys": [{ _tag: "Symlink", path: "sys", target: "/proc/1/root" }],
  "linked-etc": [{ _tag: "Symlink", path: "etc", target: "/tmp" }],
  "linked-hosts": [
    { _tag: "Directory", path: "etc" },
    { _tag: "Symlink", path: "etc/hosts", target: "/../../../../../../etc/fsb-made-by-a-sandbox" },
    { _tag: "Symlink", path: "etc/resolv.conf", target: "/proc/self/environ" }
  ],
  "file-proc": [{ _tag: "File", path: "proc", content: "none" }],
  "directory-hosts": [{ _tag: "Directory", path: "etc/hosts" }]
}

const imageOf = (name: string) => `odd-${name}`

const node = Layer.effectDiscard(
  Effect.gen(function*() {
    yield* Fixture.prepareNode
    const files = yield* TestImages.rootfs
    const plain = files.filter(({ path }) => !root.includes(path.split("/")[0] ?? ""))
    const recipes = yield* Effect.forEach(
      Object.entries(odd),
      ([name, mountPoints]) =>
        TestImages.variant(`docker.io/library/${imageOf(name)}:latest`, { layers: [[...plain, ...mountPoints]] })
    )
    const app = yield* TestImages.variant("docker.io/library/as-app:latest", { user: "app", workingDir: "/made/here" })
    yield* Images.use((images) =>
      Effect.forEach([...recipes, app], (one) => images.load(OciArchive.make([one])), { discard: true })
    )
  })
).pipe(
  Layer.provideMerge(privateContainerd()),
  Layer.provideMerge(NodeServices.layer)
)

/** An agent that parks nothing of what it is asked for, so that it is served by blank slots only. */
const withBlanks = (count: number) =>
  Effect.map(PrivateContainerd, ({ directory }) => ({
    FSB_INIT_BINARY: `${directory}/bin/fsb-init`,
    FSB_WARM_IMAGES: JSON.stringify([{ image: "busybox", parked: 0 }]),
    FSB_BLANK_SLOTS: String(count)
  }))

/** Whether a slot without an image served. */
const isBlank = ({ instance }: CreateResponse) => {
  assert.strictEqual(instance?.startup?.tier, "prepared")
  const steps = instance?.startup?.steps.map(({ name }) => name) ?? []
  return steps.includes("exec")
}

const look =
  "ls -lan / /etc | sed 's/ [A-Z][a-z][a-z] .*:[0-9][0-9] / /' | grep -vE '^total|proc'; cat /etc/hosts | wc -l"

/** What a program of an image says, or why it could not be started, and whether a blank slot served. */
const saidIn = Effect.fnUntraced(function*(client: Fixture.AgentClient, image: string) {
  const request = Fixture.request(["sh", "-c", look], { image })
  return yield* client.create(request).pipe(
    Effect.flatMap((answer) =>
      Effect.map(Fixture.logsOf(client, request.instanceId, true), (said) => ({ said, isBlank: isBlank(answer) }))
    ),
    Effect.tap(client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })),
    Effect.catch((error) =>
      Effect.succeed({ said: [error._tag, error.message.replaceAll(request.instanceId, "ID")], isBlank: false })
    )
  )
})

layer(node, { excludeTestServices: true, timeout: "1 minute" })("slots without an image", (it) => {
  it.effect("become sandboxes that are entered, copied from, read and removed as any other", () =>
    Effect.gen(function*() {
      const before = yield* Fixture.world
      yield* Effect.gen(function*() {
        const client = yield* Fixture.start(yield* withBlanks(1))
        const sessions = yield* Fixture.sessions()
        yield* Fixture.untilBlank(client, 1)
        const request = Fixture.request(["sh", "-c", "echo began; echo made > made; exec sleep 1000"], {
          image: "as-app",
          workingDir: "/tmp/new",
          runAsUser: 0,
          exposedPorts: [18_080]
        })
        assert.isTrue(isBlank(yield* client.create(request)))
        const { instanceId } = request
        yield* Fixture.eventually(
          "it began",
          Effect.map(Fixture.logsOf(client, instanceId), (lines) => lines.includes("began"))
        )
        const command = [
          "sh",
          "-c",
          "cat /tmp/new/made; grep -c . /etc/passwd; ls -a /dev | grep fsb; readlink /proc/1/exe"
        ]
        const answers = yield* sessions.exec(Stream.concat(
          Stream.make(
            {
              part: { case: "header", value: { sandbox: { sandboxId: instanceId }, command } }
            } as const
          ),
          Stream.never
        )).pipe(Stream.runCollect)
        const printed = Buffer.concat(answers.flatMap(({ part }) => part.case === "stdout" ? [part.value] : []))
        assert.strictEqual(printed.toString(), "made\n3\n/bin/busybox\n")
        const copied = yield* sessions.copyFrom({ sandbox: { sandboxId: instanceId }, path: "/tmp/new/made" }).pipe(
          Stream.runCollect
        )
        assert.include(Buffer.concat(copied.map(({ data }) => data)).toString(), "made\n")
        yield* Fixture.untilBlank(client, 1)
        yield* client.delete({ instanceId, gracePeriodSeconds: 0 })
      }).pipe(Effect.scoped)
      assert.deepStrictEqual(yield* Fixture.world, before)
    }))

  it.effect("take an image without mount points, and leave a hostile one to a container of its own", () =>
    Effect.gen(function*() {
      const before = yield* Fixture.world
      const identity = { POD_UID: "uid-odd" }
      const names = Object.keys(odd).map(imageOf)
      const expected = yield* Fixture.start(identity).pipe(
        Effect.flatMap((client) => Effect.forEach(names, (name) => saidIn(client, name))),
        Effect.scoped
      )
      const found = yield* Fixture.start({ ...(yield* withBlanks(1)), ...identity }).pipe(
        Effect.flatMap((client) =>
          Effect.forEach(names, (name) => Effect.andThen(Fixture.untilBlank(client, 1), saidIn(client, name)))
        ),
        Effect.scoped
      )
      assert.deepStrictEqual(found.map(({ said }) => said), expected.map(({ said }) => said))
      assert.deepStrictEqual(
        found.map(({ isBlank }, at) => isBlank ? names[at] : undefined).filter((name) => name !== undefined),
        ["odd-bare"]
      )
      assert.deepStrictEqual(yield* Fixture.world, before)
    }))

  it.effect("that die are replaced, and a create that meets one is served all the same", () =>
    Effect.gen(function*() {
      const client = yield* Fixture.start(yield* withBlanks(2))
      yield* Fixture.untilBlank(client, 2)
      const all = yield* Effect.flatMap(Tasks, ({ list }) => list)
      for (const { pid, status } of all.filter(({ status }) => status === "running")) {
        assert.strictEqual(status, "running")
        process.kill(pid, "SIGKILL")
      }
      const request = Fixture.request(Fixture.sleeper)
      yield* client.create(request)
      assert.strictEqual((yield* Fixture.listed(client, request.instanceId))?.state, InstanceState.RUNNING)
      yield* Fixture.untilBlank(client, 2)
      yield* client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
    }).pipe(Effect.scoped))

  it.effect("say what is wrong with a command, and give way to sandboxes", () =>
    Effect.gen(function*() {
      const before = yield* Fixture.world
      yield* Effect.gen(function*() {
        const client = yield* Fixture.start({ ...(yield* withBlanks(2)), FSB_SLOTS: "2" })
        yield* Fixture.untilBlank(client, 2)
        const error = yield* Effect.flip(client.create(Fixture.request(["/nope"])))
        assert.strictEqual(error._tag === "FailedPrecondition" ? error.reason : error._tag, "CommandNotFound")
        assert.deepStrictEqual((yield* client.list({})).instances, [])
        const requests = [Fixture.request(Fixture.sleeper), Fixture.request(Fixture.sleeper)]
        for (const [at, request] of requests.entries()) {
          yield* Fixture.untilBlank(client, 2 - at)
          yield* client.create(request)
        }
        yield* Fixture.untilBlank(client, 0)
        for (const { instanceId } of requests) {
          yield* client.delete({ instanceId, gracePeriodSeconds: 0 })
        }
        yield* Fixture.untilBlank(client, 2)
      }).pipe(Effect.scoped)
      assert.deepStrictEqual(yield* Fixture.world, before)
    }))

  it.effect("are made no more where the kernel can't do it, which is told", () =>
    Effect.gen(function*() {
      const { directory } = yield* PrivateContainerd
      const old = `${directory}/old`
      mkdirSync(old)
      copyFileSync(`${directory}/bin/fsb-init`, `${old}/fsb-init`)
      const notes = (client: Fixture.AgentClient) =>
        Effect.flatMap(Fixture.watch(client), ({ until }) =>
          until((event) => event.case === "state" ? event.value.runtimeNotes : undefined)).pipe(Effect.scoped)
      const environment = { ...(yield* withBlanks(1)), FSB_INIT_BINARY: `${old}/fsb-init` }
      yield* Effect.gen(function*() {
        const client = yield* Fixture.start(environment)
        assert.include(yield* notes(client), "blankSlots off: fsb-rootfs is not there")
      }).pipe(Effect.scoped)
      // Answers as one does on a kernel without the system calls: ENOSYS when it mounts.
      const answer = "head -c 12 > /dev/null; printf '\\046\\000\\000\\000\\002\\000\\000\\000'; exec cat > /dev/null"
      writeFileSync(`${old}/fsb-rootfs`, `#!/bin/sh\n${answer}\n`, { mode: 0o755 })
      yield* Effect.gen(function*() {
        const client = yield* Fixture.start(environment)
        assert.include(yield* notes(client), "blankSlots on: 1")
        yield* Fixture.untilBlank(client, 1)
        const request = Fixture.request(Fixture.sleeper)
        assert.isFalse(isBlank(yield* client.create(request)))
        yield* client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
        assert.include(yield* notes(client), "blankSlots off: mounting the root file system: ENOSYS")
        yield* Fixture.untilBlank(client, 0)
      }).pipe(Effect.scoped)
    }))
})

/** A directory whose mounts are seen by all mount namespaces, as a kubelet shares one with a Pod. */
const sharedDirectory = Effect.flatMap(PrivateContainerd, ({ directory }) => {
  const shared = `${directory}/pod`
  return Effect.acquireRelease(
    Effect.sync(() => {
      mkdirSync(shared)
      execFileSync("mount", ["--bind", shared, shared])
      execFileSync("mount", ["--make-shared", shared])
      return shared
    }),
    () => Effect.sync(() => execFileSync("umount", ["--recursive", "--lazy", shared]))
  )
})

layer(node, { excludeTestServices: true, timeout: "1 minute" })("slots without an image of an agent in a Pod", (it) => {
  it.effect("take the root of an image whose layers only the node sees", () =>
    Effect.gen(function*() {
      const shared = yield* sharedDirectory
      const { daemon } = yield* PrivateContainerd
      const environment = {
        ...(yield* withBlanks(1)),
        FSB_STATE_DIR: shared,
        FSB_AGENT_LISTEN: `unix:${shared}/agent.sock`,
        // As the node's first process in a Pod; here that may be one that nobody may look into.
        FSB_HOST_ROOT: `/proc/${process.pid}/root`,
        // Named networks are mounts, too, of a directory that is not shared here.
        FSB_NETWORK: "none"
      }
      const hidden = `mount -t tmpfs none ${daemon.directory}/root && exec "$@"`
      const apart = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", hidden, "sh"]
      const { client, ...agent } = yield* Fixture.startProcess(environment, apart)
      yield* Fixture.untilBlank(client, 1).pipe(Effect.tapCause(() => Effect.logError(agent.output())))
      const request = Fixture.request(["cat", "/etc/passwd"])
      assert.isTrue(isBlank(yield* client.create(request)), agent.output())
      assert.lengthOf(yield* Fixture.logsOf(client, request.instanceId, true), 3)
      yield* client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
      assert.strictEqual(yield* Fixture.kill({ client, ...agent }, "SIGTERM"), 0)
    }).pipe(Effect.scoped))
})

layer(node, { excludeTestServices: true, timeout: "1 minute" })(
  "slots without an image of an agent that is killed",
  (it) => {
    it.effect("end with it and their roots too; what was claimed goes on, once", () =>
      Effect.gen(function*() {
        yield* surviveKills({
          environment: { ...(yield* withBlanks(3)), POD_UID: "uid-blank" },
          count: 3,
          after: [1, 2, 3, 5, 7, 10],
          ready: (client) => Fixture.untilBlank(client, 3)
        })
      }).pipe(Effect.scoped), 90_000)
  }
)
