/**
 * Answers to reviews: who a token belongs to, and what its user may do.
 */
import * as Option from "effect/Option"
import type { Access } from "./Access.ts"
import * as JsonValue from "./Json.ts"
import type { Json, JsonObject } from "./Json.ts"
import type { Attributes, User } from "./Rbac.ts"
import type { ResourceType } from "./ResourceType.ts"
import { issuer } from "./ServiceAccountTokens.ts"

const strings = (value: JsonObject, ...path: ReadonlyArray<string>): ReadonlyArray<string> =>
  JsonValue.arrayAt(value, ...path).filter((entry) => typeof entry === "string")

const userInfo = ({ extra, groups, uid, username }: User): JsonObject => ({
  username,
  uid,
  groups,
  ...(Object.keys(extra).length === 0 ? {} : { extra })
})

const tokenReview = (review: JsonObject, access: Access): Json => {
  const asked = strings(review, "spec", "audiences")
  const wanted = asked.length === 0 ? [issuer] : asked
  return Option.match(access.bearer(JsonValue.stringAt(review, "spec", "token") ?? ""), {
    onNone: () => ({ authenticated: false, error: "the token is unknown or has ended" }),
    onSome: ({ audiences, user }) => {
      const shared = audiences === undefined ? wanted : wanted.filter((audience) => audiences.includes(audience))
      return shared.length === 0
        ? { authenticated: false, error: `the token is not for ${wanted.join(", ")}` }
        : { authenticated: true, user: userInfo(user), audiences: shared }
    }
  })
}

/** What an access review asks about; nothing when it names neither a resource nor a path. */
const attributesOf = (review: JsonObject): Attributes | undefined => {
  const spec = JsonValue.objectAt(review, "spec")
  const text = (part: JsonObject, field: string) => JsonValue.stringAt(part, field) ?? ""
  const resource = JsonValue.own(spec, "resourceAttributes")
  if (JsonValue.isObject(resource)) {
    return {
      _tag: "Resource",
      verb: text(resource, "verb"),
      group: text(resource, "group"),
      resource: text(resource, "resource"),
      subresource: text(resource, "subresource"),
      namespace: text(resource, "namespace"),
      name: text(resource, "name")
    }
  }
  const path = JsonValue.own(spec, "nonResourceAttributes")
  return JsonValue.isObject(path) ? { _tag: "Path", verb: text(path, "verb"), path: text(path, "path") } : undefined
}

const accessReview = (review: JsonObject, user: User, access: Access): Json => {
  const wanted = attributesOf(review)
  return { allowed: wanted !== undefined && access.isAllowed(user, wanted) }
}

/** The review with its status. `asker` is whose request it is. */
export const answer = (type: ResourceType, review: JsonObject, asker: User, access: Access): JsonObject => {
  const status = ((): Json => {
    switch (type.plural) {
      case "tokenreviews":
        return tokenReview(review, access)
      case "selfsubjectreviews":
        return { userInfo: userInfo(asker) }
      case "subjectaccessreviews":
        return accessReview(review, {
          username: JsonValue.stringAt(review, "spec", "user") ?? "",
          uid: JsonValue.stringAt(review, "spec", "uid") ?? "",
          groups: strings(review, "spec", "groups"),
          extra: {}
        }, access)
      default:
        return accessReview(review, asker, access)
    }
  })()
  // the token itself is never sent back
  return type.plural === "tokenreviews"
    ? { ...review, spec: JsonValue.omit(JsonValue.objectAt(review, "spec"), "token"), status }
    : { ...review, status }
}
