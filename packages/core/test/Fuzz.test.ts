/** Decoders of what users write, on what no user would write: they answer and never throw. */
import { assert, describe, it } from "@effect/vitest"
import * as ImageName from "@fast-sandbox/core/ImageName"
import * as Instant from "@fast-sandbox/core/Instant"
import * as LabelSelector from "@fast-sandbox/core/LabelSelector"
import * as Quantity from "@fast-sandbox/core/Quantity"
import { limits, Sandbox, SandboxSpec } from "@fast-sandbox/core/Sandbox"
import { SandboxPool } from "@fast-sandbox/core/SandboxPool"
import * as SandboxValidation from "@fast-sandbox/core/SandboxValidation"
import { Result, Schema } from "effect"

const Metadata = Schema.Struct({
  name: Schema.String,
  namespace: Schema.String,
  labels: Schema.Record(Schema.String, Schema.String)
})

describe("sandboxes", () => {
  it.prop("of any content are refused with a field, or right", [Metadata, SandboxSpec], ([metadata, spec]) => {
    const verdict = SandboxValidation.validate({ metadata, spec })
    if (Result.isFailure(verdict)) {
      assert.match(verdict.failure.field, /^(metadata|spec)\./)
    } else {
      assert.match(metadata.name, /^[a-z0-9][a-z0-9.-]{0,252}$/)
      assert.isFalse(Object.keys(metadata.labels).some((key) => key.startsWith("fast-sandbox.io/")))
      assert.isFalse([...spec.command ?? [], ...spec.args ?? []].some((word) => word.includes("\0")))
    }
    return true
  })

  it.prop("that are any JSON are read or refused", [Schema.Json], ([json]) => {
    for (const schema of [Sandbox, SandboxPool]) {
      const read = Schema.decodeUnknownResult(schema)
      assert.include(["Success", "Failure"], read(json)._tag)
      assert.include(["Success", "Failure"], read({ apiVersion: "sandbox.fast.io/v1alpha1", spec: json })._tag)
    }
    return true
  })

  it("beyond a bound are refused with the field", () => {
    const good = { image: "busybox", poolRef: "p" }
    const metadata = { name: "a", namespace: "b" }
    const long = "x".repeat(limits.wordLength + 1)
    const half = "x".repeat(limits.wordLength - 10)
    const labels = Object.fromEntries(Array.from({ length: limits.labels + 1 }, (_, n) => [`l${n}`, ""]))
    const cases: ReadonlyArray<readonly [Parameters<typeof SandboxValidation.validate>[0], string]> = [
      [{ metadata, spec: { ...good, args: [long] } }, "spec.args[0]"],
      [{ metadata, spec: { ...good, command: [long] } }, "spec.command[0]"],
      [{ metadata, spec: { ...good, envs: [{ name: "A", value: long }] } }, "spec.envs[0].value"],
      [
        { metadata, spec: { ...good, envs: Array.from({ length: 20 }, (_, n) => ({ name: `E${n}`, value: half })) } },
        "spec.envs"
      ],
      [{ metadata: { ...metadata, labels }, spec: good }, "metadata.labels"],
      [
        { metadata: { ...metadata, labels: { "fast-sandbox.io/managed": "true" } }, spec: good },
        "metadata.labels[fast-sandbox.io/managed]"
      ],
      [{ metadata, spec: { ...good, resources: { memory: "1e300" } } }, "spec.resources.memory"],
      [{ metadata, spec: { ...good, securityContext: { runAsUser: -1 } } }, "spec.securityContext.runAsUser"]
    ]
    for (const [sandbox, field] of cases) {
      const verdict = SandboxValidation.validate(sandbox)
      assert.strictEqual(Result.isFailure(verdict) ? verdict.failure.field : "accepted", field)
    }
  })
})

it.prop("names, quantities, instants and selectors of any text are read or refused", [Schema.String], ([text]) => {
  const name = ImageName.parse(text)
  if (Result.isSuccess(name)) {
    // A name that was read is written as one that reads the same.
    assert.deepStrictEqual(ImageName.parse(ImageName.format(name.success)), name)
  }
  for (const parsed of [Quantity.parse(text), Quantity.parseBytes(text), Instant.parseMillis(text)]) {
    assert.isTrue(parsed._tag === "None" || Number.isFinite(parsed.value))
  }
  assert.include(["Success", "Failure"], LabelSelector.parse(text)._tag)
  return true
})
