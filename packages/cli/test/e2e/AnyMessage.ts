/**
 * Messages of any type with hostile content, the same in every run of a seed.
 */
import { type DescField, type DescMessage, ScalarType, toBinary } from "@bufbuild/protobuf"
import { reflect, type ReflectMessage } from "@bufbuild/protobuf/reflect"

/** Words that somebody else's bugs were made of. None is the name of anything that a fresh stack has. */
const words = [
  "",
  "x",
  "..",
  "../../etc/passwd",
  "a/b",
  "\0",
  "\n",
  "ü".repeat(9),
  "a".repeat(64),
  "a".repeat(5000),
  "*",
  "-1",
  "NaN",
  "no.such/image:1@sha256:00",
  "2026-01-01T00:00:00Z",
  "%s%n",
  "[",
  "{}",
  "__proto__"
]
const integers = [0, 1, -1, 80, 65_536, 2 ** 31 - 1, -(2 ** 31)]
const maxDepth = 4
const maxEntries = 3

/** Numbers below `bound` that look random. */
export type Random = (bound: number) => number

/** Random numbers that are the same for the same seed. */
export const random = (seed: number): Random => {
  let state = seed
  return (bound) => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    return Math.floor(state / 2 ** 31 * bound)
  }
}

const oneOf = <A>(next: Random, all: readonly [A, ...ReadonlyArray<A>] | ReadonlyArray<A>, otherwise: A): A =>
  all[next(all.length)] ?? otherwise

const scalar = (next: Random, type: ScalarType): unknown => {
  switch (type) {
    case ScalarType.STRING:
      return oneOf(next, words, "")
    case ScalarType.BOOL:
      return next(2) === 1
    case ScalarType.BYTES:
      return Uint8Array.from({ length: next(64) }, () => next(256))
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return oneOf(next, [0, -1, Number.NaN, Infinity], 0)
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return Math.abs(oneOf(next, integers, 0))
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return oneOf(next, integers, 0)
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return oneOf(next, [0n, 1n, 2n ** 64n - 1n], 0n)
    default:
      return oneOf(next, [0n, 1n, -1n, 2n ** 63n - 1n, -(2n ** 63n)], 0n)
  }
}

const single = (next: Random, field: DescField, depth: number): unknown =>
  field.message !== undefined
    ? any(next, field.message, depth + 1)
    : field.enum !== undefined
    ? next(8)
    : scalar(next, field.scalar ?? ScalarType.STRING)

const fill = (next: Random, message: ReflectMessage, field: DescField, depth: number): void => {
  if (field.fieldKind === "list") {
    const list = message.get(field)
    for (let count = next(maxEntries); count > 0; count--) {
      list.add(single(next, field, depth))
    }
  } else if (field.fieldKind === "map") {
    const map = message.get(field)
    for (let count = next(maxEntries); count > 0; count--) {
      const key = scalar(next, field.mapKey)
      map.set(typeof key === "string" || typeof key === "number" ? key : "x", single(next, field, depth))
    }
  } else {
    message.set(field, single(next, field, depth))
  }
}

const any = (next: Random, descriptor: DescMessage, depth = 0): ReflectMessage => {
  const message = reflect(descriptor)
  for (const field of descriptor.fields) {
    if (depth < maxDepth && next(2) === 1) {
      fill(next, message, field, depth)
    }
  }
  return message
}

/** A message of a type as it is sent. */
export const bytes = (next: Random, descriptor: DescMessage): Uint8Array =>
  toBinary(descriptor, any(next, descriptor).message)
