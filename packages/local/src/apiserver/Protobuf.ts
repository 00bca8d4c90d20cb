/**
 * Request bodies in Kubernetes' protobuf envelope, which Go clients (kubectl's `create` among them) prefer for built-in
 * kinds: decoded into the JSON that the same object would have been. Answers are always JSON, which those clients accept.
 */
import * as Result from "effect/Result"
import type { Json, JsonObject } from "./Json.ts"

/** The media type of the envelope. */
export const mediaType = "application/vnd.kubernetes.protobuf"

/** The envelope's first bytes: `k8s` and a zero. */
const magic = Uint8Array.of(0x6b, 0x38, 0x73, 0)

/**
 * Fields by message: number, name, type. A type in `[]` repeats, in `{}` is the value of a map with string keys; `?`
 * marks fields whose zero is a value of its own. Numbers are those of the `generated.proto` files of k8s.io/api 1.36 and
 * k8s.io/apimachinery.
 */
const declarations: Record<string, string> = {
  TypeMeta: "1 apiVersion string, 2 kind string",
  ObjectMeta: "1 name string, 2 generateName string, 3 namespace string, 4 selfLink string, 5 uid string, " +
    "6 resourceVersion string, 7 generation int, 8 creationTimestamp Time, 9 deletionTimestamp Time, " +
    "10 deletionGracePeriodSeconds int?, 11 labels {string}, 12 annotations {string}, 13 ownerReferences [OwnerReference], " +
    "14 finalizers [string]",
  OwnerReference:
    "1 kind string, 3 name string, 4 uid string, 5 apiVersion string, 6 controller bool?, 7 blockOwnerDeletion bool?",
  IntOrString: "1 type int?, 2 intVal int?, 3 strVal string?",
  DeleteOptions: "1 gracePeriodSeconds int?, 2 preconditions Preconditions, 3 orphanDependents bool?, " +
    "4 propagationPolicy string, 5 dryRun [string]",
  Preconditions: "1 uid string, 2 resourceVersion string",
  Namespace: "1 metadata ObjectMeta, 2 spec NamespaceSpec",
  NamespaceSpec: "1 finalizers [string]",
  ConfigMap: "1 metadata ObjectMeta, 2 data {string}, 3 binaryData {bytes}, 4 immutable bool?",
  Secret: "1 metadata ObjectMeta, 2 data {bytes}, 3 type string, 4 stringData {string}, 5 immutable bool?",
  ServiceAccount: "1 metadata ObjectMeta, 2 secrets [ObjectReference], 3 imagePullSecrets [LocalObjectReference], " +
    "4 automountServiceAccountToken bool?",
  ObjectReference: "1 kind string, 2 namespace string, 3 name string, 4 uid string, 5 apiVersion string, " +
    "6 resourceVersion string, 7 fieldPath string",
  LocalObjectReference: "1 name string",
  Role: "1 metadata ObjectMeta, 2 rules [PolicyRule]",
  ClusterRole: "1 metadata ObjectMeta, 2 rules [PolicyRule]",
  PolicyRule: "1 verbs [string], 2 apiGroups [string], 3 resources [string], 4 resourceNames [string], " +
    "5 nonResourceURLs [string]",
  RoleBinding: "1 metadata ObjectMeta, 2 subjects [Subject], 3 roleRef RoleRef",
  ClusterRoleBinding: "1 metadata ObjectMeta, 2 subjects [Subject], 3 roleRef RoleRef",
  Subject: "1 kind string, 2 apiGroup string, 3 name string, 4 namespace string",
  RoleRef: "1 apiGroup string, 2 kind string, 3 name string",
  TokenRequest: "1 metadata ObjectMeta, 2 spec TokenRequestSpec",
  TokenRequestSpec: "1 audiences [string], 3 boundObjectRef BoundObjectReference, 4 expirationSeconds int?",
  BoundObjectReference: "1 kind string, 2 apiVersion string, 3 name string, 4 uid string",
  Service: "1 metadata ObjectMeta, 2 spec ServiceSpec",
  ServiceSpec:
    "1 ports [ServicePort], 2 selector {string}, 3 clusterIP string, 4 type string, 5 externalIPs [string], " +
    "7 sessionAffinity string, 8 loadBalancerIP string, 9 loadBalancerSourceRanges [string], 10 externalName string, " +
    "11 externalTrafficPolicy string, 12 healthCheckNodePort int, 13 publishNotReadyAddresses bool, " +
    "17 ipFamilyPolicy string, 18 clusterIPs [string], 19 ipFamilies [string], 20 allocateLoadBalancerNodePorts bool?, " +
    "21 loadBalancerClass string, 22 internalTrafficPolicy string, 23 trafficDistribution string",
  ServicePort:
    "1 name string, 2 protocol string, 3 port int, 4 targetPort IntOrString, 5 nodePort int, 6 appProtocol string",
  Event: "1 metadata ObjectMeta, 2 involvedObject ObjectReference, 3 reason string, 4 message string, " +
    "5 source EventSource, 6 firstTimestamp Time, 7 lastTimestamp Time, 8 count int, 9 type string, 10 eventTime MicroTime, " +
    "11 series EventSeries, 12 action string, 13 related ObjectReference, 14 reportingComponent string, " +
    "15 reportingInstance string",
  EventSource: "1 component string, 2 host string",
  EventSeries: "1 count int, 2 lastObservedTime MicroTime",
  Lease: "1 metadata ObjectMeta, 2 spec LeaseSpec",
  LeaseSpec: "1 holderIdentity string?, 2 leaseDurationSeconds int?, 3 acquireTime MicroTime, 4 renewTime MicroTime, " +
    "5 leaseTransitions int?, 6 strategy string, 7 preferredHolder string",
  SelfSubjectAccessReview: "1 metadata ObjectMeta, 2 spec SelfSubjectAccessReviewSpec",
  SelfSubjectAccessReviewSpec: "1 resourceAttributes ResourceAttributes, 2 nonResourceAttributes NonResourceAttributes",
  SubjectAccessReview: "1 metadata ObjectMeta, 2 spec SubjectAccessReviewSpec",
  SubjectAccessReviewSpec: "1 resourceAttributes ResourceAttributes, 2 nonResourceAttributes NonResourceAttributes, " +
    "3 user string, 4 groups [string], 6 uid string",
  ResourceAttributes: "1 namespace string, 2 verb string, 3 group string, 4 version string, 5 resource string, " +
    "6 subresource string, 7 name string",
  NonResourceAttributes: "1 path string, 2 verb string",
  TokenReview: "1 metadata ObjectMeta, 2 spec TokenReviewSpec",
  TokenReviewSpec: "1 token string, 2 audiences [string]",
  SelfSubjectReview: "1 metadata ObjectMeta"
}

