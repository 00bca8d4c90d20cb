/**
 * The Sandbox resource (`sandbox.fast.io/v1alpha1`): what a user wants to run, and what became of it. The spec's truth
 * is the resource; the status is a projection of what the controllers and agents know.
 */
import * as Schema from "effect/Schema"
import * as Names from "./Names.ts"
import { Condition, ObjectMeta, Timestamp } from "./ObjectMeta.ts"
import * as Quantity from "./Quantity.ts"

/** Defaults of a Sandbox's spec, in the units of their fields. */
export const defaults = {
  consistencyMode: "fast",
  failurePolicy: "Manual",
  recoveryTimeoutSeconds: 60,
  terminationGracePeriodSeconds: 10
} as const

/** Bounds on what a Sandbox may carry, so that no request can grow without limit. */
export const limits = {
  args: 10_000,
  /** The kernel's MAX_ARG_STRLEN, less the closing zero: no argument or variable may be longer. */
  wordLength: 131_071,
  nameLength: 253,
  labels: 256,
  argsBytes: 2 * 1024 * 1024,
  envs: 2_000,
  exposedPorts: 64,
  imageLength: 512,
  pathLength: 4096,
  gracePeriodSeconds: 3600,
  /** A user namespace has ids up to this one. */
  userId: 65_535
} as const

/** A TCP port that a program in a sandbox listens on. */
export const Port = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 65535 }))

/** fast: the agent starts the program first. strong: the resource is written first. */
export const ConsistencyMode = Schema.Literals(["fast", "strong"])

/** fast or strong */
export type ConsistencyMode = typeof ConsistencyMode.Type

/** Manual: a lost or failed sandbox stays so until it is reset. AutoRecreate: it is started again by itself. */
export const FailurePolicy = Schema.Literals(["Manual", "AutoRecreate"])

/** Manual or AutoRecreate */
export type FailurePolicy = typeof FailurePolicy.Type

/** A key of a Secret or a ConfigMap in the Sandbox's namespace. */
export const KeySelector = Schema.Struct({
  name: Schema.NonEmptyString.check(Schema.isMaxLength(limits.nameLength)),
  key: Schema.NonEmptyString.check(Schema.isMaxLength(limits.nameLength)),
  optional: Schema.optionalKey(Schema.Boolean.annotate({ description: "A missing object or key is no error." }))
})

const Word = Schema.String.check(Schema.isMaxLength(limits.wordLength))

/** One environment variable: a value, or where its value is. */
export const EnvVar = Schema.Struct({
  name: Schema.NonEmptyString.check(Schema.isMaxLength(limits.wordLength)).annotate({
    description: "Name of the variable."
  }),
  value: Schema.optionalKey(Word.annotate({ description: "Its value." })),
  valueFrom: Schema.optionalKey(
    Schema.Struct({
      secretKeyRef: Schema.optionalKey(KeySelector),
      configMapKeyRef: Schema.optionalKey(KeySelector)
    }).annotate({ description: "Takes the value from a Secret or a ConfigMap of the same namespace." })
  )
})

/** One environment variable. */
export type EnvVar = typeof EnvVar.Type

/** More digits than a number holds are none that anybody means. */
const maxQuantityLength = 32

/** A Kubernetes quantity such as `500m` or `128Mi`. */
export const QuantityText = Schema.String.check(
  Schema.isPattern(Quantity.pattern, { message: "must be a quantity such as 500m, 1.5 or 256Mi" }),
  Schema.isMaxLength(maxQuantityLength)
)

const UserId = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: limits.userId }))

/** Who the program is and what it may write to, by Kubernetes' names; what is absent is the pool's. */
export const SecurityContext = Schema.Struct({
  runAsUser: Schema.optionalKey(UserId.annotate({ description: "The user; the image's where absent." })),
  runAsGroup: Schema.optionalKey(UserId.annotate({ description: "The group; the user's where absent." })),
  runAsNonRoot: Schema.optionalKey(
    Schema.Boolean.annotate({ description: "A sandbox whose user is root is refused." })
  ),
  readOnlyRootFilesystem: Schema.optionalKey(
    Schema.Boolean.annotate({
      description: "The root file system can't be written to; /tmp, which is in memory then, can."
    })
  )
})

