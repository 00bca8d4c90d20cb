/**
 * Where fsb-ctl connects to, and as whom. Sources in order: flags, environment, `./.fsb/config.json`,
 * `~/.fsb/config.json`. The first that says something about a value decides it; a source may say it by itself or by
 * choosing a context, and its own word goes before its context's.
 */
import * as Sandbox from "@fast-sandbox/core/Sandbox"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { existsSync, readFileSync, statSync } from "node:fs"
import { LocalError } from "./Failure.ts"

/** Where a one-machine installation keeps everything. */
export const DEFAULT_HOME = "/var/lib/fast-sandbox"

/** The Fast-Path socket below such a home. */
const SOCKET = "run/fastpath.sock"

/** The file that holds configuration, below the working directory and below the user's home. */
export const FILE = ".fsb/config.json"

/** Certificates, as paths of PEM files. */
const Tls = Schema.Struct({
  ca: Schema.optionalKey(Schema.String),
  certificate: Schema.optionalKey(Schema.String),
  key: Schema.optionalKey(Schema.String),
  serverName: Schema.optionalKey(Schema.String)
})

/** A server that is reached through the Kubernetes API of its cluster. */
const Kubernetes = Schema.Struct({
  /** The path of a kubeconfig file; left out: what kubectl would use. */
  kubeconfig: Schema.optionalKey(Schema.NonEmptyString),
  /** Of the kubeconfig file; left out: its current one. */
  context: Schema.optionalKey(Schema.NonEmptyString),
  /** Where the Service is. */
  namespace: Schema.optionalKey(Schema.NonEmptyString),
  service: Schema.optionalKey(Schema.NonEmptyString),
  port: Schema.optionalKey(Sandbox.Port)
})

/** A server that is reached through the Kubernetes API of its cluster. */
export type Kubernetes = typeof Kubernetes.Type

const Context = Schema.Struct({
  endpoint: Schema.optionalKey(Schema.NonEmptyString),
  kubernetes: Schema.optionalKey(Kubernetes),
  namespace: Schema.optionalKey(Schema.NonEmptyString),
  token: Schema.optionalKey(Schema.NonEmptyString),
  tls: Schema.optionalKey(Tls)
})

/** A named way to a server. */
export type Context = typeof Context.Type

/** What a configuration file holds. */
export const ConfigFile = Schema.Struct({
  ...Context.fields,
  editor: Schema.optionalKey(Schema.NonEmptyString),
  context: Schema.optionalKey(Schema.NonEmptyString),
  contexts: Schema.optionalKey(Schema.Record(Schema.String, Context))
})

/** What a configuration file holds. */
export type ConfigFile = typeof ConfigFile.Type

/** One place that configuration comes from. `name` is how it is spoken of. */
export interface Source extends ConfigFile {
  readonly name: string
}

/** A value, and which source said it. */
export interface Sourced<A> {
  readonly value: A
  readonly from: string
}

/** What all sources together say. */
export interface Settings {
  /** An endpoint, or where in a cluster it is. */
  readonly server: Sourced<string | Kubernetes>
  readonly namespace: Sourced<string>
  readonly token: Sourced<Redacted.Redacted> | undefined
  readonly tls: Sourced<typeof Tls.Type> | undefined
  readonly editor: Sourced<string> | undefined
  readonly context: Sourced<string> | undefined
  /** By name; a stronger source's hides a weaker one's. */
  readonly contexts: Readonly<Record<string, Context>>
}

/** The endpoint of a one-machine installation. */
export const defaultEndpoint = (home: string): string => `unix:${home}/${SOCKET}`

const DEFAULT = "default"

/** Resolves the sources, the strongest first. `home` is that of the one-machine installation. */
export const resolve = (sources: ReadonlyArray<Source>, home: string): Result.Result<Settings, LocalError> => {
  const contexts: Record<string, Context> = Object.assign({}, ...sources.map(({ contexts }) => contexts).toReversed())
  for (const { context, name } of sources) {
    if (context !== undefined && !Object.hasOwn(contexts, context)) {
      const known = Object.keys(contexts)
      return Result.fail(
        new LocalError({
          problem: `there is no context ${JSON.stringify(context)} (named by ${name}); ${
            known.length === 0 ? `define it under "contexts" in ~/${FILE}` : `choose one of ${known.join(", ")}`
          }`
        })
      )
    }
  }
  const pick = <A>(read: (context: Context) => A | undefined): Sourced<A> | undefined => {
    for (const source of sources) {
      const own = read(source)
      if (own !== undefined) return { value: own, from: source.name }
      const value = source.context === undefined ? undefined : read(contexts[source.context] ?? {})
      if (value !== undefined) return { value, from: `context ${source.context}, ${source.name}` }
    }
    return undefined
  }
  const own = (key: "editor" | "context"): Sourced<string> | undefined => {
    for (const source of sources) {
      const value = source[key]
      if (value !== undefined) return { value, from: source.name }
    }
    return undefined
  }
  const token = pick(({ token }) => token)
  return Result.succeed({
    server: pick(({ endpoint, kubernetes }) => endpoint ?? kubernetes) ??
      { value: defaultEndpoint(home), from: DEFAULT },
    namespace: pick(({ namespace }) => namespace) ?? { value: DEFAULT, from: DEFAULT },
    token: token === undefined ? undefined : { ...token, value: Redacted.make(token.value) },
    tls: pick(({ tls }) => tls),
    editor: own("editor"),
    context: own("context"),
    contexts
  })
}

