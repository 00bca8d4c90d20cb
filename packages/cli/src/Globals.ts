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
import * as Flags from "./Flags.ts"
import * as KubernetesTarget from "./KubernetesTarget.ts"
import { type Format, formats, parseFormat } from "./Output.ts"
import { Screen } from "./Screen.ts"
import * as Trace from "./Trace.ts"

/** `--config` */
export const ConfigPath = GlobalFlag.Setting("config")({
  flag: Flags.optionalText("config", "FILE", "Read this configuration file instead of ./.fsb and ~/.fsb")
})

/** `--endpoint` */
export const Endpoint = GlobalFlag.Setting("endpoint")({
  flag: Flags.optionalText("endpoint", "ADDRESS", "The server: unix:/path or host:port (FSB_ENDPOINT)")
})

/** `--namespace` */
export const Namespace = GlobalFlag.Setting("namespace")({
  flag: Flags.optionalText("namespace", "NAME", "The namespace; 'default' by default (FSB_NAMESPACE)").pipe(
    Flag.withAlias("n")
  )
})

/** `--output` */
export const OutputFormat = GlobalFlag.Setting("output")({
  flag: Flag.String("output").pipe(
    Flag.filterMap(parseFormat, () => `one of ${formats.join(", ")}`),
    Flag.withAlias("o"),
    Flag.withMetavar("FORMAT"),
    Flag.withDescription(`How data is printed: ${formats.join(", ")}`),
    Flag.optional
  )
})

/** `--context` */
const ContextName = GlobalFlag.Setting("context")({
  flag: Flags.optionalText("context", "NAME", "A context of the configuration (FSB_CONTEXT)")
})

/** What `-o` says, for commands that print things: a table where it says nothing. */
export const format: Effect.Effect<Format, never, GlobalFlag.Setting.Identifier<"output">> = Effect.map(
  OutputFormat,
  Option.getOrElse((): Format => "table")
)

/** `--quiet`; `Screen` obeys it. */
const Quiet = GlobalFlag.Setting("quiet")({
  flag: Flags.presence("quiet", "Say nothing but errors; of lists just the names").pipe(Flag.withAlias("q"))
})

/** `--no-color`; `Screen` obeys it. */
const NoColor = GlobalFlag.Setting("no-color")({
  flag: Flags.presence("no-color", "No bold and no colours (NO_COLOR)")
})

/** `--trace` */
export const Traced = GlobalFlag.Setting("trace")({
  flag: Flags.presence("trace", "Tell on stderr where the time of this call went")
})

/** All of them, in the order of the help. */
export const all = [ConfigPath, Endpoint, Namespace, OutputFormat, ContextName, Quiet, NoColor, Traced] as const

/** `--all-namespaces` of the commands that list. */
export const allNamespaces = (description: string): Flag.Flag<boolean> =>
  Flags.presence("all-namespaces", description).pipe(Flag.withAlias("A"))

/** `--selector` of the commands that choose many. An empty one, as of a variable that is not set, would choose all. */
export const selector = (description: string): Flag.Flag<Option.Option<string>> =>
  Flag.String("selector").pipe(
    Flag.filter((text) => text.trim() !== "", () => "labels such as app=web"),
    Flag.withAlias("l"),
    Flag.withMetavar("QUERY"),
    Flag.withDescription(description),
    Flag.optional
  )

/** `--home` of the commands that are about the stack of this machine. */
export const home: Flag.Flag<string> = Flag.String("home").pipe(
  Flag.filter((path) => path !== "", () => "a folder"),
  Flag.withMetavar("DIR"),
  Flag.withDescription(`Where everything is kept; ${Config.DEFAULT_HOME} by default (FSB_HOME)`),
  Flag.optional,
  Flag.map(Option.getOrElse(() => process.env.FSB_HOME || Config.DEFAULT_HOME))
)

/** The screen as the flags want it, and what `--trace` asks for. */
export const presentation = Layer.unwrap(Effect.gen(function*() {
  const screen = Screen.layerWith({ isQuiet: yield* Quiet, hasColors: !(yield* NoColor) })
  return (yield* Traced) ? Layer.provideMerge(Trace.layer, screen) : screen
}))

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

/** Where the server is; a tunnel to it lives as long as the scope. */
const endpointOf = Effect.fnUntraced(function*(server: string | Config.Kubernetes) {
  if (typeof server === "string") return { endpoint: server, tls: undefined }
  // what speaks to Kubernetes is large, and most calls do without
  const KubernetesTunnel = yield* Effect.promise(() => import("./KubernetesTunnel.ts"))
  return yield* KubernetesTunnel.open(KubernetesTarget.complete(server))
})

/** The connection to the server of these settings. */
export const connectionOf = ({ namespace, server, tls, token }: Config.Settings) =>
  Layer.unwrap(Effect.gen(function*() {
    const found = yield* endpointOf(server.value)
    return Sandboxes.layer({
      endpoint: found.endpoint,
      namespace: namespace.value,
      token: token?.value,
      tls: tls === undefined ? found.tls : yield* readTls(tls.value)
    })
  }))

/** The connection that the settings choose. */
export const connection = Layer.unwrap(Effect.map(settings, (settings) => connectionOf(settings)))
