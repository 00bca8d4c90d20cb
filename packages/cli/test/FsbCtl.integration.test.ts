import { assert, describe, it } from "@effect/vitest"
import { version } from "@fast-sandbox/core/Version"
import { Effect, Ref, Schedule, SubscriptionRef } from "effect"
import { execFile, spawn } from "node:child_process"
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { promisify } from "node:util"
import { parse } from "yaml"
import { Fake } from "../../client/test/FakeFastPath.ts"
import * as FsbCtl from "./FsbCtl.ts"

const call = (...args: ReadonlyArray<string>) => FsbCtl.FsbCtl.use(({ run }) => run(args))

const names = Effect.map(Fake.use(({ state }) => SubscriptionRef.get(state)), (state) => [...state.keys()])

/** Every test has a server of its own. */
const test = <A, E>(name: string, body: () => Effect.Effect<A, E, FsbCtl.FsbCtl | Fake>) =>
  it.live(name, () => Effect.provide(body(), FsbCtl.layer()))

const STARTED = /^[\w-]+: started in \d+(\.\d)? ms \(parked\)\n/

describe("run", () => {
  test("prints what the program prints and ends with its code", () =>
    Effect.gen(function*() {
      const hello = yield* call("run", "--image", "alpine", "--", "echo", "hello", "there")
      assert.deepStrictEqual([hello.code, hello.stdout], [0, "hello there\n"])
      assert.match(hello.stderr, STARTED)
      const three = yield* call("run", "bad", "--image", "alpine", "--", "complain", "oh")
      assert.deepStrictEqual([three.code, three.stdout], [3, ""])
      assert.strictEqual(three.stderr.replace(STARTED, ""), "oh\n")
      const killed = yield* call("run", "--image", "alpine", "--", "die", "9")
      assert.strictEqual(killed.code, 137)
      assert.include(killed.stderr, "Failed, signal 9")
    }))

  test("leaves the sandbox, or deletes it with --rm", () =>
    Effect.gen(function*() {
      yield* call("run", "kept", "--image", "alpine", "--", "echo", "x")
      const gone = yield* call("run", "gone", "--rm", "--image", "alpine", "--", "complain", "x")
      assert.strictEqual(gone.code, 3)
      assert.deepStrictEqual(yield* names, ["default/kept"])
    }))

  test("in the background prints the name, or what -o asks for", () =>
    Effect.gen(function*() {
      const web = yield* call("run", "web", "-d", "--image", "alpine", "--ports", "80,443")
      assert.deepStrictEqual([web.code, web.stdout], [0, "web\n"])
      const json = yield* call("run", "-d", "-o", "json", "--image", "alpine")
      assert.strictEqual(JSON.parse(json.stdout).kind, "Sandbox")
      const name = yield* call("run", "api", "-d", "-o", "name", "--image", "alpine")
      assert.strictEqual(name.stdout, "sandbox/api\n")
    }))

  test("sends what the flags say", () =>
    Effect.gen(function*() {
      const { run } = yield* FsbCtl.FsbCtl
      const flags =
        "--image alpine --pool default-pool --mode strong --ports 80 --ports 90,91 -e A=1 -e B= -e C -e NOT_SET " +
        "-u 1000:99 --read-only --cpus 0.5 -m 64Mi -l app=x --label tier=web"
      const { code } = yield* run(
        [..."run x -d -w /srv --ttl 1h30m --failure-policy AutoRecreate -n team".split(" "), ...flags.split(" ")],
        { env: { C: "from here" } }
      )
      assert.strictEqual(code, 0)
      const [request] = yield* Fake.use(({ creates }) => Ref.get(creates))
      assert.deepInclude({ ...request }, {
        name: "x",
        namespace: "team",
        image: "alpine",
        consistencyMode: 1,
        failurePolicy: 1,
        exposedPorts: [80, 90, 91],
        envs: { A: "1", B: "", C: "from here" },
        workingDir: "/srv",
        ttlSeconds: 5400n,
        args: []
      })
      assert.deepInclude(request?.securityContext, { runAsUser: 1000, runAsGroup: 99, readOnlyRootFilesystem: true })
      assert.deepInclude(request?.resources, { cpu: "0.5", memory: "64Mi" })
      assert.deepStrictEqual(request?.labels, { app: "x", tier: "web" })
    }))

  test("reads a file of its own keys; flags go before it", () =>
    Effect.gen(function*() {
      const { write } = yield* FsbCtl.FsbCtl
      write(
        "job.yaml",
        "image: alpine\npool_ref: nope\nargs: [echo, 1]\nenvs: { A: file, B: 2 }\nexposed_ports: [80]\nworking_dir: /srv\nconsistency_mode: strong\n"
      )
      const { code, stderr, stdout } = yield* call(
        ..."run job -f job.yaml --pool default-pool -e A=flag --rm".split(" ")
      )
      assert.deepStrictEqual([code, stdout], [0, "1\n"], stderr)
      const [request] = yield* Fake.use(({ creates }) => Ref.get(creates))
      assert.deepInclude({ ...request }, {
        args: ["echo", "1"],
        envs: { A: "flag", B: "2" },
        exposedPorts: [80],
        workingDir: "/srv",
        consistencyMode: 1
      })
    }))

  test("reads a Kubernetes Sandbox from stdin", () =>
    Effect.gen(function*() {
      const { run } = yield* FsbCtl.FsbCtl
      const manifest = {
        apiVersion: "sandbox.fast.io/v1alpha1",
        kind: "Sandbox",
        metadata: { name: "k8s", namespace: "team", labels: { app: "x" } },
        spec: {
          image: "alpine",
          poolRef: "default-pool",
          args: ["echo", "hi"],
          envs: [{ name: "A", value: "1" }],
          resources: { cpu: "500m" }
        }
      }
      const { code, stderr, stdout } = yield* run(["run", "-f", "-"], { input: JSON.stringify(manifest) })
      assert.deepStrictEqual([code, stdout], [0, "hi\n"], stderr)
      assert.deepStrictEqual(yield* names, ["team/k8s"])
      const [request] = yield* Fake.use(({ creates }) => Ref.get(creates))
      assert.deepStrictEqual([request?.labels, request?.envs, request?.resources?.cpu], [
        { app: "x" },
        { A: "1" },
        "500m"
      ])
    }))

  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    test(`${signal} stops the program, prints its last words, and deletes it with --rm`, () =>
      Effect.gen(function*() {
        const { start } = yield* FsbCtl.FsbCtl
        const running = yield* start(["run", "web", "--rm", "--image", "alpine"])
        yield* running.printed("ready")
        running.process.kill(signal)
        const { code, stdout } = yield* running.ended
        assert.strictEqual(code, { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }[signal])
        assert.strictEqual(stdout, "ready\nbye\n")
        assert.deepStrictEqual(yield* names, [])
      }).pipe(Effect.scoped))
  }

  test("Ctrl-C without --rm stops it and keeps it", () =>
    Effect.gen(function*() {
      const { start } = yield* FsbCtl.FsbCtl
      const running = yield* start(["run", "web", "--image", "alpine"])
      yield* running.printed("ready")
      running.process.kill("SIGINT")
      assert.strictEqual((yield* running.ended).code, 130)
      const state = yield* Fake.use(({ state }) => SubscriptionRef.get(state))
      assert.strictEqual(state.get("default/web")?.phase, "Expired")
    }).pipe(Effect.scoped))

  test("Ctrl-C while it is being created leaves nothing", () =>
    Effect.gen(function*() {
      const { start } = yield* FsbCtl.FsbCtl
      const running = yield* start(["run", "late", "--image", "alpine", "--", "slow"])
      yield* Effect.repeat(names, { until: (all) => all.length === 1, schedule: Schedule.spaced("10 millis") })
      running.process.kill("SIGINT")
      assert.strictEqual((yield* running.ended).code, 130)
      assert.deepStrictEqual(yield* names, [])
    }).pipe(Effect.scoped))
})

