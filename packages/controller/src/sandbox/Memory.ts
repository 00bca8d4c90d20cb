/**
 * What the SandboxController remembers of one sandbox between two looks at it. All of it may be lost at any moment: it
 * saves calls and closes the gap between an answer and the caches that hear of it a moment later, nothing else.
 */
import type { Assignment } from "@fast-sandbox/core/Assignment"
import type { StartRefusal } from "@fast-sandbox/core/Decision"
import type { Sandbox } from "@fast-sandbox/core/Sandbox"
import type { Instance } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type * as Scope from "effect/Scope"
import type { Reservation } from "../registry/Registry.ts"
import * as Observation from "./Observation.ts"

/** For how long an agent's answer counts against a view of it that says less, in milliseconds. */
export const viewLagMillis = 5_000

/** Former instances of one sandbox that are remembered; one that is forgotten costs a call to its agent. */
const maxFormer = 32

/** Sets an entry, and drops the oldest one of too many. */
const remember = <A>(former: Map<string, A>, instanceId: string, what: A): void => {
  former.set(instanceId, what)
  const [oldest] = former.keys()
  if (former.size > maxFormer && oldest !== undefined) {
    former.delete(oldest)
  }
}

/** See the module. */
export class Memory {
  /** Agents whose view may show instances of this sandbox. */
  readonly homes = new Set<string>()
  /** Agents that had no room for the instance that is being placed. */
  readonly refusedBy = new Set<string>()
  readonly refusals = new Map<string, StartRefusal>()
  /** Nobody handled the resource before this controller. */
  isNew = false
  /** The running call to an agent: what it does, so that the same decision does not make it twice. */
  operation: string | undefined
  /** The slot that is held for an instance until its start has been answered. */
  reservation: { readonly reservation: Reservation; readonly scope: Scope.Closeable } | undefined

  /** This sandbox's draw of the pauses between recoveries: other sandboxes have others, so that they spread. */
  recoveryDelaysMillis: ReadonlyArray<number> | undefined

  private readonly gone = new Map<string, number>()
  private readonly asked = new Map<string, Assignment>()
  private readonly answers = new Map<string, { readonly at: number; readonly instance: Instance }>()
  private written: { readonly object: Sandbox; readonly replaced: ReadonlySet<string> } | undefined

  /** A write of ours was answered with this object. */
  wrote(before: Sandbox, object: Sandbox): void {
    const replaced = new Set(this.written?.object === before ? this.written.replaced : [])
    this.written = { object, replaced: replaced.add(before.metadata.resourceVersion ?? "") }
  }

  /** The newer one of what the cache has and what we wrote. */
  newest(cached: Sandbox): Sandbox {
    const { written } = this
    if (
      written !== undefined && written.object.metadata.uid === cached.metadata.uid &&
      written.replaced.has(cached.metadata.resourceVersion ?? "")
    ) {
      return written.object
    }
    this.written = undefined
    return cached
  }

  /** An agent is asked to start the instance. */
  asksFor(assignment: Assignment): void {
    remember(this.asked, assignment.instanceId, assignment)
    this.homes.add(assignment.podUid)
  }

  /** An agent refused to start the instance. */
  refused({ instanceId, podUid }: Assignment, refusal: StartRefusal): void {
    this.asked.delete(instanceId)
    this.refusals.set(instanceId, refusal)
    this.refusedBy.add(podUid)
  }

  /**
   * Instances that were asked for and not answered for. The status names the latest; this is for the day on which
   * somebody wipes it.
   */
  get unanswered(): ReadonlyArray<Assignment> {
    return [...this.asked.values()]
  }

  /** An agent answered that the instance is gone. */
  isGone(instanceId: string, now: number): void {
    remember(this.gone, instanceId, now)
    this.answers.delete(instanceId)
    this.asked.delete(instanceId)
  }

  /** An agent answered with the instance. */
  answered(instance: Instance, now: number): void {
    this.answers.set(instance.instanceId, { at: now, instance })
    this.asked.delete(instance.instanceId)
  }

  /**
   * An agent shows the instance: the later one of the view and the answer. What an agent goes on showing after it said
   * that it is gone, came back: a start that was under way when it was deleted.
   */
  shown(instance: Instance, now: number): Instance {
    const { instanceId } = instance
    if ((this.gone.get(instanceId) ?? now) < now - viewLagMillis) {
      this.gone.delete(instanceId)
    }
    const answer = this.answers.get(instanceId)
    if (answer === undefined) {
      return instance
    }
    if (answer.at < now - viewLagMillis) {
      this.answers.delete(instanceId)
      return instance
    }
    return Observation.later(instance, answer.instance)
  }

  /** An answer about an instance that the agent's view does not show yet. */
  answerOf(instanceId: string, now: number): Instance | undefined {
    const answer = this.answers.get(instanceId)
    return answer === undefined || answer.at < now - viewLagMillis ? undefined : answer.instance
  }

  /** Instances that are gone by their agents' own word. */
  get provenGone(): ReadonlySet<string> {
    return new Set(this.gone.keys())
  }
}
