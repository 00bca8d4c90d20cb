/**
 * That isolation leaves ordinary programs alone: interpreters and tools of this machine, in an image that is made of their
 * files, do in a sandbox what people run them for. What each of them needs of the kernel is its own affair; it says at its
 * end that all went well.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, layer } from "@effect/vitest"
import { Images } from "@fast-sandbox/containerd/Images"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import { layer as privateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import { Effect, Layer } from "effect"
import { execFileSync } from "node:child_process"
import { readdirSync, readFileSync, realpathSync, statSync } from "node:fs"
import { dirname } from "node:path"
import * as Fixture from "./AgentFixture.ts"

const python = realpathSync("/usr/bin/python3")
const pythonLibrary = `/usr/lib/${python.slice(python.lastIndexOf("/") + 1)}`
const git = "/usr/lib/git-core/git"

/** Where each is in the image, and on this machine. */
const programs: ReadonlyArray<readonly [path: string, source: string]> = [
  ...[
    "bash",
    "cat",
    "env",
    "find",
    "grep",
    "gzip",
    "head",
    "ls",
    "mkdir",
    "mktemp",
    "perl",
    "rm",
    "sed",
    "seq",
    "sleep",
    "sort",
    "tar",
    "tr",
    "wc"
  ]
    .map((name) => [`/usr/bin/${name}`, `/usr/bin/${name}`] as const),
  ["/bin/sh", "/bin/sh"],
  ["/usr/bin/python3", python],
  ["/usr/bin/git", "/usr/bin/git"],
  [git, git],
  ["/usr/bin/node", process.execPath]
]

/** What python does without: it is half of its library. */
const unneeded =
  /\/(test|tests|idlelib|lib2to3|ensurepip|tkinter|turtledemo|__pycache__|config-[^/]+|dist-packages)(\/|$)/

const filesBelow = (directory: string): ReadonlyArray<string> =>
  readdirSync(directory, { recursive: true, encoding: "utf8" }).map((name) => `${directory}/${name}`).filter((path) =>
    !unneeded.test(path) && statSync(path, { throwIfNoEntry: false })?.isFile() === true
  )

/** The libraries that the dynamic loader would load, and that loader. */
const librariesOf = (paths: ReadonlyArray<string>): ReadonlyArray<string> => {
  const said = paths.map((path) => {
    try {
      return execFileSync("ldd", [path], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })
    } catch {
      // It is static.
      return ""
    }
  })
  return [...new Set([...said.join("\n").matchAll(/(\/\S+\.so[.\d]*) \(0x/g)].map(([, path = ""]) => path))]
}

/** The image `programs`: their files as they are here, and nothing else. */
const recipe = (): OciArchive.ImageRecipe => {
  const perlBase = filesBelow(
    dirname(execFileSync("perl", ["-MPOSIX", "-e", "print $INC{'POSIX.pm'}"], { encoding: "utf8" }))
  )
  const library = filesBelow(pythonLibrary)
  const native = [...programs.map(([, source]) => source), ...library.filter((path) => path.endsWith(".so"))]
  const files = new Map([
    ...programs,
    ...[...perlBase, ...library, ...librariesOf([...native, ...perlBase.filter((path) => path.endsWith(".so"))])]
      .map((path) => [path, path] as const)
  ])
  return {
    names: ["docker.io/library/programs:latest"],
    env: ["PATH=/usr/bin:/bin", "HOME=/root"],
    layers: [[
      ...["tmp", "root", "dev", "proc", "sys", "etc"].map((path) =>
        ({ _tag: "Directory", path, mode: 0o777 }) as const
      ),
      { _tag: "File", path: "etc/passwd", content: "root:x:0:0:root:/root:/bin/sh\n" },
      ...[...files].map(([path, source]) =>
        ({ _tag: "File", path: path.slice(1), content: readFileSync(source), mode: 0o755 }) as const
      )
    ]]
  }
}

const containerd = Layer.effectDiscard(
  Effect.andThen(Fixture.prepareNode, Images.use((images) => images.load(OciArchive.make([recipe()]))))
).pipe(
  Layer.provideMerge(privateContainerd()),
  Layer.provideMerge(NodeServices.layer)
)

