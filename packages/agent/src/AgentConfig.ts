/**
 * What an agent is told by its environment: who it is (its Pod), what it may use (slots, limits), and where things are.
 */
import * as PodCgroups from "@fast-sandbox/containerd/PodCgroups"
import * as NetworkPolicy from "@fast-sandbox/core/NetworkPolicy"
import * as Quantity from "@fast-sandbox/core/Quantity"
import { type KeptWarm, keptWarm, RuntimeType } from "@fast-sandbox/core/SandboxPool"
import { unixPathOf } from "@fast-sandbox/grpc/GrpcConnection"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { isIP } from "node:net"
import { isAbsolute } from "node:path"

/** Slots of an agent whose pool does not say: the contract's `maxSandboxesPerPod`. */
const defaultSlots = 5

/** Slots beyond this would make one agent a single point of failure for a whole node. */
const maxSlots = 1000

/** Few enough to share their cost, enough that the death of one is not the death of all. */
const defaultShimGroups = 4

/** Slots without an image: one for who asks next, while the one before is replaced in 50 ms; about a MiB each. */
export const defaultBlankSlots = 2

/** More shims than this no longer share anything. */
const maxShimGroups = 64

/** More than a program writes that somebody reads, and some percent of a processor for its logger. */
const defaultLogBytesPerSecond = 16 * 1024 * 1024

/** Where an agent listens. */
export type Listen =
  | { readonly _tag: "Unix"; readonly path: string }
  | { readonly _tag: "Tcp"; readonly host: string; readonly port: number }

/** Where an agent gets its certificate. */
export interface Enrollment {
  /** `host:port` of the controllers. */
  readonly controller: string
  /** PEM certificates of the authorities that the controllers' may be signed by. */
  readonly authorities: string
  /** A token of this Pod, which the kubelet renews. */
  readonly tokenFile: string
}

/** Limits of a sandbox that asks for none. Absent means the container layer's own default. */
export interface DefaultLimits {
  readonly cpuMillis: number | undefined
  readonly memoryBytes: number | undefined
  readonly pids: number | undefined
  readonly diskBytes: number | undefined
}

