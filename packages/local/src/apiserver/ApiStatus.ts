/**
 * The ways in which a request is refused: `Status` objects with the codes, reasons, causes and texts of the real API
 * server, which clients compare and people read.
 */
import * as Schema from "effect/Schema"
import type { Json, JsonObject } from "./Json.ts"

/** One field of a refused object and what is wrong with it. */
export interface FieldError {
  readonly reason:
    | "FieldValueRequired"
    | "FieldValueInvalid"
    | "FieldValueTypeInvalid"
    | "FieldValueNotSupported"
    | "FieldValueForbidden"
    | "FieldValueDuplicate"
    | "FieldValueTooLong"
    | "FieldValueTooMany"
    | "FieldManagerConflict"
  readonly field: string
  readonly message: string
}

const Cause = Schema.Struct({ reason: Schema.String, message: Schema.String, field: Schema.optionalKey(Schema.String) })

/** A refused request. `code` is the HTTP status, `reason` the CamelCase word that programs compare. */
export class ApiStatus extends Schema.TaggedError<ApiStatus>()("ApiStatus", {
  code: Schema.Number,
  reason: Schema.String,
  text: Schema.String,
  name: Schema.optionalKey(Schema.String),
  group: Schema.optionalKey(Schema.String),
  kind: Schema.optionalKey(Schema.String),
  uid: Schema.optionalKey(Schema.String),
  causes: Schema.optionalKey(Schema.Array(Cause)),
  retryAfterSeconds: Schema.optionalKey(Schema.Number),
  /** Where an expired list may go on, giving up consistency. */
  continue: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    return this.text
  }

  /** The wire form. */
  toJson(): JsonObject {
    const details: Record<string, Json> = {}
    if (this.name !== undefined) details["name"] = this.name
    if (this.group !== undefined && this.group !== "") details["group"] = this.group
    if (this.kind !== undefined) details["kind"] = this.kind
    if (this.uid !== undefined) details["uid"] = this.uid
    if (this.causes !== undefined) details["causes"] = this.causes.map((cause) => ({ ...cause }))
    if (this.retryAfterSeconds !== undefined) details["retryAfterSeconds"] = this.retryAfterSeconds
    return {
      kind: "Status",
      apiVersion: "v1",
      metadata: this.continue === undefined ? {} : { continue: this.continue },
      status: "Failure",
      message: this.text,
      reason: this.reason,
      ...(Object.keys(details).length === 0 ? {} : { details }),
      code: this.code
    }
  }
}

/** What a status speaks about: the plural for most refusals, the kind for invalid objects. */
export interface Subject {
  readonly group: string
  readonly plural: string
  readonly kind: string
}

const qualified = (name: string, group: string): string => group === "" ? name : `${name}.${group}`

export const notFound = (subject: Subject, name: string): ApiStatus =>
  new ApiStatus({
    code: 404,
    reason: "NotFound",
    text: `${qualified(subject.plural, subject.group)} "${name}" not found`,
    name,
    group: subject.group,
    kind: subject.plural
  })

/** The answer to a path that nothing serves. */
export const noSuchPath: ApiStatus = new ApiStatus({
  code: 404,
  reason: "NotFound",
  text: "the server could not find the requested resource"
})

export const alreadyExists = (subject: Subject, name: string): ApiStatus =>
  new ApiStatus({
    code: 409,
    reason: "AlreadyExists",
    text: `${qualified(subject.plural, subject.group)} "${name}" already exists`,
    name,
    group: subject.group,
    kind: subject.plural
  })

export const conflict = (subject: Subject, name: string, problem: string): ApiStatus =>
  new ApiStatus({
    code: 409,
    reason: "Conflict",
    text: `Operation cannot be fulfilled on ${qualified(subject.plural, subject.group)} "${name}": ${problem}`,
    name,
    group: subject.group,
    kind: subject.plural
  })

/** The resourceVersion of an update is not the newest. */
export const staleObject = (subject: Subject, name: string): ApiStatus =>
  conflict(
    subject,
    name,
    "the object has been modified; please apply your changes to the latest version and try again"
  )

export const forbidden = (subject: Subject, name: string, problem: string, cause?: FieldErrorLike): ApiStatus =>
  new ApiStatus({
    code: 403,
    reason: "Forbidden",
    text: `${qualified(subject.plural, subject.group)} "${name}" is forbidden: ${problem}`,
    name,
    group: subject.group,
    kind: subject.plural,
    ...(cause === undefined ? {} : { causes: [cause] })
  })

/** A cause that is not about a value: namespace termination names itself as its reason. */
export interface FieldErrorLike {
  readonly reason: string
  readonly message: string
  readonly field?: string
}

const fieldText = (error: FieldError): string => `${error.field}: ${error.message}`

/** The object breaks its schema or its rules; every broken field is named. */
export const invalid = (subject: Subject, name: string, errors: ReadonlyArray<FieldError>): ApiStatus => {
  const texts = [...new Set(errors.map(fieldText))]
  return new ApiStatus({
    code: 422,
    reason: "Invalid",
    text: `${qualified(subject.kind, subject.group)} "${name}" is invalid: ${
      texts.length === 1 ? texts[0] : `[${texts.join(", ")}]`
    }`,
    name,
    group: subject.group,
    kind: subject.kind,
    causes: errors.map(({ field, message, reason }) => ({ reason, message, field }))
  })
}