const pythonScript = `
import asyncio, concurrent.futures, multiprocessing, os, queue, signal, socket, sqlite3, subprocess, tempfile, threading, time
def double(n): return 2 * n
with concurrent.futures.ThreadPoolExecutor(8) as pool: assert list(pool.map(double, range(100)))[-1] == 198
with multiprocessing.Pool(2) as pool: assert pool.map(double, range(10))[-1] == 18
assert subprocess.run("echo a | tr a b", shell=True, capture_output=True).stdout == b"b\\n"
pid = os.fork()
if pid == 0: time.sleep(60)
os.kill(pid, signal.SIGTERM)
assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM
async def served():
    async def answer(reader, writer):
        writer.write(await reader.read(9)); await writer.drain(); writer.close()
    server = await asyncio.start_server(answer, "127.0.0.1", 80)
    reader, writer = await asyncio.open_connection("127.0.0.1", 80)
    writer.write(b"hello"); writer.write_eof()
    return await reader.read()
assert asyncio.run(served()) == b"hello"
with tempfile.TemporaryDirectory() as where:
    store = sqlite3.connect(where + "/db"); store.execute("create table t (a)"); store.commit()
left, right = socket.socketpair(); left.send(b"x"); assert right.recv(1) == b"x"
assert len(os.urandom(8)) == 8 and os.cpu_count() > 0 and os.sched_getaffinity(0)
os.setpriority(os.PRIO_PROCESS, 0, 5)
print("well")
`

const nodeScript = `
const { Worker } = require("node:worker_threads"), fs = require("node:fs"), http = require("node:http")
const { spawnSync } = require("node:child_process"), crypto = require("node:crypto")
const worker = new Worker("require('node:worker_threads').parentPort.postMessage(2 * 21)", { eval: true })
worker.on("message", async (sum) => {
  const server = http.createServer((_, answer) => answer.end(String(sum))).listen(8080, "127.0.0.1")
  await new Promise((done) => server.once("listening", done))
  const text = await (await fetch("http://127.0.0.1:8080")).text()
  const child = spawnSync("sh", ["-c", "cat; exit 3"], { input: "in" })
  fs.watch("/tmp").close()
  const hash = crypto.createHash("sha256").update(crypto.randomBytes(9)).digest("hex")
  if (text === "42" && child.status === 3 && String(child.stdout) === "in" && hash.length === 64) console.log("well")
  process.exit()
})
`

const perlScript = `
use POSIX; use Socket;
pipe(my $read, my $write); my $pid = fork;
if (!$pid) { syswrite($write, "child"); POSIX::_exit(7) }
sysread($read, my $said, 5); waitpid($pid, 0);
$SIG{ALRM} = sub { print "well\\n" if $said eq "child" && ($? >> 8) == 7; exit };
alarm(1); sleep(10);
`

const shellScript = `
set -e
cd "$(mktemp -d)"
test "$(seq 1000 | sort -rn | head -1 | tr 0 x)" = 1xxx
mkdir d; for n in 1 2 3; do echo $n > d/$n & done; wait
tar -czf all.tar.gz d; tar -xzf all.tar.gz -C /tmp; test "$(cat /tmp/d/* | wc -l)" = 3
exec 3< <(echo substituted); read -r word <&3; test $word = substituted
trap 'echo trapped > t' USR1; kill -USR1 $$; test "$(cat t)" = trapped
ulimit -n 100; test "$(ulimit -n)" = 100
(sleep 100 & kill %1; wait) 2>/dev/null || true
echo hidden > "quoted name"; find . -name 'quoted*' | grep -q name
echo well
`

const gitScript = `
cd $(mktemp -d) && git init -q --template= && echo a > a && git add a &&
git -c user.name=n -c user.email=e commit -qm first && git -c gc.auto=0 repack -adq && git log --format=%s | sed 's/first/well/'
`

describe("ordinary programs", () => {
  layer(containerd, { excludeTestServices: true, timeout: "1 minute" })((it) => {
    it.effect("run as on a machine of their own", () =>
      Effect.gen(function*() {
        const client = yield* Fixture.start()
        const commands: ReadonlyArray<ReadonlyArray<string>> = [
          ["python3", "-c", pythonScript],
          ["node", "-e", nodeScript],
          ["perl", "-e", perlScript],
          ["bash", "-c", shellScript],
          ["sh", "-c", gitScript]
        ]
        for (const runAsUser of [undefined, 1000]) {
          const said = yield* Effect.forEach(commands, (command) =>
            Effect.gen(function*() {
              const request = Fixture.request(command, {
                image: "programs",
                runAsUser,
                envs: [{ name: "HOME", value: "/tmp" }]
              })
              yield* client.create(request)
              const lines = yield* Fixture.logsOf(client, request.instanceId, true)
              yield* client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
              return [command[0], ...lines]
            }), { concurrency: 2 })
          assert.deepStrictEqual(said, commands.map(([name]) => [name, "well"]), `user ${runAsUser ?? 0}`)
        }
      }).pipe(Effect.scoped))
  })
})
