/**
 * The process of an exec: the sandbox's own with another command. Privileges come from what containerd has on record for
 * the container, so that an exec never has more of them than the sandbox's program.
 */
import type * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import type { Instance } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type { ExecHeader } from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import * as Schema from "effect/Schema"

const Names = Schema.Array(Schema.String)

/** A process as the record has it; what is not named here passes through. */
const RecordedProcess = Schema.StructWithRest(
  Schema.Struct({
    user: Schema.Struct({
      uid: Schema.Int,
      gid: Schema.Int,
      additionalGids: Schema.optionalKey(Schema.Array(Schema.Int)),
      umask: Schema.optionalKey(Schema.Int)
    }),
    env: Names,
    cwd: Schema.String,
    capabilities: Schema.Struct({ bounding: Names, effective: Names, permitted: Names }),
    rlimits: Schema.Array(Schema.Struct({ type: Schema.String, soft: Schema.Number, hard: Schema.Number })),
    noNewPrivileges: Schema.Boolean,
    oomScoreAdj: Schema.optionalKey(Schema.Int)
  }),
  [Schema.Record(Schema.String, Schema.Unknown)]
)

/** A process whose privileges an exec takes over: a container's spec has one, whatever it knows besides. */
export type RecordedProcess =
  & Pick<OciSpec.Process, "user" | "env" | "cwd" | "capabilities" | "rlimits" | "noNewPrivileges" | "oomScoreAdj">
  & { readonly [field: string]: unknown }

const RecordedSpec = Schema.Struct({ process: RecordedProcess })

/** Reads the process of a container's spec. */
export const decode = Schema.decodeUnknownEffect(RecordedSpec)

const nameOf = (variable: string): string => variable.split("=", 1)[0] ?? ""

const environment = (
  recorded: RecordedProcess,
  instance: Instance,
  { envs, tty }: Pick<ExecHeader, "envs" | "tty">
): ReadonlyArray<string> => [
  ...new Map([
    ...(tty ? [["TERM", "TERM=xterm"] as const] : []),
    ...recorded.env.map((variable) => [nameOf(variable), variable] as const),
    ...(instance.spec?.envs ?? []).map(({ name, value }) => [name, `${name}=${value}`] as const),
    ...Object.entries(envs).map(([name, value]) => [name, `${name}=${value}`] as const)
  ]).values()
]

/** `user` is the resolved one of the header; the sandbox's own when absent. */
export const make = (
  recorded: RecordedProcess,
  instance: Instance,
  header: Pick<ExecHeader, "command" | "envs" | "size" | "tty" | "workingDir">,
  user: OciSpec.User = recorded.user
): OciSpec.Process => {
  const { capabilities: { bounding } } = recorded
  const privileges = user.uid === 0 ? bounding : []
  return {
    ...recorded,
    terminal: header.tty,
    ...(header.size === undefined
      ? {}
      : { consoleSize: { width: header.size.columns, height: header.size.rows } }),
    user,
    args: header.command,
    env: environment(recorded, instance, header),
    cwd: header.workingDir || instance.spec?.workingDir || recorded.cwd,
    capabilities: { bounding, effective: privileges, permitted: privileges }
  }
}
