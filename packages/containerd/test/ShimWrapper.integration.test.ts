import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Schedule } from "effect"
import { execFileSync, spawnSync } from "node:child_process"
import * as ShimWrapper from "../src/internal/shimWrapper.ts"

/**
 * Plays the stock shim: answers `start` with what its environment says, leaves a sleeping process behind that looks like
 * a shim, and writes the address into the bundle when it is told to.
 */
const stock = (directory: string) =>
  `#!/bin/sh
for word; do last=$word; done
echo "$last" >>${directory}/calls
[ "$last" = start ] || exit 0
[ -z "$BUNDLE_ADDRESS" ] || printf %s "$BUNDLE_ADDRESS" >address
case "$*" in
*-anchor-*) ${directory}/containerd-shim-runc-v2-run -namespace ns -id "$8" -address sock 30 >/dev/null 2>&1 </dev/null &
  echo $! >${directory}/pid
  until grep -q v2-run /proc/$!/cmdline; do :; done ;;
esac
printf %s "$ANSWER"
`

const setUp = Effect.gen(function*() {
  const fileSystem = yield* FileSystem.FileSystem
  const directory = yield* fileSystem.makeTempDirectoryScoped()
  yield* fileSystem.writeFileString(`${directory}/containerd-shim-runc-v2`, stock(directory), { mode: 0o755 })
  yield* Effect.sync(() => execFileSync("mkfifo", [`${directory}/never`]))
  // The kernel names a script after its file, cut at 15 characters: containerd-shim. It waits without a child, which
  // would look like a shim too for a moment.
  yield* fileSystem.writeFileString(`${directory}/containerd-shim-runc-v2-run`, "#!/bin/sh\nread -r line <../never\n", {
    mode: 0o755
  })
  const script = ShimWrapper.script({ addressFile: `${directory}/a'b.address`, anchorPrefix: "it's-anchor-0-" })
  yield* fileSystem.writeFileString(`${directory}/wrapper`, script, { mode: 0o755 })
  yield* Effect.addFinalizer(() =>
    fileSystem.readFileString(`${directory}/pid`).pipe(
      Effect.flatMap((pid) => Effect.try(() => process.kill(Number(pid), "SIGKILL"))),
      Effect.ignore
    )
  )
  const call = Effect.fnUntraced(function*(
    id: string,
    action: string,
    env: Record<string, string> = {},
    ...flags: Array<string>
  ) {
    const bundle = `${directory}/bundle-${id}`
    yield* fileSystem.makeDirectory(bundle, { recursive: true })
    const args = ["-namespace", "ns", "-address", "sock", "-publish-binary", "containerd", "-id", id, action]
    const result = yield* Effect.sync(() =>
      spawnSync(`${directory}/wrapper`, [...flags, ...args], {
        cwd: bundle,
        env: { PATH: `${directory}:/usr/bin:/bin`, ...env },
        encoding: "utf8"
      })
    )
    assert.strictEqual(result.status, 0)
    // containerd takes both outputs as one answer.
    const output = result.stdout + result.stderr
    return {
      output,
      address: yield* Effect.orElseSucceed(fileSystem.readFileString(`${bundle}/address`), () => undefined)
    }
  })
  const calls = Effect.map(
    Effect.orElseSucceed(fileSystem.readFileString(`${directory}/calls`), () => ""),
    (text) => text.split("\n").filter((line) => line !== "")
  )
  return { call, calls, directory, fileSystem }
})

const anchor = "it's-anchor-0-1"

describe("the wrapper of a group's shim", () => {
  const answers = [
    ["up to containerd 1.7", "unix:///run/containerd/s/abc", "unix:///run/containerd/s/abc"],
    ["of containerd 2", "{\"version\":3,\"address\":\"unix:///s/\\\\x\",\"protocol\":\"ttrpc\"}", ""]
  ] as const
  for (const [title, answer, bundleAddress] of answers) {
    it.live(`repeats the answer ${title}, without loading the stock shim`, () =>
      Effect.gen(function*() {
        const { call, calls, directory, fileSystem } = yield* setUp
        const env = { ANSWER: answer, BUNDLE_ADDRESS: bundleAddress }
        // Nothing is known yet: a member gets what the stock shim says, and nothing else on either output.
        assert.strictEqual((yield* call("m0", "start", env)).output, answer)
        assert.strictEqual((yield* call(anchor, "start", env)).output, answer)
        assert.deepStrictEqual(yield* calls, ["start", "start"])
        const member = yield* call("m1", "start", { ANSWER: "never asked" })
        assert.deepStrictEqual(member, { output: answer, address: bundleAddress === "" ? undefined : bundleAddress })
        assert.strictEqual((yield* call("m2", "start", {}, "-debug")).output, answer)
        assert.deepStrictEqual(yield* calls, ["start", "start"])
        // A dead shim, and one whose pid belongs to another program now.
        const pid = Number(yield* fileSystem.readFileString(`${directory}/pid`))
        process.kill(pid, "SIGKILL")
        yield* fileSystem.exists(`/proc/${pid}`).pipe(
          Effect.repeat({ schedule: Schedule.spaced("20 millis"), until: (alive) => !alive }),
          Effect.timeout("5 seconds")
        )
        assert.strictEqual((yield* call("m3", "start", { ANSWER: "fresh" })).output, "fresh")
        yield* fileSystem.writeFileString(`${directory}/a'b.address`, `${process.pid}\nstale\n\n`)
        assert.strictEqual((yield* call("m4", "start", { ANSWER: "fresh" })).output, "fresh")
      }).pipe(Effect.provide(NodeServices.layer)))
  }

  it.live("loads the stock shim for a delete only while the runtime's state is there", () =>
    Effect.gen(function*() {
      const { call, calls, fileSystem } = yield* setUp
      assert.strictEqual((yield* call("gone", "delete")).output, "")
      assert.deepStrictEqual(yield* calls, [])
      yield* Effect.acquireRelease(
        fileSystem.makeDirectory("/run/containerd/runc/ns/fsb-wrapper-test", { recursive: true }),
        () => Effect.ignore(fileSystem.remove("/run/containerd/runc/ns", { recursive: true }))
      )
      yield* call("fsb-wrapper-test", "delete")
      assert.deepStrictEqual(yield* calls, ["delete"])
    }).pipe(Effect.provide(NodeServices.layer)))
})
