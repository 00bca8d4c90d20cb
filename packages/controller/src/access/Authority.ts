/**
 * The certificate authority that controllers share: kept in a Secret of their own namespace, replaced long before its
 * end. It signs what controllers and agents show each other; clients find its certificates in a ConfigMap.
 */
import { controllerUri } from "@fast-sandbox/core/AgentProtocol"
import { Unavailable } from "@fast-sandbox/core/Errors"
import { authority as names } from "@fast-sandbox/core/Names"
import * as CertificateAuthority from "@fast-sandbox/grpc/CertificateAuthority"
import type { Certificates } from "@fast-sandbox/grpc/GrpcServer"
import { ConfigMap, Secret } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { KubeError } from "@fast-sandbox/kube/KubeError"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as AuthorityPlan from "./AuthorityPlan.ts"

/** The entry of the Secret. */
const keptEntry = "authorities.json"

/** How soon a controller hears of an authority that another one made: long before it signs anything. */
const refreshEvery = Duration.minutes(10)

/** Several controllers may start at once; the one that loses takes what the other wrote. */
const writeAgain = Schedule.spaced("100 millis").pipe(Schedule.upTo({ times: 20 }))

const Kept = Schema.fromJsonString(Schema.Array(Schema.Struct({
  certificate: Schema.String,
  key: Schema.String,
  madeAt: Schema.Number,
  endsAt: Schema.Number
})))

const decodeKept = Schema.decodeUnknownEffect(Kept)

/** Where the authority is kept, and how its controllers are reached. */
export interface AuthorityOptions {
  readonly namespace: string
  /** The name of the Service in front of the controllers. */
  readonly service: string
  /** This controller's own address, for clients that come past the Service. */
  readonly podIp?: string | undefined
}

/** What a controller is at a moment. */
interface State {
  readonly signer: CertificateAuthority.Identity
  /** PEM certificates of all authorities that are believed. */
  readonly bundle: string
  /** The controller's own certificate, for both ends of a connection. */
  readonly own: CertificateAuthority.Identity
}

/** The authority. */
export class Authority extends Context.Service<Authority, {
  /** PEM certificates of all authorities that are believed. */
  readonly bundle: Effect.Effect<string>
  /** This controller's own certificate, for both ends of a connection. */
  readonly own: Effect.Effect<CertificateAuthority.Identity>
  /** The same as servers take it, after each change. */
  readonly rotations: Stream.Stream<Certificates>
  readonly sign: (
    request: Omit<CertificateAuthority.Request, "lifetimeMillis">
  ) => Effect.Effect<string, CertificateAuthority.CertificateError>
}>()("@fast-sandbox/controller/access/Authority") {
  /** Ready when the authority is there. */
  static readonly layer = (
    options: AuthorityOptions
  ): Layer.Layer<Authority, AuthorityError, KubeClient> => Layer.effect(Authority, make(options))
}

/** The authority can't be read or made. */
export class AuthorityError extends Schema.TaggedError<AuthorityError>()("AuthorityError", { cause: Schema.Defect() }) {
  override get message(): string {
    return `the certificate authority in Secret ${names.name} can't be used: ${
      this.cause instanceof Error ? this.cause.message : String(this.cause)
    }`
  }
}

const failed = (cause: unknown) => new AuthorityError({ cause })

const isRace = ({ reason }: KubeError): boolean => reason._tag === "Conflict" || reason._tag === "AlreadyExists"

const optional = <A>(self: Effect.Effect<A, KubeError, KubeClient>) =>
  Effect.catchIf(self, ({ reason }) => reason._tag === "NotFound", () => Effect.succeed(undefined))

