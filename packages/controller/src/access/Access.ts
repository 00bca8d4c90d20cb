/**
 * Who calls the Fast-Path API, and whether they may: bearer tokens by TokenReview, calls by SubjectAccessReview, so that
 * a cluster's roles decide. Answers are remembered for a short while; without an answer nobody gets in. Whoever may open
 * the unix socket is the machine's owner.
 */
import type { DescMethod, Message } from "@bufbuild/protobuf"
import { type BoundaryError, PermissionDenied, Unauthenticated, Unavailable } from "@fast-sandbox/core/Errors"
import { bearerOf, type Caller, GrpcCaller, type Metadata, type Peer } from "@fast-sandbox/grpc/GrpcCaller"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { KubeError } from "@fast-sandbox/kube/KubeError"
import * as Reviews from "@fast-sandbox/kube/Reviews"
import * as Cache from "effect/Cache"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import * as Audit from "../fastpath/Audit.ts"
import * as AccessRules from "./AccessRules.ts"

/** How long a known caller and an allowed call are remembered: a role or an account that is taken away counts so late. */
export const knownFor = Duration.minutes(1)

/** How long a stranger and a denied call are remembered: a role that is given counts so late. */
export const unknownFor = Duration.seconds(5)

/** Callers, and pairs of a caller and what it wants, that are remembered; the least recently used ones go first. */
const capacity = 4096

/** Questions to the API at once. Who floods us with wrong tokens waits, and must not flood the API through us. */
const concurrency = 32

/** The API answers such questions within milliseconds; who waits longer is better told to try again. */
const patience = Duration.seconds(5)

const target = "the Kubernetes API"

/** Without its answer nobody knows who may do what. */
const unanswered = (question: string) => ({ message }: Error): Unavailable =>
  new Unavailable({ target, problem: `it can't say ${question}: ${message}` })

const ExpiringClaims = Schema.fromJsonString(Schema.Struct({ exp: Schema.Number }))
const decodeClaims = Schema.decodeUnknownOption(ExpiringClaims)

const millisPerSecond = 1000

/** How long a token still lives that says so itself. Only ever shortens what is remembered, so nobody gains by lying. */
const lifeOf = (token: string, now: number): Duration.Duration => {
  const [, claims = ""] = token.split(".")
  return Option.match(decodeClaims(Buffer.from(claims, "base64url").toString()), {
    onNone: () => knownFor,
    onSome: ({ exp }) => Duration.min(knownFor, Duration.millis(Math.max(0, exp * millisPerSecond - now)))
  })
}

const callerOf = ({ extra, groups, uid, username }: Reviews.UserInfo): Caller => ({
  name: username,
  groups: groups ?? [],
  uid,
  extra
})

const infoOf = ({ extra, groups, name, uid }: Caller): Reviews.UserInfo => ({
  username: name,
  groups,
  ...(uid === undefined ? {} : { uid }),
  ...(extra === undefined ? {} : { extra })
})

/** Verbs that change nothing. */
const reads: ReadonlySet<string> = new Set(["get", "list", "watch"])

const describe = ({ group, name, namespace, resource, subresource, verb }: Reviews.ResourceAttributes): string => {
  const full = `${resource}${subresource === "" ? "" : `/${subresource}`}.${group}`
  const where = namespace === "" ? "in all namespaces" : `in namespace ${namespace}`
  return `${verb} ${full}${name === "" ? "" : ` ${name}`} ${where}`
}

/** Who calls through a unix socket: its file's mode lets nobody else in. */
export const machineOwner: Caller = { name: "fast-sandbox:machine-owner", groups: [] }

/** What the API is asked about a caller. */
interface Question {
  readonly user: Reviews.UserInfo
  readonly wanted: Reviews.ResourceAttributes
}

/** Who calls, and whether they may. */
export class Access extends Context.Service<Access, {
  /** Who makes a call: whose its bearer token is. */
  readonly authenticate: (metadata: Metadata, peer: Peer) => Effect.Effect<Caller, BoundaryError>
  /** Whether the caller may make this call. */
  readonly authorize: (method: DescMethod, request: Message) => Effect.Effect<void, BoundaryError>
}>()("@fast-sandbox/controller/access/Access") {
  /** The API decides. */
  static get layer(): Layer.Layer<Access, never, KubeClient> {
    return Layer.effect(Access, make)
  }
}

const make = Effect.gen(function*() {
  const kube = yield* KubeClient
  const questions = yield* Semaphore.make(concurrency)

  const ask = <A>(question: string, self: Effect.Effect<A, KubeError, KubeClient>): Effect.Effect<A, Unavailable> =>
    self.pipe(
      Effect.provideService(KubeClient, kube),
      Effect.mapError(unanswered(question)),
      questions.withPermit,
      Effect.timeoutOrElse({
        duration: patience,
        orElse: () => Effect.fail(new Unavailable({ target, problem: `it did not say in time ${question}; try again` }))
      })
    )

  const callers = yield* Cache.makeWith(
    Effect.fn("Access.authenticate")(function*(token: string) {
      const user = yield* ask("whose the token is", Reviews.token(Redacted.make(token), []))
      return {
        caller: Option.map(user, callerOf),
        life: Option.isNone(user) ? unknownFor : lifeOf(token, yield* Clock.currentTimeMillis)
      }
    }),
    { capacity, timeToLive: (exit) => Exit.isSuccess(exit) ? exit.value.life : Duration.zero }
  )

  const decisions = yield* Cache.makeWith(
    Effect.fn("Access.authorize")(({ user, wanted }: Question) =>
      ask(`whether ${user.username} may ${wanted.verb}`, Reviews.access(user, wanted))
    ),
    {
      capacity,
      timeToLive: (exit) => Exit.isSuccess(exit) ? exit.value ? knownFor : unknownFor : Duration.zero
    }
  )

  return Access.of({
    authenticate: (metadata, { transport }) => {
      if (transport === "unix") return Effect.succeed(machineOwner)
      const token = bearerOf(metadata)
      if (token === undefined) {
        return Effect.fail(
          new Unauthenticated({
            problem: "send a token as 'authorization: Bearer <token>': see 'kubectl create token'"
          })
        )
      }
      return Effect.flatMap(Cache.get(callers, token), ({ caller }) =>
        Option.match(caller, {
          onNone: () =>
            Effect.fail(new Unauthenticated({ problem: "the token is unknown or has ended; get a new one" })),
          onSome: Effect.succeed
        }))
    },
    authorize: Effect.fnUntraced(function*(method, request) {
      const caller = yield* GrpcCaller
      if (caller === machineOwner) return
      const wanted = AccessRules.wanted(method.localName, request)
      if (wanted === undefined) {
        return yield* new PermissionDenied({ problem: `nobody may call ${method.name} with such a request` })
      }
      if (wanted === "nothing") return
      const user = infoOf(caller)
      // whoever may do it to all may do it to one: asked about each by its name, every sandbox would be a question
      const isAllowed = (yield* Cache.get(decisions, { user, wanted: { ...wanted, name: "" } })) ||
        (wanted.name !== "" && (yield* Cache.get(decisions, { user, wanted })))
      if (!isAllowed) {
        const denied = new PermissionDenied({
          problem: `${caller.name} may not ${describe(wanted)}; ask for a role that allows it`
        })
        const { name, namespace } = wanted
        const attempt = Effect.fail(denied)
        // what is allowed is recorded where it is carried out
        return yield* reads.has(wanted.verb)
          ? attempt
          : Audit.mutation(method.name, `${namespace}/${name}`)(attempt)
      }
    })
  })
})
