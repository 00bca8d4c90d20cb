/**
 * The certificate that an agent serves with on TCP: its key is made here and stays here, a controller signs it for the
 * token of this Pod. Only controllers get in.
 */
import { controllerUri } from "@fast-sandbox/core/AgentProtocol"
import { type BoundaryError, PermissionDenied } from "@fast-sandbox/core/Errors"
import { EnrollmentService } from "@fast-sandbox/grpc/gen/agent/v1/enrollment_pb"
import type { Caller, Metadata, Peer } from "@fast-sandbox/grpc/GrpcCaller"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import type { Certificates, ServerTls } from "@fast-sandbox/grpc/GrpcServer"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Redacted from "effect/Redacted"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { generateKeyPairSync } from "node:crypto"
import type { Enrollment } from "./AgentConfig.ts"

/** Below the third of a certificate's life that may pass before it is renewed: see the controller's AuthorityPlan. */
const renewEvery = "8 hours"

/** A controller that restarts is back in seconds; one that is away for long finds the agents still asking. */
const patience = Schedule.min([Schedule.exponential("200 millis", 2), Schedule.spaced("10 seconds")]).pipe(
  Schedule.jittered
)

const deadline = "10 seconds"

const newKeyPair = Effect.sync(() =>
  generateKeyPairSync("ec", {
    namedCurve: "P-256",
    publicKeyEncoding: { type: "spki", format: "pem" },
    privateKeyEncoding: { type: "pkcs8", format: "pem" }
  })
)

/** The certificate to serve with, and its successors. Waits for a controller as long as it takes. */
export const make = Effect.fn("AgentIdentity.make")(function*(
  { authorities, controller, tokenFile }: Enrollment,
  stateDirectory: string
): Effect.fn.Return<ServerTls, never, FileSystem.FileSystem | Scope.Scope> {
  const files = yield* FileSystem.FileSystem
  // Authorities are replaced during a Pod's life; an agent that starts again must know the latest.
  const remembered = `${stateDirectory}/authorities.pem`
  const known = yield* Effect.orElseSucceed(files.readFileString(remembered), () => "")
  const believed = yield* Ref.make([authorities, known].join("\n"))

  const enroll = Effect.gen(function*() {
    const token = Redacted.make((yield* files.readFileString(tokenFile)).trim())
    const { privateKey, publicKey } = yield* newKeyPair
    const api = yield* GrpcClient.makeBoundary(EnrollmentService, {
      address: controller,
      credentials: { tls: { ca: yield* Ref.get(believed) }, token: Effect.succeed(token) }
    })
    const answer = yield* api.enroll({ publicKey }, { deadline })
    yield* Ref.set(believed, answer.authorities)
    yield* files.makeDirectory(stateDirectory, { recursive: true })
    yield* files.writeFileString(remembered, answer.authorities)
    return {
      certificate: { chain: answer.certificate, key: Redacted.make(privateKey) },
      clientCa: answer.authorities
    } satisfies Certificates
  }).pipe(
    Effect.scoped,
    Effect.tapError((error) => Effect.logWarning("no certificate yet", error)),
    Effect.retry(patience),
    Effect.orDie
  )

  return {
    ...(yield* enroll),
    rotations: Stream.mapEffect(Stream.fromSchedule(Schedule.spaced(renewEvery)), () => enroll)
  }
})

/** Whether a certificate is a controller's. Agents have certificates of the same authority. */
const isController = ({ certificate }: Peer): boolean =>
  certificate?.subjectaltname?.split(", ").includes(`URI:${controllerUri}`) === true

/** Lets controllers in, and nobody else. */
export const authenticate = (_: Metadata, peer: Peer): Effect.Effect<Caller, BoundaryError> =>
  isController(peer)
    ? Effect.succeed({ name: "fast-sandbox:controller", groups: [] })
    : Effect.fail(new PermissionDenied({ problem: "agents take calls from their controllers only" }))