describe("list and get", () => {
  test("every form", () =>
    Effect.gen(function*() {
      yield* call("run", "web", "-d", "--image", "docker.io/library/alpine:3", "--ports", "80")
      yield* call("run", "job", "-d", "-n", "team", "--image", "alpine", "--", "complain", "x")
      const table = yield* call("list")
      assert.match(
        table.stdout,
        /^NAME {2}PHASE {4}IMAGE {5}POOL {10}AGENT {21}AGE\nweb {3}Running {2}alpine:3 {2}default-pool {2}default-pool-agent-abcde {2}\d+y\d+d\n$/
      )
      const all = yield* call("ls", "-A", "-o", "wide")
      assert.match(all.stdout, /^NAMESPACE {2}NAME .* ENDPOINTS\ndefault .* 10\.0\.0\.7:80\nteam .* 3 .* -\n$/)
      assert.strictEqual((yield* call("ls", "-A", "-o", "name")).stdout, "sandbox/web\nsandbox/job\n")
      const list = JSON.parse((yield* call("ls", "-A", "-o", "json")).stdout)
      assert.deepStrictEqual([list.apiVersion, list.kind, list.items.length, list.items[0].kind], [
        "v1",
        "List",
        2,
        "Sandbox"
      ])
      assert.deepStrictEqual(parse((yield* call("ls", "-A", "-o", "yaml")).stdout), list)
      const one = JSON.parse((yield* call("get", "web", "-o", "json")).stdout)
      assert.strictEqual((yield* call("get", "sandbox/web", "-o", "name")).stdout, "sandbox/web\n")
      assert.deepStrictEqual([one.kind, one.metadata.name], ["Sandbox", "web"])
      const details = yield* call("get", "job", "-n", "team")
      assert.include(details.stdout, "Ended with:  code 3\n")
      assert.include(details.stdout, "parked, 3.8 ms (claim 1.3 ms, exec 2.5 ms)")
      const empty = yield* call("ls", "-n", "none")
      assert.deepStrictEqual([empty.code, empty.stdout, empty.stderr], [0, "", "no sandboxes in the namespace none\n"])
    }))

  test("-w goes on with every change until it is interrupted", () =>
    Effect.gen(function*() {
      const { start } = yield* FsbCtl.FsbCtl
      yield* call("run", "a", "-d", "--image", "alpine")
      const running = yield* start(["list", "-w"])
      yield* running.printed("a     Running")
      yield* call("run", "a-longer-name", "-d", "--image", "alpine")
      yield* running.printed("a-longer-name")
      yield* call("delete", "a")
      yield* running.printed("Deleting")
      running.process.kill("SIGINT")
      const { code, stdout } = yield* running.ended
      assert.strictEqual(code, 130)
      assert.strictEqual(stdout.split("NAME").length, 2)
    }).pipe(Effect.scoped))
})