export const badRequest = (text: string): ApiStatus => new ApiStatus({ code: 400, reason: "BadRequest", text })

export const unauthorized: ApiStatus = new ApiStatus({ code: 401, reason: "Unauthorized", text: "Unauthorized" })

export const methodNotAllowed: ApiStatus = new ApiStatus({
  code: 405,
  reason: "MethodNotAllowed",
  text: "the server does not allow this method on the requested resource"
})

export const notAcceptable = (supported: ReadonlyArray<string>): ApiStatus =>
  new ApiStatus({
    code: 406,
    reason: "NotAcceptable",
    text: `only the following media types are accepted: ${supported.join(", ")}`
  })

export const unsupportedMediaType = (supported: ReadonlyArray<string>): ApiStatus =>
  new ApiStatus({
    code: 415,
    reason: "UnsupportedMediaType",
    text: `the body of the request was in an unknown format - accepted media types include: ${supported.join(", ")}`
  })

export const tooLarge = (limitBytes: number): ApiStatus =>
  new ApiStatus({
    code: 413,
    reason: "RequestEntityTooLarge",
    text: `Request entity too large: limit is ${limitBytes}`
  })

export const tooManyRequests: ApiStatus = new ApiStatus({
  code: 429,
  reason: "TooManyRequests",
  text: "too many requests, please try again later",
  retryAfterSeconds: 1
})

/** A watch asked for a version older than the history reaches. */
export const tooOld = (requested: number, oldest: number): ApiStatus =>
  new ApiStatus({ code: 410, reason: "Expired", text: `too old resource version: ${requested} (${oldest})` })

/** A continue token outlived the snapshot that it points into; `rest` reads on in the newest one. */
export const continueExpired = (rest: string): ApiStatus =>
  new ApiStatus({
    code: 410,
    reason: "Expired",
    text: "The provided continue parameter is too old to display a consistent list result. You can start a new list " +
      "without the continue parameter, or use the continue token in this response to retrieve the remainder of the " +
      "results. Continuing with the provided token results in an inconsistent list - objects that were created, " +
      "modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    continue: rest
  })

/** A version from the future was asked for. */
export const tooLargeVersion = (requested: number, current: number): ApiStatus =>
  new ApiStatus({
    code: 504,
    reason: "Timeout",
    text: `Too large resource version: ${requested}, current: ${current}`,
    causes: [{ reason: "ResourceVersionTooLarge", message: "Too large resource version" }],
    retryAfterSeconds: 1
  })

export const internalError = (problem: string): ApiStatus =>
  new ApiStatus({
    code: 500,
    reason: "InternalError",
    text: `Internal error occurred: ${problem}`,
    causes: [{ reason: "", message: problem }]
  })

/** The success answer of a delete that removed the object at once, or of a deletecollection. */
export const success = (subject: Subject, name: string, uid: string | undefined): JsonObject => ({
  kind: "Status",
  apiVersion: "v1",
  metadata: {},
  status: "Success",
  details: {
    name,
    ...(subject.group === "" ? {} : { group: subject.group }),
    kind: subject.plural,
    ...(uid === undefined ? {} : { uid })
  }
})

const show = (value: Json | undefined): string => value === undefined ? "null" : JSON.stringify(value)

export const required = (field: string, detail = ""): FieldError => ({
  reason: "FieldValueRequired",
  field,
  message: detail === "" ? "Required value" : `Required value: ${detail}`
})

export const invalidValue = (field: string, value: Json | undefined, detail: string): FieldError => ({
  reason: "FieldValueInvalid",
  field,
  message: `Invalid value: ${show(value)}: ${detail}`
})

export const wrongType = (field: string, actual: string, wanted: string): FieldError => ({
  reason: "FieldValueTypeInvalid",
  field,
  message: `Invalid value: "${actual}": ${field} in body must be of type ${wanted}: "${actual}"`
})

export const notSupported = (field: string, value: Json | undefined, supported: ReadonlyArray<Json>): FieldError => ({
  reason: "FieldValueNotSupported",
  field,
  message: `Unsupported value: ${show(value)}: supported values: ${supported.map(show).join(", ")}`
})

export const forbiddenField = (field: string, detail: string): FieldError => ({
  reason: "FieldValueForbidden",
  field,
  message: `Forbidden: ${detail}`
})

export const duplicate = (field: string, value: Json): FieldError => ({
  reason: "FieldValueDuplicate",
  field,
  message: `Duplicate value: ${show(value)}`
})

export const tooLong = (field: string, limitBytes: number): FieldError => ({
  reason: "FieldValueTooLong",
  field,
  message: `Too long: may not be more than ${limitBytes} bytes`
})

export const tooMany = (field: string, actual: number, limit: number): FieldError => ({
  reason: "FieldValueTooMany",
  field,
  message: `Too many: ${actual}: must have at most ${limit} items`
})