/** Everything that is configured. Paths are absolute. */
export interface Settings {
  readonly listen: Listen
  /** Where the certificate comes from that the agent serves with on TCP. */
  readonly enrollment: Enrollment | undefined
  readonly podName: string
  /** The agent's identity: an agent that restarts under the same uid takes its sandboxes up again. */
  readonly podUid: string
  readonly podNamespace: string
  /** The host part of endpoints. */
  readonly podIp: string
  readonly nodeName: string
  readonly pool: string
  readonly slots: number
  readonly containerdSocket: string
  readonly containerdNamespace: string
  readonly stateDirectory: string
  /** What sandboxes may need for longer than there is a state directory; a node's agents share it. */
  readonly sharedDirectory: string
  readonly logDirectory: string
  /** What the log of a sandbox grows by at most, time stamps included; 0 is no limit. A program that prints more waits. */
  readonly logBytesPerSecond: number
  /** The cgroup below which every instance gets one of its own name; the layer puts it below the agent's Pod's. */
  readonly cgroupParent: string
  /** Absolute path of the OCI runtime; chosen by the runtime profile when absent. */
  readonly runtimeBinary: string | undefined
  /** Where runtimes are looked for before the usual places. */
  readonly runtimeDirectory: string | undefined
  /** How sandboxes are kept apart from the node. */
  readonly runtimeType: RuntimeType
  /**
   * Where the root of containerd's file system is seen: `/proc/1/root` in a container that shares the node's process ids.
   * Empty when it is the agent's own.
   */
  readonly hostRoot: string
  /**
   * The folder of our native programs as the agent sees it. They are copied to `<stateDirectory>/bin`, where containerd's
   * shims see them.
   */
  readonly nativeDirectory: string | undefined
  /** Absolute path of `fsb-logger`, as containerd's shims see it. Output goes to plain files when it is not there. */
  readonly loggerBinary: string | undefined
  /** Absolute path of `fsb-idmap`. Without it sandboxes share the node's users. */
  readonly idmapBinary: string | undefined
  /** Whether sandboxes share the node's users although they need not: Kubernetes' `hostUsers`. */
  readonly hostUsers: boolean
  /** Absolute path of `fsb-init`. No slots are parked when it is not there. */
  readonly initBinary: string | undefined
  /** Slots without an image that wait for those of which nothing is parked. */
  readonly blankSlots: number
  /** Images of which slots wait parked until the controller says otherwise. Without any, what was asked for lately. */
  readonly warmImages: ReadonlyArray<KeptWarm>
  /** What sandboxes share with others: nothing but rules (private), the agent's network (pod), nothing at all (none). */
  readonly network: "private" | "pod" | "none"
  /** Absolute path of `fsb-network`. Without it sandboxes have loopback only. */
  readonly networkBinary: string | undefined
  /** Where sandboxes with a private network may connect to. */
  readonly egress: NetworkPolicy.Egress
  /** How they find names. */
  readonly dns: NetworkPolicy.Dns
  /** The node's own address, where it is not the agent's. Sandboxes can't connect to it. */
  readonly nodeIp: string | undefined
  readonly limits: DefaultLimits
  /** Shims that sandboxes share; 0 gives each sandbox a shim of its own. */
  readonly shimGroups: number
  /** Whether a create may pull a missing image. Otherwise it is refused. */
  readonly pullOnCreate: boolean
  /** Where metrics are served, in Prometheus' text format; nowhere when absent. */
  readonly metrics: { readonly host: string; readonly port: number } | undefined
  /** What SIGTERM does to running sandboxes. */
  readonly onTerm: "stop" | "leave"
  /** Whether the end of standard input (the parent is gone) ends the agent; sandboxes stay. */
  readonly exitWithParent: boolean
}

const ListenText = Schema.String.check(
  Schema.isPattern(/^(unix:\/.+|[^\s/]+:\d{1,5})$/, { message: "must be unix:/absolute/path or host:port" })
)

const TcpText = Schema.String.check(Schema.isPattern(/^[^\s/]+:\d{1,5}$/, { message: "must be host:port" }))

const AbsolutePath = Schema.String.check(
  Schema.makeFilter((path: string) => isAbsolute(path) || "must be an absolute path")
)

const QuantityText = Schema.String.check(Schema.isPattern(Quantity.pattern))

const parseTcp = (text: string): { readonly host: string; readonly port: number } => {
  const colon = text.lastIndexOf(":")
  return { host: text.slice(0, colon), port: Number(text.slice(colon + 1)) }
}

const parseListen = (text: string): Listen => {
  const path = unixPathOf(text)
  return path === undefined ? { _tag: "Tcp", ...parseTcp(text) } : { _tag: "Unix", path }
}

const quantity = (name: string, parse: (text: string) => Option.Option<number>): Config.Config<number | undefined> =>
  Config.option(Config.schema(QuantityText, name)).pipe(
    Config.map((text) => Option.getOrUndefined(Option.flatMap(text, parse)))
  )

/** An empty variable says as little as an absent one. */
const orEmpty = <S extends Schema.Codec<string, string>>(schema: S) => Schema.Union([Schema.Literal(""), schema])

const optionalPath = (name: string): Config.Config<string | undefined> =>
  Config.schema(orEmpty(AbsolutePath), name).pipe(Config.withDefault(""), Config.map((path) => path || undefined))

const AddressText = Schema.String.check(
  Schema.makeFilter((text: string) => isIP(text) !== 0 || "must be an IP address")
)

const PositiveInt = Schema.FiniteFromString.check(Schema.isInt(), Schema.isGreaterThan(0))

const SlotsText = PositiveInt.check(Schema.isLessThanOrEqualTo(maxSlots))

