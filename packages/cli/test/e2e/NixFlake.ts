/**
 * `flake.nix`, evaluated and built by Nix against the stand-in for nixpkgs, without a network: the checkout's node_modules
 * stand for what npm would download. Wants root, and a build beforehand.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { fileURLToPath } from "node:url"
import * as LocalStack from "./LocalStack.ts"

const repository = fileURLToPath(new URL("../../../..", import.meta.url))

/** No daemon, no cache, nothing of the network. */
const configuration = `experimental-features = nix-command flakes
sandbox = false
build-users-group =
substituters =
substitute = false
builders =
flake-registry =
warn-dirty = false
`

/** Nix knows its store by this path only; each command sees another folder there. */
const storeRoot = "/nix"

const Built = Schema.fromJsonString(Schema.Tuple([Schema.Struct({ outputs: Schema.Struct({ out: Schema.String }) })]))

/** The flake with a store of its own. */
export class NixFlake extends Context.Service<NixFlake, {
  /** Runs a command of Nix's on the flake; gives what it says. */
  nix(...command: ReadonlyArray<string>): Effect.Effect<string>
  /** Builds a package; gives where it lies. */
  build(name: string): Effect.Effect<string>
  /** Builds an image; gives an archive of it that containerd imports, which takes none that is compressed as a whole. */
  buildImage(name: string): Effect.Effect<string>
}>()("@fast-sandbox/cli/test/e2e/NixFlake") {}

const make = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const directory = yield* files.makeTempDirectoryScoped({ prefix: "fsb-flake-" })
  const flake = `${directory}/flake`
  const store = `${directory}/store`
  yield* Effect.forEach([flake, store], (path) => files.makeDirectory(path))
  yield* files.writeFileString(`${directory}/nix.conf`, configuration)
  if (!(yield* files.exists(storeRoot))) {
    yield* Effect.acquireRelease(files.makeDirectory(storeRoot), () => Effect.ignore(files.remove(storeRoot)))
  }
  const must = (script: string, ...args: ReadonlyArray<string>) =>
    Effect.flatMap(
      LocalStack.run("sh", ["-euc", script, "sh", ...args], {
        env: {
          HOME: directory,
          NIX_CONF_DIR: directory,
          STANDIN_NODE: process.execPath,
          STANDIN_NODE_MODULES: `${repository}/node_modules`
        }
      }),
      ({ code, stderr, stdout }) =>
        code === 0 ? Effect.succeed(stdout) : Effect.die(new Error(`${args.join(" ")} ended with ${code}: ${stderr}`))
    )
  // What git has, since a folder as a whole would bring node_modules along.
  yield* must("git ls-files -z | tar --null -T - -cf - | tar -C \"$1\" -xf -", flake)

  const nix = (command: ReadonlyArray<string>) =>
    must(
      `exec unshare --mount sh -c 'mount --bind "$0" ${storeRoot} && exec nix "$@"' "$@"`,
      store,
      ...command,
      "--override-input",
      "nixpkgs",
      `path:${repository}/infra/nix/stand-in`,
      "--no-write-lock-file",
      "--impure"
    )
  const build = Effect.fnUntraced(function*(name: string) {
    const built = yield* nix(["build", `path:${flake}#${name}`, "--no-link", "--json"])
    const [{ outputs: { out } }] = yield* Schema.decodeUnknownEffect(Built)(built)
    return `${store}${out.slice(storeRoot.length)}`
  }, Effect.orDie)
  return NixFlake.of({
    nix: (...command) => nix([...command, `path:${flake}`]),
    build,
    buildImage: Effect.fnUntraced(function*(name) {
      const archive = `${directory}/${name}.tar`
      yield* must("zcat \"$1\" > \"$2\"", yield* build(name), archive)
      return archive
    })
  })
})

export const layer = Layer.effect(NixFlake, make).pipe(Layer.orDie)
