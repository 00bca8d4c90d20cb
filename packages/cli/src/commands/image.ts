/**
 * `fsb-ctl image`: the images that the nodes hold.
 */
import { type ImageProgress, Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { LocalError, UsageError } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Output from "../Output.ts"
import * as Progress from "../Progress.ts"
import * as SandboxView from "../SandboxView.ts"
import { Screen } from "../Screen.ts"
import * as Terminal from "../Terminal.ts"

const pool = Flags.optionalText("pool", "POOL", "Only the nodes of this pool")

const image = Argument.String("IMAGE").pipe(Argument.withDescription("The image, such as alpine:3"))

const list = Command.make(
  "list",
  { pool },
  Effect.fnUntraced(function*({ pool }) {
    const { images } = yield* Sandboxes
    yield* Output.printAll(SandboxView.images, yield* images.list({ pool: Option.getOrUndefined(pool) }), {
      format: yield* Globals.format,
      whenEmpty: "no images; 'fsb-ctl image pull' brings one"
    })
  })
).pipe(
  Command.withAlias("ls"),
  Command.withShortDescription("List the images that nodes hold"),
  Command.withDescription(
    "Lists the images that nodes hold, and which nodes. A sandbox of such an image starts at once."
  ),
  Command.withExamples([{ command: "fsb-ctl image list -o wide", description: "With the nodes' names" }]),
  Command.annotate(Operands, ""),
  Command.provide(Globals.connection)
)

/** What a node does; an archive has no name before it is read. */
const step = ({ image, node, status }: ImageProgress): string => `${node}: ${image === "" ? "" : `${image} `}${status}`

const share = ({ currentBytes, totalBytes }: ImageProgress): string => {
  if (currentBytes === 0) return ""
  const current = Progress.formatBytes(currentBytes)
  return totalBytes === undefined ? current : `${current} of ${Progress.formatBytes(totalBytes)}`
}

/** Says how far each node is, and prints the name of each image that is there in the end. */
const follow = Effect.fnUntraced(function*<E, R>(progress: Stream.Stream<ImageProgress, E, R>) {
  const screen = yield* Screen
  const report = yield* Progress.reporter
  const done = yield* progress.pipe(
    Stream.tap((event) => report(step(event), share(event))),
    Stream.filter(({ status }) => status === "done"),
    Stream.runCollect,
    Effect.ensuring(Progress.clear)
  )
  yield* screen.data([...new Set(done.map(({ image }) => `${image}\n`))].join(""))
})

const pull = Command.make(
  "pull",
  { image, pool },
  Effect.fnUntraced(function*({ image, pool }) {
    const { images } = yield* Sandboxes
    yield* follow(images.pull(image, { pool: Option.getOrUndefined(pool) }))
  })
).pipe(
  Command.withShortDescription("Pull an image on every node"),
  Command.withDescription("Pulls an image on every node, or on those of a pool, so that its sandboxes start at once."),
  Command.withExamples([
    { command: "fsb-ctl image pull alpine:3" },
    { command: "fsb-ctl image pull --pool gpu registry.example.com/model:7", description: "Only for one pool" }
  ]),
  Command.annotate(Operands, "IMAGE"),
  Command.provide(Globals.connection)
)

const STDIN = "-"

const readArchive = (path: string) =>
  path === STDIN
    ? Terminal.input
    : Stream.unwrap(Effect.map(FileSystem.FileSystem, (files) => files.stream(path))).pipe(
      Stream.mapError(({ message, reason }) =>
        new LocalError({
          problem: reason._tag === "NotFound" ? `there is no file ${path}` : `can't read ${path}: ${message}`
        })
      )
    )

const load = Command.make(
  "load",
  {
    file: Argument.String("FILE").pipe(
      Argument.withDescription("An OCI or docker archive; - is stdin"),
      Argument.withDefault(STDIN)
    ),
    name: Flags.optionalText("name", "IMAGE", "The image's name, where the archive does not say one"),
    pool
  },
  Effect.fnUntraced(function*({ file, name, pool }) {
    const { images } = yield* Sandboxes
    if (file === STDIN && process.stdin.isTTY) {
      return yield* new UsageError({ command: "image load", problem: "FILE is missing, and stdin is a terminal" })
    }
    yield* follow(images.load(readArchive(file), {
      pool: Option.getOrUndefined(pool),
      name: Option.getOrUndefined(name)
    }))
  })
).pipe(
  Command.withShortDescription("Load an archive on every node"),
  Command.withDescription(
    "Sends an OCI or docker archive to every node, or to those of a pool. No registry is needed."
  ),
  Command.withExamples([
    { command: "fsb-ctl image load app.tar" },
    { command: "docker save app:dev | fsb-ctl image load", description: "From docker, without a file" }
  ]),
  Command.annotate(Operands, "[FILE]"),
  Command.provide(Globals.connection)
)

const remove = Command.make(
  "remove",
  { image, pool },
  Effect.fnUntraced(function*({ image, pool }) {
    const { images } = yield* Sandboxes
    const screen = yield* Screen
    const nodes = yield* images.remove(image, { pool: Option.getOrUndefined(pool) })
    yield* screen.data(nodes.map((node) => `${node}\n`).join(""))
  })
).pipe(
  Command.withAlias("rm"),
  Command.withShortDescription("Remove an image from every node"),
  Command.withDescription("Removes an image from every node, or from those of a pool. Prints the nodes that held it."),
  Command.withExamples([{ command: "fsb-ctl image remove alpine:3" }]),
  Command.annotate(Operands, "IMAGE"),
  Command.provide(Globals.connection)
)

/** `fsb-ctl image` */
export const images = Command.make("image").pipe(
  Command.withShortDescription("Pull, load, list and remove images"),
  Command.withDescription("The images that nodes hold. A sandbox of an image that its node holds starts at once."),
  Command.withSubcommands([list, pull, load, remove])
)