/**
 * `[{"image": "alpine", "parked": 4}]`, as a pool's `warmImages`. A name that is none is told with the capacity, because
 * everything else works without it.
 */
const WarmImagesText = Schema.fromJsonString(Schema.Array(
  Schema.Struct({
    image: Schema.String,
    parked: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: maxSlots })))
  })
))

const BlankText = Schema.FiniteFromString.check(
  Schema.isInt(),
  Schema.isBetween({ minimum: 0, maximum: maxSlots })
)

const GroupsText = Schema.FiniteFromString.check(
  Schema.isInt(),
  Schema.isBetween({ minimum: 0, maximum: maxShimGroups })
)

const variables = Config.all({
  listen: Config.option(Config.schema(ListenText, "FSB_AGENT_LISTEN")),
  enrollment: Config.option(Config.all({
    controller: Config.schema(TcpText, "FSB_CONTROLLER"),
    authorities: Config.NonEmptyString("FSB_AUTHORITIES"),
    tokenFile: Config.schema(AbsolutePath, "FSB_TOKEN_FILE")
  })),
  podName: Config.NonEmptyString("POD_NAME"),
  podUid: Config.NonEmptyString("POD_UID"),
  podNamespace: Config.NonEmptyString("POD_NAMESPACE"),
  podIp: Config.schema(AddressText, "POD_IP").pipe(Config.withDefault("127.0.0.1")),
  nodeName: Config.String("NODE_NAME").pipe(Config.withDefault("")),
  pool: Config.String("FSB_POOL").pipe(Config.withDefault("")),
  slots: Config.schema(SlotsText, "FSB_SLOTS").pipe(Config.withDefault(defaultSlots)),
  containerdSocket: Config.schema(AbsolutePath, "FSB_CONTAINERD_SOCKET").pipe(
    Config.withDefault("/run/containerd/containerd.sock")
  ),
  containerdNamespace: Config.NonEmptyString("FSB_CONTAINERD_NAMESPACE").pipe(Config.withDefault("k8s.io")),
  stateDirectory: Config.schema(AbsolutePath, "FSB_STATE_DIR").pipe(Config.withDefault("/run/fast-sandbox")),
  sharedDirectory: optionalPath("FSB_SHARED_DIR"),
  logDirectory: Config.option(Config.schema(AbsolutePath, "FSB_LOG_DIR")),
  logBytesPerSecond: quantity("FSB_LOG_RATE", Quantity.parseBytes),
  cgroupParent: Config.schema(AbsolutePath, "FSB_CGROUP_PARENT").pipe(Config.withDefault("/fast-sandbox")),
  runtimeBinary: optionalPath("FSB_RUNTIME_BINARY"),
  runtimeDirectory: optionalPath("FSB_RUNTIME_DIR"),
  runtimeType: Config.schema(RuntimeType, "FSB_RUNTIME_TYPE").pipe(Config.withDefault("container")),
  hostRoot: Config.map(optionalPath("FSB_HOST_ROOT"), (path) => path ?? ""),
  nativeDirectory: optionalPath("FSB_NATIVE_DIR"),
  loggerBinary: optionalPath("FSB_LOGGER_BINARY"),
  idmapBinary: optionalPath("FSB_IDMAP_BINARY"),
  hostUsers: Config.Boolean("FSB_HOST_USERS").pipe(Config.withDefault(false)),
  initBinary: optionalPath("FSB_INIT_BINARY"),
  blankSlots: Config.schema(BlankText, "FSB_BLANK_SLOTS").pipe(Config.withDefault(defaultBlankSlots)),
  warmImages: Config.schema(WarmImagesText, "FSB_WARM_IMAGES").pipe(Config.withDefault([])),
  network: Config.Literals(["private", "pod", "none"], "FSB_NETWORK").pipe(Config.withDefault("private")),
  networkBinary: optionalPath("FSB_NETWORK_BINARY"),
  egress: Config.schema(Schema.fromJsonString(NetworkPolicy.Egress), "FSB_EGRESS").pipe(Config.withDefault({})),
  dns: Config.schema(Schema.fromJsonString(NetworkPolicy.Dns), "FSB_DNS").pipe(Config.withDefault({})),
  nodeIp: Config.option(Config.schema(AddressText, "FSB_NODE_IP")).pipe(Config.map(Option.getOrUndefined)),
  cpuMillis: quantity("FSB_DEFAULT_CPU", Quantity.parseCpuMillis),
  memoryBytes: quantity("FSB_DEFAULT_MEMORY", Quantity.parseBytes),
  pids: Config.option(Config.schema(PositiveInt, "FSB_DEFAULT_PIDS")).pipe(Config.map(Option.getOrUndefined)),
  diskBytes: quantity("FSB_DEFAULT_DISK", Quantity.parseBytes),
  shimGroups: Config.schema(GroupsText, "FSB_SHIM_GROUPS").pipe(Config.withDefault(defaultShimGroups)),
  pullOnCreate: Config.Boolean("FSB_PULL_ON_CREATE").pipe(Config.withDefault(false)),
  metrics: Config.schema(orEmpty(TcpText), "FSB_METRICS_LISTEN").pipe(Config.withDefault("")),
  onTerm: Config.Literals(["stop", "leave"], "FSB_ON_TERM").pipe(Config.withDefault("stop")),
  exitWithParent: Config.Boolean("FSB_EXIT_WITH_PARENT").pipe(Config.withDefault(false))
})

