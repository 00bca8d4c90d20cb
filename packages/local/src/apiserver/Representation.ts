/**
 * The forms in which an answer can be wanted (`Accept`): plain JSON, a table for people, or metadata only; and the
 * encoding of objects and lists in each.
 */
import * as Result from "effect/Result"
import * as ApiStatus from "./ApiStatus.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import { apiVersionOf, type Column, type ResourceType } from "./ResourceType.ts"

/** What a row carries of its object beside the cells. */
export type Include = "None" | "Metadata" | "Object"

/** The wanted form. */
export type Form =
  | { readonly _tag: "Json" }
  | { readonly _tag: "Table"; readonly include: Include }
  | { readonly _tag: "Metadata" }

const json: Form = { _tag: "Json" }

const parameters = (parts: ReadonlyArray<string>): ReadonlyMap<string, string> =>
  new Map(parts.map((part) => {
    const [key = "", value = ""] = part.split("=", 2)
    return [key.trim(), value.trim()]
  }))

const supported = ["application/json"]

/** Reads `Accept`: the first media type that the server can produce. */
export const negotiate = (
  accept: string | undefined,
  includeObject: string | null
): Result.Result<Form, ApiStatus.ApiStatus> => {
  if (accept === undefined || accept.trim() === "") return Result.succeed(json)
  for (const entry of accept.split(",")) {
    const [media = "", ...rest] = entry.split(";")
    if (!["application/json", "*/*", "application/*"].includes(media.trim())) continue
    const options = parameters(rest)
    switch (options.get("as")) {
      case undefined:
        return Result.succeed(json)
      case "Table":
        if (options.get("v") === "v1") {
          return Result.succeed({
            _tag: "Table",
            include: includeObject === "None" || includeObject === "Object" ? includeObject : "Metadata"
          })
        }
        break
      case "PartialObjectMetadata":
      case "PartialObjectMetadataList":
        if (options.get("v") === "v1") return Result.succeed({ _tag: "Metadata" })
    }
  }
  return Result.fail(ApiStatus.notAcceptable(supported))
}

/** What a list says about itself. */
export interface ListMeta {
  readonly resourceVersion: string
  readonly continue?: string | undefined
  readonly remainingItemCount?: number | undefined
}

const partial = (object: JsonObject): JsonObject => ({
  kind: "PartialObjectMetadata",
  apiVersion: "meta.k8s.io/v1",
  metadata: Json.objectAt(object, "metadata")
})

const definitionOf = (column: Column): JsonObject => ({
  name: column.name,
  type: column.type,
  format: column.format,
  description: column.description,
  priority: column.priority
})

const row = (type: ResourceType, body: string, include: Include, nowMillis: number): JsonObject => {
  const object = Json.parseTrusted(body)
  return {
    cells: type.columns.map((column) => column.cell(object, nowMillis)),
    ...(include === "None" ? {} : { object: include === "Object" ? object : partial(object) })
  }
}

/** A table of encoded objects. Only the first table of a watch defines its columns. */
export const table = (
  type: ResourceType,
  bodies: ReadonlyArray<string>,
  meta: ListMeta,
  include: Include,
  nowMillis: number,
  columns: "withColumns" | "rowsOnly" = "withColumns"
): string =>
  JSON.stringify({
    kind: "Table",
    apiVersion: "meta.k8s.io/v1",
    metadata: meta,
    columnDefinitions: columns === "withColumns" ? type.columns.map(definitionOf) : null,
    rows: bodies.map((body) => row(type, body, include, nowMillis))
  })

/** One encoded object in the wanted form. */
export const encodeOne = (type: ResourceType, body: string, form: Form, nowMillis: number): string => {
  switch (form._tag) {
    case "Json":
      return body
    case "Table":
      return table(
        type,
        [body],
        { resourceVersion: Json.stringAt(Json.parseTrusted(body), "metadata", "resourceVersion") ?? "" },
        form.include,
        nowMillis
      )
    case "Metadata":
      return JSON.stringify(partial(Json.parseTrusted(body)))
  }
}

/** A list of encoded objects in the wanted form; plain JSON is joined without decoding. */
export const encodeList = (
  type: ResourceType,
  bodies: ReadonlyArray<string>,
  meta: ListMeta,
  form: Form,
  nowMillis: number
): string => {
  switch (form._tag) {
    case "Json":
      return `{"kind":${JSON.stringify(type.listKind)},"apiVersion":${JSON.stringify(apiVersionOf(type))},"metadata":${
        JSON.stringify(meta)
      },"items":[${bodies.join(",")}]}\n`
    case "Table":
      return table(type, bodies, meta, form.include, nowMillis)
    case "Metadata":
      return JSON.stringify({
        kind: "PartialObjectMetadataList",
        apiVersion: "meta.k8s.io/v1",
        metadata: meta,
        items: bodies.map((body) => partial(Json.parseTrusted(body)))
      })
  }
}