/** The authorities that are kept, with a new one where one is needed. */
const load = Effect.fnUntraced(function*(namespace: string) {
  const kube = yield* KubeClient
  const secret = yield* optional(kube.get(Secret, { namespace, name: names.name }))
  const text = secret?.data?.[keptEntry]
  const kept = text === undefined ? [] : yield* decodeKept(Buffer.from(text, "base64").toString())
  const now = yield* Clock.currentTimeMillis
  const plan = AuthorityPlan.make(kept, now)
  if (!plan.needsNew) return plan
  const fresh = yield* CertificateAuthority.make({
    commonName: "fast-sandbox",
    lifetimeMillis: AuthorityPlan.authorityMillis
  })
  const authorities: ReadonlyArray<AuthorityPlan.Kept> = [...plan.believed, {
    certificate: fresh.certificate,
    key: Redacted.value(fresh.key),
    madeAt: now,
    endsAt: now + AuthorityPlan.authorityMillis
  }]
  const data = { [keptEntry]: Buffer.from(JSON.stringify(authorities)).toString("base64") }
  yield* secret === undefined
    ? kube.create(Secret, { metadata: { name: names.name, namespace }, type: "Opaque", data })
    : kube.update(Secret, { ...secret, data })
  yield* Effect.logInfo("made a new certificate authority", { authorities: authorities.length })
  return AuthorityPlan.make(authorities, now)
})

/** Clients believe what the ConfigMap holds. */
const publish = Effect.fnUntraced(function*(namespace: string, bundle: string) {
  const kube = yield* KubeClient
  yield* kube.apply(ConfigMap, {
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { name: names.name, namespace },
    data: { [names.certificates]: bundle }
  }, { fieldManager: "fast-sandbox-controller", force: true })
})

const make = Effect.fnUntraced(function*({ namespace, podIp, service }: AuthorityOptions) {
  const kube = yield* KubeClient
  const host = `${service}.${namespace}.svc`

  const read = Effect.gen(function*() {
    const { believed, signer } = yield* load(namespace).pipe(
      Effect.retry({ schedule: writeAgain, while: (error) => error._tag === "KubeError" && isRace(error) })
    )
    if (signer === undefined) return yield* new Unavailable({ target: names.name, problem: "it has no authority" })
    const authority = { certificate: signer.certificate, key: Redacted.make(signer.key) }
    const bundle = believed.map(({ certificate }) => certificate.trim()).join("\n")
    yield* publish(namespace, bundle)
    return { authority, bundle }
  }).pipe(Effect.provideService(KubeClient, kube))

  const issueOwn = (authority: CertificateAuthority.Identity) =>
    CertificateAuthority.issue(authority, {
      commonName: "fast-sandbox-controller",
      names: [
        ...[service, `${service}.${namespace}`, host, `${host}.cluster.local`, "localhost"].map((value) => ({
          type: "dns" as const,
          value
        })),
        ...(podIp === undefined ? [] : [{ type: "ip" as const, value: podIp }]),
        { type: "url", value: controllerUri }
      ],
      usages: ["server", "client"],
      lifetimeMillis: AuthorityPlan.leafMillis
    })

  const first = yield* Effect.mapError(
    Effect.flatMap(
      read,
      ({ authority, bundle }) => Effect.map(issueOwn(authority), (own): State => ({ signer: authority, bundle, own }))
    ),
    failed
  )
  const state = yield* SubscriptionRef.make(first)
  let renewAt = (yield* Clock.currentTimeMillis) + AuthorityPlan.renewMillis
  // What is known stays in use while the API does not answer: certificates outlive many a failed look.
  yield* Effect.gen(function*() {
    const { authority, bundle } = yield* read
    const known = yield* SubscriptionRef.get(state)
    const now = yield* Clock.currentTimeMillis
    const isSame = authority.certificate === known.signer.certificate && bundle === known.bundle
    if (isSame && now < renewAt) return
    yield* SubscriptionRef.set(state, { signer: authority, bundle, own: yield* issueOwn(authority) })
    renewAt = now + AuthorityPlan.renewMillis
  }).pipe(
    Effect.catch((error) => Effect.logError("the certificate authority was not looked at", error)),
    Effect.schedule(Schedule.spaced(refreshEvery)),
    Effect.forkScoped
  )

  return Authority.of({
    bundle: Effect.map(SubscriptionRef.get(state), ({ bundle }) => bundle),
    own: Effect.map(SubscriptionRef.get(state), ({ own }) => own),
    rotations: Stream.map(SubscriptionRef.changes(state), ({ own }) => ({
      certificate: { chain: own.certificate, key: own.key }
    })),
    sign: (request) =>
      Effect.flatMap(
        SubscriptionRef.get(state),
        ({ signer }) => CertificateAuthority.sign(signer, { ...request, lifetimeMillis: AuthorityPlan.leafMillis })
      )
  })
})
