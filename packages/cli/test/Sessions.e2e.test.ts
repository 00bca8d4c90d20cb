import { assert, layer } from "@effect/vitest"
import * as LogLine from "@fast-sandbox/client/LogLine"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import { Effect, Fiber, FileSystem, Schedule, Stream } from "effect"
import { execFileSync } from "node:child_process"
import * as LocalStack from "./e2e/LocalStack.ts"
import * as Machine from "./e2e/Machine.ts"
import * as Resources from "./e2e/Resources.ts"
import * as TestStack from "./e2e/TestStack.ts"

/** A sandbox of busybox that runs for as long as the test. */
const running = Effect.fnUntraced(function*(...args: ReadonlyArray<string>) {
  const sandboxes = yield* Sandboxes
  return yield* sandboxes.scoped({
    image: "busybox",
    args: args.length === 0 ? ["sleep", "1000"] : args,
    terminationGracePeriodSeconds: 0
  })
})

/** A terminal of 100 columns and 30 rows in which a shell runs `command`; its screen can be read and typed on. */
const terminal = Effect.fnUntraced(function*(command: string) {
  const { home } = yield* LocalStack.LocalStack
  const socket = `${home}/tmux.sock`
  const tmux = (...args: ReadonlyArray<string>) =>
    execFileSync("tmux", ["-S", socket, "-f", "/dev/null", ...args], { encoding: "utf8" })
  const environment = ["-e", `FSB_HOME=${home}`, "-e", "TERM=screen"]
  yield* Effect.acquireRelease(
    Effect.sync(() => tmux("new-session", "-d", "-x", "100", "-y", "30", ...environment, command)),
    () => Effect.sync(() => tmux("kill-server"))
  )
  const screen = Effect.sync(() => tmux("capture-pane", "-p"))
  const type = (...keys: ReadonlyArray<string>) => Effect.sync(() => tmux("send-keys", ...keys))
  const shows = (pattern: RegExp) =>
    screen.pipe(
      Effect.repeat({ schedule: Schedule.spaced("50 millis"), until: (text) => pattern.test(text) }),
      Effect.timeoutOrElse({
        duration: "20 seconds",
        orElse: () =>
          Effect.flatMap(screen, (text) => Effect.die(new Error(`${pattern} is not on this screen:\n${text}`)))
      })
    )
  const resize = (columns: number, rows: number) =>
    Effect.sync(() => tmux("resize-window", "-x", String(columns), "-y", String(rows)))
  return { type, shows, resize }
})

