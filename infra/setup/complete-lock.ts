/**
 * `npm run lock`: adds to package-lock.json what a registry that carries few platforms leaves out. Some packages name
 * one optional package per platform; npm writes a lock without those that the registry in use lacks, and `npm ci` then
 * refuses that very lock. An entry with version, system and processor is enough, since it is never installed here.
 */
import { Effect, Schema } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const path = fileURLToPath(new URL("../../package-lock.json", import.meta.url))

const Entry = Schema.StructWithRest(
  Schema.Struct({
    version: Schema.optionalKey(Schema.String),
    dev: Schema.optionalKey(Schema.Boolean),
    optionalDependencies: Schema.optionalKey(Schema.Record(Schema.String, Schema.String))
  }),
  [Schema.Record(Schema.String, Schema.Unknown)]
)
const Lock = Schema.fromJsonString(Schema.StructWithRest(
  Schema.Struct({ packages: Schema.Record(Schema.String, Entry) }),
  [Schema.Record(Schema.String, Schema.Unknown)]
))

/** Words in the names of platform packages, and what npm calls that system or processor. */
const systems = new Set([
  "darwin",
  "win32",
  "linux",
  "android",
  "freebsd",
  "netbsd",
  "openbsd",
  "sunos",
  "aix",
  "openharmony"
])
const processors: Readonly<Record<string, string>> = {
  aarch64: "arm64",
  arm64: "arm64",
  armv7: "arm",
  arm: "arm",
  x64: "x64",
  ia32: "ia32",
  ppc64: "ppc64",
  s390x: "s390x",
  riscv64: "riscv64",
  loong64: "loong64",
  mips64el: "mips64el",
  wasm32: "wasm32"
}

const isExact = (range: string): boolean => /^=?\d/.test(range)

const completed = (packages: Readonly<Record<string, typeof Entry.Type>>): Record<string, typeof Entry.Type> => {
  const all: Record<string, typeof Entry.Type> = { ...packages }
  for (const [owner, entry] of Object.entries(packages)) {
    for (const [name, range] of Object.entries(entry.optionalDependencies ?? {})) {
      const version = range.replace(/^[\^~=]+/, "")
      const hoisted = `node_modules/${name}`
      const places = [`${owner}/node_modules/${name}`, hoisted]
      const isThere = places.some((place) => {
        const found = all[place]
        return found !== undefined && (found.version === version || !isExact(range))
      })
      if (isThere) {
        continue
      }
      const words = (name.split("/").at(-1) ?? "").split("-")
      const system = words.find((word) => systems.has(word))
      const processor = words.find((word) => Object.hasOwn(processors, word))
      all[all[hoisted] === undefined ? hoisted : `${owner}/node_modules/${name}`] = {
        version,
        ...(processor === undefined ? {} : { cpu: [processors[processor]] }),
        ...(entry.dev === true ? { dev: true } : {}),
        optional: true,
        ...(system === undefined ? {} : { os: [system] }),
        ...(name.includes("musl") ? { libc: ["musl"] } : {})
      }
    }
  }
  return Object.fromEntries(Object.entries(all).toSorted(([a], [b]) => a < b ? -1 : 1))
}

const lock = Effect.runSync(Schema.decodeUnknownEffect(Lock)(readFileSync(path, "utf8")))
writeFileSync(path, `${JSON.stringify({ ...lock, packages: completed(lock.packages) }, undefined, 2)}\n`)
