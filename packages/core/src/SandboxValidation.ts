/**
 * What a Sandbox may say. The rules are those of the CustomResourceDefinition, told at once and in the user's words: a
 * request that breaks one is refused before anything is reserved or created.
 */
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { InvalidArgument } from "./Errors.ts"
import * as ImageName from "./ImageName.ts"
import * as Instant from "./Instant.ts"
import { reservedPrefix } from "./Names.ts"
import type { ObjectMeta } from "./ObjectMeta.ts"
import * as Quantity from "./Quantity.ts"
import { type EnvVar, limits, type SandboxResources, type SandboxSpec } from "./Sandbox.ts"

/** What is wrong with one field; nothing where all is right. */
type Problem = { readonly field: string; readonly problem: string } | undefined

/** Lengths that Kubernetes gives to names, in characters. */
const maxNameLength = 253
const maxLabelLength = 63

const dnsLabel = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/
const dnsSubdomain = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/
const labelWord = /^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/
const rfc3339 = /^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$/

const encoder = new TextEncoder()

/** A character of UTF-16 is at most so many bytes of UTF-8. */
const maxBytesPerCharacter = 3

/** Whether texts have more bytes together. Most are so short that nothing has to be encoded to see it. */
const exceed = (texts: ReadonlyArray<string>, maxBytes: number): boolean =>
  texts.reduce((length, text) => length + text.length, 0) * maxBytesPerCharacter > maxBytes &&
  texts.reduce((bytes, text) => bytes + encoder.encode(text).byteLength, 0) > maxBytes

const wordProblem = (text: string): string | undefined =>
  text.length > maxLabelLength || !labelWord.test(text)
    ? `must be at most ${maxLabelLength} letters, digits, '-', '_' or '.', with a letter or digit at both ends`
    : undefined

const nameProblem = (field: string, name: string | undefined): Problem => {
  if (name === undefined || name === "") {
    return { field, problem: "must not be empty" }
  }
  return name.length <= maxNameLength && dnsSubdomain.test(name) ? undefined : {
    field,
    problem: `${JSON.stringify(name)} is no DNS-1123 name: use at most ${maxNameLength} lower-case letters, digits, ` +
      "'-' and '.', with a letter or digit at both ends of each part"
  }
}

const namespaceProblem = (field: string, namespace: string | undefined): Problem =>
  namespace !== undefined && namespace.length <= maxLabelLength && dnsLabel.test(namespace) ? undefined : {
    field,
    problem: `${JSON.stringify(namespace ?? "")} is no DNS-1123 label: use at most ${maxLabelLength} lower-case ` +
      "letters, digits and '-', with a letter or digit at both ends"
  }

const labelsProblem = (labels: { readonly [key: string]: string }): Problem => {
  if (Object.keys(labels).length > limits.labels) {
    return { field: "metadata.labels", problem: `must not be more than ${limits.labels}` }
  }
  for (const [key, value] of Object.entries(labels)) {
    const field = `metadata.labels[${key}]`
    const slash = key.indexOf("/")
    const prefix = slash === -1 ? undefined : key.slice(0, slash)
    if (key.startsWith(reservedPrefix)) {
      return { field, problem: `the prefix ${reservedPrefix} is reserved for Fast Sandbox itself` }
    }
    if (prefix !== undefined && (prefix.length > maxNameLength || !dnsSubdomain.test(prefix))) {
      return { field, problem: "the part before the slash must be a DNS-1123 name" }
    }
    const name = wordProblem(key.slice(slash + 1))
    if (name !== undefined) {
      return { field, problem: `the key ${name}` }
    }
    const problem = value === "" ? undefined : wordProblem(value)
    if (problem !== undefined) {
      return { field, problem: `the value ${problem}` }
    }
  }
  return undefined
}

const wordsProblem = (field: string, words: ReadonlyArray<string>): Problem => {
  if (words.length > limits.args) {
    return { field, problem: `must not have more than ${limits.args} items` }
  }
  const broken = words.findIndex((word) => word.includes("\0"))
  if (broken !== -1) {
    return { field: `${field}[${broken}]`, problem: "must not hold a NUL character" }
  }
  const long = words.findIndex((word) => word.length > limits.wordLength)
  return long === -1
    ? undefined
    : { field: `${field}[${long}]`, problem: `must not be longer than ${limits.wordLength} characters` }
}

