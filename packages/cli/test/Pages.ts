/**
 * The pages of the documentation, and the commands and programs in them. A fenced block says behind its language what a
 * test makes of it: `sh test` and `ts test` are run, `sh not run: REASON` says why it is not.
 */
import { globSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

/** The root of the repository. */
export const repository = fileURLToPath(new URL("../../..", import.meta.url))

/** Pages that are written by hand; the reference is generated. */
export const written = [
  "README.md",
  "docs/README.md",
  "docs/concepts.md",
  "docs/contributing.md",
  "docs/installation.md",
  "docs/operations.md",
  "docs/performance.md",
  "docs/quick-start.md",
  "docs/security.md",
  "infra/examples/README.md",
  "packages/client/README.md"
]

/** All pages, but for those of packages that are not ours. */
export const all = globSync(["*.md", "{docs,infra,packages}/**/*.md"], {
  cwd: repository,
  exclude: (path) => path.includes("node_modules")
})

/** The text of a page. */
export const read = (page: string): string => readFileSync(`${repository}/${page}`, "utf8")

/** The headings of a page, as links name them. */
export const headingsOf = (page: string): ReadonlyArray<string> =>
  [...read(page).matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
    heading.toLowerCase().replace(/[^\w -]/g, "").replaceAll(" ", "-")
  )

/** A fenced block. */
export interface Block {
  readonly language: string
  /** What stands behind the language. */
  readonly mark: string
  readonly text: string
}

/** All blocks of a page, in their order. */
export const blocksOf = (page: string): ReadonlyArray<Block> =>
  [...read(page).matchAll(/^```(\w*) ?(.*)\n([\s\S]*?)^```$/gm)].map(([, language = "", mark = "", text = ""]) => ({
    language,
    mark,
    text
  }))

/** Those of a page that a test runs. */
export const tested = (page: string, language: string): ReadonlyArray<string> =>
  blocksOf(page).filter((block) => block.language === language && block.mark === "test").map(({ text }) => text)
