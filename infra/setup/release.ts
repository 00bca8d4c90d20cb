/**
 * What a release publishes, made and checked: `node infra/setup/release.ts [VERSION]`. With a version that is not the
 * current one it first writes that into every place that names one. Nothing is published from here.
 *
 * `dist/release/fsb-ctl-VERSION-linux-ARCH.tar.gz` is fsb-ctl with everything that `up` starts and its own node; beside it,
 * without the ending, is fsb-ctl as one file for whoever talks to a server elsewhere.
 */
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import { cpSync, globSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))
const target = `${root}dist/release`

const [wanted] = process.argv.slice(2)

const read = (path: string): string => readFileSync(`${root}${path}`, "utf8")

/** Every place that names the version, and how it stands there. */
const places: ReadonlyArray<readonly [path: string, pattern: RegExp]> = [
  ...["package.json", ...globSync("packages/*/package.json", { cwd: root })].map((path) =>
    [path, /("version"|"@fast-sandbox\/[a-z]+"): "([\d.]+)"/g] as const
  ),
  ["packages/core/src/Version.ts", /(version =) "([\d.]+)"/g],
  ["infra/manifests/controller.yaml", /(image: fast-sandbox\/[a-z]+):([\d.]+)/g],
  ["infra/manifests/janitor.yaml", /(image: fast-sandbox\/[a-z]+):([\d.]+)/g]
]

const { version: current }: { readonly version: string } = JSON.parse(read("package.json"))

const fail = (problem: string): never => {
  process.stderr.write(`release: ${problem}\n`)
  process.exit(1)
}

const check = (): void => {
  for (const [path, pattern] of places) {
    for (const [, what, found] of read(path).matchAll(pattern)) {
      if (found !== current) fail(`${path} says ${found} where the root says ${current} (${what})`)
    }
  }
  if (!/^## Unreleased\n+### /m.test(read("CHANGELOG.md"))) fail("CHANGELOG.md has nothing under Unreleased")
}

/** Only in the places above: the rest of a file may name versions of others. */
const write = (version: string): void => {
  if (!/^\d+\.\d+\.\d+$/.test(version)) fail(`${version} is no version`)
  for (const [path, pattern] of places) {
    writeFileSync(`${root}${path}`, read(path).replace(pattern, (text) => text.replace(current, version)))
  }
  const heading = `## Unreleased\n\n## ${version} - ${new Date().toISOString().slice(0, 10)}\n`
  writeFileSync(`${root}CHANGELOG.md`, read("CHANGELOG.md").replace("## Unreleased\n", heading))
}

/** The launcher finds its node below `node_modules`, as in the repository. */
const pack = (): void => {
  const name = `fsb-ctl-${current}-linux-${process.arch}`
  const folder = `${target}/${name}`
  rmSync(target, { recursive: true, force: true })
  mkdirSync(`${folder}/node_modules/.bin`, { recursive: true })
  mkdirSync(`${folder}/dist`)
  cpSync(`${root}bin`, `${folder}/bin`, { recursive: true })
  cpSync(`${root}LICENSE`, `${folder}/LICENSE`)
  for (const file of readdirSync(`${root}dist`).filter((file) => /^(fsb-|agent\.cjs)/.test(file))) {
    cpSync(`${root}dist/${file}`, `${folder}/dist/${file}`)
  }
  cpSync(`${root}node_modules/node-linux-${process.arch}/bin/node`, `${folder}/node_modules/.bin/node`)
  execFileSync("tar", [
    "--sort=name",
    "--owner=0",
    "--group=0",
    "--numeric-owner",
    "--mtime=@0",
    "-czf",
    `${target}/${name}.tar.gz`,
    "-C",
    target,
    name
  ])
  rmSync(folder, { recursive: true })
  execFileSync(process.execPath, [`${root}packages/cli/build/executable.ts`])
}

const list = (): void => {
  const archives = ["controller", "agent", "janitor"].map((image) => `${root}dist/images/${image}.tar`)
  for (const path of [...readdirSync(target).map((file) => `${target}/${file}`), ...archives]) {
    const digest = createHash("sha256").update(readFileSync(path)).digest("hex")
    process.stdout.write(`${digest}  ${(statSync(path).size / 1e6).toFixed(1)} MB  ${path.slice(root.length)}\n`)
  }
}

if (wanted !== undefined && wanted !== current) {
  write(wanted)
  process.stdout.write(`Version ${wanted} is written; commit, then run this again.\n`)
} else {
  check()
  pack()
  list()
}
