/**
 * A one-machine stack for an end-to-end test: started by `fsb-ctl up --detach` in a folder of its own with a containerd
 * of its own, wiped afterwards. Everything is asked of it as a user would: through the programs, by their output and
 * exit codes.
 */
import { FileSystem } from "effect"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { PlatformError } from "effect/PlatformError"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

const repository = fileURLToPath(new URL("../../../..", import.meta.url))

/** How a program ended, and what it said. */
export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end; interruption kills it. */
export const run = (
  file: string,
  args: ReadonlyArray<string>,
  options?: { readonly input?: string | undefined; readonly env?: Readonly<Record<string, string>> | undefined }
): Effect.Effect<Ran> =>
  Effect.callback<Ran>((resume) => {
    const child = spawn(file, args, { cwd: repository, env: { ...process.env, ...options?.env }, stdio: "pipe" })
    let stdout = ""
    let stderr = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text
    })
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text
    })
    child.stdin.on("error", () => {})
    child.stdin.end(options?.input ?? "")
    child.once("error", (cause) => resume(Effect.die(cause)))
    child.once("close", (code) => resume(Effect.succeed({ code: code ?? -1, stdout, stderr })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

/** The stack under test. */
export class LocalStack extends Context.Service<LocalStack, {
  readonly home: string
  readonly archive: string
  fsbCtl(...args: ReadonlyArray<string>): Effect.Effect<Ran>
  kubectl(...args: ReadonlyArray<string>): Effect.Effect<Ran>
  /** kubectl with a manifest on its standard input. */
  kubectlApply(manifest: string): Effect.Effect<Ran>
}>()("@fast-sandbox/cli/test/e2e/LocalStack") {}

/** The built programs of this repository. */
export const fsbCtlPath = `${repository}/bin/fsb-ctl`

const must = (what: string, ran: Effect.Effect<Ran>) =>
  Effect.flatMap(ran, (result) =>
    result.code === 0
      ? Effect.succeed(result)
      : Effect.die(new Error(`${what} ended with ${result.code}: ${result.stderr}${result.stdout}`)))

/** Makes an archive of Debian's busybox; gives where it lies. */
export const busyboxArchive: Effect.Effect<string> = Effect.as(
  Effect.suspend(() => must("the image", run(process.execPath, [`${repository}/infra/images/busybox.ts`]))),
  `${repository}/dist/images/busybox.tar`
)

/** Starts the stack, loads busybox, and takes all of it away at the end. */
export const layer = (
  kubectlPath: string,
  options?: { readonly listen?: string | undefined; readonly containerd?: string | undefined }
): Layer.Layer<LocalStack, PlatformError, FileSystem.FileSystem> =>
  Layer.effect(
    LocalStack,
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const directory = yield* files.makeTempDirectoryScoped({ prefix: "fsb-e2e-" })
      const home = `${directory}/home`
      const env = { FSB_HOME: home, HOME: directory }
      // As the README types it, relative to the repository: nothing may depend on the path by which it was found.
      const fsbCtl = (...args: ReadonlyArray<string>) => run("bin/fsb-ctl", args, { env })
      const listen = options?.listen === undefined ? [] : ["--listen", options.listen]
      const archive = yield* busyboxArchive
      yield* Effect.acquireRelease(
        must("up", fsbCtl("up", "--detach", "--containerd", options?.containerd ?? "own", ...listen)),
        () => must("down", fsbCtl("down", "--wipe"))
      )
      yield* must("image load", fsbCtl("image", "load", archive))
      const kubeconfig = ["--kubeconfig", `${home}/kubeconfig`]
      return LocalStack.of({
        home,
        archive,
        fsbCtl,
        kubectl: (...args) => run(kubectlPath, [...kubeconfig, ...args], { env }),
        kubectlApply: (manifest) => run(kubectlPath, [...kubeconfig, "apply", "-f", "-"], { env, input: manifest })
      })
    })
  )
