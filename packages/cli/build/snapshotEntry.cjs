/**
 * Loads the chunks of fsb-ctl in place of Node's own loader, which is not there in a start-up snapshot: those that are
 * loaded while the snapshot is made are in it, the others are read when they are needed: beside the script that the
 * launcher names, or from within the single executable. Written to `dist/` as it is.
 */
"use strict"
const { readFileSync } = require("node:fs")
const { dirname, join } = require("node:path")
const { startupSnapshot } = require("node:v8")

const loaded = new Map()

const builtin = (name) => startupSnapshot.isBuildingSnapshot() ? require(name) : process.getBuiltinModule(name)

/** The folder that the build names, since a single executable's script has none of its own. */
const buildDirectory = process.env.FSB_BUILD_DIRECTORY

const read = (name) => {
  if (startupSnapshot.isBuildingSnapshot()) return readFileSync(join(buildDirectory, name), "utf8")
  const { getAsset, getAssetKeys, isSea } = builtin("node:sea")
  if (!isSea()) return readFileSync(join(dirname(process.argv[1]), name), "utf8")
  if (!getAssetKeys().includes(name)) throw new Error("take the archive, which has all of its programs")
  return getAsset(name, "utf8")
}

const load = (name) => {
  if (!name.startsWith("./")) return builtin(name)
  const known = loaded.get(name)
  if (known !== undefined) return known.exports
  const module = { exports: {} }
  loaded.set(name, module)
  const text = read(name.slice("./".length))
  const body = new Function("module", "exports", "require", `${text}\n//# sourceURL=${name}`)
  body(module, module.exports, load)
  return module.exports
}

load("./fsb-ctl.cjs")
