import { assert, it } from "@effect/vitest"
import * as Version from "@fast-sandbox/core/Version"
import { readFileSync } from "node:fs"

it("the version is the package's", () => {
  const manifest: { version: string } = JSON.parse(
    readFileSync(new URL("../package.json", import.meta.url), "utf8")
  )
  assert.strictEqual(Version.version, manifest.version)
})
