/**
 * Why a program could not be started, from what the OCI runtime said. Whoever asked for the program can only repair what
 * is wrong with the program; callers tell that by the reason, as shells do by 127 and 126.
 */
import type { ContainerdError } from "@fast-sandbox/containerd/ContainerdError"
import { type BoundaryError, FailedPrecondition } from "@fast-sandbox/core/Errors"
import { constants } from "node:os"
import { getSystemErrorMessage } from "node:util"
import { toBoundary } from "./ContainerdFailure.ts"
import type { Report } from "./parked/Orders.ts"

/** What is to be said when the runtime's words match. */
interface Verdict {
  readonly reason: "CommandNotFound" | "CommandNotExecutable"
  readonly pattern: RegExp
  readonly problem: string
}

/** The words of crun and of runc about the program itself; a missing directory or mount reads much alike. */
const verdicts: ReadonlyArray<Verdict> = [
  {
    reason: "CommandNotExecutable",
    pattern: /exec format error/i,
    problem: "it is no program for this machine"
  },
  {
    reason: "CommandNotExecutable",
    pattern:
      /(?:open executable|exec(?: container process)?:? [`"][^`"]*[`"]): (?:operation not permitted|is a directory)/i,
    problem: "it is no file that can be executed"
  },
  {
    reason: "CommandNotExecutable",
    pattern: /(?:open executable|exec(?: container process)?:? [`"][^`"]*[`"]): permission denied/i,
    problem: "it is no file that the sandbox's user may execute"
  },
  {
    reason: "CommandNotFound",
    pattern: /executable file .*not found in \$PATH/i,
    problem: "there is no such program in the image"
  },
  {
    reason: "CommandNotFound",
    pattern: /exec container process [`"][^`"]*[`"]: no such file/i,
    problem: "there is no such program in the image, or what interprets it is missing"
  },
  {
    reason: "CommandNotFound",
    pattern: /exec: "[^"]*": (?:stat [^:]*: )?no such file|\bstat [^:]*: no such file/i,
    problem: "there is no such program in the image"
  }
]

/** Error numbers of the kernel, as it says them of a program that it can't execute. */
const verdictsOfErrno: ReadonlyMap<number, Omit<Verdict, "pattern">> = new Map([
  [constants.errno.ENOENT, {
    reason: "CommandNotFound",
    problem: "there is no such program in the image, or what interprets it is missing"
  }],
  [constants.errno.ENOTDIR, { reason: "CommandNotFound", problem: "there is no such program in the image" }],
  [constants.errno.EACCES, {
    reason: "CommandNotExecutable",
    problem: "it is no file that the sandbox's user may execute"
  }],
  [constants.errno.EPERM, { reason: "CommandNotExecutable", problem: "it is no file that can be executed" }],
  [constants.errno.ENOEXEC, { reason: "CommandNotExecutable", problem: "it is no program for this machine" }]
])

/** The runtime's layers each put their own name before what the innermost said. */
const innermost = (said: string): string =>
  said.replace(/^(?:(?:runc|crun|runsc)[^:]*: )?(?:unable to start container process: )?/, "").replace(
    /\s*\n\s*/g,
    "; "
  )

/**
 * The failure of `Tasks.create` or `Tasks.start` of `program`: FAILED_PRECONDITION `CommandNotFound`,
 * `CommandNotExecutable`, or `StartFailed` for whatever else the OCI runtime says. Where it says nothing, it is a
 * fault of the node.
 */
export const fromStart = (program: string) => (error: ContainerdError): BoundaryError => {
  const [, said] = /OCI runtime (?:create|start|exec) failed: (.*?)(?:: unknown)?$/s.exec(error.details) ?? []
  if (said === undefined) {
    return toBoundary(error)
  }
  const verdict = verdicts.find(({ pattern }) => pattern.test(said))
  return new FailedPrecondition({
    reason: verdict?.reason ?? "StartFailed",
    problem: `${program} could not be started: ${verdict?.problem ?? innermost(said)}`
  })
}

/** The same of `program`, where a parked slot's init says what the kernel said. */
export const fromReport = (
  program: string,
  { errno, step }: Extract<Report, { readonly _tag: "Refused" }>
): FailedPrecondition => {
  const verdict = step === "executing the program" ? verdictsOfErrno.get(errno) : undefined
  const said = getSystemErrorMessage(-errno) ?? `error ${errno}`
  return new FailedPrecondition({
    reason: verdict?.reason ?? "StartFailed",
    problem: `${program} could not be started: ${verdict?.problem ?? `${step}: ${said}`}`
  })
}
