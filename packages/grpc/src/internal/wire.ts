/**
 * What client and server share on the wire: names, sizes, trace context, and messages as bytes.
 */
import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary
} from "@bufbuild/protobuf"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"

/** The path of a method in a request's headers. */
export const path = (method: DescMethod): string => `/${method.parent.typeName}/${method.name}`

/** A Buffer over the same memory. */
const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** Encodes what a user gave for a message. Throws when it does not fit the message: a bug of the caller. */
export const encoder = <Desc extends DescMessage>(schema: Desc) => (init: MessageInitShape<Desc>): Buffer =>
  asBuffer(toBinary(schema, create(schema, init)))

/** Decodes a message. Throws when the bytes are none. */
export const decoder = <Desc extends DescMessage>(schema: Desc) => (bytes: Uint8Array): MessageShape<Desc> =>
  fromBinary(schema, bytes)

/** The header of W3C Trace Context. */
export const TRACEPARENT = "traceparent"

const TRACEPARENT_PATTERN = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/
const SAMPLED_FLAG = 1

/** A span as the value of {@link TRACEPARENT}. */
export const toTraceparent = (span: Tracer.AnySpan): string =>
  `00-${span.traceId}-${span.spanId}-${span.sampled ? "01" : "00"}`

/** The span that a value of {@link TRACEPARENT} names; none when it is no such value. */
export const fromTraceparent = (value: string): Option.Option<Tracer.ExternalSpan> => {
  const [, traceId, spanId, flags] = TRACEPARENT_PATTERN.exec(value) ?? []
  return traceId === undefined || spanId === undefined || flags === undefined
    ? Option.none()
    : Option.some(Tracer.externalSpan({ traceId, spanId, sampled: (parseInt(flags, 16) & SAMPLED_FLAG) !== 0 }))
}