/** Where the native programs are for containerd's shims, when they are copied there. */
export const nativeBinary = ({ stateDirectory }: Pick<Settings, "stateDirectory">, name: string): string =>
  `${stateDirectory}/bin/${name}`

const toSettings = (
  { cpuMillis, diskBytes, memoryBytes, pids, warmImages, ...settings }: Config.Success<typeof variables>
): Settings => ({
  ...settings,
  ...(settings.nativeDirectory === undefined ? {} : {
    loggerBinary: settings.loggerBinary ?? nativeBinary(settings, "fsb-logger"),
    idmapBinary: settings.idmapBinary ?? nativeBinary(settings, "fsb-idmap"),
    initBinary: settings.initBinary ?? `${settings.nativeDirectory}/fsb-init`,
    networkBinary: settings.networkBinary ?? nativeBinary(settings, "fsb-network")
  }),
  warmImages: keptWarm({ warmImages }),
  listen: Option.match(settings.listen, {
    onNone: () => ({ _tag: "Unix", path: `${settings.stateDirectory}/agent.sock` }),
    onSome: parseListen
  }),
  enrollment: Option.getOrUndefined(settings.enrollment),
  metrics: settings.metrics === "" ? undefined : parseTcp(settings.metrics),
  sharedDirectory: settings.sharedDirectory ?? settings.stateDirectory,
  logDirectory: Option.getOrElse(settings.logDirectory, () => `${settings.stateDirectory}/logs`),
  logBytesPerSecond: settings.logBytesPerSecond ?? defaultLogBytesPerSecond,
  limits: { cpuMillis, memoryBytes, pids, diskBytes }
})

/** Reads the environment. */
export const config: Config.Config<Settings> = Config.map(variables, toSettings)

/** The agent's settings. */
export class AgentConfig extends Context.Service<AgentConfig, Settings>()("@fast-sandbox/agent/AgentConfig") {
  /** From the environment, and from where the agent's process is. */
  static readonly layer: Layer.Layer<AgentConfig, Config.ConfigError, FileSystem.FileSystem> = Layer.effect(
    AgentConfig,
    Effect.gen(function*() {
      const settings = yield* config
      const files = yield* FileSystem.FileSystem
      const own = yield* Effect.orElseSucceed(files.readFileString("/proc/self/cgroup"), () => "")
      return AgentConfig.of({
        ...settings,
        cgroupParent: PodCgroups.parentOf(settings.cgroupParent, settings.podUid, own)
      })
    })
  )
}
