/**
 * Objects between the version they are stored in and the version a request speaks. Versions of one kind differ in name
 * only (a definition's conversion strategy `None`); events also have a second form in `events.k8s.io`.
 */
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import { apiVersionOf, groupVersion, type ResourceType } from "./ResourceType.ts"

/** Field names of an event: in `v1`, where it is stored, and in `events.k8s.io/v1`. */
const eventFields: ReadonlyArray<readonly [string, string]> = [
  ["involvedObject", "regarding"],
  ["message", "note"],
  ["reportingComponent", "reportingController"],
  ["source", "deprecatedSource"],
  ["firstTimestamp", "deprecatedFirstTimestamp"],
  ["lastTimestamp", "deprecatedLastTimestamp"],
  ["count", "deprecatedCount"]
]

const renamed = (object: JsonObject, names: ReadonlyMap<string, string>): JsonObject =>
  Object.fromEntries(Object.entries(object).map(([key, value]) => [names.get(key) ?? key, value]))

const toEventsGroup = new Map(eventFields)
const toCoreGroup = new Map(eventFields.map(([core, events]) => [events, core]))

const isSecondForm = (type: ResourceType): boolean => type.group === "events.k8s.io"

/** The apiVersion in which a resource is stored. */
export const storedApiVersion = (type: ResourceType): string =>
  isSecondForm(type) ? "v1" : groupVersion(type.group, type.storageVersion)

/** A stored body needs no change to be served. */
export const isIdentity = (type: ResourceType): boolean => !isSecondForm(type) && type.version === type.storageVersion

/** A stored object as the request's version. */
export const fromStored = (type: ResourceType, object: JsonObject): JsonObject => {
  if (isSecondForm(type)) return { ...renamed(object, toEventsGroup), apiVersion: apiVersionOf(type) }
  return isIdentity(type) ? object : { ...object, apiVersion: apiVersionOf(type) }
}

/** An object of the request's version as it is stored. */
export const toStored = (type: ResourceType, object: JsonObject): JsonObject =>
  isSecondForm(type) ? renamed(object, toCoreGroup) : object

/** A stored body as the request's version, without decoding it where that is not needed. */
export const serve = (type: ResourceType, body: string): string =>
  isIdentity(type) ? body : JSON.stringify(fromStored(type, Json.parseTrusted(body)))
