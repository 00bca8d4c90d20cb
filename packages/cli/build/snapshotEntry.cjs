/**
 * Loads the chunks of fsb-ctl in place of Node's own loader, which is not there in a start-up snapshot: those that are
 * loaded while the snapshot is made are in it, the others are read when they are needed. Written to `dist/` as it is.
 */
"use strict"
const { readFileSync } = require("node:fs")
const { dirname, join } = require("node:path")
const { startupSnapshot } = require("node:v8")

const loaded = new Map()

/** Beside this file while the snapshot is made; beside the script that the launcher names afterwards. */
const directory = () => startupSnapshot.isBuildingSnapshot() ? __dirname : dirname(process.argv[1])

const builtin = (name) => startupSnapshot.isBuildingSnapshot() ? require(name) : process.getBuiltinModule(name)

const load = (name) => {
  if (!name.startsWith("./")) return builtin(name)
  const known = loaded.get(name)
  if (known !== undefined) return known.exports
  const file = join(directory(), name)
  const module = { exports: {} }
  loaded.set(name, module)
  const body = new Function("module", "exports", "require", `${readFileSync(file, "utf8")}\n//# sourceURL=${file}`)
  body(module, module.exports, load)
  return module.exports
}

load("./fsb-ctl.cjs")