layer(TestStack.layer, TestStack.options)("sessions", (it) => {
  it.effect("a shell in a terminal: vi, Ctrl-C, resize, exit", () =>
    Effect.gen(function*() {
      const { name } = yield* running()
      const { resize, shows, type } = yield* terminal(
        `${LocalStack.fsbCtlPath} exec -it ${name} -- sh; echo "ended with $?"; stty -a | grep -o ' -*echo '; sleep 100`
      )
      yield* shows(/\/ #$/m)
      yield* type("stty size", "Enter")
      yield* shows(/^30 100$/m)
      yield* type("vi /tmp/letter", "Enter")
      yield* shows(/^~$/m)
      // busybox' vi takes an Escape with something right behind it for the beginning of a key
      yield* type("i", "Dear sandbox")
      yield* shows(/^Dear sandbox$/m)
      yield* type("Escape")
      yield* shows(/^- \/tmp\/letter/m)
      yield* type(":wq", "Enter")
      yield* shows(/\/ #$/m)
      yield* type("cat /tmp/letter", "Enter")
      yield* shows(/^Dear sandbox$/m)
      yield* type("sleep 1000", "Enter")
      yield* shows(/sleep 1000$/m)
      yield* type("C-c")
      yield* shows(/\^C\n\/ #/)
      yield* type("echo code $?", "Enter")
      yield* shows(/^code 130$/m)
      yield* resize(91, 23)
      yield* type("stty size", "Enter")
      yield* shows(/^23 91$/m)
      yield* type("exit 3", "Enter")
      yield* shows(/^ended with 3$/m)
      // the terminal is as it was before
      yield* shows(/^ echo$/m)
    }).pipe(Effect.scoped))

  it.effect("run -it is a shell that can be left, come back to, and is removed at its end", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      const { shows, type } = yield* terminal(
        `${LocalStack.fsbCtlPath} run shell -it --rm --image busybox -- sh; ` +
          `${LocalStack.fsbCtlPath} attach shell; echo "ended with $?"; sleep 100`
      )
      yield* shows(/\/ #$/m)
      yield* type("stty size; echo $((40 + 2))", "Enter")
      yield* shows(/^30 100\n42$/m)
      yield* type("C-p", "C-q")
      yield* shows(/^shell goes on/m)
      yield* type("Enter")
      yield* type("echo $((50 + 2)); exit 3", "Enter")
      yield* shows(/^52$/m)
      yield* shows(/^ended with 3$/m)
      yield* sandboxes.delete("shell")
      const { fsbCtl } = yield* LocalStack.LocalStack
      const ended = yield* fsbCtl("run", "-t", "--rm", "--image", "busybox", "--", "sh", "-c", "tty; exit 4")
      assert.deepStrictEqual([ended.code, ended.stdout], [4, "/dev/pts/0\r\n"])
      const refused = yield* fsbCtl("run", "-it", "--rm", "--image", "busybox", "--", "cat")
      assert.match(refused.stderr, /stdin is no terminal; leave --tty away/)
    }).pipe(Effect.scoped))

  it.effect("run -i is a program in a pipe, as docker has it", () =>
    Effect.gen(function*() {
      const { fsbCtl, home } = yield* LocalStack.LocalStack
      const run = (input: string, ...program: ReadonlyArray<string>) =>
        LocalStack.run(LocalStack.fsbCtlPath, ["run", "-q", "-i", "--rm", "--image", "busybox", "--", ...program], {
          env: { FSB_HOME: home },
          input
        })
      assert.deepStrictEqual(yield* run("hi\n", "cat"), { code: 0, stdout: "hi\n", stderr: "" })
      assert.deepStrictEqual(yield* run("no line feed", "sh", "-c", "cat; echo done >&2; exit 7"), {
        code: 7,
        stdout: "no line feed",
        stderr: "done\n"
      })
      assert.deepStrictEqual(yield* run("", "wc", "-c"), { code: 0, stdout: "0\n", stderr: "" })
      const megabytes = "0123456789abcde\n".repeat(200_000)
      assert.isTrue((yield* run(megabytes, "cat")).stdout === megabytes)
      // who does not read to the end holds nobody up
      assert.deepStrictEqual(yield* run(megabytes, "head", "-n", "1"), {
        code: 0,
        stdout: "0123456789abcde\n",
        stderr: ""
      })
      // the next who is attached may go on
      yield* fsbCtl("run", "reader", "-q", "-i", "-d", "--image", "busybox", "--", "sh", "-c", "read a; echo got $a")
      const attached = yield* LocalStack.run(LocalStack.fsbCtlPath, ["attach", "reader"], {
        env: { FSB_HOME: home },
        input: "word\n"
      })
      assert.deepStrictEqual([attached.code, attached.stdout], [0, "got word\n"])
      assert.strictEqual((yield* fsbCtl("logs", "reader")).stdout, "got word\n")
      yield* fsbCtl("delete", "reader")
      assert.strictEqual((yield* fsbCtl("list", "-q")).stdout, "")
    }).pipe(Effect.scoped))

  it.effect("programs, files and ports by fsb-ctl, with docker's exit codes", () =>
    Effect.gen(function*() {
      const { fsbCtl, home } = yield* LocalStack.LocalStack
      const files = yield* FileSystem.FileSystem
      const sandbox = yield* running("sh", "-c", "while :; do echo served | nc -l -p 81; done")
      const { name } = sandbox
      const exec = (...args: ReadonlyArray<string>) => fsbCtl("exec", ...args)
      assert.deepStrictEqual(
        yield* exec("-e", "A=b", "-w", "/tmp", "-u", "app", name, "--", "sh", "-c", "echo $A $PWD; id -u; exit 9"),
        {
          code: 9,
          stdout: "b /tmp\n1000\n",
          stderr: ""
        }
      )
      for (
        const [args, code, complaint] of [
          [[name, "--", "nope"], 127, /no such program/],
          [[name, "--", "/tmp"], 126, /no file that can be executed/],
          [["nobody", "--", "true"], 125, /sandbox default\/nobody not found/],
          [["-it", name, "--", "sh"], 125, /no terminal/],
          [[name], 125, /say what to run/],
          [["-u", "stranger", name, "--", "true"], 125, /no such user/]
        ] as const
      ) {
        const ran = yield* exec(...args)
        assert.strictEqual(ran.code, code, args.join(" "))
        assert.match(ran.stderr, complaint)
      }
      const closed = yield* LocalStack.run("sh", [
        "-c",
        `${LocalStack.fsbCtlPath} exec ${name} -- yes 2>&1 | head -1`
      ], { env: { FSB_HOME: home } })
      assert.deepStrictEqual([closed.code, closed.stdout], [0, "y\n"])
      const fed = yield* LocalStack.run(LocalStack.fsbCtlPath, ["exec", "-i", name, "--", "sort"], {
        env: { FSB_HOME: home },
        input: "b\na\n"
      })
      assert.deepStrictEqual([fed.code, fed.stdout], [0, "a\nb\n"])

      const folder = yield* files.makeTempDirectoryScoped()
      yield* files.makeDirectory(`${folder}/tree/empty`, { recursive: true })
      yield* files.writeFileString(`${folder}/tree/program`, "#!/bin/sh\necho ran\n", { mode: 0o755 })
      yield* files.symlink("program", `${folder}/tree/link`)
      yield* Resources.stdoutOf(fsbCtl("cp", `${folder}/tree`, `${name}:/tmp`))
      assert.strictEqual(yield* Resources.stdoutOf(exec(name, "--", "/tmp/tree/link")), "ran\n")
      yield* Resources.stdoutOf(fsbCtl("cp", `${name}:/tmp/tree`, `${folder}/back`))
      execFileSync("diff", ["-r", "--no-dereference", `${folder}/tree`, `${folder}/back`])
      // what a hostile sandbox puts into its answer stays in the target
      yield* Resources.stdoutOf(
        exec(name, "--", "sh", "-c", `mkdir /tmp/evil; ln -s ${folder} /tmp/evil/out; touch /tmp/evil/fine`)
      )
      yield* Resources.stdoutOf(fsbCtl("cp", `${name}:/tmp/evil`, `${folder}/evil`))
      yield* Resources.stdoutOf(exec(name, "--", "sh", "-c", "cd /tmp/evil; rm out; mkdir out; touch out/escaped"))
      const refused = yield* fsbCtl("cp", `${name}:/tmp/evil`, folder)
      assert.strictEqual(refused.code, 125)
      assert.isFalse(yield* files.exists(`${folder}/escaped`))
      assert.strictEqual((yield* fsbCtl("cp", `${name}:/nowhere`, folder)).code, 125)
      assert.strictEqual((yield* fsbCtl("cp", "/nowhere", `${name}:/tmp`)).code, 125)
      assert.deepStrictEqual(
        (yield* files.readDirectory(folder)).filter((entry) => entry.endsWith(".part")),
        []
      )

      const sent = yield* Stream.runCollect(sandbox.connect(81, Stream.empty))
      assert.strictEqual(Buffer.concat(sent).toString(), "served\n")
      assert.match(yield* Resources.stdoutOf(fsbCtl("top", name)), /^1 +0 +0 +S .* sh -c while/m)
      assert.match(
        yield* Resources.stdoutOf(fsbCtl("stats", "--no-stream", name)),
        new RegExp(`^${name} .*%.* / 512`, "m")
      )

      const ends = yield* exec(name, "--", "sleep", "1000").pipe(
        Effect.zip(Effect.delay(fsbCtl("delete", name), "1 second"), { concurrent: true })
      )
      assert.deepStrictEqual([ends[0].code, ends[0].stderr], [137, `fsb-ctl: sandbox ${name} ended meanwhile\n`])
    }).pipe(Effect.scoped))

  it.effect("a disk that is full, or a sandbox that ends: one line, and no half-written file", () =>
    Effect.gen(function*() {
      const { fsbCtl, home } = yield* LocalStack.LocalStack
      const files = yield* FileSystem.FileSystem
      const { name } = yield* running()
      const folder = yield* files.makeTempDirectoryScoped()
      yield* files.makeDirectory(`${folder}/small`)
      yield* Effect.acquireRelease(
        Effect.sync(() => execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", `${folder}/small`])),
        () => Effect.sync(() => execFileSync("umount", [`${folder}/small`]))
      )
      yield* Effect.sync(() => execFileSync("truncate", ["-s", "100M", `${folder}/big`]))
      // the sandbox's /dev/shm is smaller than that
      const intoFull = yield* fsbCtl("cp", `${folder}/big`, `${name}:/dev/shm/big`)
      assert.deepStrictEqual([intoFull.code, intoFull.stdout], [125, ""])
      assert.match(intoFull.stderr, /^fsb-ctl: .*no space is left\n$/)
      assert.strictEqual(yield* Resources.stdoutOf(fsbCtl("exec", name, "--", "ls", "-A", "/dev/shm")), "")
      yield* Resources.stdoutOf(fsbCtl("cp", `${folder}/big`, `${name}:/tmp/big`))
      for (const target of ["small", "small/other", "small/."]) {
        const outOfFull = yield* fsbCtl("cp", `${name}:/tmp/big`, `${folder}/${target}`)
        assert.deepStrictEqual([outOfFull.code, outOfFull.stdout], [125, ""])
        assert.match(outOfFull.stderr, /^fsb-ctl: .*ENOSPC.*\n$/)
        assert.deepStrictEqual(yield* files.readDirectory(`${folder}/small`), [])
      }

      const ending = yield* running()
      yield* Resources.stdoutOf(fsbCtl("exec", ending.name, "--", "dd", "of=/tmp/large", "bs=1", "count=0", "seek=8G"))
      yield* files.makeDirectory(`${folder}/out`)
      const sending =
        `(tar c -C ${folder} big; touch ${folder}/sent; while [ ! -e ${folder}/over ]; do sleep 0.1; done)`
      const cutOff = yield* Effect.forkChild(Effect.all([
        LocalStack.run("sh", ["-c", `${sending} | ${LocalStack.fsbCtlPath} cp - ${ending.name}:/tmp`], {
          env: { FSB_HOME: home }
        }),
        fsbCtl("cp", `${ending.name}:/tmp/large`, `${folder}/out`),
        fsbCtl("port-forward", ending.name, "0:80"),
        fsbCtl("logs", "-f", ending.name),
        fsbCtl("stats", ending.name)
      ], { concurrency: "unbounded" }))
      const isUnderWay = Effect.gen(function*() {
        return (yield* files.exists(`${folder}/sent`)) && (yield* files.readDirectory(`${folder}/out`)).length > 0
      })
      yield* Effect.repeat(isUnderWay, { until: (isTrue) => isTrue, schedule: Schedule.spaced("50 millis") })
      yield* Resources.stdoutOf(fsbCtl("delete", ending.name))
      yield* files.writeFileString(`${folder}/over`, "")
      const [copyIn, copyOut, forwarded, followed, counted] = yield* Fiber.join(cutOff)
      const meanwhile = `fsb-ctl: sandbox ${ending.name} ended meanwhile\n`
      assert.deepStrictEqual([copyIn.code, copyIn.stderr], [137, meanwhile])
      assert.deepStrictEqual([copyOut.code, copyOut.stderr], [137, meanwhile])
      assert.deepStrictEqual(yield* files.readDirectory(`${folder}/out`), [])
      assert.match(forwarded.stderr, new RegExp(`\nfsb-ctl: sandbox ${ending.name} .*\n$`))
      assert.deepStrictEqual([followed.code, followed.stderr], [0, ""])
      assert.deepStrictEqual([counted.code, counted.stderr], [137, meanwhile])
    }).pipe(Effect.scoped))

  it.effect("a window that changes its size while the program ends is no trouble", () =>
    Effect.gen(function*() {
      const { name } = yield* running()
      const { resize, shows } = yield* terminal(
        `${LocalStack.fsbCtlPath} exec -it ${name} -- sh -c 'echo begun; sleep 1; exit 5'; echo "ended with $?"; sleep 100`
      )
      yield* shows(/^begun$/m)
      const shaken = yield* Effect.forkChild(Effect.forEach(
        Array.from({ length: 200 }, (_, at) => 60 + at % 20),
        (columns) => Effect.delay(resize(columns, 24), "10 millis"),
        { discard: true }
      ))
      yield* shows(/^ended with 5$/m)
      yield* Fiber.interrupt(shaken)
    }).pipe(Effect.scoped))

  it.effect("a hundred followers of one log miss no line", () =>
    Effect.gen(function*() {
      const lines = 2000
      const sandboxes = yield* Sandboxes
      const sandbox = yield* running("sh", "-c", `echo 0; while [ ! -e /go ]; do sleep 0.1; done; seq ${lines}`)
      const followed = yield* Effect.forEach(
        Array.from({ length: 100 }),
        (_, follower) =>
          sandbox.logs({ follow: true }).pipe(
            // the last one to hear the first line lets the program go on
            Stream.tap((line) =>
              follower === 99 && LogLine.text(line) === "0"
                ? sandbox.files.write("/go", "").pipe(Effect.orDie)
                : Effect.void
            ),
            Stream.map(LogLine.text),
            Stream.runCollect
          ),
        { concurrency: "unbounded" }
      )
      const expected = Array.from({ length: lines + 1 }, (_, line) => String(line))
      for (const told of followed) assert.deepStrictEqual([...told], expected)
      assert.strictEqual((yield* sandboxes.get(sandbox.name)).name, sandbox.name)
    }).pipe(Effect.scoped))

  it.effect("a server that stops answering is given up, whatever was asked of it", () =>
    Effect.gen(function*() {
      const { fsbCtl } = yield* LocalStack.LocalStack
      const { name } = yield* running()
      const stack = yield* Machine.stackProcess
      // under way when the server stops
      const streams = yield* Effect.forkChild(Effect.all([
        fsbCtl("logs", "-f", name),
        fsbCtl("list", "-w"),
        fsbCtl("exec", name, "--", "sleep", "1000"),
        fsbCtl("wait", name, "--for", "delete"),
        fsbCtl("port-forward", name, "0:80")
      ], { concurrency: "unbounded" }))
      yield* Effect.repeat(fsbCtl("top", name), {
        until: ({ stdout }) => stdout.includes("sleep 1000\n"),
        schedule: Schedule.spaced("100 millis")
      })
      yield* Effect.acquireRelease(
        Effect.sync(() => process.kill(stack, "SIGSTOP")),
        () => Effect.sync(() => process.kill(stack, "SIGCONT"))
      )
      const calls = yield* Effect.all([
        fsbCtl("list"),
        fsbCtl("get", name),
        fsbCtl("run", "-d", "--image", "busybox", "--", "true"),
        fsbCtl("delete", name),
        fsbCtl("cp", `${name}:/etc/passwd`, "-"),
        fsbCtl("cp", "package.json", `${name}:/tmp`),
        fsbCtl("pool", "list"),
        fsbCtl("image", "list")
      ], { concurrency: "unbounded" })
      for (const { code, stderr } of [...yield* Fiber.join(streams), ...calls]) {
        assert.match(stderr, /(^|\n)fsb-ctl: can't reach the server at unix:.* \(the server does not answer.*\)\n$/)
        assert.strictEqual(code, 125)
      }
    }).pipe(Effect.scoped, Effect.timeout("60 seconds")))
})
