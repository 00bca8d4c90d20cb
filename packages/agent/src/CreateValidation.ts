/**
 * What a create may ask of an agent. Controllers check the same and more before; an agent trusts nobody with the length
 * of a list, a name that becomes a path, or a byte that ends a C string.
 */
import { InvalidArgument } from "@fast-sandbox/core/Errors"
import * as ImageName from "@fast-sandbox/core/ImageName"
import { limits } from "@fast-sandbox/core/Sandbox"
import type { Claim, CreateRequest, InstanceSpec } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"

/** What containerd accepts as an id; it becomes a file name and a cgroup's name, too. */
const instanceIdPattern = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/
const maxInstanceIdLength = 76

const maxPort = 65_535

/** Kubernetes' longest name; containerd refuses labels of more than 4096 bytes. */
const maxNameLength = 253

const invalid = (field: string, problem: string): InvalidArgument => new InvalidArgument({ field, problem })

const bytesOf = (texts: ReadonlyArray<string>): number =>
  texts.reduce((bytes, text) => bytes + Buffer.byteLength(text) + 1, 0)

const wordsProblem = (field: string, words: ReadonlyArray<string>): InvalidArgument | undefined => {
  if (words.length > limits.args) {
    return invalid(field, `must not have more than ${limits.args} items`)
  }
  const broken = words.findIndex((word) => word.includes("\0"))
  return broken < 0 ? undefined : invalid(`${field}[${broken}]`, "must not hold a zero byte")
}

const envsProblem = (envs: InstanceSpec["envs"]): InvalidArgument | undefined => {
  if (envs.length > limits.envs) {
    return invalid("spec.envs", `must not have more than ${limits.envs} items`)
  }
  const broken = envs.findIndex(({ name, value }) => name === "" || /[=\0]/.test(name) || value.includes("\0"))
  return broken < 0
    ? undefined
    : invalid(`spec.envs[${broken}].name`, "must not be empty and must hold neither = nor a zero byte")
}

const specProblem = (spec: InstanceSpec): InvalidArgument | undefined => {
  const image = spec.image.length > limits.imageLength ? undefined : ImageName.parse(spec.image)
  if (image === undefined) {
    return invalid("spec.image", `must not be longer than ${limits.imageLength} characters`)
  }
  if (image._tag === "Failure") {
    return invalid("spec.image", image.failure.problem)
  }
  const ports = spec.exposedPorts
  if (ports.length > limits.exposedPorts) {
    return invalid("spec.exposed_ports", `must not have more than ${limits.exposedPorts} items`)
  }
  const port = ports.findIndex((port, at) => port < 1 || port > maxPort || ports.indexOf(port) !== at)
  if (port >= 0) {
    return invalid(`spec.exposed_ports[${port}]`, `must be between 1 and ${maxPort}, and given once`)
  }
  const words = wordsProblem("spec.command", spec.command) ?? wordsProblem("spec.args", spec.args) ??
    envsProblem(spec.envs)
  if (words !== undefined) {
    return words
  }
  const environment = spec.envs.flatMap(({ name, value }) => [name, value])
  if (bytesOf([...spec.command, ...spec.args]) > limits.argsBytes || bytesOf(environment) > limits.argsBytes) {
    return invalid("spec", `command and args, and envs, must not have more than ${limits.argsBytes} bytes each`)
  }
  if (spec.workingDir.length > limits.pathLength || spec.workingDir.includes("\0")) {
    return invalid("spec.working_dir", `must be a path of at most ${limits.pathLength} characters`)
  }
  const isUser = (id: number | undefined) => id === undefined || id <= limits.userId
  if (!isUser(spec.runAsUser) || !isUser(spec.runAsGroup)) {
    return invalid("spec.run_as_user", `must be at most ${limits.userId}, as run_as_group must`)
  }
  const quantities = [spec.cpuMillis, spec.memoryBytes, spec.pids, spec.shmBytes, spec.diskBytes]
  if (quantities.some((quantity) => quantity > BigInt(Number.MAX_SAFE_INTEGER))) {
    return invalid("spec", "no limit may be 9Pi or more")
  }
  return spec.terminationGracePeriodSeconds > limits.gracePeriodSeconds
    ? invalid("spec.termination_grace_period_seconds", `must be at most ${limits.gracePeriodSeconds}`)
    : undefined
}

const claimProblem = ({ claimUid, namespace, resourceUid, sandboxName }: Claim): InvalidArgument | undefined => {
  const names = [["namespace", namespace], ["sandbox_name", sandboxName], ["claim_uid", claimUid]] as const
  const long = [...names, ["resource_uid", resourceUid] as const].find(([, name]) => name.length > maxNameLength)
  return long === undefined
    ? undefined
    : invalid(`claim.${long[0]}`, `must not be longer than ${maxNameLength} characters`)
}

/** What is wrong with a create, if anything is. */
export const problemOf = ({ claim, instanceId, spec }: CreateRequest): InvalidArgument | undefined => {
  if (instanceId.length > maxInstanceIdLength || !instanceIdPattern.test(instanceId)) {
    return invalid(
      "instance_id",
      `must be up to ${maxInstanceIdLength} letters and digits, with single dots, dashes or underscores between them`
    )
  }
  if (spec === undefined) {
    return invalid("spec", "is missing")
  }
  return specProblem(spec) ?? (claim === undefined ? undefined : claimProblem(claim))
}
