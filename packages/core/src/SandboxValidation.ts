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

/** What is wrong with one field. */
interface Problem {
  readonly field: string
  readonly problem: string
}

/** A rule: nothing when it holds. */
type Problems = Iterable<Problem>

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

function* nameProblems(field: string, name: string | undefined): Problems {
  if (name === undefined || name === "") {
    yield { field, problem: "must not be empty" }
  } else if (name.length > maxNameLength || !dnsSubdomain.test(name)) {
    yield {
      field,
      problem:
        `${JSON.stringify(name)} is no DNS-1123 name: use at most ${maxNameLength} lower-case letters, digits, ` +
        "'-' and '.', with a letter or digit at both ends of each part"
    }
  }
}

function* namespaceProblems(field: string, namespace: string | undefined): Problems {
  if (namespace === undefined || namespace.length > maxLabelLength || !dnsLabel.test(namespace)) {
    yield {
      field,
      problem: `${JSON.stringify(namespace ?? "")} is no DNS-1123 label: use at most ${maxLabelLength} lower-case ` +
        "letters, digits and '-', with a letter or digit at both ends"
    }
  }
}

function* labelProblems(labels: { readonly [key: string]: string }): Problems {
  if (Object.keys(labels).length > limits.labels) {
    yield { field: "metadata.labels", problem: `must not be more than ${limits.labels}` }
  }
  for (const [key, value] of Object.entries(labels)) {
    const field = `metadata.labels[${key}]`
    const slash = key.indexOf("/")
    const prefix = slash === -1 ? undefined : key.slice(0, slash)
    if (key.startsWith(reservedPrefix)) {
      yield { field, problem: `the prefix ${reservedPrefix} is reserved for Fast Sandbox itself` }
    } else if (prefix !== undefined && (prefix.length > maxNameLength || !dnsSubdomain.test(prefix))) {
      yield { field, problem: "the part before the slash must be a DNS-1123 name" }
    }
    const name = wordProblem(key.slice(slash + 1))
    if (name !== undefined) {
      yield { field, problem: `the key ${name}` }
    }
    const problem = value === "" ? undefined : wordProblem(value)
    if (problem !== undefined) {
      yield { field, problem: `the value ${problem}` }
    }
  }
}

function* wordsProblems(field: string, words: ReadonlyArray<string>): Problems {
  if (words.length > limits.args) {
    yield { field, problem: `must not have more than ${limits.args} items` }
  }
  const broken = words.findIndex((word) => word.includes("\0"))
  if (broken !== -1) {
    yield { field: `${field}[${broken}]`, problem: "must not hold a NUL character" }
  }
  const long = words.findIndex((word) => word.length > limits.wordLength)
  if (long !== -1) {
    yield { field: `${field}[${long}]`, problem: `must not be longer than ${limits.wordLength} characters` }
  }
}

function* envProblems(envs: ReadonlyArray<EnvVar>): Problems {
  if (envs.length > limits.envs) {
    yield { field: "spec.envs", problem: `must not have more than ${limits.envs} items` }
  }
  if (exceed(envs.map(({ name, value = "" }) => name + value), limits.argsBytes)) {
    yield { field: "spec.envs", problem: `must not have more than ${limits.argsBytes} bytes together` }
  }
  for (const [index, { name, value, valueFrom }] of envs.entries()) {
    const field = `spec.envs[${index}]`
    if (name === "" || name.includes("=") || name.includes("\0")) {
      yield { field: `${field}.name`, problem: "must not be empty, nor hold '=' or a NUL character" }
    }
    if (name.length + (value?.length ?? 0) >= limits.wordLength) {
      yield {
        field: `${field}.value`,
        problem: `must not be longer than ${limits.wordLength} characters with its name`
      }
    }
    if (value?.includes("\0") === true) {
      yield { field: `${field}.value`, problem: "must not hold a NUL character" }
    }
    if (valueFrom !== undefined) {
      if (value !== undefined && value !== "") {
        yield { field: `${field}.valueFrom`, problem: "can't be given together with value" }
      }
      if ((valueFrom.secretKeyRef === undefined) === (valueFrom.configMapKeyRef === undefined)) {
        yield { field: `${field}.valueFrom`, problem: "must have one of secretKeyRef and configMapKeyRef" }
      }
    }
  }
}

function* portProblems(ports: ReadonlyArray<number>): Problems {
  if (ports.length > limits.exposedPorts) {
    yield { field: "spec.exposedPorts", problem: `must not have more than ${limits.exposedPorts} items` }
  }
  for (const [index, port] of ports.entries()) {
    const field = `spec.exposedPorts[${index}]`
    if (!Number.isInteger(port) || port < 1 || port > 65535) {
      yield { field, problem: `${port} is no port: use 1 to 65535` }
    } else if (ports.indexOf(port) !== index) {
      yield { field, problem: `${port} is there twice` }
    }
  }
}

function* resourceProblems({ cpu, ephemeralStorage, memory, pids, shm }: SandboxResources): Problems {
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
      yield {
        field: `spec.resources.${name}`,
        problem: `${JSON.stringify(text)} is no quantity above 0 such as ${example}`
      }
    }
  }
  if (pids !== undefined && (!Number.isInteger(pids) || pids < 1)) {
    yield { field: "spec.resources.pids", problem: "must be at least 1" }
  }
}