describe("logs", () => {
  test("forms", () =>
    Effect.gen(function*() {
      yield* call("run", "n", "-d", "--image", "alpine", "--", "count", "5")
      assert.strictEqual((yield* call("logs", "n", "--tail", "2")).stdout, "line 4\nline 5\n")
      const stamped = yield* call("logs", "n", "--tail", "1", "--timestamps")
      assert.strictEqual(stamped.stdout, "2023-11-14T22:13:20.004000000Z line 5\n")
      const since = yield* call("logs", "n", "--since", "2023-11-14T22:13:20.003Z")
      assert.strictEqual(since.stdout, "line 4\nline 5\n")
      const json = yield* call("logs", "n", "--tail", "1", "-o", "json")
      assert.deepInclude(JSON.parse(json.stdout), { stream: "stdout", text: "line 5" })
    }))

  test("Ctrl-C ends a follow and nothing else", () =>
    Effect.gen(function*() {
      const { start } = yield* FsbCtl.FsbCtl
      yield* call("run", "web", "-d", "--image", "alpine")
      const running = yield* start(["logs", "-f", "web"])
      yield* running.printed("ready")
      running.process.kill("SIGINT")
      const { code, stderr, stdout } = yield* running.ended
      assert.deepStrictEqual([code, stdout, stderr], [130, "ready\n", ""])
      assert.deepStrictEqual(yield* names, ["default/web"])
    }).pipe(Effect.scoped))

  test("a follow ends with the program", () =>
    Effect.gen(function*() {
      const { start } = yield* FsbCtl.FsbCtl
      yield* call("run", "web", "-d", "--image", "alpine")
      const running = yield* start(["logs", "-f", "web"])
      yield* running.printed("ready")
      yield* call("update", "web", "--expire-time", "2000-01-01T00:00:00Z")
      const { code, stdout } = yield* running.ended
      assert.deepStrictEqual([code, stdout], [0, "ready\nbye\n"])
    }).pipe(Effect.scoped))

  test("a closed pipe is quiet", () =>
    Effect.gen(function*() {
      const { home } = yield* FsbCtl.FsbCtl
      yield* call("run", "n", "-d", "--image", "alpine", "--", "count", "20000")
      const { start } = yield* FsbCtl.FsbCtl
      const running = yield* start(["logs", "n"])
      running.process.stdout.once("data", () => running.process.stdout.destroy())
      const { code, stderr } = yield* running.ended
      assert.deepStrictEqual([code, stderr], [141, ""])
      assert.isTrue(existsSync(home))
    }).pipe(Effect.scoped))
})

/** Every command that does something. */
const commands: ReadonlyArray<string> = [
  ..."run list get describe logs events wait update reset delete prune up down doctor".split(" "),
  ..."exec attach cp port-forward stats top completion version".split(" "),
  ..."pool list,pool get,pool create,pool scale,pool delete".split(","),
  ..."agent list,agent drain,agent resume,image pull,image load,image list,image remove".split(","),
  ..."config view,config set,config unset,config get-contexts,config use-context".split(",")
]

