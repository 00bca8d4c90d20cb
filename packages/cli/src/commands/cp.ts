/**
 * `fsb-ctl cp`
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Pack from "../copy/Pack.ts"
import * as Unpack from "../copy/Unpack.ts"
import { UsageError } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Progress from "../Progress.ts"
import { Screen } from "../Screen.ts"
import * as Terminal from "../Terminal.ts"

const flags = {
  source: Argument.String("SOURCE").pipe(
    Argument.withDescription("A path here, or NAME:PATH in a sandbox, or - for a tar archive")
  ),
  target: Argument.String("TARGET").pipe(Argument.withDescription("The same; one of the two is in a sandbox")),
  archive: Flags.presence("archive", "Keep the owners").pipe(Flag.withAlias("a")),
  followLink: Flags.presence("follow-link", "Copy what SOURCE links to, not the link").pipe(Flag.withAlias("L"))
}

/** A tar archive on stdin or stdout. */
const PIPE = "-"

/** One side of a copy. */
export type Side =
  | { readonly _tag: "Here"; readonly path: string }
  | { readonly _tag: "Sandbox"; readonly name: string; readonly path: string }
  | { readonly _tag: "Pipe" }

/** `NAME:PATH` is in a sandbox unless something before the colon makes it a path; relative paths begin at the root. */
export const parse = (text: string): Side => {
  if (text === PIPE) return { _tag: "Pipe" }
  const colon = text.indexOf(":")
  const name = text.slice(0, colon)
  if (colon < 1 || /[/.]/.test(name)) return { _tag: "Here", path: text }
  const path = text.slice(colon + 1)
  return { _tag: "Sandbox", name, path: path.startsWith("/") ? path : `/${path}` }
}

const refuse = (problem: string): UsageError => new UsageError({ command: "cp", problem })

const MILLIS_PER_SECOND = 1000

/** Told this often, so that a terminal is not the slowest part of a copy. */
const TELL_MILLIS = 200

/** Tells how many bytes have moved, and how fast; only on a terminal. */
const meter = Effect.gen(function*() {
  const screen = yield* Screen
  const tell = yield* Progress.reporter
  const begun = yield* Clock.currentTimeMillis
  let told = begun
  return (bytes: number): Effect.Effect<void> =>
    screen.isTalkTerminal
      ? Effect.flatMap(Clock.currentTimeMillis, (now) => {
        if (now - told < TELL_MILLIS) return Effect.void
        told = now
        const rate = bytes / Math.max(1, now - begun) * MILLIS_PER_SECOND
        return tell("copying", `${Progress.formatBytes(bytes)}, ${Progress.formatBytes(rate)}/s`)
      })
      : Effect.void
})

const report = Effect.fnUntraced(function*({ bytes, entries }: Unpack.Unpacked) {
  const screen = yield* Screen
  yield* Progress.clear
  yield* screen.talk(`copied ${entries} ${entries === 1 ? "entry" : "entries"}, ${Progress.formatBytes(bytes)}\n`)
})

/** `fsb-ctl cp` */
export const cp = Command.make(
  "cp",
  flags,
  Effect.fnUntraced(function*({ archive, followLink, source, target }) {
    const sandboxes = yield* Sandboxes
    const screen = yield* Screen
    const onBytes = yield* meter
    const [from, to] = [parse(source), parse(target)]
    if (from._tag === "Sandbox" && to._tag === "Sandbox") {
      return yield* refuse("copy from one sandbox to another through a pipe: cp A:PATH - | cp - B:PATH")
    }
    if (to._tag === "Sandbox") {
      const { files } = sandboxes.inside(to.name)
      let bytes = 0
      const packed = from._tag === "Here" ? Pack.archive(from.path, { followLink }) : Terminal.input
      const metered = Stream.tap(packed, (chunk) => onBytes(bytes += chunk.length))
      return yield* report(
        yield* files.put(to.path, metered, { keepOwner: archive, intoFolder: from._tag === "Pipe" })
      )
    }
    if (from._tag !== "Sandbox") {
      return yield* refuse("one of the two must be in a sandbox: NAME:PATH")
    }
    const packed = sandboxes.inside(from.name).files.get(from.path, { followLink })
    if (to._tag === "Pipe") {
      if (screen.isDataTerminal) return yield* refuse("an archive is nothing for a terminal; write it into a file")
      return yield* Stream.runForEach(packed, screen.data)
    }
    yield* report(yield* Unpack.unpack(packed, { source: from.path, target: to.path, keepOwner: archive, onBytes }))
  })
).pipe(
  Command.withShortDescription("Copy files into and out of a sandbox"),
  Command.withDescription(
    "Copies files and folders with their modes, times and links. A folder that exists takes the source in; any other target gives it its name. SOURCE/. means what is in the folder. With - a tar archive goes through stdin or stdout."
  ),
  Command.withExamples([
    { command: "fsb-ctl cp ./app web:/srv", description: "A folder into a folder" },
    { command: "fsb-ctl cp web:/var/log/. logs", description: "What is in a folder, here" },
    { command: "tar c src | fsb-ctl cp - web:/work", description: "An archive from another program" }
  ]),
  Command.annotate(Operands, "SOURCE TARGET"),
  Command.provide(Globals.connection)
)
