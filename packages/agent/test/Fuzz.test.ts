/** Decoders of the agent on what nobody would write: they answer, they never throw, and they let nothing dangerous by. */
import { fromBinary, toBinary } from "@bufbuild/protobuf"
import { create } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import * as CreateValidation from "@fast-sandbox/agent/CreateValidation"
import * as LogRecord from "@fast-sandbox/agent/logs/LogRecord"
import { limits } from "@fast-sandbox/core/Sandbox"
import { type CreateRequest, CreateRequestSchema } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { Schema } from "effect"

const Bytes = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })))
const Position = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10_000 }))

const request = (changes: Partial<Parameters<typeof build>[0]> = {}) => build({ instanceId: "i-1", ...changes })

const build = (fields: { instanceId: string; image?: string; args?: Array<string>; workingDir?: string }) =>
  create(CreateRequestSchema, {
    instanceId: fields.instanceId,
    claim: { namespace: "n", sandboxName: "s", claimUid: "c" },
    spec: { image: fields.image ?? "busybox", args: fields.args ?? [], workingDir: fields.workingDir ?? "" }
  })

/** What every accepted request keeps to, whatever it is made of. */
const assertHarmless = ({ instanceId, spec }: CreateRequest) => {
  assert.match(instanceId, /^[A-Za-z0-9][A-Za-z0-9._-]{0,75}$/)
  assert.isFalse(instanceId.includes("..") || instanceId.includes("/"))
  const words = [...spec?.command ?? [], ...spec?.args ?? [], spec?.workingDir ?? ""]
  assert.isFalse(words.some((word) => word.includes("\0")))
  assert.isAtMost(spec?.args.length ?? 0, limits.args)
  assert.isAtMost(spec?.exposedPorts.length ?? 0, limits.exposedPorts)
}

const decode = (bytes: Uint8Array): CreateRequest | undefined => {
  try {
    return fromBinary(CreateRequestSchema, bytes)
  } catch {
    // Not a message: gRPC answers INVALID_ARGUMENT before a handler is asked.
    return undefined
  }
}

describe("create requests", () => {
  it.prop("made of any text are refused with a field, or harmless", [
    Schema.Struct({
      instanceId: Schema.String,
      image: Schema.String,
      args: Schema.Array(Schema.String),
      dir: Schema.String
    })
  ], ([{ args, dir, image, instanceId }]) => {
    const message = request({ instanceId, image, args: [...args], workingDir: dir })
    const problem = CreateValidation.problemOf(message)
    if (problem === undefined) {
      assertHarmless(message)
    } else {
      assert.isNotEmpty(problem.field)
    }
    return true
  })

  it.prop("with bytes changed or cut off are no message, refused, or harmless", [Bytes, Position, Position], ([
    bytes,
    at,
    end
  ]) => {
    const whole = toBinary(CreateRequestSchema, request({ args: ["a", "b"], workingDir: "/tmp" }))
    const broken = Uint8Array.from(whole)
    broken.set(bytes.slice(0, Math.max(0, broken.length - at % broken.length)), at % broken.length)
    for (const candidate of [broken, broken.slice(0, end % broken.length), Uint8Array.from(bytes)]) {
      const message = decode(candidate)
      if (message !== undefined && CreateValidation.problemOf(message) === undefined) {
        assertHarmless(message)
      }
    }
    return true
  })

  it("beyond a bound are refused with the field", () => {
    const many = Array.from({ length: limits.args + 1 }, () => "x")
    const cases: ReadonlyArray<readonly [Parameters<typeof create<typeof CreateRequestSchema>>[1], string]> = [
      [{ instanceId: "../x", spec: { image: "a" } }, "instance_id"],
      [{ instanceId: "x".repeat(77), spec: { image: "a" } }, "instance_id"],
      [{ instanceId: "i" }, "spec"],
      [{ instanceId: "i", spec: { image: "a".repeat(513) } }, "spec.image"],
      [{ instanceId: "i", spec: { image: "a", command: many } }, "spec.command"],
      [{ instanceId: "i", spec: { image: "a", args: ["a\0b"] } }, "spec.args[0]"],
      [{ instanceId: "i", spec: { image: "a", args: ["x".repeat(limits.argsBytes)] } }, "spec"],
      [{ instanceId: "i", spec: { image: "a", envs: [{ name: "A=B" }] } }, "spec.envs[0].name"],
      [{ instanceId: "i", spec: { image: "a", envs: many.slice(0, 2001).map((name) => ({ name })) } }, "spec.envs"],
      [
        { instanceId: "i", spec: { image: "a", exposedPorts: many.slice(0, 65).map((_, n) => n + 1) } },
        "spec.exposed_ports"
      ],
      [{ instanceId: "i", spec: { image: "a", workingDir: "/a\0b" } }, "spec.working_dir"],
      [{ instanceId: "i", spec: { image: "a", runAsUser: 65_536 } }, "spec.run_as_user"],
      [{ instanceId: "i", spec: { image: "a", memoryBytes: 2n ** 63n } }, "spec"],
      [{ instanceId: "i", spec: { image: "a" }, claim: { sandboxName: "x".repeat(254) } }, "claim.sandbox_name"]
    ]
    for (const [fields, field] of cases) {
      assert.strictEqual(CreateValidation.problemOf(create(CreateRequestSchema, fields))?.field, field)
    }
  })
})

describe("log files", () => {
  const record = Buffer.from("2026-11-23T20:01:02.123456789Z stdout F text")
  it.prop("with any bytes changed are records or none", [Bytes, Position], ([bytes, at]) => {
    const broken = Uint8Array.from(record)
    broken.set(bytes.slice(0, broken.length - at % broken.length), at % broken.length)
    for (const line of [broken, Uint8Array.from(bytes), broken.subarray(0, at % broken.length)]) {
      const parsed = LogRecord.parse(line)
      assert.isTrue(parsed._tag === "None" || ["stdout", "stderr"].includes(parsed.value.stream))
    }
    return true
  })
  it("have no time that is none", () => {
    for (
      const stamp of [
        "2026-11-23T20:01:02.1231.5   Z",
        "2026-11-23T20:01:02.123-12345Z",
        "2026-11-23T20:01:02.1230x1234Z"
      ]
    ) {
      assert.strictEqual(LogRecord.parse(Buffer.from(`${stamp} stdout F text`))._tag, "None", stamp)
    }
  })
})
