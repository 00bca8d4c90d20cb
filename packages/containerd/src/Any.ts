/**
 * Typed bytes as containerd stores them: the name of a type beside its encoding. The OCI spec travels as JSON under a
 * name that containerd's own libraries know; what this project stores beside a container is JSON under its own name.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/** Bytes with the name of their type. */
export interface Any {
  readonly typeUrl: string
  readonly value: Uint8Array
}

/** The name under which containerd and its tools expect an OCI runtime spec. */
export const specTypeUrl = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
/** The same for the process of an exec. */
export const processTypeUrl = "types.containerd.io/opencontainers/runtime-spec/1/Process"
/** The same for the resources of an update. */
export const resourcesTypeUrl = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
/** The options of the runc v2 shim, a protobuf message. */
export const runcOptionsTypeUrl = "containerd.runc.v1.Options"
/** JSON of this project's own. */
export const jsonTypeUrl = "fast-sandbox.io/json"

const encoder = new TextEncoder()
const decoder = new TextDecoder()

/** Wraps a JSON value. */
export const fromJson = (value: unknown, typeUrl: string = jsonTypeUrl): Any => ({
  typeUrl,
  value: encoder.encode(JSON.stringify(value))
})

const decodeJson = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Unknown))

/** Reads a JSON value back; fails when the bytes are no JSON. */
export const toJson = (any: Any): Effect.Effect<unknown, Schema.SchemaError> =>
  Effect.suspend(() => decodeJson(decoder.decode(any.value)))