/** The environment as a source. Empty variables say nothing. */
export const fromEnvironment = (environment: Readonly<Record<string, string | undefined>>): Source => {
  const found = (key: "endpoint" | "namespace" | "token" | "context" | "editor", variable: string) => {
    const value = environment[variable]
    return value === undefined || value === "" ? {} : { [key]: value }
  }
  return {
    name: "environment",
    ...found("endpoint", "FSB_ENDPOINT"),
    ...found("namespace", "FSB_NAMESPACE"),
    ...found("token", "FSB_TOKEN"),
    ...found("context", "FSB_CONTEXT"),
    ...found("editor", "FSB_EDITOR")
  }
}

const lineOf = (text: string, offset: number): number => text.slice(0, offset).split("\n").length

/** V8 ends most of its messages about JSON with the position. */
const positionPattern = /at position (\d+)/

const problemOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

const decode = Schema.decodeUnknownResult(ConfigFile, { errors: "first", onExcessProperty: "error" })

const issues = SchemaIssue.makeFormatterStandardSchemaV1()

/** The first mistake, with the key that has it: `contexts.prod.endpoint: ...`. */
const mistakeOf = (error: Schema.SchemaError): string => {
  const [issue] = issues(error.issue).issues
  const path = (issue?.path ?? []).map((part) => String(typeof part === "object" ? part.key : part)).join(".")
  const message = issue?.message ?? error.message
  return `${path === "" ? "" : `${path}: `}${/excess property/.test(message) ? "there is no such key" : message}`
}

/** Checks what a configuration file is to hold; `path` is for messages. */
export const check = (path: string, value: unknown): Result.Result<ConfigFile, LocalError> =>
  Result.mapError(
    decode(value),
    (error) => new LocalError({ problem: `${path} is no configuration: ${mistakeOf(error)}` })
  )

/** Reads the text of a configuration file; `path` is for messages. */
export const parse = (path: string, text: string): Result.Result<ConfigFile, LocalError> => {
  const json = Result.try({
    try: (): unknown => JSON.parse(text),
    catch: (cause) => {
      const [, position] = positionPattern.exec(problemOf(cause)) ?? []
      const at = position === undefined ? path : `${path}:${lineOf(text, Number(position))}`
      return new LocalError({ problem: `${at} is not JSON: ${problemOf(cause)}` })
    }
  })
  return Result.flatMap(json, (value) => check(path, value))
}

/**
 * The configuration of a file; none where there is no such file. Read by this thread: every call does it, and the way to
 * another thread and back takes longer than the file, on a busy machine by milliseconds.
 */
export const readFile = (path: string): Effect.Effect<Option.Option<ConfigFile>, LocalError> =>
  Effect.try({
    try: () => statSync(path, { throwIfNoEntry: false }) === undefined ? undefined : readFileSync(path, "utf8"),
    catch: (cause) => new LocalError({ problem: `can't read ${path}: ${problemOf(cause)}` })
  }).pipe(
    Effect.flatMap((text) =>
      text === undefined ? Effect.succeedNone : Effect.asSome(Effect.fromResult(parse(path, text)))
    )
  )

const sourceOf = (path: string, name: string) =>
  Effect.map(readFile(path), (config) => Option.toArray(config).map((config): Source => ({ ...config, name })))

/** What the flags say. */
export interface Flags {
  readonly config: string | undefined
  readonly endpoint: string | undefined
  readonly namespace: string | undefined
  readonly context: string | undefined
}

/** Reads all sources. A file that `--config` names replaces the two usual ones, and must exist. */
export const load = Effect.fn("Config.load")(function*(
  flags: Flags,
  environment: Readonly<Record<string, string | undefined>>
) {
  const { config, ...rest } = flags
  if (config !== undefined && !existsSync(config)) {
    return yield* new LocalError({ problem: `--config: there is no file ${config}` })
  }
  const userHome = environment.HOME ?? ""
  const read = config === undefined
    ? [
      ...yield* sourceOf(FILE, `./${FILE}`),
      ...userHome === "" ? [] : yield* sourceOf(`${userHome}/${FILE}`, `~/${FILE}`)
    ]
    : yield* sourceOf(config, config)
  const given: ConfigFile = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined))
  const sources = [{ ...given, name: "flags" }, fromEnvironment(environment), ...read]
  return yield* Effect.fromResult(resolve(sources, environment.FSB_HOME || DEFAULT_HOME))
})
