import { assert, it } from "@effect/vitest"
import * as Resource from "../src/Resource.ts"

it("a resource is shown without the notes of who wrote what", () => {
  const metadata = { name: "web", labels: { managedFields: "yes" } }
  const sent = JSON.stringify({ kind: "Sandbox", metadata: { ...metadata, managedFields: [{ manager: "kubectl" }] } })
  assert.deepStrictEqual(Resource.parse(sent), { kind: "Sandbox", metadata })
  assert.throws(() => Resource.parse(""))
})