describe("the rest", () => {
  test("delete", () =>
    Effect.gen(function*() {
      yield* call("run", "a", "-d", "--image", "alpine")
      yield* call("run", "b", "-d", "--image", "alpine")
      const { code, stderr, stdout } = yield* call("rm", "a", "nope", "b")
      assert.strictEqual(code, 125)
      assert.sameMembers(stdout.trim().split("\n"), ["a", "b"])
      assert.strictEqual(stderr, "fsb-ctl: sandbox nope not found; see 'fsb-ctl list'\n")
      assert.deepStrictEqual(yield* names, [])
    }))

  test("update, reset, wait", () =>
    Effect.gen(function*() {
      const { start } = yield* FsbCtl.FsbCtl
      yield* call("run", "web", "-d", "--image", "alpine")
      const changed = yield* call(
        "update",
        "web",
        "--ttl",
        "never",
        "--recovery-timeout",
        "2m",
        "-l",
        "a=b",
        "-l",
        "c-"
      )
      assert.deepStrictEqual([changed.code, changed.stdout], [0, "web\n"])
      const updates = yield* Fake.use(({ updates }) => Ref.get(updates))
      assert.deepStrictEqual(updates.map(({ labels, update }) => [update.case, update.value, labels]), [
        ["expireTimeSeconds", 0n, { a: "b", c: "" }],
        ["recoveryTimeoutSeconds", 120, {}]
      ])
      assert.strictEqual((yield* call("restart", "web")).stdout, "web\n")
      assert.strictEqual((yield* call("wait", "web", "--for", "Running")).stdout, "Running\n")
      const late = yield* call("wait", "web", "--timeout", "50ms")
      assert.strictEqual(late.code, 125)
      const gone = yield* start(["wait", "web", "--for", "deletion"])
      yield* call("delete", "web")
      assert.deepInclude(yield* gone.ended, { code: 0, stdout: "", stderr: "" })
      yield* call("run", "job", "-d", "--image", "alpine", "--", "complain", "x")
      assert.deepInclude(yield* call("wait", "job"), { code: 0, stdout: "3\n" })
    }).pipe(Effect.scoped))

  test("images", () =>
    Effect.gen(function*() {
      const { write } = yield* FsbCtl.FsbCtl
      const list = yield* call("image", "list")
      assert.strictEqual(
        list.stdout,
        "IMAGE          SIZE   NODES  DIGEST\nalpine:latest  3.4MB  1      sha256:aaaaaaaaaaaa\n"
      )
      assert.strictEqual(JSON.parse((yield* call("image", "ls", "-o", "json")).stdout).items[0].kind, "Image")
      const pull = yield* call("image", "pull", "alpine")
      assert.deepStrictEqual([pull.code, pull.stdout], [0, "alpine\n"])
      assert.strictEqual(pull.stderr, "node-1: alpine transferring\nnode-1: alpine unpacking\nnode-1: alpine done\n")
      write("image.tar", "x".repeat(600_000))
      assert.strictEqual((yield* call("image", "load", "image.tar")).stdout, "docker.io/library/loaded:latest\n")
      assert.strictEqual(yield* Fake.use(({ loaded }) => Ref.get(loaded)), 600_000)
      assert.strictEqual((yield* call("image", "remove", "alpine")).stdout, "node-1\n")
    }))

  test("configuration", () =>
    Effect.gen(function*() {
      const { home, run, write } = yield* FsbCtl.FsbCtl
      mkdirSync(join(home, ".fsb"))
      write(
        ".fsb/config.json",
        JSON.stringify({
          namespace: "filed",
          contexts: { prod: { endpoint: "prod:1", namespace: "p", token: "s3cret" } }
        })
      )
      const view = yield* call("config", "view")
      assert.match(
        view.stdout,
        /endpoint {3}127\.0\.0\.1:\d+ {2}environment\nnamespace {2}filed .* \.\/\.fsb\/config\.json\n/
      )
      const prod = yield* run(["config", "view", "--context", "prod"], { env: { FSB_NAMESPACE: "e" } })
      assert.match(prod.stdout, /endpoint {3}prod:1 {4}context prod, flags\nnamespace {2}p /)
      assert.notInclude(prod.stdout, "s3cret")
      assert.strictEqual((yield* call("ls")).stderr, "no sandboxes in the namespace filed\n")
      const unknown = yield* call("ls", "--context", "nope")
      assert.deepStrictEqual([unknown.code, unknown.stdout], [125, ""])
      assert.include(unknown.stderr, "choose one of prod")
      write(".fsb/config.json", "{\n  \"namespace\": \"x\",,\n}")
      assert.match((yield* call("ls")).stderr, /^fsb-ctl: \.\/?\.?fsb\/config\.json:2 is not JSON: .*\n$/)
    }))

  test("config set, unset, contexts", () =>
    Effect.gen(function*() {
      const { home, run } = yield* FsbCtl.FsbCtl
      assert.strictEqual((yield* call("config", "set", "contexts.my.prod.endpoint", "prod:1")).code, 0)
      yield* call("config", "set", "contexts.far.kubernetes.context", "admin")
      yield* call("config", "set", "contexts.far.kubernetes.port", "7")
      yield* call("config", "use-context", "far")
      const file = join(home, ".fsb/config.json")
      assert.deepStrictEqual(JSON.parse(readFileSync(file, "utf8")), {
        context: "far",
        contexts: { "my.prod": { endpoint: "prod:1" }, far: { kubernetes: { context: "admin", port: 7 } } }
      })
      assert.strictEqual(statSync(file).mode & 0o777, 0o600)
      const contexts = yield* call("config", "get-contexts")
      assert.match(
        contexts.stdout,
        /^CURRENT {2}NAME {5}SERVER .*\n- +my\.prod +prod:1 .*\n\* +far +fast-sandbox-system\/fastpath:7 through the context admin/
      )
      const before = readFileSync(file, "utf8")
      for (
        const [args, says] of [
          ["set endpont x", "endpont: there is no such key"],
          ["set contexts.far.kubernetes.port 99999", "contexts.far.kubernetes.port: "],
          ["unset nope", "has no nope"],
          ["use-context nope", "there is no context \"nope\""]
        ] as const
      ) {
        const { code, stderr, stdout } = yield* call("config", ...args.split(" "))
        assert.deepStrictEqual([code, stdout], [125, ""], args)
        assert.include(stderr, says)
      }
      assert.strictEqual(readFileSync(file, "utf8"), before)
      yield* call("config", "unset", "contexts.far")
      assert.deepStrictEqual(Object.keys(JSON.parse(readFileSync(file, "utf8"))), ["contexts"])
      const unknown = yield* run(["ls"], { env: { FSB_CONTEXT: "far" } })
      assert.include(unknown.stderr, "there is no context \"far\" (named by environment); choose one of my.prod")
    }))

  test("completion asks the server for names", () =>
    Effect.gen(function*() {
      const { home, run } = yield* FsbCtl.FsbCtl
      const { stdout } = yield* call("completion", "bash")
      yield* call("run", "web", "-d", "--image", "alpine")
      yield* call("run", "job", "-d", "--image", "alpine")
      const endpoint = JSON.parse((yield* run(["config", "view", "-o", "json"])).stdout).endpoint
      const script = `${stdout}\nCOMP_WORDS=(fsb-ctl "$@"); COMP_CWORD=$#; _fsb_ctl; echo "\${COMPREPLY[*]}"`
      const env = {
        PATH: `${join(import.meta.dirname, "../../../bin")}:${process.env.PATH}`,
        HOME: home,
        FSB_ENDPOINT: endpoint
      }
      const complete = (...words: ReadonlyArray<string>) =>
        Effect.promise(() => promisify(execFile)("bash", ["-c", script, "bash", ...words], { env })).pipe(
          Effect.map(({ stdout }) => stdout.trim())
        )
      assert.strictEqual(yield* complete("delete", ""), "web job")
      assert.strictEqual(yield* complete("delete", "web", "j"), "job")
      assert.strictEqual(yield* complete("pool", "sc"), "scale")
      assert.strictEqual(yield* complete("run", "--pool", "d"), "default-pool")
      assert.strictEqual(yield* complete("agent", "drain", ""), "default-pool-agent-abcde")
      assert.include(yield* complete("logs", "--t"), "--tail")
      assert.strictEqual((yield* run(["__complete", "get", ""], { env: { FSB_ENDPOINT: "127.0.0.1:1" } })).stdout, "")
      assert.include((yield* call("completion", "fish")).stdout, "complete -c fsb-ctl")
      assert.include((yield* call("completion", "zsh")).stdout, "compdef _fsb_ctl fsb-ctl")
    }))

  test("delete and prune choose many", () =>
    Effect.gen(function*() {
      yield* call("run", "web", "-d", "--image", "alpine")
      yield* call("update", "web", "-l", "app=web")
      yield* call("run", "api", "-d", "--image", "alpine")
      yield* call("run", "done", "-d", "--image", "alpine", "--", "echo", "x")
      yield* call("run", "away", "-d", "-n", "team", "--image", "alpine", "--", "echo", "x")
      assert.strictEqual((yield* call("prune", "--dry-run", "-A")).stdout, "done\naway\n")
      assert.deepInclude(yield* call("prune", "--older-than", "100000d"), { code: 0, stdout: "" })
      assert.strictEqual((yield* call("prune")).stdout, "done\n")
      assert.strictEqual((yield* call("rm", "-l", "app=web", "--force")).stdout, "web\n")
      assert.deepInclude(yield* call("rm", "-l", "app=web"), {
        code: 0,
        stdout: "",
        stderr: "no sandboxes to delete\n"
      })
      assert.include((yield* call("rm", "api", "--all")).stderr, "but not both")
      assert.strictEqual((yield* call("rm", "--all", "-A")).code, 0)
      assert.deepStrictEqual(yield* names, [])
    }))

  test("pools and agents", () =>
    Effect.gen(function*() {
      const { run } = yield* FsbCtl.FsbCtl
      assert.match((yield* call("pool", "ls")).stdout, /^NAME .*\ndefault-pool {2}1\/2 {5}3\/10 {3}4 /)
      assert.strictEqual(
        (yield* call("pool", "create", "small", "--min", "1", "--warm", "alpine=3", "--cpu", "500m")).stdout,
        "small\n"
      )
      const file = JSON.stringify({
        apiVersion: "sandbox.fast.io/v1alpha1",
        kind: "SandboxPool",
        metadata: { name: "filed", namespace: "team" },
        spec: { maxSandboxesPerPod: 2, capacity: { poolMax: 4 } }
      })
      assert.strictEqual((yield* run(["pool", "create", "-f", "-", "--min", "2"], { input: file })).stdout, "filed\n")
      const pools = yield* Fake.use(({ pools }) => Ref.get(pools))
      assert.deepNestedInclude(pools.get("default/small"), {
        "spec.capacity.poolMin": 1,
        "spec.warmImages[0].parked": 3,
        "spec.sandboxResources.cpu": "500m"
      })
      assert.deepNestedInclude(pools.get("team/filed"), {
        "spec.capacity.poolMin": 2,
        "spec.capacity.poolMax": 4,
        "spec.maxSandboxesPerPod": 2
      })
      const bad = yield* run(["pool", "create", "-f", "-"], {
        input: "apiVersion: sandbox.fast.io/v1alpha1\nkind: SandboxPool\nmetadata: {}\nspec:\n  maxSandboxesPerPod: 0\n"
      })
      assert.match(bad.stderr, /^fsb-ctl: stdin:5: spec\.maxSandboxesPerPod: .*\n$/)
      assert.strictEqual(
        (yield* call("pool", "scale", "small", "--min", "3", "-o", "jsonpath={.spec.capacity.poolMin}")).stdout,
        "3"
      )
      assert.include((yield* call("pool", "scale", "small")).stderr, "nothing to change")
      assert.include((yield* call("pool", "get", "default-pool")).stdout, "Lacks:            fewer agents answer")
      assert.include((yield* call("pool", "delete", "default-pool")).stderr, "holds 3 sandboxes")
      assert.strictEqual((yield* call("pool", "rm", "default-pool", "--force")).stdout, "default-pool\n")
      assert.match((yield* call("agent", "ls", "-o", "wide")).stdout, / Ready {2}3\/10 .* node-1 {2}2 +runs crun\n$/)
      const drained = yield* call("agent", "drain", "default-pool-agent-abcde")
      assert.deepStrictEqual([drained.code, drained.stdout], [0, "default-pool-agent-abcde\n"])
      assert.include(drained.stderr, "when its 3 sandboxes have ended")
      yield* call("agent", "resume", "default-pool-agent-abcde")
      assert.deepStrictEqual(yield* Fake.use(({ agentCalls }) => Ref.get(agentCalls)), [
        "drain default-pool-agent-abcde",
        "resume default-pool-agent-abcde"
      ])
    }))

  test("what happened, and why it is as it is", () =>
    Effect.gen(function*() {
      const { start } = yield* FsbCtl.FsbCtl
      yield* call("run", "web", "-d", "--image", "alpine")
      assert.match(
        (yield* call("events")).stdout,
        /^AGE .*\n\S+ +Normal +Created +pool\/default-pool +an agent was made\n/
      )
      assert.strictEqual(
        (yield* call("events", "pool/default-pool", "-o", "jsonpath={.items[*].reason}")).stdout,
        "Created"
      )
      assert.include((yield* call("events", "thing/x")).stderr, "is none of NAME, pool/NAME, agent/NAME")
      const watching = yield* start(["events", "web", "-w"])
      yield* watching.printed("out of memory (2 times)")
      watching.process.kill("SIGINT")
      assert.strictEqual((yield* watching.ended).code, 130)
      const { stdout } = yield* call("describe", "web")
      assert.match(
        stdout,
        /^Name: +web\n[^]*\nWhere the time of its start went:\n +1\.3 ms {2}#{10} [^]*\nEvents:\n {2}AGE /
      )
    }).pipe(Effect.scoped))

  test("version of both sides", () =>
    Effect.gen(function*() {
      const { run } = yield* FsbCtl.FsbCtl
      assert.strictEqual((yield* call("version")).stdout, `client ${version}\nserver 0.0.9\n`)
      assert.deepInclude(JSON.parse((yield* call("version", "-o", "json")).stdout).server, { version: "0.0.9" })
      const alone = yield* run(["version"], { env: { FSB_ENDPOINT: "unix:/nowhere" } })
      assert.deepStrictEqual([alone.code, alone.stdout], [125, `client ${version}\n`])
      assert.include(alone.stderr, "can't reach the server at unix:/nowhere")
      assert.strictEqual((yield* run(["version", "--client"], { env: { FSB_ENDPOINT: "unix:/nowhere" } })).code, 0)
    }))

  test("order, templates, quiet, and where the time went", () =>
    Effect.gen(function*() {
      for (const name of ["b", "a", "c"]) yield* call("run", name, "-d", "--image", "alpine")
      assert.strictEqual((yield* call("ls", "--sort-by", "name", "-q")).stdout, "a\nb\nc\n")
      assert.strictEqual((yield* call("ls", "-q")).stdout, "b\na\nc\n")
      const template = "jsonpath={range .items[*]}{.metadata.name}={.spec.image}{\"\\n\"}{end}"
      assert.strictEqual((yield* call("ls", "-o", template)).stdout, "b=alpine\na=alpine\nc=alpine\n")
      assert.include(
        (yield* call("ls", "-o", "jsonpath={range .items[*]}")).stderr,
        "-o jsonpath: {range} without {end}"
      )
      assert.deepStrictEqual(yield* call("run", "d", "-dq", "--image", "alpine"), {
        code: 0,
        signal: null,
        stdout: "d\n",
        stderr: ""
      })
      assert.match((yield* call("rm", "nope", "-q")).stderr, /^fsb-ctl: sandbox nope not found/)
      assert.match(
        (yield* call("ls", "--trace")).stderr,
        /^ +[\d.]+ ms {2}start of fsb-ctl\n +[\d.]+ ms {2}ListSandboxes \(call\)\n +[\d.]+ ms {2}fsb-ctl itself\n +[\d.]+ ms {2}all of it\n$/
      )
    }))

  test("help fits in 80 columns and shows an example for every command", () =>
    Effect.gen(function*() {
      for (const command of ["", ...commands]) {
        const { code, stderr, stdout } = yield* call(...command.split(" ").filter((word) => word !== ""), "--help")
        assert.deepStrictEqual([code, stderr], [0, ""], command)
        assert.match(stdout, /^Usage: fsb-ctl/)
        assert.include(stdout, "Examples:\n  ", command)
        const tooLong = stdout.split("\n").filter((line) => line.length > 80)
        assert.deepStrictEqual(tooLong, [], command)
      }
      const bare = yield* call()
      assert.deepStrictEqual([bare.code, bare.stderr], [0, ""])
      assert.match(bare.stdout, /^Usage: fsb-ctl COMMAND/)
    }))
})

