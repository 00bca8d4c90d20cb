/**
 * The flags that every command takes, and what they choose: settings, connection, output.
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Flag from "effect/cli/Flag"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Config from "./Config.ts"
import { LocalError } from "./Failure.ts"
import { formats } from "./Output.ts"

const optionalText = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.optional)

/** `--config` */
const ConfigPath = GlobalFlag.Setting("config")({
  flag: optionalText("config", "FILE", "Read this configuration file instead of ./.fsb and ~/.fsb")
})

/** `--endpoint` */
export const Endpoint = GlobalFlag.Setting("endpoint")({
  flag: optionalText("endpoint", "ADDRESS", "The server: unix:/path or host:port (FSB_ENDPOINT)")
})

/** `--namespace` */
export const Namespace = GlobalFlag.Setting("namespace")({
  flag: optionalText("namespace", "NAME", "The namespace; 'default' by default (FSB_NAMESPACE)").pipe(
    Flag.withAlias("n")
  )
})

/** `--output` */
export const OutputFormat = GlobalFlag.Setting("output")({
  flag: Flag.Literals("output", formats).pipe(
    Flag.withAlias("o"),
    Flag.withMetavar("FORMAT"),
    Flag.withDescription(`How data is printed: ${formats.join(", ")}`),
    Flag.optional
  )
})

/** `--context` */
const ContextName = GlobalFlag.Setting("context")({
  flag: optionalText("context", "NAME", "A context of the configuration (FSB_CONTEXT)")
})

/** All of them, in the order of the help. */
export const all = [ConfigPath, Endpoint, Namespace, OutputFormat, ContextName] as const

/** What flags, environment and files say together. */
export const settings = Effect.gen(function*() {
  return yield* Config.load({
    config: Option.getOrUndefined(yield* ConfigPath),
    endpoint: Option.getOrUndefined(yield* Endpoint),
    namespace: Option.getOrUndefined(yield* Namespace),
    context: Option.getOrUndefined(yield* ContextName)
  }, process.env)
})

const readPem = Effect.fnUntraced(function*(path: string) {
  const files = yield* FileSystem.FileSystem
  return yield* files.readFileString(path).pipe(
    Effect.mapError(({ message }) => new LocalError({ problem: `can't read the certificate file ${path}: ${message}` }))
  )
})

const readTls = Effect.fnUntraced(function*(tls: NonNullable<Config.Settings["tls"]>["value"]) {
  const { ca, certificate, key, serverName } = tls
  if ((certificate === undefined) !== (key === undefined)) {
    return yield* new LocalError({ problem: "tls needs both certificate and key, or none of them" })
  }
  return {
    ca: ca === undefined ? undefined : yield* readPem(ca),
    certificate: certificate === undefined || key === undefined
      ? undefined
      : { chain: yield* readPem(certificate), key: Redacted.make(yield* readPem(key)) },
    serverName
  }
})

/** The connection that the settings choose. */
export const connection = Layer.unwrap(Effect.gen(function*() {
  const { endpoint, namespace, tls, token } = yield* settings
  return Sandboxes.layer({
    endpoint: endpoint.value,
    namespace: namespace.value,
    token: token?.value,
    tls: tls === undefined ? undefined : yield* readTls(tls.value)
  })
}))
