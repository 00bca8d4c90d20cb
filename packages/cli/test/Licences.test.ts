import { assert, it } from "@effect/vitest"
import { globSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const repository = fileURLToPath(new URL("../../..", import.meta.url))

/** Licences that ask for no more than that they are named. */
// dprint-ignore
const allowed = new Set([
  "MIT", "ISC", "0BSD", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "BlueOak-1.0.0", "CC0-1.0", "Unlicense", "Python-2.0", "PSF-2.0",
  "Zlib", "Artistic-2.0", "CC-BY-4.0", "MPL-2.0", "MIT-0", "W3C-20150513"
])

/** `A OR B` needs one, `A AND B` both. */
const isAllowed = (expression: string): boolean =>
  expression.replace(/[()]/g, "").split(" OR ").some((choice) =>
    choice.split(" AND ").every((one) => allowed.has(one.trim()))
  )

it("every dependency has a licence that may go into a product", () => {
  const manifests = globSync(["node_modules/*/package.json", "node_modules/@*/*/package.json"], { cwd: repository })
    .filter((path) => !path.includes("@fast-sandbox/"))
  assert.isAbove(manifests.length, 100)
  const refused = manifests.flatMap((path) => {
    const { license, name }: { readonly license?: string; readonly name?: string } = JSON.parse(
      readFileSync(`${repository}/${path}`, "utf8")
    )
    return license !== undefined && isAllowed(license) ? [] : [`${name}: ${license}`]
  })
  assert.deepStrictEqual(refused, [])
})
