/**
 * Identifiers that nobody had before: version 4 UUIDs from the machine's secure source of randomness, or from whatever a
 * test gives in its place.
 */
import * as WebCrypto from "effect/crypto/WebCrypto"
import * as Effect from "effect/Effect"

/** A new one each time. */
export const fresh: Effect.Effect<string> = Effect.map(WebCrypto.WebCrypto, (crypto) => crypto.randomUUID())
