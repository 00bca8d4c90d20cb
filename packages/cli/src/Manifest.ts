/**
 * What to run, as YAML: either fsb-ctl's own keys (`image, pool_ref, consistency_mode, command, args, exposed_ports,
 * envs, working_dir`), or a Kubernetes Sandbox. A mistake is told with its line.
 */
import type { CreateOptions } from "@fast-sandbox/client/Sandboxes"
import * as Names from "@fast-sandbox/core/Names"
import * as Sandbox from "@fast-sandbox/core/Sandbox"
import { SandboxPool } from "@fast-sandbox/core/SandboxPool"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"

/** The text is no manifest. `line` counts from 1. */
export class ManifestError extends Schema.TaggedError<ManifestError>()("ManifestError", {
  line: Schema.Int,
  problem: Schema.String
}) {
  override get message(): string {
    return `line ${this.line}: ${this.problem}`
  }
}

/** What a manifest asks for; flags may still change or complete it. */
export interface Manifest extends Omit<CreateOptions, "image" | "requestId" | "deadline"> {
  readonly image?: string | undefined
}

/** Words as they come from YAML: a number or a boolean that somebody did not quote is meant as a text. */
const Word = Schema.Union([Schema.String, Schema.Finite, Schema.Boolean])

const Words = Schema.Array(Word)

/** An empty key of the template (`name:`) says nothing. */
const absent = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

const Plain = Schema.Struct({
  name: absent(Schema.String),
  namespace: absent(Schema.String),
  image: absent(Schema.String),
  pool_ref: absent(Schema.String),
  consistency_mode: absent(Sandbox.ConsistencyMode),
  failure_policy: absent(Sandbox.FailurePolicy),
  command: absent(Words),
  args: absent(Words),
  exposed_ports: absent(Schema.Array(Sandbox.Port).check(Schema.isUnique())),
  envs: absent(Schema.Record(Schema.String, Schema.NullOr(Word))),
  working_dir: absent(Schema.String),
  tty: absent(Schema.Boolean),
  stdin: absent(Schema.Boolean),
  ttl_seconds: absent(Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)))
})

const strict = { errors: "first", onExcessProperty: "error" } as const

const decodePlain = Schema.decodeUnknownResult(Plain, strict)
const decodePool = Schema.decodeUnknownResult(SandboxPool, strict)
const decodeResource = Schema.decodeUnknownResult(Sandbox.Sandbox, strict)

const words = (values: typeof Words.Type | null | undefined) => values?.map(String)

const fromPlain = (plain: typeof Plain.Type): Manifest => ({
  name: plain.name ?? undefined,
  namespace: plain.namespace ?? undefined,
  image: plain.image ?? undefined,
  pool: plain.pool_ref ?? undefined,
  consistencyMode: plain.consistency_mode ?? undefined,
  failurePolicy: plain.failure_policy ?? undefined,
  command: words(plain.command),
  args: words(plain.args),
  exposedPorts: plain.exposed_ports ?? undefined,
  envs: plain.envs == null
    ? undefined
    : Object.fromEntries(Object.entries(plain.envs).map(([key, value]) => [key, value === null ? "" : String(value)])),
  workingDir: plain.working_dir ?? undefined,
  tty: plain.tty ?? undefined,
  stdin: plain.stdin ?? undefined,
  ttlSeconds: plain.ttl_seconds ?? undefined
})

const fromResource = ({ metadata, spec }: Sandbox.Sandbox): Manifest => ({
  name: metadata.name,
  namespace: metadata.namespace,
  labels: metadata.labels,
  image: spec.image,
  pool: spec.poolRef,
  command: spec.command,
  args: spec.args,
  envs: spec.envs === undefined
    ? undefined
    : Object.fromEntries(spec.envs.map(({ name, value }) => [name, value ?? ""])),
  workingDir: spec.workingDir,
  tty: spec.tty,
  stdin: spec.stdin,
  exposedPorts: spec.exposedPorts,
  consistencyMode: spec.consistencyMode,
  failurePolicy: spec.failurePolicy,
  recoveryTimeoutSeconds: spec.recoveryTimeoutSeconds,
  expireTime: spec.expireTime,
  ttlSeconds: spec.ttlSeconds,
  terminationGracePeriodSeconds: spec.terminationGracePeriodSeconds,
  resources: spec.resources,
  securityContext: spec.securityContext
})