interface Field {
  readonly name: string
  readonly type: string
  readonly shape: "One" | "List" | "Map"
  readonly keepsZero: boolean
}

const messages = new Map(
  Object.entries(declarations).map(([message, text]) =>
    [
      message,
      new Map(
        text.split(", ").map((declaration): readonly [number, Field] => {
          const [number = "", name = "", written = ""] = declaration.split(" ")
          const shape = written.startsWith("[") ? "List" : written.startsWith("{") ? "Map" : "One"
          return [Number(number), {
            name,
            type: written.replaceAll(/[[\]{}?]/g, ""),
            shape,
            keepsZero: written.endsWith("?")
          }]
        })
      )
    ] as const
  )
)

/** Messages within messages; none of the declared ones nests this deep. */
const depthLimit = 16

class Malformed extends Error {}

interface Cursor {
  readonly bytes: Uint8Array
  position: number
}

const varint = (cursor: Cursor): bigint => {
  let value = 0n
  for (let shift = 0n; shift < 70n; shift += 7n) {
    const byte = cursor.bytes[cursor.position++]
    if (byte === undefined) throw new Malformed("it ends early")
    value |= BigInt(byte & 0x7f) << shift
    if (byte < 0x80) return BigInt.asIntN(64, value)
  }
  throw new Malformed("a number is too long")
}

const chunk = (cursor: Cursor): Uint8Array => {
  const size = Number(varint(cursor))
  const start = cursor.position
  const end = start + size
  if (size < 0 || end > cursor.bytes.length) throw new Malformed("it ends early")
  cursor.position = end
  return cursor.bytes.subarray(start, end)
}

type Raw = bigint | Uint8Array