const envsProblem = (envs: ReadonlyArray<EnvVar>): Problem => {
  if (envs.length > limits.envs) {
    return { field: "spec.envs", problem: `must not have more than ${limits.envs} items` }
  }
  if (exceed(envs.map(({ name, value = "" }) => name + value), limits.argsBytes)) {
    return { field: "spec.envs", problem: `must not have more than ${limits.argsBytes} bytes together` }
  }
  for (const [index, { name, value, valueFrom }] of envs.entries()) {
    const field = `spec.envs[${index}]`
    if (name === "" || name.includes("=") || name.includes("\0")) {
      return { field: `${field}.name`, problem: "must not be empty, nor hold '=' or a NUL character" }
    }
    if (name.length + (value?.length ?? 0) >= limits.wordLength) {
      return {
        field: `${field}.value`,
        problem: `must not be longer than ${limits.wordLength} characters with its name`
      }
    }
    if (value?.includes("\0") === true) {
      return { field: `${field}.value`, problem: "must not hold a NUL character" }
    }
    if (valueFrom !== undefined) {
      if (value !== undefined && value !== "") {
        return { field: `${field}.valueFrom`, problem: "can't be given together with value" }
      }
      if ((valueFrom.secretKeyRef === undefined) === (valueFrom.configMapKeyRef === undefined)) {
        return { field: `${field}.valueFrom`, problem: "must have one of secretKeyRef and configMapKeyRef" }
      }
    }
  }
  return undefined
}

const portsProblem = (ports: ReadonlyArray<number>): Problem => {
  if (ports.length > limits.exposedPorts) {
    return { field: "spec.exposedPorts", problem: `must not have more than ${limits.exposedPorts} items` }
  }
  for (const [index, port] of ports.entries()) {
    const field = `spec.exposedPorts[${index}]`
    if (!Number.isInteger(port) || port < 1 || port > 65535) {
      return { field, problem: `${port} is no port: use 1 to 65535` }
    }
    if (ports.indexOf(port) !== index) {
      return { field, problem: `${port} is there twice` }
    }
  }
  return undefined
}

const resourcesProblem = ({ cpu, ephemeralStorage, memory, pids, shm }: SandboxResources): Problem => {
  const quantities = [
    ["cpu", cpu, "500m"],
    ["memory", memory, "128Mi"],
    ["shm", shm, "64Mi"],
    ["ephemeralStorage", ephemeralStorage, "1Gi"]
  ] as const
  for (const [name, text, example] of quantities) {
    if (
      text !== undefined &&
      !Option.exists(Quantity.parse(text), (value) => value > 0 && value <= Number.MAX_SAFE_INTEGER)
    ) {
      return {
        field: `spec.resources.${name}`,
        problem: `${JSON.stringify(text)} is no quantity above 0 such as ${example}`
      }
    }
  }
  return pids !== undefined && (!Number.isInteger(pids) || pids < 1)
    ? { field: "spec.resources.pids", problem: "must be at least 1" }
    : undefined
}

const instantProblem = (field: string, text: string | undefined): Problem =>
  text === undefined || (rfc3339.test(text) && Option.isSome(Instant.parseMillis(text)))
    ? undefined
    : { field, problem: `${JSON.stringify(text)} is no RFC 3339 time such as 2026-01-31T12:00:00Z` }

const integerProblem = (field: string, value: number | undefined, minimum: number, maximum = Infinity): Problem =>
  value === undefined || (Number.isSafeInteger(value) && value >= minimum && value <= maximum) ? undefined : {
    field,
    problem: `${value} must be ${
      maximum === Infinity ? `a whole number of at least ${minimum}` : `between ${minimum} and ${maximum}`
    }`
  }