type Path = ReadonlyArray<PropertyKey>

/** What is wrong, and where. */
interface Mistake {
  readonly path: Path
  readonly problem: string
}

const issues = SchemaIssue.makeFormatterStandardSchemaV1()

const formatPath = (path: Path): string =>
  path.map((part, at) => typeof part === "number" ? `[${part}]` : `${at === 0 ? "" : "."}${String(part)}`).join("")

const mistakeOf = (error: Schema.SchemaError): Mistake => {
  const [issue] = issues(error.issue).issues
  return {
    path: (issue?.path ?? []).map((part) => typeof part === "object" ? part.key : part),
    problem: issue?.message ?? error.message
  }
}

/** Refuses the fields of a Sandbox that the Fast-Path does not carry. */
const withinFastPath = (sandbox: Sandbox.Sandbox): Result.Result<Sandbox.Sandbox, Mistake> => {
  const at = sandbox.spec.envs?.findIndex(({ valueFrom }) => valueFrom !== undefined) ?? -1
  return at < 0 ? Result.succeed(sandbox) : Result.fail({
    path: ["spec", "envs", at, "valueFrom"],
    problem: "only 'kubectl apply' takes values from Secrets and ConfigMaps"
  })
}

const readSandbox = (value: unknown): Result.Result<Manifest, Mistake> =>
  Predicate.hasProperty(value, "apiVersion") || Predicate.hasProperty(value, "kind")
    ? decodeResource(value).pipe(
      Result.mapError(mistakeOf),
      Result.flatMap(withinFastPath),
      Result.map(fromResource)
    )
    : decodePlain(value).pipe(Result.mapError(mistakeOf), Result.map(fromPlain))

const readPool = (value: unknown): Result.Result<SandboxPool, Mistake> => Result.mapError(decodePool(value), mistakeOf)

/** Reads YAML, or tells the first mistake in it, with its line. */
const parseWith = Effect.fnUntraced(function*<A>(text: string, read: (value: unknown) => Result.Result<A, Mistake>) {
  // the library is large and most calls read none
  const { isNode, LineCounter, parseDocument } = yield* Effect.promise(() => import("./Yaml.ts"))
  const counter = new LineCounter()
  const document = parseDocument(text, { lineCounter: counter, prettyErrors: false })
  const lineAt = (offset: number) => Math.max(1, counter.linePos(offset).line)
  const [broken] = document.errors
  if (broken !== undefined) {
    return yield* new ManifestError({ line: lineAt(broken.pos[0]), problem: broken.message })
  }
  /** The line of the nearest node on the way to the path: a missing key has none of its own. */
  const lineOf = (path: Path): number => {
    for (let length = path.length; length > 0; length--) {
      const node = document.getIn(path.slice(0, length), true)
      if (isNode(node) && node.range) return lineAt(node.range[0])
    }
    return 1
  }
  return yield* Effect.mapError(
    Effect.fromResult(read(document.toJS() ?? {})),
    ({ path, problem }) =>
      new ManifestError({
        line: lineOf(path),
        problem: `${path.length === 0 ? "" : `${formatPath(path)}: `}${problem}`
      })
  )
})

/** Reads what to run. */
export const parse = (text: string): Effect.Effect<Manifest, ManifestError> => parseWith(text, readSandbox)

/** Reads a Kubernetes SandboxPool. */
export const parsePool = (text: string): Effect.Effect<SandboxPool, ManifestError> => parseWith(text, readPool)

/** The text that the editor opens with when nothing was remembered. */
export const template = (name: string): string =>
  `# What to run in the sandbox${name === "" ? "" : ` ${name}`}. Lines that begin with # are for you to read.
# Save and leave the editor to go on; empty the file to stop.

# The container image. Required.
image: alpine:latest

# The pool that runs it.
pool_ref: ${Names.defaultPool}

# fast: start the program, then record it. strong: the other way round.
consistency_mode: fast

# Replaces the image's ENTRYPOINT.
# command: ["/bin/sh", "-c"]

# Replaces the image's CMD.
args: ["echo", "hello from the sandbox"]

# TCP ports that the program listens on.
# exposed_ports: [8080]

# Environment variables.
# envs:
#   GREETING: hello

# The directory that the program starts in.
# working_dir: /srv
`