/** Who the program is and what it may write to. */
export type SecurityContext = typeof SecurityContext.Type

/** Limits of one sandbox; what is absent is the pool's. */
export const SandboxResources = Schema.Struct({
  cpu: Schema.optionalKey(QuantityText.annotate({ description: "CPU limit, in cores (500m is half of one)." })),
  memory: Schema.optionalKey(QuantityText.annotate({ description: "Memory limit, in bytes (128Mi)." })),
  pids: Schema.optionalKey(
    Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)).annotate({
      description: "Limit of processes and threads."
    })
  ),
  shm: Schema.optionalKey(QuantityText.annotate({ description: "Size of /dev/shm, which counts as memory (64Mi)." })),
  ephemeralStorage: Schema.optionalKey(
    QuantityText.annotate({ description: "What may be written to the root file system (10Gi)." })
  )
})

/** Limits of one sandbox. */
export type SandboxResources = typeof SandboxResources.Type

/** What the user wants. */
export const SandboxSpec = Schema.Struct({
  image: Schema.NonEmptyString.check(Schema.isMaxLength(limits.imageLength)).annotate({
    description: "The container image. It must be on the node already, or be pulled first."
  }),
  poolRef: Schema.NonEmptyString.check(Schema.isMaxLength(limits.nameLength)).annotate({
    description: "The SandboxPool of the same namespace that runs it."
  }),
  command: Schema.optionalKey(
    Schema.Array(Word).check(Schema.isMaxLength(limits.args)).annotate({
      description: "Replaces the image's ENTRYPOINT."
    })
  ),
  args: Schema.optionalKey(
    Schema.Array(Word).check(Schema.isMaxLength(limits.args)).annotate({
      description: "Replaces the image's CMD."
    })
  ),
  envs: Schema.optionalKey(
    Schema.Array(EnvVar).check(Schema.isMaxLength(limits.envs)).annotate({
      description: "Environment variables, beside the image's."
    })
  ),
  workingDir: Schema.optionalKey(
    Schema.String.check(Schema.isMaxLength(limits.pathLength)).annotate({
      description: "Working directory; the image's where absent."
    })
  ),
  tty: Schema.optionalKey(
    Schema.Boolean.annotate({ description: "Gives the program a terminal; all its output is stdout then." })
  ),
  stdin: Schema.optionalKey(
    Schema.Boolean.annotate({ description: "Keeps stdin open for those who attach." })
  ),
  exposedPorts: Schema.optionalKey(
    Schema.Array(Port).check(Schema.isMaxLength(limits.exposedPorts), Schema.isUnique()).annotate({
      description: "TCP ports published on the agent's address, each for this sandbox alone."
    })
  ),
  consistencyMode: Schema.optionalKey(
    ConsistencyMode.annotate({
      description: "fast: the agent starts first; strong: this resource is written first.",
      default: defaults.consistencyMode
    })
  ),
  failurePolicy: Schema.optionalKey(
    FailurePolicy.annotate({
      description: "What happens when the program fails or its agent is lost.",
      default: defaults.failurePolicy
    })
  ),
  recoveryTimeoutSeconds: Schema.optionalKey(
    Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)).annotate({
      description: "An agent that is silent for this long is lost.",
      default: defaults.recoveryTimeoutSeconds
    })
  ),
  expireTime: Schema.optionalKey(
    Timestamp.annotate({ description: "When the sandbox is stopped; the resource stays as Expired." })
  ),
  ttlSeconds: Schema.optionalKey(
    Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)).annotate({
      description: "Seconds from creation to expiry. Not together with expireTime."
    })
  ),
  resetRevision: Schema.optionalKey(
    Timestamp.annotate({ description: "Any change of it starts one new instance." })
  ),
  terminationGracePeriodSeconds: Schema.optionalKey(
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: limits.gracePeriodSeconds })).annotate({
      description: "Seconds between the stop signal and SIGKILL.",
      default: defaults.terminationGracePeriodSeconds
    })
  ),
  resources: Schema.optionalKey(
    SandboxResources.annotate({ description: "Limits; none may be above the pool's." })
  ),
  securityContext: Schema.optionalKey(
    SecurityContext.annotate({ description: "Who the program is and what it may write to." })
  )
})

