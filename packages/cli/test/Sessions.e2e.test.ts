import { assert, layer } from "@effect/vitest"
import * as LogLine from "@fast-sandbox/client/LogLine"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import { Effect, FileSystem, Schedule, Stream } from "effect"
import { execFileSync } from "node:child_process"
import * as LocalStack from "./e2e/LocalStack.ts"
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
      const refused = yield* fsbCtl("run", "-i", "--rm", "--image", "busybox", "--", "cat")
      assert.match(refused.stderr, /--interactive wants --tty/)
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
})
