import { assert, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, rmdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const repository = fileURLToPath(new URL("../../..", import.meta.url))

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

/** Evaluates the flake against the stand-in for nixpkgs, with a store that goes with the mount namespace. */
const nix = (directory: string, ...args: ReadonlyArray<string>): string =>
  execFileSync("unshare", [
    "--mount",
    "sh",
    "-c",
    "mount --bind \"$STORE\" /nix && exec nix \"$@\"",
    "nix",
    ...args,
    "--override-input",
    "nixpkgs",
    `path:${repository}/infra/nix/stand-in`,
    "--no-write-lock-file",
    "--impure"
  ], {
    cwd: directory,
    encoding: "utf8",
    env: {
      PATH: process.env["PATH"],
      HOME: directory,
      STORE: join(directory, "store"),
      NIX_CONF_DIR: directory,
      STANDIN_NODE: process.execPath
    }
  })

it("the flake evaluates, and builds the native programs", () => {
  const directory = mkdtempSync(join(tmpdir(), "fsb-flake-"))
  const hadNix = existsSync("/nix")
  try {
    mkdirSync("/nix", { recursive: true })
    mkdirSync(join(directory, "store"))
    mkdirSync(join(directory, "flake"))
    writeFileSync(join(directory, "nix.conf"), configuration)
    // What git has, since a folder as a whole would bring node_modules along.
    const tracked = execFileSync("git", ["ls-files", "-z"], { cwd: repository })
    execFileSync("tar", ["-C", repository, "--null", "-T", "-", "-cf", join(directory, "tree.tar")], { input: tracked })
    execFileSync("tar", ["-xf", join(directory, "tree.tar"), "-C", join(directory, "flake")])
    const flake = `path:${directory}/flake`
    nix(directory, "flake", "check", "--no-build", flake)
    const shown = nix(directory, "flake", "show", flake)
    for (
      const name of ["fsb-ctl", "bundles", "image-agent", "image-controller", "image-janitor", "devShells", "overlays"]
    ) {
      assert.include(shown, name)
    }
    const built = nix(directory, "build", `${flake}#native`, "--no-link", "--json")
    const [native = ""] = /\/nix\/store\/[\w.-]+-native-[\d.]+(?=")/.exec(built) ?? []
    assert.isTrue(existsSync(join(directory, "store", native.slice("/nix".length), "bin/fsb-logger")))
  } finally {
    rmSync(directory, { recursive: true, force: true })
    if (!hadNix) rmdirSync("/nix")
  }
})
