/**
 * Answers to reviews: who a token belongs to, and what its user may do. There is one user, who may do everything.
 */
import type { Json, JsonObject } from "./Json.ts"
import * as JsonValue from "./Json.ts"
import type { ResourceType } from "./ResourceType.ts"

/** The user behind the server's token. */
export const administrator: JsonObject = {
  username: "fast-sandbox:administrator",
  uid: "fast-sandbox-administrator",
  groups: ["system:masters", "system:authenticated"]
}

/** The review with its status. `knows` tells whether a token is the server's. */
export const answer = (type: ResourceType, review: JsonObject, knows: (token: string) => boolean): JsonObject => {
  const status = ((): Json => {
    switch (type.plural) {
      case "tokenreviews": {
        const known = knows(JsonValue.stringAt(review, "spec", "token") ?? "")
        return known
          ? { authenticated: true, user: administrator, audiences: JsonValue.arrayAt(review, "spec", "audiences") }
          : { authenticated: false, error: "the token is not this server's" }
      }
      case "selfsubjectreviews":
        return { userInfo: administrator }
      case "subjectaccessreviews": {
        const groups = JsonValue.arrayAt(review, "spec", "groups")
        const known = JsonValue.stringAt(review, "spec", "user") === administrator["username"] ||
          groups.includes("system:masters")
        return known ? { allowed: true } : { allowed: false, reason: "this server has one user only" }
      }
      default:
        return { allowed: true }
    }
  })()
  return { ...review, status }
}