/** What stands for numbers. */
const numeric = /^(N|AGENTS|SLOTS)$/

/** The flags that a help names, with values that they don't take. */
const flagsOf = (help: string): ReadonlyArray<string> =>
  [...help.matchAll(/^ {2}(?:-\w, | {4})(--[\w-]+)(?: (\S+))?/gm)]
    .filter(([, name]) => name !== "--help" && name !== "--version")
    .flatMap(([, name = "", metavar]) =>
      metavar === undefined ? [`${name}=maybe`] : numeric.test(metavar) ? [name, `${name}=1.5`] : [name]
    )

/** Something for every operand that a help's usage asks for. */
const operandsOf = (help: string): ReadonlyArray<string> => {
  const [, usage = ""] = /^Usage: .* \[FLAGS\](.*)$/m.exec(help) ?? []
  return (usage.split(" | ")[0] ?? "").match(/(?<!\[)\b[A-Z]+\b/g)?.map(() => "x") ?? []
}

describe("what is wrong is one line", () => {
  test("a flag that no command has, for every command", () =>
    Effect.gen(function*() {
      for (const command of commands) {
        const { code, stderr, stdout } = yield* call(...command.split(" "), "--nonsense")
        assert.deepStrictEqual([code, stdout], [125, ""], command)
        assert.match(
          stderr,
          new RegExp(`^fsb-ctl ${command}: there is no flag --nonsense.*\nSee 'fsb-ctl ${command} --help'\n$`)
        )
      }
      assert.deepStrictEqual(yield* names, [])
    }))

  test("a value that no flag takes, for every flag of every command", () =>
    Effect.gen(function*() {
      const { run } = yield* FsbCtl.FsbCtl
      const refused = Effect.fnUntraced(function*(command: string, operands: ReadonlyArray<string>, flag: string) {
        const { code, stderr, stdout } = yield* run([...command.split(" "), ...operands, flag])
        assert.deepStrictEqual([code, stdout], [125, ""], `${command} ${flag}`)
        const [name = ""] = flag.split("=")
        assert.match(
          stderr,
          new RegExp(
            `^fsb-ctl ${command}: ${name}(: "\\S+" is not (true or false|a whole number)| needs a value \\(.+\\))\n` +
              `See 'fsb-ctl ${command} --help'\n$`
          )
        )
      })
      for (const command of commands) {
        const { stdout } = yield* run([...command.split(" "), "--help"])
        const [own = "", global = ""] = stdout.split("Global flags:")
        // those of every command are looked at once
        const flags = flagsOf(command === "list" ? own + global : own)
        yield* Effect.forEach(flags, (flag) => refused(command, operandsOf(stdout), flag), {
          concurrency: 2,
          discard: true
        })
      }
      assert.deepStrictEqual(yield* names, [])
    }))

  const cases: ReadonlyArray<{
    readonly what: string
    readonly args: string
    readonly says: string
    readonly code?: number
    readonly usage?: string
  }> = [
    {
      what: "an unknown flag",
      args: "run --imgae x",
      says: "fsb-ctl run: there is no flag --imgae; did you mean --image?",
      usage: "run"
    },
    {
      what: "an unknown command",
      args: "lits",
      says: "fsb-ctl: there is no command \"lits\"; did you mean list?",
      usage: ""
    },
    {
      what: "an unknown subcommand",
      args: "image pul x",
      says: "fsb-ctl image: there is no command \"pul\"; did you mean pull?",
      usage: "image"
    },
    { what: "no name", args: "get", says: "fsb-ctl get: NAME is missing", usage: "get" },
    { what: "a name too many", args: "get a b", says: "fsb-ctl get: \"b\" is one argument too many", usage: "get" },
    {
      what: "no names",
      args: "delete",
      says: "fsb-ctl delete: NAME is missing; --all and -l choose many",
      usage: "delete"
    },
    {
      what: "no image",
      args: "run x",
      says: "fsb-ctl run: --image is missing; give it, or a file with -f",
      usage: "run"
    },
    {
      what: "a flag without its value",
      args: "run --image",
      says: "fsb-ctl run: --image needs a value (IMAGE)",
      usage: "run"
    },
    {
      what: "a bad choice",
      args: "ls -o xml",
      says: "fsb-ctl list: --output: \"xml\" is not one of table, wide, json, yaml, name, jsonpath=TEMPLATE",
      usage: "list"
    },
    {
      what: "a choice that there is not",
      args: "ls --sort-by colour",
      says: "fsb-ctl list: --sort-by: \"colour\" is not one of name, phase, image, pool, agent, node, age, restarts",
      usage: "list"
    },
    {
      what: "a selector that is empty, and would choose all",
      args: "delete --selector=",
      says: "fsb-ctl delete: --selector needs a value (labels such as app=web)",
      usage: "delete"
    },
    {
      what: "a home that is empty, and would be this folder",
      args: "down --wipe --home=",
      says: "fsb-ctl down: --home needs a value (a folder)",
      usage: "down"
    },
    {
      what: "a year that was none",
      args: "logs x --since=-1",
      says: "fsb-ctl: --since: \"-1\" is not a time such as 90s, 15m or 1h30m, nor a date"
    },
    {
      what: "a program without --",
      args: "run x sh --image alpine",
      says: "fsb-ctl run: \"sh\" is one operand too many; write -- before the program",
      usage: "run"
    },
    {
      what: "nothing to update",
      args: "update x",
      says: "fsb-ctl update: there is nothing to change; give at least one flag",
      usage: "update"
    },
    { what: "port 0", args: "run --image x --ports 0", says: "fsb-ctl: --ports: \"0\" is not a port from 1 to 65535" },
    { what: "a port twice", args: "run --image x --ports 80,80", says: "fsb-ctl: --ports: 80 is given twice" },
    {
      what: "a bad ttl",
      args: "run --image x --ttl soon",
      says: "fsb-ctl: --ttl: \"soon\" is not a time such as 90s, 15m or 1h30m"
    },
    {
      what: "a bad time",
      args: "logs x --since yesterday",
      says: "fsb-ctl: --since: \"yesterday\" is not a time such as 90s, 15m or 1h30m, nor a date"
    },
    { what: "a bad variable", args: "run --image x -e =1", says: "fsb-ctl: --env: \"=1\" must be KEY=VALUE or KEY" },
    {
      what: "an unknown pool",
      args: "run --image x --pool nope",
      says: "fsb-ctl: pool nope not found; fsb-ctl pool list shows those there are"
    },
    {
      what: "a full pool",
      args: "run --image x --pool busy",
      says: "fsb-ctl: no slots left: pool busy is full; try again in 2 s"
    },
    {
      what: "an image that can't be pulled",
      args: "run --image nowhere/x",
      says: "fsb-ctl: can't pull nowhere/x: no such host"
    },
    {
      what: "a program that is not there",
      args: "run --image x -- not-there",
      says: "fsb-ctl: not-there: no such file or directory",
      code: 127
    },
    {
      what: "a sandbox that is not there",
      args: "logs nope",
      says: "fsb-ctl: sandbox nope not found; see 'fsb-ctl list'"
    },
    {
      what: "nobody at a socket",
      args: "ls --endpoint unix:/nowhere.sock",
      says:
        "fsb-ctl: can't reach the server at unix:/nowhere.sock; start it with 'fsb-ctl up', or say where it is with --endpoint"
    },
    {
      what: "a bad endpoint",
      args: "ls --endpoint nowhere",
      says: "fsb-ctl: endpoint: \"nowhere\" must be unix:/path or host:port, such as 10.0.0.7:9090"
    },
    {
      what: "an endpoint that is none, for the configuration",
      args: "config set contexts.prod.endpoint nowhere",
      says: "fsb-ctl: endpoint: \"nowhere\" must be unix:/path or host:port, such as 10.0.0.7:9090"
    },
    { what: "a file that is not there", args: "run -f nope.yaml", says: "fsb-ctl: there is no file nope.yaml" },
    { what: "an archive that is not there", args: "image load nope.tar", says: "fsb-ctl: there is no file nope.tar" },
    {
      what: "a configuration that is not there",
      args: "ls --config nope.json",
      says: "fsb-ctl: --config: there is no file nope.json"
    }
  ]
  for (const { args, code = 125, says, usage, what } of cases) {
    test(what, () =>
      Effect.gen(function*() {
        const ran = yield* call(...args.split(" "))
        const path = usage === undefined || usage === "" ? "fsb-ctl" : `fsb-ctl ${usage}`
        const see = usage === undefined ? "" : `See '${path} --help'\n`
        assert.strictEqual(ran.stderr, `${says}\n${see}`)
        assert.deepStrictEqual([ran.code, ran.stdout], [code, ""])
        assert.deepStrictEqual(yield* names, [])
      }))
  }

  test("nobody at a port", () =>
    Effect.gen(function*() {
      const { code, stderr } = yield* call("ls", "--endpoint", "127.0.0.1:1")
      assert.strictEqual(code, 125)
      assert.match(stderr, /^fsb-ctl: can't reach the server at 127\.0\.0\.1:1 \(.*\)\n$/)
    }))

  test("a taken name", () =>
    Effect.gen(function*() {
      yield* call("run", "web", "-d", "--image", "alpine")
      const { code, stderr } = yield* call("run", "web", "-d", "--image", "alpine")
      assert.strictEqual(code, 125)
      assert.strictEqual(
        stderr,
        "fsb-ctl: sandbox web already exists; choose another name, or run 'fsb-ctl delete web' first\n"
      )
    }))

  test("bad YAML, with its line", () =>
    Effect.gen(function*() {
      const { write } = yield* FsbCtl.FsbCtl
      for (
        const [text, says] of [
          ["image: alpine\nargs: [echo\n", /^fsb-ctl: bad\.yaml:\d: .+\n$/],
          ["image: alpine\nexposed_ports: [80, 70000]\n", /^fsb-ctl: bad\.yaml:2: exposed_ports\[1\]: .+\n$/],
          ["image: alpine\n\nimgae: x\n", /^fsb-ctl: bad\.yaml:3: imgae: .+\n$/],
          ["image: alpine\nconsistency_mode: quick\n", /^fsb-ctl: bad\.yaml:2: consistency_mode: .+\n$/]
        ] as const
      ) {
        write("bad.yaml", text)
        const { code, stderr } = yield* call("run", "-f", "bad.yaml")
        assert.strictEqual(code, 125)
        assert.match(stderr, says)
      }
      assert.deepStrictEqual(yield* names, [])
    }))

  test("a token that is missing or wrong", () =>
    Effect.gen(function*() {
      const { run } = yield* FsbCtl.FsbCtl
      yield* Fake.use(({ token }) => Ref.set(token, "s3cret"))
      const refused = yield* call("ls")
      assert.strictEqual(refused.code, 125)
      assert.include(refused.stderr, "FSB_TOKEN")
      assert.strictEqual((yield* run(["ls"], { env: { FSB_TOKEN: "s3cret" } })).code, 0)
    }))
})

describe("on a terminal", () => {
  test("run opens the editor again at a mistake, asks, and remembers the text", () =>
    Effect.gen(function*() {
      const { home, run, write } = yield* FsbCtl.FsbCtl
      const endpoint = JSON.parse((yield* run(["config", "view", "-o", "json"])).stdout).endpoint
      const editor = write(
        "editor.sh",
        `#!/bin/sh
if [ ! -e ${home}/seen ]; then printf 'image: alpine\\nexposed_ports: [0]\\n' > "$1"; touch ${home}/seen
else cp "$1" ${home}/shown; printf 'image: alpine\\nargs: [echo, edited]\\n' > "$1"; fi
`
      )
      chmodSync(editor, 0o755)
      const program = join(import.meta.dirname, "../../../bin/fsb-ctl")
      const shown = yield* Effect.callback<string>((resume) => {
        // util-linux's script gives the command a terminal
        const child = spawn("script", ["-qec", `${program} run edited`, "/dev/null"], {
          cwd: home,
          env: { PATH: process.env.PATH ?? "", HOME: home, EDITOR: editor, FSB_ENDPOINT: endpoint, TERM: "dumb" }
        })
        let output = ""
        child.stdout.on("data", (chunk: Buffer) => {
          output += chunk.toString()
          if (output.includes("[y/N]") && child.stdin.writable) child.stdin.end("y\n")
        })
        child.once("close", () => resume(Effect.succeed(output)))
      })
      assert.match(
        readFileSync(join(home, "shown"), "utf8"),
        /^image: alpine\nexposed_ports: \[0\]\n# \^\^\^ exposed_ports\[0\]: .+\n$/
      )
      assert.include(shown, "fsb-ctl is going to run sandbox edited")
      assert.include(shown, "args: echo edited")
      assert.include(shown, "\nedited\r\n")
      assert.strictEqual(
        readFileSync(join(home, ".fsb-ctl/cache/edited.yaml"), "utf8"),
        "image: alpine\nargs: [echo, edited]\n"
      )
    }))
})
