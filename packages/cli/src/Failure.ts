/**
 * What goes wrong in fsb-ctl, as the one line that its user reads and the code that it ends with. A line says what
 * happened and what to do next.
 */
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import * as Schema from "effect/Schema"
import * as ExitCode from "./ExitCode.ts"
import { oneLine } from "./Lines.ts"

/** The command line is wrong. `command` is the path of the command, such as `image pull`. */
export class UsageError extends Schema.TaggedError<UsageError>()("UsageError", {
  command: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return this.problem
  }
}

/** Something on this machine is in the way: a file, the configuration, the editor. `problem` says what to do. */
export class LocalError extends Schema.TaggedError<LocalError>()("LocalError", {
  problem: Schema.String
}) {
  override get message(): string {
    return this.problem
  }
}

/** The user said no, or left the editor without a text. Nothing to complain about. */
export class Declined extends Schema.TaggedError<Declined>()("Declined", {
  notice: Schema.String
}) {}

/** Whoever read the output went away. */
export class PipeClosed extends Schema.TaggedError<PipeClosed>()("PipeClosed", {}) {}

/** Everything was said; only the exit code is left to tell. */
export class Ended extends Schema.TaggedError<Ended>()("Ended", {
  exitCode: Schema.Int
}) {}

/** Every failure that reaches the end of fsb-ctl. */
export type Failure = BoundaryError | UsageError | LocalError | Declined | PipeClosed | Ended

const MILLIS_PER_SECOND = 1000

/** The flags of commands by the fields of the API. */
const flagOfField: ReadonlyMap<string, string> = new Map([
  ["image", "--image"],
  ["poolRef", "--pool"],
  ["exposedPorts", "--ports"],
  ["consistencyMode", "--mode"],
  ["failurePolicy", "--failure-policy"],
  ["workingDir", "--workdir"],
  ["envs", "--env"],
  ["ttlSeconds", "--ttl"],
  ["expireTime", "--ttl"],
  ["labelSelector", "--selector"],
  ["sandboxResources.cpu", "--cpu"],
  ["sandboxResources.memory", "--memory"],
  ["warmImages", "--warm"]
])

const inWordsOfFlags = (field: string): string => {
  const path = field.replace(/^spec\./, "")
  const [root = path] = /^\w+/.exec(path) ?? []
  const flag = flagOfField.get(path) ?? flagOfField.get(root)
  return flag === undefined ? field : `${flag} (${field})`
}

const nextSteps: Readonly<Record<string, string>> = {
  sandbox: "see 'fsb-ctl list'",
  image: "see 'fsb-ctl image list'"
}

/** A server's; what servers themselves can't reach has a name. */
const address = /^[^\s/]+:\d+$/

const describeBoundary = (error: BoundaryError): string => {
  switch (error._tag) {
    case "InvalidArgument":
      return `${inWordsOfFlags(error.field)}: ${error.problem}`
    case "NotFound":
      return error.hint === undefined && nextSteps[error.kind] !== undefined
        ? `${error.message}; ${nextSteps[error.kind]}`
        : error.message
    case "AlreadyExists":
      return error.hint === undefined && error.kind === "sandbox"
        ? `${error.message}; choose another name, or run 'fsb-ctl delete ${error.name}' first`
        : error.message
    case "ResourceExhausted":
      return `${error.message}; try again in ${Math.ceil(error.retryAfterMillis / MILLIS_PER_SECOND)} s`
    case "Unauthenticated":
      return `${error.message}; give a token in FSB_TOKEN or in the configuration`
    case "DeadlineExceeded":
      return `${error.message}; look with 'fsb-ctl list' what became of it, then try again`
    case "Unavailable":
      return error.target.startsWith("unix:") && /ENOENT|ECONNREFUSED/.test(error.problem)
        ? `can't reach the server at ${error.target}; start it with 'fsb-ctl up', or say where it is with --endpoint`
        : error.target.startsWith("unix:") || address.test(error.target)
        ? `can't reach the server at ${error.target} (${error.problem})`
        : error.message
    case "Internal":
      return `the server failed: ${error.message}`
    case "FailedPrecondition":
    case "PermissionDenied":
    case "Cancelled":
      return error.message
  }
}

/** What is said on stderr, if anything. */
export const describe = (failure: Failure): string => {
  switch (failure._tag) {
    case "PipeClosed":
    case "Ended":
      return ""
    case "Declined":
      return `${failure.notice}\n`
    case "UsageError":
      return usage(failure.command, failure.problem)
    case "LocalError":
      return `fsb-ctl: ${oneLine(failure.message)}\n`
    default:
      return `fsb-ctl: ${oneLine(describeBoundary(failure))}\n`
  }
}

/** A wrong command line, and where its right form is explained. */
export const usage = (command: string, problem: string): string => {
  const name = command === "" ? "fsb-ctl" : `fsb-ctl ${command}`
  return `${name}: ${oneLine(problem)}\nSee '${name} --help'\n`
}

/** The code that fsb-ctl ends with. */
export const exitCode = (failure: Failure): number => {
  switch (failure._tag) {
    case "Ended":
      return failure.exitCode
    case "PipeClosed":
      return ExitCode.ofSignal(ExitCode.signals.SIGPIPE)
    case "FailedPrecondition":
      return ExitCode.ofReason(failure.reason)
    default:
      return ExitCode.OURS
  }
}