/** What the user wants. */
export type SandboxSpec = typeof SandboxSpec.Type

/**
 * Where a sandbox is in its life. Succeeded, Failed, Stopped, Expired and Lost are terminal: they hold no slot, and
 * only a reset or a deletion leaves them.
 */
export const Phase = Schema.Literals([
  "Pending",
  "Scheduled",
  "Starting",
  "Running",
  "Stopping",
  "Succeeded",
  "Failed",
  "Stopped",
  "Expired",
  "Lost",
  "Deleting"
])

/** Where a sandbox is in its life. */
export type Phase = typeof Phase.Type

/** Phases that hold no slot and are left by a reset or a deletion only. */
export const terminalPhases: ReadonlySet<Phase> = new Set(["Succeeded", "Failed", "Stopped", "Expired", "Lost"])

/** Which tier served a start, and the milliseconds of each of its steps. */
export const Startup = Schema.Struct({
  tier: Schema.Literals(["parked", "prepared", "cold"]),
  steps: Schema.Array(Schema.Struct({ name: Schema.String, millis: Schema.Number }))
})

/** Which tier served a start, and the milliseconds of each of its steps. */
export type Startup = typeof Startup.Type

/** What became of it. Written by controllers only. */
export const SandboxStatus = Schema.Struct({
  phase: Schema.optionalKey(Phase),
  sandboxID: Schema.optionalKey(
    Schema.String.annotate({ description: "The instance id: new for every start." })
  ),
  assignedPod: Schema.optionalKey(Schema.String.annotate({ description: "The agent Pod that runs it." })),
  assignedPodUID: Schema.optionalKey(
    Schema.String.annotate({ description: "The uid of that Pod, so that a successor of the same name is told apart." })
  ),
  nodeName: Schema.optionalKey(Schema.String),
  endpoints: Schema.optionalKey(
    Schema.Array(Schema.String).annotate({ description: "host:port of every exposed port." })
  ),
  acceptedResetRevision: Schema.optionalKey(
    Schema.String.annotate({ description: "The last resetRevision that was carried out." })
  ),
  exitCode: Schema.optionalKey(Schema.Int.annotate({ description: "How the program ended by itself." })),
  signal: Schema.optionalKey(Schema.Int.annotate({ description: "The signal that ended the program." })),
  reason: Schema.optionalKey(
    Schema.String.annotate({ description: "Completed, Error, OOMKilled, StartFailed, AgentLost ..." })
  ),
  message: Schema.optionalKey(Schema.String.annotate({ description: "The reason, for a person." })),
  startedAt: Schema.optionalKey(Timestamp),
  finishedAt: Schema.optionalKey(Timestamp),
  restarts: Schema.optionalKey(
    Schema.Int.annotate({ description: "Starts after the first one." })
  ),
  recovery: Schema.optionalKey(
    Schema.Struct({
      attempt: Schema.Int.annotate({ description: "Recoveries begun since the last stable run." }),
      since: Timestamp.annotate({ description: "When this recovery began." }),
      nextAt: Schema.optionalKey(Timestamp.annotate({ description: "When the next instance is started." }))
    }).annotate({ description: "The state of self-healing." })
  ),
  startup: Schema.optionalKey(Startup.annotate({ description: "How the current instance was started." })),
  conditions: Schema.optionalKey(Schema.Array(Condition)),
  observedGeneration: Schema.optionalKey(Schema.Int)
})

/** What became of it. */
export type SandboxStatus = typeof SandboxStatus.Type

/** The Sandbox resource. */
export const Sandbox = Schema.Struct({
  apiVersion: Schema.Literal(Names.apiVersion),
  kind: Schema.Literal("Sandbox"),
  metadata: ObjectMeta,
  spec: SandboxSpec,
  status: Schema.optionalKey(SandboxStatus)
})

/** The Sandbox resource. */
export type Sandbox = typeof Sandbox.Type

/** `namespace/name`, the key under which every part knows a sandbox. */
export const key = (namespace: string, name: string): string => `${namespace}/${name}`

/** The spec with every default filled in, as the API server's defaulting does it. */
export const withDefaults = (spec: SandboxSpec): SandboxSpec & Required<Pick<SandboxSpec, keyof typeof defaults>> => ({
  ...defaults,
  ...spec
})
