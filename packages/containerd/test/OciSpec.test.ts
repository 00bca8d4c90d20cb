import { assert, describe, it } from "@effect/vitest"
import * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import * as Seccomp from "@fast-sandbox/containerd/SeccompProfile"
import { Effect, Result } from "effect"

const image: OciSpec.ImageRunConfig = {
  entrypoint: ["/entry", "-x"],
  cmd: ["cmd"],
  env: ["PATH=/image", "A=1", "EQUALS=a=b"],
  workingDir: "/work",
  user: "",
  stopSignal: ""
}
const bare: OciSpec.ImageRunConfig = { entrypoint: [], cmd: [], env: [], workingDir: "", user: "", stopSignal: "" }
const base = { image, hostname: "h", cgroupsPath: "/fsb/x" } as const

const specOf = (sandbox: Partial<OciSpec.SandboxSpec>) => Effect.fromResult(OciSpec.make({ ...base, ...sandbox }))

describe("OciSpec", () => {
  const table: ReadonlyArray<readonly [OciSpec.SandboxProcess, ReadonlyArray<string>]> = [
    [{}, ["/entry", "-x", "cmd"]],
    [{ args: ["a", "b"] }, ["/entry", "-x", "a", "b"]],
    [{ command: ["c"] }, ["c"]],
    [{ command: ["c"], args: ["a"] }, ["c", "a"]],
    [{ command: [], args: [] }, ["/entry", "-x", "cmd"]]
  ]
  for (const [process, expected] of table) {
    it(`runs ${JSON.stringify(process)} as ${expected.join(" ")}`, () => {
      assert.deepStrictEqual(OciSpec.argv(image, process), Result.succeed(expected))
    })
  }

  it.effect("refuses to run nothing", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(specOf({ image: bare }))
      assert.strictEqual(error._tag, "NoCommand")
    }))

  it.effect("merges the environment by name, the sandbox's last", () =>
    Effect.gen(function*() {
      const { process } = yield* specOf({ env: { A: "2", B: "" } })
      assert.deepStrictEqual(process.env, ["PATH=/image", "HOSTNAME=h", "A=2", "EQUALS=a=b", "B="])
      const plain = yield* specOf({ image: { ...bare, cmd: ["x"] }, terminal: true })
      assert.deepStrictEqual(plain.process.env.map((variable) => variable.split("=")[0]), ["PATH", "HOSTNAME", "TERM"])
    }))

  it.effect("starts in the sandbox's directory, the image's, or the root", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* specOf({ workingDir: "/mine" })).process.cwd, "/mine")
      assert.strictEqual((yield* specOf({})).process.cwd, "/work")
      assert.strictEqual((yield* specOf({ image: { ...image, workingDir: "rel" } })).process.cwd, "/rel")
      assert.strictEqual((yield* specOf({ image: { ...image, workingDir: "" } })).process.cwd, "/")
    }))

  it.effect("gives namespaces of its own, and joins only a network", () =>
    Effect.gen(function*() {
      const { linux } = yield* specOf({ netnsPath: "/run/netns/sbx1" })
      assert.deepStrictEqual(linux.namespaces.map(({ type }) => type).toSorted(), [
        "cgroup",
        "ipc",
        "mount",
        "network",
        "pid",
        "uts"
      ])
      assert.deepStrictEqual(linux.namespaces.filter(({ path }) => path !== undefined), [
        { type: "network", path: "/run/netns/sbx1" }
      ])
    }))

  it.effect("gives no privileges beyond the documented ones", () =>
    Effect.gen(function*() {
      const root = (yield* specOf({})).process
      assert.isTrue(root.noNewPrivileges)
      for (
        const capability of ["SYS_ADMIN", "NET_RAW", "NET_ADMIN", "MKNOD", "SYS_PTRACE", "SETFCAP", "DAC_READ_SEARCH"]
      ) {
        assert.notInclude(root.capabilities.bounding, `CAP_${capability}`)
      }
      const plain = (yield* specOf({ user: { uid: 1000, gid: 1000 } })).process
      assert.deepStrictEqual([plain.capabilities.effective, plain.capabilities.permitted], [[], []])
    }))

  it("limits everything by default, and in the kernel's units", () => {
    assert.deepInclude(OciSpec.makeResources({}), {
      memory: { limit: 536870912 },
      cpu: { period: 100000, quota: 100000, shares: 1024 },
      pids: { limit: 512 }
    })
    assert.deepStrictEqual(OciSpec.makeResources({ cpu: 0.0001 }).cpu, { period: 100000, quota: 1000, shares: 2 })
    assert.deepStrictEqual(OciSpec.makeResources({ cpu: 2.5 }).cpu, { period: 100000, quota: 250000, shares: 2560 })
    assert.deepStrictEqual(OciSpec.makeResources({}).devices?.[0], { allow: false, access: "rwm" })
  })

  it.effect("weighs more while it is made, and nothing else changes", () =>
    Effect.gen(function*() {
      const sharesOf = ({ linux }: OciSpec.Spec) => linux.resources.cpu?.shares
      const spec = yield* specOf({ resources: { cpu: 0.5 } })
      const starting = OciSpec.whileStarting(spec)
      assert.deepStrictEqual([sharesOf(spec), sharesOf(starting)], [512, 8192])
      const cpu = { ...starting.linux.resources.cpu, shares: 512 }
      const resources = { ...starting.linux.resources, cpu }
      assert.deepStrictEqual({ ...starting, linux: { ...starting.linux, resources } }, spec)
      // The most that the kernel takes.
      assert.strictEqual(sharesOf(OciSpec.whileStarting(yield* specOf({ resources: { cpu: 100 } }))), 262_144)
    }))
})

describe.each(["x64", "arm64"])("the seccomp profile of %s", (architecture) => {
  const { architectures, syscalls } = Seccomp.profileFor(architecture) ?? assert.fail("there is one")
  const allowed = new Set(syscalls.filter(({ action }) => action === "SCMP_ACT_ALLOW").flatMap(({ names }) => names))
  it("answers each call in one way, and is for one architecture", () => {
    const named = syscalls.filter(({ args }) => args === undefined).flatMap(({ names }) => names)
    assert.deepStrictEqual(named.filter((name, position) => named.indexOf(name) !== position), [])
    assert.lengthOf(architectures, 1)
  })
  it("refuses what reaches beyond a sandbox", () => {
    for (const name of ["mount", "unshare", "setns", "bpf", "keyctl", "io_uring_setup", "kexec_load", "clone3"]) {
      assert.isFalse(allowed.has(name), name)
    }
  })
  it("allows what every program does", () => {
    for (const name of ["read", "openat", "execve", "clone", "futex", "mmap", "socket", "ppoll", "getdents64"]) {
      assert.isTrue(allowed.has(name), name)
    }
  })
})

it("has no seccomp profile for an unknown architecture", () => {
  assert.isUndefined(Seccomp.profileFor("mips"))
  assert.isUndefined(Seccomp.profileFor("toString"))
})
