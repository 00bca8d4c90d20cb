import { assert, describe, it } from "@effect/vitest"
import { BoundaryError } from "@fast-sandbox/core/Errors"
import * as Errors from "@fast-sandbox/core/Errors"
import {
  codes,
  DEFAULT_RETRY_AFTER_MILLIS,
  fromStatus,
  type GrpcError,
  toBoundaryError
} from "@fast-sandbox/grpc/GrpcError"
import { MAX_STATUS_TEXT_LENGTH, toStatus } from "@fast-sandbox/grpc/GrpcStatus"
import { Metadata, status as Status } from "@grpc/grpc-js"
import { Effect, Schema } from "effect"

/** One of each class, with texts that need escaping. */
const samples: ReadonlyArray<Errors.BoundaryError> = [
  new Errors.InvalidArgument({ field: "spec.exposedPorts[1]", problem: "70000 is no port" }),
  new Errors.NotFound({ kind: "sandbox", name: "a", hint: "list them with fsb-ctl ls" }),
  new Errors.NotFound({ kind: "pool", name: "ünïcode 📦" }),
  new Errors.AlreadyExists({ kind: "sandbox", name: "a", hint: "delete it" }),
  new Errors.AlreadyExists({ kind: "sandbox", name: "a" }),
  new Errors.ResourceExhausted({ resource: "slots", problem: "3 of 3 are used", retryAfterMillis: 1234 }),
  new Errors.FailedPrecondition({ reason: "StaleInstance", problem: "100%\nstale" }),
  new Errors.Unauthenticated({ problem: "no token" }),
  new Errors.PermissionDenied({ problem: "not yours" }),
  new Errors.DeadlineExceeded({ operation: "create a" }),
  new Errors.Unavailable({ target: "agent-1", problem: "draining" }),
  new Errors.Cancelled({ operation: "create a" }),
  new Errors.Internal({ problem: "see the log" })
]

const travel = (error: Errors.BoundaryError): Errors.BoundaryError =>
  toBoundaryError(fromStatus("/p.S/M", "unix:/a", toStatus(error)))

const encode = Schema.encodeSync(BoundaryError)

const foreign = (code: typeof codes[number]): GrpcError =>
  fromStatus("/p.S/M", "unix:/a", { code: codes.indexOf(code), details: "no such container: x" })

describe("GrpcError", () => {
  it("numbers the codes as grpc-js does", () => {
    assert.deepStrictEqual(codes.map((code) => Status[code]), codes.map((_, index) => index))
  })

  for (const error of samples) {
    it(`carries ${error._tag} with its data (${error.message})`, () => {
      const back = travel(error)
      assert.strictEqual(back.constructor, error.constructor)
      assert.deepStrictEqual(encode(back), encode(error))
    })
  }

  it.effect.prop(
    "carries whatever text a failure holds",
    [Schema.String, Schema.String.check(Schema.isNonEmpty())],
    ([name, hint]) =>
      Effect.sync(() => {
        const error = new Errors.NotFound({ kind: "sandbox", name: name.toWellFormed(), hint: hint.toWellFormed() })
        assert.deepStrictEqual(encode(travel(error)), encode(error))
      })
  )

  it("bounds texts, so that trailers always fit", () => {
    const back = travel(new Errors.Internal({ problem: "é".repeat(100_000) }))
    assert.strictEqual(back.message.length, MAX_STATUS_TEXT_LENGTH)
  })

  it("survives texts without a UTF-8 form and times without an end", () => {
    assert.strictEqual(travel(new Errors.Internal({ problem: "a\uD800b" })).message, "a\uFFFDb")
    const back = travel(
      new Errors.ResourceExhausted({ resource: "slots", problem: "all used", retryAfterMillis: Number.NaN })
    )
    assert.strictEqual(back._tag === "ResourceExhausted" && Number.isFinite(back.retryAfterMillis), true)
  })

  it("never sends UNKNOWN", () => {
    assert.strictEqual(toStatus(foreign("UNKNOWN")).code, Status.INTERNAL)
  })

  it("gives foreign statuses their nearest class", () => {
    const tags = codes.map((code) => toBoundaryError(foreign(code))._tag)
    assert.deepStrictEqual(Object.fromEntries(codes.map((code, index) => [code, tags[index]])), {
      OK: "Internal",
      CANCELLED: "Cancelled",
      UNKNOWN: "Internal",
      INVALID_ARGUMENT: "InvalidArgument",
      DEADLINE_EXCEEDED: "DeadlineExceeded",
      NOT_FOUND: "NotFound",
      ALREADY_EXISTS: "AlreadyExists",
      PERMISSION_DENIED: "PermissionDenied",
      RESOURCE_EXHAUSTED: "ResourceExhausted",
      FAILED_PRECONDITION: "FailedPrecondition",
      ABORTED: "FailedPrecondition",
      OUT_OF_RANGE: "InvalidArgument",
      UNIMPLEMENTED: "FailedPrecondition",
      INTERNAL: "Internal",
      UNAVAILABLE: "Unavailable",
      DATA_LOSS: "Internal",
      UNAUTHENTICATED: "Unauthenticated"
    })
    const exhausted = toBoundaryError(foreign("RESOURCE_EXHAUSTED"))
    assert.strictEqual(exhausted._tag === "ResourceExhausted" && exhausted.retryAfterMillis, DEFAULT_RETRY_AFTER_MILLIS)
    assert.include(toBoundaryError(foreign("NOT_FOUND")).message, "no such container: x")
  })

  it("keeps code and text when a peer garbles its details", () => {
    const metadata = new Metadata()
    metadata.set("grpc-status-details-bin", Buffer.from([0xff, 0xff]))
    const error = fromStatus("/p.S/M", "unix:/a", { code: Status.NOT_FOUND, details: "gone", metadata })
    assert.deepInclude({ ...error }, { code: "NOT_FOUND", details: "gone", info: [] })
  })
})
