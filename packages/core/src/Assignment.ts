/**
 * Which agent runs a sandbox, and which of its incarnations is the current one. The Fast-Path server writes the first
 * assignment as an annotation, in the very write that creates the resource: a crash between any two lines of a create
 * leaves either no resource (the agent's instance is adopted) or one that says where its instance is.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { assignmentAnnotation, claimUidAnnotation } from "./Names.ts"
import type { Sandbox } from "./Sandbox.ts"

/** An instance and the agent that it was given to. */
export const Assignment = Schema.Struct({
  instanceId: Schema.NonEmptyString,
  pod: Schema.NonEmptyString,
  podUid: Schema.NonEmptyString,
  node: Schema.String
})

/** An instance and the agent that it was given to. */
export type Assignment = typeof Assignment.Type

const parse = Option.liftThrowable((text: string): unknown => JSON.parse(text))
const isAssignment = Schema.is(Assignment)

/**
 * How long after its creation a resource that has an assignment but no status belongs to the Fast-Path server that wrote
 * it, in milliseconds. Its creates end well before; afterwards the SandboxController takes the resource over.
 */
export const creatorGraceMillis = 15_000

/** The annotation's text. */
export const encode = (assignment: Assignment): string => JSON.stringify(assignment)

/** What the creator wrote. A hand-made annotation that can't be read counts as none. */
export const ofCreator = (sandbox: Sandbox): Option.Option<Assignment> =>
  Option.fromNullishOr(sandbox.metadata.annotations?.[assignmentAnnotation]).pipe(
    Option.flatMap(parse),
    Option.filter(isAssignment)
  )

/**
 * The current assignment: what the creator wrote as long as there is no status, from then on the status's alone,
 * because a sandbox that waits for a new instance must not be taken for its first one.
 */
export const of = (sandbox: Sandbox): Option.Option<Assignment> => {
  const { status } = sandbox
  if (status?.phase === undefined) {
    return ofCreator(sandbox)
  }
  return status.phase === "Pending" || status.sandboxID === undefined || status.assignedPod === undefined ||
      status.assignedPodUID === undefined
    ? Option.none()
    : Option.some({
      instanceId: status.sandboxID,
      pod: status.assignedPod,
      podUid: status.assignedPodUID,
      node: status.nodeName ?? ""
    })
}

/** The claim uid that the sandbox's instances carry: the one its creator chose, else the resource's own uid. */
export const claimUid = (sandbox: Sandbox): string =>
  sandbox.metadata.annotations?.[claimUidAnnotation] ?? sandbox.metadata.uid ?? ""
