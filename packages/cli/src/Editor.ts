/**
 * Lets the user write a manifest in an editor, again and again until it is right or given up. What was written is
 * remembered for the next time.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as ChildProcess from "effect/process/ChildProcess"
import { Declined, LocalError } from "./Failure.ts"
import * as Manifest from "./Manifest.ts"

/** Below the user's home. */
const CACHE = ".fsb-ctl/cache"

/** Begins the comment that tells a mistake, right below the line that has it. */
const MARK = "# ^^^ "

/** The editor of systems that say nothing else (POSIX `vi`). */
const LAST_RESORT = "vi"

/** The editor to use: the configuration's, else the environment's. */
export const choose = (
  configured: string | undefined,
  environment: Readonly<Record<string, string | undefined>>
): string => configured || environment.VISUAL || environment.EDITOR || LAST_RESORT

/** The text without the marks of an earlier round. */
export const withoutMarks = (text: string): string =>
  text.split("\n").filter((line) => !line.startsWith(MARK)).join("\n")

/** The text with a mistake shown below its line. */
export const withMark = (text: string, error: Manifest.ManifestError): string => {
  const lines = text.split("\n")
  return lines.toSpliced(Math.min(error.line, lines.length), 0, `${MARK}${error.problem.replace(/\s+/g, " ")}`).join(
    "\n"
  )
}

/** Where the text for a name is remembered. */
export const cachePath = (home: string, name: string): string =>
  `${home}/${CACHE}/${encodeURIComponent(name === "" ? "sandbox" : name)}.yaml`

const open = Effect.fnUntraced(function*(editor: string, path: string) {
  const problem = (why: string) =>
    new LocalError({
      problem: `the editor ${JSON.stringify(editor)} ${why}; choose one with EDITOR or in the configuration`
    })
  // through a shell, since an editor may come with arguments; on stderr, since stdout is data
  const command = ChildProcess.make("sh", ["-c", `${editor} "$1" >&2`, "sh", path], {
    stdin: "inherit",
    stdout: "inherit",
    stderr: "inherit",
    detached: false
  })
  const code = yield* command.pipe(
    Effect.flatMap((handle) => handle.exitCode),
    Effect.scoped,
    Effect.mapError(({ message }) => problem(`does not start: ${message}`))
  )
  if (code !== 0) return yield* problem(`ended with ${code}`)
})

/** Gives the manifest that the user wrote. */
export const write = Effect.fn("Editor.write")(function*(
  options: { readonly editor: string; readonly home: string; readonly name: string }
) {
  const files = yield* FileSystem.FileSystem
  const path = cachePath(options.home, options.name)
  const onDisk = <A>(effect: Effect.Effect<A, { readonly message: string }>) =>
    Effect.mapError(effect, ({ message }) => new LocalError({ problem: `can't keep the text in ${path}: ${message}` }))
  yield* onDisk(files.makeDirectory(path.slice(0, path.lastIndexOf("/")), { recursive: true }))
  const remembered = yield* Effect.option(files.readFileString(path))
  let text = Option.getOrElse(remembered, () => Manifest.template(options.name))
  while (true) {
    yield* onDisk(files.writeFileString(path, text))
    yield* open(options.editor, path)
    const written = withoutMarks(yield* onDisk(files.readFileString(path)))
    yield* onDisk(files.writeFileString(path, written))
    if (written.trim() === "") {
      yield* onDisk(files.remove(path))
      return yield* new Declined({ notice: "nothing to run: the text is empty" })
    }
    const parsed = yield* Effect.result(Manifest.parse(written))
    if (parsed._tag === "Success") return parsed.success
    const marked = withMark(written, parsed.failure)
    if (marked === text) {
      return yield* new LocalError({ problem: `${path}:${parsed.failure.line}: ${parsed.failure.problem}` })
    }
    text = marked
  }
})
