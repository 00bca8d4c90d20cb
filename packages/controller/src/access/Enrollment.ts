/**
 * Gives agents the certificates that they serve with: to whoever shows a token that is bound to an agent's Pod, for that
 * Pod's uid only.
 */
import { agentServerName, enrollmentAudience } from "@fast-sandbox/core/AgentProtocol"
import { InvalidArgument, PermissionDenied, Unauthenticated, Unavailable } from "@fast-sandbox/core/Errors"
import { agentAppLabel, apiVersion } from "@fast-sandbox/core/Names"
import { EnrollmentService } from "@fast-sandbox/grpc/gen/agent/v1/enrollment_pb"
import { bearerOf, GrpcMetadata } from "@fast-sandbox/grpc/GrpcCaller"
import * as GrpcService from "@fast-sandbox/grpc/GrpcService"
import { type Pod, Pod as PodKind } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { UserInfo } from "@fast-sandbox/kube/Reviews"
import * as Reviews from "@fast-sandbox/kube/Reviews"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { toBoundary } from "../KubeFailure.ts"
import type { Authority } from "./Authority.ts"

const usernamePattern = /^system:serviceaccount:([^:]+):[^:]+$/

/** The Pod that a token is bound to. */
const boundTo = ({ extra, username }: UserInfo) => {
  const [, namespace] = usernamePattern.exec(username) ?? []
  const name = extra?.["authentication.kubernetes.io/pod-name"]?.[0]
  const uid = extra?.["authentication.kubernetes.io/pod-uid"]?.[0]
  return namespace === undefined || name === undefined || uid === undefined
    ? Option.none()
    : Option.some({ namespace, name, uid })
}

/** Whether a Pod is one that a pool made. */
const isAgent = ({ metadata: { labels, ownerReferences } }: Pod): boolean =>
  labels?.[agentAppLabel.key] === agentAppLabel.value &&
  ownerReferences?.some((owner) =>
      owner.controller === true && owner.kind === "SandboxPool" && owner.apiVersion === apiVersion
    ) === true

const enroll = Effect.fn("Enrollment.enroll")(function*(authority: Authority["Service"], publicKey: string) {
  const token = bearerOf(yield* GrpcMetadata)
  const user = token === undefined
    ? Option.none()
    : yield* Reviews.token(Redacted.make(token), [enrollmentAudience]).pipe(
      Effect.mapError(({ message }) =>
        new Unavailable({ target: "the Kubernetes API", problem: `it can't say whose the token is: ${message}` })
      )
    )
  const bound = Option.flatMap(user, boundTo)
  if (Option.isNone(bound)) {
    return yield* new Unauthenticated({
      problem: `send a token of a Pod for the audience ${enrollmentAudience}, as agents have it mounted`
    })
  }
  const { name, namespace, uid } = bound.value
  const pod = yield* KubeClient.use((kube) => kube.get(PodKind, { namespace, name })).pipe(
    Effect.mapError(toBoundary("pod"))
  )
  if (pod.metadata.uid !== uid || !isAgent(pod)) {
    return yield* new PermissionDenied({ problem: `Pod ${namespace}/${name} is no agent of a pool` })
  }
  const certificate = yield* authority.sign({
    publicKey,
    commonName: uid,
    names: [{ type: "dns", value: agentServerName(uid) }],
    usages: ["server"]
  }).pipe(Effect.mapError(({ message }) => new InvalidArgument({ field: "public_key", problem: message })))
  yield* Effect.logInfo("an agent got a certificate", { pod: `${namespace}/${name}`, uid })
  return { certificate, authorities: yield* authority.bundle }
})

/** The service. It is open, because it knows its callers by tokens for another audience than the API's. */
export const service = (authority: Authority["Service"]): GrpcService.GrpcService<KubeClient> =>
  GrpcService.open(GrpcService.make(EnrollmentService, { enroll: ({ publicKey }) => enroll(authority, publicKey) }))
