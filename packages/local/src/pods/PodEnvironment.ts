/**
 * The environment of a Pod's container, as the kubelet would resolve it: literal values, in which `$(NAME)` stands for an
 * earlier variable, and the fields of the Pod that `fieldRef` names. Other sources have no place in an agent's Pod on one machine and are refused by name.
 */
import type { Container, Pod } from "@fast-sandbox/kube/Kinds"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"

/** What a Pod learns only when it is placed. */
export interface Placement {
  readonly nodeName: string
  readonly podIP: string
}

const fields: Readonly<Record<string, (pod: Pod, placement: Placement) => string>> = {
  "metadata.name": (pod) => pod.metadata.name,
  "metadata.namespace": (pod) => pod.metadata.namespace ?? "",
  "metadata.uid": (pod) => pod.metadata.uid,
  "spec.nodeName": (_, placement) => placement.nodeName,
  "spec.serviceAccountName": (pod) => pod.spec?.serviceAccountName ?? "default",
  "status.podIP": (_, placement) => placement.podIP,
  "status.hostIP": (_, placement) => placement.podIP
}

const fieldPath = (valueFrom: unknown): string | undefined =>
  Predicate.hasProperty(valueFrom, "fieldRef") && Predicate.hasProperty(valueFrom.fieldRef, "fieldPath") &&
    Predicate.isString(valueFrom.fieldRef.fieldPath)
    ? valueFrom.fieldRef.fieldPath
    : undefined

const expand = (value: string, earlier: Readonly<Record<string, string>>): string =>
  value.replace(/\$\((\w+)\)/g, (reference, name: string) => earlier[name] ?? reference)

/** The variables by name, or the name of the first one that can't be resolved. */
export const resolve = (
  pod: Pod,
  container: Container,
  placement: Placement
): Result.Result<Readonly<Record<string, string>>, string> => {
  const environment: Record<string, string> = {}
  for (const { name, value, valueFrom } of container.env ?? []) {
    if (valueFrom === undefined || valueFrom === null) {
      environment[name] = expand(value ?? "", environment)
      continue
    }
    const path = fieldPath(valueFrom)
    const field = path === undefined || !Object.hasOwn(fields, path) ? undefined : fields[path]
    if (field === undefined) {
      return Result.fail(name)
    }
    environment[name] = field(pod, placement)
  }
  return Result.succeed(environment)
}
