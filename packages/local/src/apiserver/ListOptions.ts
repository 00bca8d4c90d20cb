/**
 * The query parameters of list and watch, read and checked against each other as upstream does.
 */
import * as Result from "effect/Result"
import * as ApiStatus from "./ApiStatus.ts"
import type { FieldError } from "./ApiStatus.ts"
import type { ResourceType } from "./ResourceType.ts"
import * as Selectors from "./Selectors.ts"

/** A list or watch as it was asked for. */
export interface ListOptions {
  readonly selected: Selectors.Predicate
  /** The only name that can match, if the field selector pins one. */
  readonly name: string | undefined
  readonly limit: number | undefined
  readonly continue: string | undefined
  /** Empty: the newest. */
  readonly resourceVersion: string
  readonly resourceVersionMatch: "" | "Exact" | "NotOlderThan"
  readonly watch: boolean
  readonly allowWatchBookmarks: boolean
  readonly sendInitialEvents: boolean | undefined
  readonly timeoutSeconds: number | undefined
}

const flag = (value: string | null): boolean | undefined =>
  value === null ? undefined : value === "" || value === "true" || value === "1"

const wholeNumber = (value: string | null): number | undefined => {
  const number = value === null || value === "" ? Number.NaN : Number(value)
  return Number.isSafeInteger(number) && number >= 0 ? number : undefined
}

const subject = { group: "meta.k8s.io", kind: "ListOptions", plural: "listoptions" }

/** Reads the parameters of a request on a collection. */
export const read = (
  type: ResourceType,
  query: URLSearchParams,
  name?: string
): Result.Result<ListOptions, ApiStatus.ApiStatus> =>
  Result.gen(function*() {
    const labels = yield* Selectors.labels(query.get("labelSelector") ?? "")
    const fieldText = query.get("fieldSelector") ?? ""
    const fields = yield* Selectors.fields(type, name === undefined ? fieldText : `metadata.name=${name}`)
    const resourceVersion = query.get("resourceVersion") ?? ""
    const match = query.get("resourceVersionMatch") ?? ""
    const sendInitialEvents = flag(query.get("sendInitialEvents"))
    const watch = flag(query.get("watch")) === true
    const token = query.get("continue") ?? ""
    const errors: Array<FieldError> = []
    if (resourceVersion !== "" && wholeNumber(resourceVersion) === undefined) {
      return yield* Result.fail(ApiStatus.invalid(subject, "", [
        ApiStatus.invalidValue("resourceVersion", resourceVersion, "strconv.ParseUint: invalid syntax")
      ]))
    }
    if (match !== "") {
      if (match !== "Exact" && match !== "NotOlderThan") {
        errors.push(ApiStatus.notSupported("resourceVersionMatch", match, ["Exact", "NotOlderThan", ""]))
      }
      if (watch && sendInitialEvents === undefined) {
        errors.push(ApiStatus.forbiddenField(
          "resourceVersionMatch",
          "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        ))
      }
      if (!watch && resourceVersion === "") {
        errors.push(ApiStatus.forbiddenField(
          "resourceVersionMatch",
          "resourceVersionMatch is forbidden unless resourceVersion is provided"
        ))
      }
      if (!watch && match === "Exact" && resourceVersion === "0") {
        errors.push(ApiStatus.forbiddenField(
          "resourceVersionMatch",
          "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""
        ))
      }
      if (token !== "") {
        errors.push(ApiStatus.forbiddenField(
          "resourceVersionMatch",
          "resourceVersionMatch is forbidden when continue is provided"
        ))
      }
    }
    if (sendInitialEvents !== undefined) {
      if (!watch) errors.push(ApiStatus.forbiddenField("sendInitialEvents", "sendInitialEvents is forbidden for list"))
      else if (match !== "NotOlderThan") {
        errors.push(ApiStatus.forbiddenField(
          "resourceVersionMatch",
          "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        ))
      }
    }
    if (token !== "" && resourceVersion !== "" && resourceVersion !== "0") {
      return yield* Result.fail(ApiStatus.badRequest(
        "specifying resource version is not allowed when using continue"
      ))
    }
    if (errors.length > 0) return yield* Result.fail(ApiStatus.invalid(subject, "", errors))
    const limit = wholeNumber(query.get("limit"))
    return {
      selected: Selectors.both(labels, fields),
      name: name ?? Selectors.pinnedName(fieldText),
      limit: limit === 0 ? undefined : limit,
      continue: token === "" ? undefined : token,
      resourceVersion,
      resourceVersionMatch: match === "Exact" || match === "NotOlderThan" ? match : "",
      watch,
      allowWatchBookmarks: flag(query.get("allowWatchBookmarks")) === true,
      sendInitialEvents,
      timeoutSeconds: wholeNumber(query.get("timeoutSeconds"))
    }
  })
