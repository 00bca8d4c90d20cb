/**
 * Loads Node's large built-in modules when they are first used instead of at the start: a command that only prints does
 * not need child_process, readline or crypto. Every export becomes a stand-in that fetches the real one.
 */
import type { Plugin } from "esbuild"
import { builtinModules, createRequire } from "node:module"

const require = createRequire(import.meta.url)

/** Loaded by Node's own start anyway, or needed by every command. */
const eager = new Set([
  "buffer",
  "events",
  "fs",
  "module",
  "os",
  "path",
  "process",
  "stream",
  "string_decoder",
  "url",
  "util",
  "v8"
])

const identifier = /^[A-Za-z_$][\w$]*$/

const isScalar = (value: unknown): boolean =>
  value === null || ["string", "number", "boolean", "undefined"].includes(typeof value)

/** Values that the bundle may hold instead of the module: constants, and records of constants. */
const isConstant = (value: unknown): boolean => {
  if (typeof value !== "object" || value === null) return isScalar(value)
  const prototype: unknown = Object.getPrototypeOf(value)
  return (prototype === null || prototype === Object.prototype) && Object.values(value).every(isScalar)
}

const standIn = `let real
const load = () => real ??= process.getBuiltinModule(MODULE)
const lazy = (name) => {
  const proxy = new Proxy(function() {}, {
  get: (_, property) => {
    const found = load()[name]
    const value = Reflect.get(found, property)
    return typeof value === "function" && typeof found !== "function" ? value.bind(found) : value
  },
  apply: (_, self, args) => Reflect.apply(load()[name], self, args),
  // a class that extends the stand-in must come out as itself
  construct: (_, args, target) => Reflect.construct(load()[name], args, target === proxy ? load()[name] : target),
  getPrototypeOf: () => Reflect.getPrototypeOf(load()[name]),
  has: (_, property) => property in load()[name]
  })
  return proxy
}`

const read = (module: Record<string, unknown>, name: string): unknown => {
  try {
    return module[name]
  } catch {
    // a deprecated export that throws when it is touched
    return undefined
  }
}

const contentsOf = (id: string): string => {
  const module: Record<string, unknown> = require(`node:${id}`)
  const names = Object.keys(module).filter((name) => identifier.test(name) && name !== "default")
  const declarations = names.map((name) => {
    const value = read(module, name)
    return isConstant(value)
      ? `const $${name} = ${JSON.stringify(value)}`
      : `const $${name} = /* @__PURE__ */ lazy(${JSON.stringify(name)})`
  })
  return [
    standIn.replace("MODULE", JSON.stringify(`node:${id}`)),
    ...declarations,
    `export { ${names.map((name) => `$${name} as ${name}`).join(", ")} }`,
    `export default { ${names.map((name) => `get ${name}() { return $${name} }`).join(", ")} }`
  ].join("\n")
}

/** The esbuild plugin. */
export const lazyBuiltins: Plugin = {
  name: "lazy-builtins",
  setup(build) {
    build.onResolve({ filter: /^(node:)?[a-z_/0-9]+$/ }, ({ path }) => {
      const id = path.replace(/^node:/, "")
      if (!builtinModules.includes(id)) return undefined
      // a module that is itself called, such as assert, has no exports to stand in for
      return eager.has(id) || typeof require(`node:${id}`) === "function"
        ? { path: `node:${id}`, external: true }
        : { path: id, namespace: "lazy-builtin", sideEffects: false }
    })
    build.onLoad(
      { filter: /.*/, namespace: "lazy-builtin" },
      ({ path }) => ({ contents: contentsOf(path), loader: "js" })
    )
  }
}
