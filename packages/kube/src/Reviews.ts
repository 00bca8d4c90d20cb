/**
 * Questions to the API about others: whose a token is, and what somebody may do. An answer that is none counts as no.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { KubeClient } from "./KubeClient.ts"
import type { KubeError } from "./KubeError.ts"

/** Somebody, as the API knows them. */
export const UserInfo = Schema.Struct({
  username: Schema.NonEmptyString,
  uid: Schema.optionalKey(Schema.String),
  groups: Schema.optionalKey(Schema.Array(Schema.String)),
  extra: Schema.optionalKey(Schema.Record(Schema.String, Schema.Array(Schema.String)))
})

/** Somebody, as the API knows them. */
export type UserInfo = typeof UserInfo.Type

/** What somebody wants to do. */
export interface ResourceAttributes {
  readonly verb: string
  readonly group: string
  readonly resource: string
  /** Empty: the resource itself. */
  readonly subresource: string
  /** Empty: all namespaces. */
  readonly namespace: string
  /** Empty: no object in particular. */
  readonly name: string
}

const decodeToken = Schema.decodeUnknownOption(Schema.Struct({
  status: Schema.Struct({
    authenticated: Schema.Literal(true),
    user: UserInfo,
    audiences: Schema.optionalKey(Schema.Array(Schema.String))
  })
}))

const decodeAccess = Schema.decodeUnknownOption(Schema.Struct({
  status: Schema.Struct({ allowed: Schema.Boolean, denied: Schema.optionalKey(Schema.Boolean) })
}))

/**
 * Whose a bearer token is; none for one that is unknown, has ended or is for others. `audiences`: whom it has to be for,
 * at least one of them; empty: the API server itself.
 */
export const token = (
  token: Redacted.Redacted,
  audiences: ReadonlyArray<string>
): Effect.Effect<Option.Option<UserInfo>, KubeError, KubeClient> =>
  KubeClient.use((kube) =>
    kube.request({
      method: "POST",
      path: "/apis/authentication.k8s.io/v1/tokenreviews",
      body: {
        apiVersion: "authentication.k8s.io/v1",
        kind: "TokenReview",
        spec: { token: Redacted.value(token), ...(audiences.length === 0 ? {} : { audiences }) }
      }
    })
  ).pipe(
    Effect.map((answer) =>
      Option.map(
        // a server that does not know audiences answers without them, and has not looked
        Option.filter(decodeToken(answer), ({ status }) =>
          audiences.length === 0 || status.audiences?.some((audience) => audiences.includes(audience)) === true),
        ({ status }) =>
          status.user
      )
    )
  )

/** Whether somebody may do something. */
export const access = (
  { extra, groups, uid, username }: UserInfo,
  resourceAttributes: ResourceAttributes
): Effect.Effect<boolean, KubeError, KubeClient> =>
  KubeClient.use((kube) =>
    kube.request({
      method: "POST",
      path: "/apis/authorization.k8s.io/v1/subjectaccessreviews",
      body: {
        apiVersion: "authorization.k8s.io/v1",
        kind: "SubjectAccessReview",
        spec: { user: username, uid, groups, extra, resourceAttributes }
      }
    })
  ).pipe(
    Effect.map((answer) =>
      Option.exists(decodeAccess(answer), ({ status: { allowed, denied } }) => allowed && denied !== true)
    )
  )