const imageProblem = (image: string): Problem => {
  const field = "spec.image"
  if (image === "") {
    return { field, problem: "must not be empty" }
  }
  if (image.length > limits.imageLength) {
    return { field, problem: `must not be longer than ${limits.imageLength} characters` }
  }
  const parsed = ImageName.parse(image)
  return Result.isFailure(parsed)
    ? { field, problem: `${JSON.stringify(image)}: ${parsed.failure.problem}` }
    : undefined
}

const workingDirProblem = (path: string): Problem => {
  const field = "spec.workingDir"
  return path !== "" && (!path.startsWith("/") || path.includes("\0"))
    ? { field, problem: "must be an absolute path" }
    : path.length > limits.pathLength
    ? { field, problem: `must not be longer than ${limits.pathLength} characters` }
    : undefined
}

const specProblem = (spec: SandboxSpec): Problem => {
  const { args = [], command = [], securityContext: { runAsGroup, runAsNonRoot, runAsUser } = {} } = spec
  return imageProblem(spec.image) ??
    nameProblem("spec.poolRef", spec.poolRef) ??
    wordsProblem("spec.command", command) ??
    wordsProblem("spec.args", args) ??
    (exceed([...command, ...args], limits.argsBytes)
      ? { field: "spec.args", problem: `command and args must not have more than ${limits.argsBytes} bytes together` }
      : undefined) ??
    envsProblem(spec.envs ?? []) ??
    workingDirProblem(spec.workingDir ?? "") ??
    portsProblem(spec.exposedPorts ?? []) ??
    integerProblem("spec.recoveryTimeoutSeconds", spec.recoveryTimeoutSeconds, 1) ??
    instantProblem("spec.expireTime", spec.expireTime) ??
    integerProblem("spec.ttlSeconds", spec.ttlSeconds, 1) ??
    (spec.expireTime !== undefined && spec.ttlSeconds !== undefined
      ? { field: "spec.ttlSeconds", problem: "can't be given together with expireTime" }
      : undefined) ??
    instantProblem("spec.resetRevision", spec.resetRevision) ??
    integerProblem(
      "spec.terminationGracePeriodSeconds",
      spec.terminationGracePeriodSeconds,
      0,
      limits.gracePeriodSeconds
    ) ??
    resourcesProblem(spec.resources ?? {}) ??
    integerProblem("spec.securityContext.runAsUser", runAsUser, 0, limits.userId) ??
    integerProblem("spec.securityContext.runAsGroup", runAsGroup, 0, limits.userId) ??
    (runAsNonRoot === true && runAsUser === 0
      ? { field: "spec.securityContext.runAsUser", problem: "is root, which runAsNonRoot forbids" }
      : undefined)
}

const refusalOf = (problem: Problem): Result.Result<void, InvalidArgument> =>
  problem === undefined ? Result.succeed(undefined) : Result.fail(new InvalidArgument(problem))

/** Checks a Sandbox that is to be created; fails with its first problem. */
export const validate = (
  { metadata, spec }: { readonly metadata: ObjectMeta; readonly spec: SandboxSpec }
): Result.Result<void, InvalidArgument> =>
  refusalOf(
    nameProblem("metadata.name", metadata.name) ??
      namespaceProblem("metadata.namespace", metadata.namespace) ??
      labelsProblem(metadata.labels ?? {}) ??
      specProblem(spec)
  )

/** Checks labels that are to be added; an empty value, which removes a label, is right. */
export const validateLabels = (labels: { readonly [key: string]: string }): Result.Result<void, InvalidArgument> =>
  refusalOf(labelsProblem(labels))

/** Checks the name that a request gives for an existing sandbox. */
export const validateRef = (namespace: string, name: string): Result.Result<void, InvalidArgument> =>
  refusalOf(nameProblem("metadata.name", name) ?? namespaceProblem("metadata.namespace", namespace))

/** Checks an instant that is to be written as RFC 3339. */
export const validateInstant = (field: string, text: string): Result.Result<void, InvalidArgument> =>
  refusalOf(instantProblem(field, text))

/** Checks a recovery timeout, in seconds. */
export const validateRecoveryTimeout = (seconds: number): Result.Result<void, InvalidArgument> =>
  refusalOf(integerProblem("spec.recoveryTimeoutSeconds", seconds, 1))
