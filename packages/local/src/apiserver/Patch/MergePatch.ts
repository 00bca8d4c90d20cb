/**
 * JSON merge patch (RFC 7386): an object's keys replace, null removes.
 */
import * as Json from "../Json.ts"

/** The target with the patch applied. */
export const mergePatch = (target: Json.Json | undefined, patch: Json.Json): Json.Json => {
  if (!Json.isObject(patch)) return patch
  const next: Record<string, Json.Json> = Json.isObject(target) ? { ...target } : {}
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete next[key]
    else next[key] = mergePatch(Object.hasOwn(next, key) ? next[key] : undefined, value)
  }
  return next
}
