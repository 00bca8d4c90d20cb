import { assert, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import * as Version from "../src/Version.ts"

it("the version is the package's", () => {
  const manifest: { version: string } = JSON.parse(
    readFileSync(new URL("../package.json", import.meta.url), "utf8")
  )
  assert.strictEqual(Version.version, manifest.version)
})
