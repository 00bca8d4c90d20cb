import { NodeFileSystem } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import * as ImageUser from "@fast-sandbox/containerd/ImageUser"
import { Effect, FileSystem } from "effect"

const passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\nbad:x:-1:0::/:/bin/sh\n"
const group = "root:x:0:\nstaff:x:50:app,other\nextra:x:60:app\n"

const layers = Effect.gen(function*() {
  const fileSystem = yield* FileSystem.FileSystem
  const directory = yield* fileSystem.makeTempDirectoryScoped()
  yield* fileSystem.makeDirectory(`${directory}/upper`)
  yield* fileSystem.makeDirectory(`${directory}/lower/etc`, { recursive: true })
  yield* fileSystem.writeFileString(`${directory}/lower/etc/passwd`, passwd)
  yield* fileSystem.writeFileString(`${directory}/lower/etc/group`, group)
  return { directory, layers: [`${directory}/upper`, `${directory}/lower`] }
})

const known: ReadonlyArray<readonly [string, object]> = [
  ["", { uid: 0, gid: 0 }],
  ["0", { uid: 0, gid: 0 }],
  ["root", { uid: 0, gid: 0 }],
  ["app", { uid: 1000, gid: 1001, additionalGids: [50, 60] }],
  ["1000", { uid: 1000, gid: 1001, additionalGids: [50, 60] }],
  ["4242", { uid: 4242, gid: 0 }],
  ["app:staff", { uid: 1000, gid: 50 }],
  ["7:8", { uid: 7, gid: 8 }],
  [":staff", { uid: 0, gid: 50 }]
]

describe("ImageUser", () => {
  for (const [user, expected] of known) {
    it.effect(`resolves ${JSON.stringify(user)}`, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* ImageUser.resolveUser((yield* layers).layers, user), expected)
      }).pipe(Effect.provide(NodeFileSystem.layer)))
  }

  it.effect("refuses users and groups that the image does not have", () =>
    Effect.gen(function*() {
      const all = (yield* layers).layers
      for (const user of ["ghost", "bad", "app:ghosts"]) {
        assert.strictEqual((yield* Effect.flip(ImageUser.resolveUser(all, user)))._tag, "UnknownUser")
      }
    }).pipe(Effect.provide(NodeFileSystem.layer)))

  it.effect("prefers the upper layer, and never follows a link out of the image", () =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      const { directory, layers: all } = yield* layers
      yield* fileSystem.makeDirectory(`${directory}/upper/etc`)
      yield* fileSystem.makeDirectory(`${directory}/upper/data`)
      yield* fileSystem.writeFileString(`${directory}/upper/data/users`, "app:x:77:78::/:/bin/sh\n")
      yield* fileSystem.symlink("/data/users", `${directory}/upper/etc/passwd`)
      assert.deepInclude(yield* ImageUser.resolveUser(all, "app"), { uid: 77, gid: 78 })
      yield* fileSystem.remove(`${directory}/upper/etc/passwd`)
      // The machine's own passwd knows daemon, the image's does not.
      yield* fileSystem.symlink("../../../../../../../../etc/passwd", `${directory}/upper/etc/passwd`)
      assert.strictEqual((yield* Effect.flip(ImageUser.resolveUser(all, "daemon")))._tag, "UnknownUser")
      yield* fileSystem.remove(`${directory}/upper/etc/passwd`)
      yield* fileSystem.symlink("passwd", `${directory}/upper/etc/passwd`)
      assert.strictEqual((yield* Effect.flip(ImageUser.resolveUser([`${directory}/upper`], "app")))._tag, "UnknownUser")
    }).pipe(Effect.provide(NodeFileSystem.layer)))

  it("reads the directories of a snapshot off its mounts", () => {
    assert.deepStrictEqual(
      ImageUser.layerDirectories([
        { type: "overlay", source: "overlay", options: ["index=off", "upperdir=/u", "workdir=/w", "lowerdir=/b:/a"] }
      ]),
      ["/u", "/b", "/a"]
    )
    assert.deepStrictEqual(ImageUser.layerDirectories([{ type: "bind", source: "/one", options: ["ro"] }]), ["/one"])
  })
})
