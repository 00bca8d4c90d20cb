import { assert, describe, it } from "@effect/vitest"
import { existsSync, globSync } from "node:fs"
import { dirname, join } from "node:path"
import * as Pages from "./Pages.ts"

/** The part of the reference about each command, by its words behind `fsb-ctl`. */
const reference = new Map(
  Pages.read("docs/reference/cli.md").split(/^## /m).slice(1).map((section) => {
    const [title = ""] = section.split("\n", 1)
    return [title, section] as const
  })
)

const globalFlags = reference.get("fsb-ctl") ?? ""

/** Other names of commands, as the lists of commands show them: `list, ls`. */
const aliases = new Map(
  [...[...reference.values()].join("").matchAll(/^ {2}([a-z-]+), ([a-z-]+) {2,}/gm)].map(([, name = "", alias = ""]) =>
    [alias, name] as const
  )
)

/** Every place of a page where fsb-ctl is called: lines of blocks, and what stands in backticks. */
const callsOf = (page: string): ReadonlyArray<string> => {
  const blocks = Pages.blocksOf(page).filter(({ language }) => language === "sh").map(({ text }) =>
    text.replace(/ #.*$/gm, "")
  )
  const inline = [...Pages.read(page).matchAll(/`([^`\n]+)`/g)].map(([, text = ""]) => text)
  return [...blocks, ...inline].flatMap((text) =>
    [...text.matchAll(/(?:^|[\s/(])fsb-ctl((?: [^\n|&#;]*)?)/g)].map(([, words = ""]) => words.trim())
  )
}

/** What is wrong with a call by the reference; undefined when nothing is. */
const problemOf = (call: string): string | undefined => {
  const [own = ""] = call.split(" -- ")
  const words = own.split(/\s+/).filter((word) => word !== "")
  const flags = words.flatMap((word) => /^--[a-z][a-z-]*/.exec(word) ?? [])
  const [first, second] = words.filter((word) => /^[a-z][a-z-]*$/.test(word)).map((word) => aliases.get(word) ?? word)
  const title = [["fsb-ctl", first, second], ["fsb-ctl", first]]
    .map((names) => names.filter((name) => name !== undefined).join(" "))
    .find((name) => reference.has(name))
  if (title === undefined) return `there is no ${first}`
  const known = `${reference.get(title)}${globalFlags}`
  return flags.filter((flag) => !new RegExp(`${flag}\\b`).test(known)).map((flag) => `no ${flag}`)[0]
}

/** `a/{b,c}` is two paths. */
const braces = (path: string): ReadonlyArray<string> => {
  const [whole, list] = /\{([^}]*)\}/.exec(path) ?? []
  return whole === undefined || list === undefined
    ? [path]
    : list.split(",").flatMap((one) => braces(path.replace(whole, one)))
}

describe("the documentation", () => {
  it("says of every command and program whether a test runs it, or why none does", () => {
    const unmarked = Pages.all.filter((page) => !page.startsWith("docs/reference/")).flatMap((page) =>
      Pages.blocksOf(page)
        .filter(({ language, mark }) =>
          (language === "sh" || language === "ts") && mark !== "test" && !/^not run: \S/.test(mark)
        )
        .map(({ text }) => `${page}: ${text}`)
    )
    assert.deepStrictEqual(unmarked, [])
  })

  it("names only files that exist", () => {
    const missing = Pages.written.flatMap((page) =>
      [...Pages.read(page).matchAll(/`((?:packages|infra|docs|proto)\/[^`\s*]*)`/g)]
        .flatMap(([, path = ""]) => braces(path))
        .filter((path) => !existsSync(`${Pages.repository}/${path}`))
        .map((path) => `${page}: ${path}`)
    )
    assert.deepStrictEqual(missing, [])
  })

  it("leads only to pages and headings that exist", () => {
    const links = Pages.all.flatMap((page) =>
      [...Pages.read(page).matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)/g)].map((
        [link, path = "", heading]
      ) => ({
        where: `${page}: ${link}`,
        target: path === "" ? page : join(dirname(page), path),
        heading
      }))
    )
    assert.isAbove(links.length, 30)
    const dead = links.filter(({ heading, target }) =>
      !existsSync(join(Pages.repository, target)) ||
      heading !== undefined && !Pages.headingsOf(target).includes(heading)
    )
    assert.deepStrictEqual(dead.map(({ where }) => where), [])
  })

  it("lists every decision by its title", () => {
    const list = Pages.read("docs/decisions/README.md")
    const missing = globSync("docs/decisions/[0-9]*.md", { cwd: Pages.repository }).filter((path) => {
      const [, title = ""] = /^# (.*)/.exec(Pages.read(path)) ?? []
      return !list.includes(`(${path.slice("docs/decisions/".length)})`) || !list.includes(title)
    })
    assert.deepStrictEqual(missing, [])
  })

  it("names only commands and flags that exist", () => {
    const calls = Pages.written.flatMap((page) => callsOf(page).map((call) => ({ page, call })))
    assert.isAbove(calls.length, 40)
    const wrong = calls.flatMap(({ call, page }) => {
      const problem = problemOf(call)
      return problem === undefined ? [] : [`${page}: fsb-ctl ${call}: ${problem}`]
    })
    assert.deepStrictEqual(wrong, [])
  })
})
