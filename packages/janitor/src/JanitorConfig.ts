/**
 * What a janitor is told by its environment. The names are those of agents where they mean the same.
 */
import * as Probes from "@fast-sandbox/telemetry/Probes"
import * as Config from "effect/Config"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { isAbsolute } from "node:path"
import type { JanitorOptions } from "./Janitor.ts"

/** Everything that is configured. */
export interface Settings {
  readonly janitor: JanitorOptions
  readonly containerdSocket: string
  readonly containerdNamespace: string
  /** Where metrics and probes are served; nowhere when absent. */
  readonly metrics: Probes.Address | undefined
}

/** The root itself is nobody's. */
const AbsolutePath = Schema.String.check(
  Schema.makeFilter((path: string) =>
    (isAbsolute(path) && /[^/.]/.test(path)) || "must be an absolute path below the root"
  )
)

/**
 * Reads the environment: NODE_NAME is required. FSB_STATE_DIR holds `agents`, with one directory for each agent, and
 * `logs` unless FSB_LOG_DIR says otherwise.
 */
export const config: Config.Config<Settings> = Config.all({
  nodeName: Config.NonEmptyString("NODE_NAME"),
  containerdSocket: Config.schema(AbsolutePath, "FSB_CONTAINERD_SOCKET").pipe(
    Config.withDefault("/run/containerd/containerd.sock")
  ),
  containerdNamespace: Config.NonEmptyString("FSB_CONTAINERD_NAMESPACE").pipe(Config.withDefault("k8s.io")),
  stateDirectory: Config.schema(AbsolutePath, "FSB_STATE_DIR").pipe(Config.withDefault("/run/fast-sandbox")),
  logDirectory: Config.option(Config.schema(AbsolutePath, "FSB_LOG_DIR")),
  cgroupParent: Config.schema(AbsolutePath, "FSB_CGROUP_PARENT").pipe(Config.withDefault("/fast-sandbox")),
  metricsListen: Config.option(Config.NonEmptyString("FSB_METRICS_LISTEN")),
  isDryRun: Config.Boolean("FSB_DRY_RUN").pipe(Config.withDefault(false))
}).pipe(Config.map((read): Settings => ({
  containerdSocket: read.containerdSocket,
  containerdNamespace: read.containerdNamespace,
  metrics: Option.getOrUndefined(Option.map(read.metricsListen, Probes.parseAddress)),
  janitor: {
    nodeName: read.nodeName,
    mode: read.isDryRun ? "report" : "remove",
    places: {
      cgroupParent: read.cgroupParent,
      logDirectory: Option.getOrElse(read.logDirectory, () => `${read.stateDirectory}/logs`),
      agentsDirectory: `${read.stateDirectory}/agents`
    }
  }
})))