function* instantProblems(field: string, text: string | undefined): Problems {
  if (text !== undefined && !(rfc3339.test(text) && Option.isSome(Instant.parseMillis(text)))) {
    yield { field, problem: `${JSON.stringify(text)} is no RFC 3339 time such as 2026-01-31T12:00:00Z` }
  }
}

function* integerProblems(field: string, value: number | undefined, minimum: number, maximum = Infinity): Problems {
  if (value !== undefined && !(Number.isSafeInteger(value) && value >= minimum && value <= maximum)) {
    yield {
      field,
      problem: `${value} must be ${
        maximum === Infinity ? `a whole number of at least ${minimum}` : `between ${minimum} and ${maximum}`
      }`
    }
  }
}

function* specProblems(spec: SandboxSpec): Problems {
  const { args = [], command = [], envs = [], exposedPorts = [], image, workingDir } = spec
  if (image === "") {
    yield { field: "spec.image", problem: "must not be empty" }
  } else if (image.length > limits.imageLength) {
    yield { field: "spec.image", problem: `must not be longer than ${limits.imageLength} characters` }
  } else {
    const parsed = ImageName.parse(image)
    if (Result.isFailure(parsed)) {
      yield { field: "spec.image", problem: `${JSON.stringify(image)}: ${parsed.failure.problem}` }
    }
  }
  yield* nameProblems("spec.poolRef", spec.poolRef)
  yield* wordsProblems("spec.command", command)
  yield* wordsProblems("spec.args", args)
  if (exceed([...command, ...args], limits.argsBytes)) {
    yield { field: "spec.args", problem: `command and args must not have more than ${limits.argsBytes} bytes together` }
  }
  yield* envProblems(envs)
  if (workingDir !== undefined && workingDir !== "") {
    if (!workingDir.startsWith("/") || workingDir.includes("\0")) {
      yield { field: "spec.workingDir", problem: "must be an absolute path" }
    }
    if (workingDir.length > limits.pathLength) {
      yield { field: "spec.workingDir", problem: `must not be longer than ${limits.pathLength} characters` }
    }
  }
  yield* portProblems(exposedPorts)
  yield* integerProblems("spec.recoveryTimeoutSeconds", spec.recoveryTimeoutSeconds, 1)
  yield* instantProblems("spec.expireTime", spec.expireTime)
  yield* integerProblems("spec.ttlSeconds", spec.ttlSeconds, 1)
  if (spec.expireTime !== undefined && spec.ttlSeconds !== undefined) {
    yield { field: "spec.ttlSeconds", problem: "can't be given together with expireTime" }
  }
  yield* instantProblems("spec.resetRevision", spec.resetRevision)
  yield* integerProblems(
    "spec.terminationGracePeriodSeconds",
    spec.terminationGracePeriodSeconds,
    0,
    limits.gracePeriodSeconds
  )
  yield* resourceProblems(spec.resources ?? {})
  const { runAsGroup, runAsNonRoot, runAsUser } = spec.securityContext ?? {}
  yield* integerProblems("spec.securityContext.runAsUser", runAsUser, 0, limits.userId)
  yield* integerProblems("spec.securityContext.runAsGroup", runAsGroup, 0, limits.userId)
  if (runAsNonRoot === true && runAsUser === 0) {
    yield { field: "spec.securityContext.runAsUser", problem: "is root, which runAsNonRoot forbids" }
  }
}

const first = (problems: Problems): Result.Result<void, InvalidArgument> => {
  for (const problem of problems) {
    return Result.fail(new InvalidArgument(problem))
  }
  return Result.succeed(undefined)
}

/** Checks a Sandbox that is to be created; fails with its first problem. */
export const validate = (
  { metadata, spec }: { readonly metadata: ObjectMeta; readonly spec: SandboxSpec }
): Result.Result<void, InvalidArgument> =>
  first((function*() {
    yield* nameProblems("metadata.name", metadata.name)
    yield* namespaceProblems("metadata.namespace", metadata.namespace)
    yield* labelProblems(metadata.labels ?? {})
    yield* specProblems(spec)
  })())

/** Checks labels that are to be added; an empty value, which removes a label, is right. */
export const validateLabels = (labels: { readonly [key: string]: string }): Result.Result<void, InvalidArgument> =>
  first(labelProblems(labels))

/** Checks the name that a request gives for an existing sandbox. */
export const validateRef = (namespace: string, name: string): Result.Result<void, InvalidArgument> =>
  first((function*() {
    yield* nameProblems("metadata.name", name)
    yield* namespaceProblems("metadata.namespace", namespace)
  })())

/** Checks an instant that is to be written as RFC 3339. */
export const validateInstant = (field: string, text: string): Result.Result<void, InvalidArgument> =>
  first(instantProblems(field, text))

/** Checks a recovery timeout, in seconds. */
export const validateRecoveryTimeout = (seconds: number): Result.Result<void, InvalidArgument> =>
  first(integerProblems("spec.recoveryTimeoutSeconds", seconds, 1))