const read = (bytes: Uint8Array): ReadonlyArray<readonly [number, Raw]> => {
  const cursor: Cursor = { bytes, position: 0 }
  const fields: Array<readonly [number, Raw]> = []
  while (cursor.position < bytes.length) {
    const tag = Number(varint(cursor))
    switch (tag & 7) {
      case 0:
        fields.push([tag >>> 3, varint(cursor)])
        break
      case 2:
        fields.push([tag >>> 3, chunk(cursor)])
        break
      default:
        throw new Malformed(`wire type ${tag & 7} is not used here`)
    }
  }
  return fields
}

const utf8 = new TextDecoder()

const numberOf = (fields: ReadonlyArray<readonly [number, Raw]>, number: number): number => {
  const value = fields.find(([candidate]) => candidate === number)?.[1]
  return typeof value === "bigint" ? Number(value) : 0
}

/** Seconds and nanoseconds; nothing at all means "not set". */
const time = (bytes: Uint8Array, fractionDigits: number): Json | undefined => {
  const fields = read(bytes)
  if (fields.length === 0) return undefined
  const whole = new Date(numberOf(fields, 1) * 1000).toISOString().slice(0, 19)
  const fraction = String(numberOf(fields, 2)).padStart(9, "0").slice(0, fractionDigits)
  return `${whole}${fraction === "" ? "" : `.${fraction}`}Z`
}

const scalar = (field: Field, raw: Raw, depth: number): Json | undefined => {
  if (typeof raw === "bigint") {
    if (raw === 0n && !field.keepsZero) return undefined
    return field.type === "bool" ? raw !== 0n : Number(raw)
  }
  switch (field.type) {
    case "string":
      return raw.length === 0 && !field.keepsZero && field.shape === "One" ? undefined : utf8.decode(raw)
    case "bytes":
      return Buffer.from(raw).toString("base64")
    case "Time":
      return time(raw, 0)
    case "MicroTime":
      return time(raw, 6)
    case "IntOrString": {
      const fields = message("IntOrString", raw, depth + 1)
      return fields["type"] === 1 ? fields["strVal"] : fields["intVal"]
    }
    default:
      return message(field.type, raw, depth + 1)
  }
}

const message = (name: string, bytes: Uint8Array, depth: number): JsonObject => {
  const declared = messages.get(name)
  if (declared === undefined || depth > depthLimit) throw new Malformed(`${name} is not known`)
  const object: Record<string, Json> = {}
  for (const [number, raw] of read(bytes)) {
    const field = declared.get(number)
    if (field === undefined) continue
    if (field.shape === "Map") {
      if (typeof raw === "bigint") throw new Malformed(`${field.name} is no map`)
      const entry = read(raw)
      const key = entry.find(([candidate]) => candidate === 1)?.[1]
      const value = scalar(field, entry.find(([candidate]) => candidate === 2)?.[1] ?? new Uint8Array(), depth)
      const known = object[field.name]
      object[field.name] = {
        ...(typeof known === "object" && known !== null && !Array.isArray(known) ? known : {}),
        [key instanceof Uint8Array ? utf8.decode(key) : ""]: value ?? ""
      }
      continue
    }
    const value = scalar(field, raw, depth)
    if (field.shape === "List") {
      const known = object[field.name]
      object[field.name] = [...(Array.isArray(known) ? known : []), value ?? ""]
    } else if (value !== undefined) object[field.name] = value
  }
  return object
}

const decodeEnvelope = (body: Uint8Array): JsonObject => {
  if (!magic.every((byte, index) => body[index] === byte)) throw new Malformed("it has no envelope")
  const envelope = read(body.subarray(magic.length))
  const part = (number: number): Uint8Array => {
    const value = envelope.find(([candidate]) => candidate === number)?.[1]
    return value instanceof Uint8Array ? value : new Uint8Array()
  }
  const type = message("TypeMeta", part(1), 0)
  const kind = typeof type["kind"] === "string" ? type["kind"] : ""
  return { ...type, ...message(kind, part(2), 0) }
}

/** Decodes a body; the failure says why it can't be. */
export const decode = (body: Uint8Array): Result.Result<Json, string> =>
  Result.try({
    try: () => decodeEnvelope(body),
    catch: (cause) => cause instanceof Malformed ? cause.message : String(cause)
  })

/** Kinds whose bodies can be decoded. */
export const decodes = (kind: string): boolean => messages.has(kind)
