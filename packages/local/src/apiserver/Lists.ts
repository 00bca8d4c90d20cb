/**
 * Lists: selected objects of one consistent version, whole or in pages that continue on the same version.
 */
import * as Result from "effect/Result"
import * as ApiStatus from "./ApiStatus.ts"
import * as Conversion from "./Conversion.ts"
import * as Json from "./Json.ts"
import type { ListOptions } from "./ListOptions.ts"
import type { ListMeta } from "./Representation.ts"
import type { ResourceType } from "./ResourceType.ts"
import { everything } from "./Selectors.ts"
import { type Stored, type StoreShape, unlimited } from "./Store.ts"

/** The encoded objects of a list and what it says about itself. */
export interface Page {
  readonly bodies: ReadonlyArray<string>
  readonly meta: ListMeta
}

/** Where a list goes on: the version it reads, and the last object that was given. */
interface Token {
  /** -1: the newest version, after the original one expired. */
  readonly revision: number
  readonly namespace: string
  readonly name: string
}

/** Objects that are read from the store at once while a selector filters them. */
const scanPage = 500

const encodeToken = (token: Token): string =>
  Buffer.from(JSON.stringify({ v: "meta.k8s.io/v1", rv: token.revision, start: [token.namespace, token.name] }))
    .toString("base64url")

const decodeToken = (text: string): Result.Result<Token, ApiStatus.ApiStatus> =>
  Json.parse(Buffer.from(text, "base64url").toString()).pipe(
    Result.flatMap((value) => {
      const revision = Json.numberAt(value, "rv")
      const [namespace, name] = Json.arrayAt(value, "start")
      return revision === undefined || typeof namespace !== "string" || typeof name !== "string"
        ? Result.fail("no position")
        : Result.succeed({ revision, namespace, name })
    }),
    Result.mapError((problem) => ApiStatus.badRequest(`continue key is not valid: ${problem}`))
  )

/** Reads one page. `namespace` is `undefined` for all of them. */
export const read = (
  store: StoreShape,
  type: ResourceType,
  namespace: string | undefined,
  options: ListOptions
): Result.Result<Page, ApiStatus.ApiStatus> =>
  Result.gen(function*() {
    const current = store.revision()
    const requested = options.resourceVersion === "" ? 0 : Number(options.resourceVersion)
    if (requested > current) return yield* Result.fail(ApiStatus.tooLargeVersion(requested, current))
    const token = options.continue === undefined ? undefined : yield* decodeToken(options.continue)
    if (token !== undefined && token.revision !== -1 && token.revision < store.compacted()) {
      return yield* Result.fail(ApiStatus.continueExpired(encodeToken({ ...token, revision: -1 })))
    }
    const exact = options.resourceVersionMatch === "Exact" ? requested : undefined
    if (exact !== undefined && exact < store.compacted()) {
      return yield* Result.fail(ApiStatus.tooOld(exact, store.compacted()))
    }
    const at = token === undefined ? exact ?? current : token.revision === -1 ? current : token.revision
    const fetch = (range: Parameters<StoreShape["list"]>[0]): ReadonlyArray<Stored> =>
      at === current ? store.list(range) : store.listAt(range, at)
    const limit = options.limit ?? unlimited
    const found: Array<Stored> = []
    let after = token === undefined ? undefined : { namespace: token.namespace, name: token.name }
    let more = true
    if (options.name !== undefined && namespace !== undefined && at === current) {
      const one = store.get({ resource: type.key, namespace, name: options.name })
      if (one !== undefined && selects(type, options, one)) found.push(one)
      more = false
    }
    const filtered = options.selected !== everything
    while (more && found.length <= limit) {
      const size = filtered ? scanPage : Math.min(limit, unlimited - 1) + 1
      const page = fetch({ resource: type.key, namespace, after, limit: size })
      for (const stored of page) {
        if (found.length <= limit && (!filtered || selects(type, options, stored))) found.push(stored)
      }
      const last = page.at(-1)
      more = page.length === size && last !== undefined
      if (last !== undefined) after = { namespace: last.namespace, name: last.name }
    }
    const shown = found.length > limit ? found.slice(0, limit) : found
    const last = shown.at(-1)
    const continues = found.length > limit && last !== undefined
    const remaining = continues && !filtered && at === current
      ? store.count({ resource: type.key, namespace, after: { namespace: last.namespace, name: last.name } })
      : undefined
    return {
      bodies: shown.map(({ body }) => Conversion.serve(type, body)),
      meta: {
        resourceVersion: String(at),
        ...(continues
          ? { continue: encodeToken({ revision: at, namespace: last.namespace, name: last.name }) }
          : {}),
        ...(remaining === undefined ? {} : { remainingItemCount: remaining })
      }
    }
  })

const selects = (type: ResourceType, options: ListOptions, stored: Stored): boolean =>
  options.selected === everything ||
  options.selected(Conversion.fromStored(type, Json.parseTrusted(stored.body)))
