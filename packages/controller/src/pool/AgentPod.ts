/**
 * The Pods that agents run in: a pool's template, filled up with what every agent needs to know and to reach. What the
 * template says itself stays as it is.
 */
import { enrollmentAudience } from "@fast-sandbox/core/AgentProtocol"
import { agentAppLabel, apiVersion, poolLabel, ports, templateHashAnnotation } from "@fast-sandbox/core/Names"
import { defaults, type SandboxPool } from "@fast-sandbox/core/SandboxPool"
import type { Container, EnvVar, Pod, PodSpec } from "@fast-sandbox/kube/Kinds"
import type { Draft } from "@fast-sandbox/kube/KubeObject"
import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"

/** The container that the agent runs in; a template may have others beside it. */
export const containerName = "agent"

/**
 * What the node and the agent share, by the name of the volume. The state has programs that the node's containerd
 * executes, so it is not below /run, which Debian mounts with noexec.
 */
const directories = {
  containerd: { path: "/run/containerd", type: "Directory", mountPropagation: "None" },
  "fast-sandbox-state": {
    path: "/var/lib/fast-sandbox-node",
    type: "DirectoryOrCreate",
    mountPropagation: "Bidirectional"
  },
  "fast-sandbox-logs": { path: "/var/log/fast-sandbox", type: "DirectoryOrCreate", mountPropagation: "None" },
  netns: { path: "/run/netns", type: "DirectoryOrCreate", mountPropagation: "Bidirectional" },
  cgroups: { path: "/sys/fs/cgroup", type: "Directory", mountPropagation: "None" }
} as const

/** Longer than the longest grace period of the sandboxes on it would be for ever: an agent's Pod is empty when it goes. */
const terminationGracePeriodSeconds = 30

const fromField = (name: string, fieldPath: string): EnvVar => ({ name, valueFrom: { fieldRef: { fieldPath } } })

const identity: ReadonlyArray<EnvVar> = [
  fromField("POD_NAME", "metadata.name"),
  fromField("POD_UID", "metadata.uid"),
  fromField("POD_NAMESPACE", "metadata.namespace"),
  fromField("POD_IP", "status.podIP"),
  fromField("NODE_NAME", "spec.nodeName"),
  fromField("FSB_NODE_IP", "status.hostIP"),
  // The kubelet puts the Pod's own fields in; several agents share a node's folders.
  { name: "FSB_AGENT_LISTEN", value: `$(POD_IP):${ports.agent}` },
  { name: "FSB_STATE_DIR", value: `${directories["fast-sandbox-state"].path}/agents/$(POD_NAME)` },
  { name: "FSB_SHARED_DIR", value: directories["fast-sandbox-state"].path },
  { name: "FSB_LOG_DIR", value: directories["fast-sandbox-logs"].path },
  { name: "FSB_METRICS_LISTEN", value: `$(POD_IP):${ports.metrics}` },
  // The node's root, through its first process: where runtimes and unpacked images are.
  { name: "FSB_HOST_ROOT", value: "/proc/1/root" }
]

/** How an agent gets its certificate. */
export interface Enrollment {
  /** `host:port` of the controllers. */
  readonly controller: string
  /** PEM certificates that theirs may be signed by. */
  readonly authorities: string
}

/** A token of the Pod that says nothing to anybody but the controllers. The kubelet renews it. */
const token = { volume: "fast-sandbox-token", path: "/var/run/secrets/fast-sandbox", file: "token" } as const

/** Shorter would gain nothing: it is of use only together with the agent's Pod. */
const tokenSeconds = 3600

const tokenVolume = {
  name: token.volume,
  projected: {
    sources: [{
      serviceAccountToken: { audience: enrollmentAudience, expirationSeconds: tokenSeconds, path: token.file }
    }]
  }
}

const enrollmentEnv = ({ authorities, controller }: Enrollment): ReadonlyArray<EnvVar> => [
  { name: "FSB_CONTROLLER", value: controller },
  { name: "FSB_AUTHORITIES", value: authorities },
  { name: "FSB_TOKEN_FILE", value: `${token.path}/${token.file}` }
]

const settings = ({ metadata, spec }: SandboxPool): ReadonlyArray<EnvVar> => {
  const { cpu, memory, pids } = spec.sandboxResources ?? {}
  const values: ReadonlyArray<readonly [string, string | undefined]> = [
    ["FSB_POOL", metadata.name],
    ["FSB_SLOTS", String(spec.maxSandboxesPerPod ?? defaults.maxSandboxesPerPod)],
    ["FSB_RUNTIME_BINARY", spec.runtimeBinary],
    ["FSB_RUNTIME_TYPE", spec.runtimeType ?? defaults.runtimeType],
    ["FSB_NETWORK", spec.network ?? defaults.network],
    ["FSB_HOST_USERS", spec.sandboxSecurity?.hostUsers === true ? "true" : undefined],
    ["FSB_EGRESS", spec.egress === undefined ? undefined : JSON.stringify(spec.egress)],
    ["FSB_DNS", spec.dns === undefined ? undefined : JSON.stringify(spec.dns)],
    ["FSB_LOG_RATE", spec.logRate],
    ["FSB_WARM_IMAGES", spec.warmImages === undefined ? undefined : JSON.stringify(spec.warmImages)],
    ["FSB_DEFAULT_CPU", cpu],
    ["FSB_DEFAULT_MEMORY", memory],
    ["FSB_DEFAULT_PIDS", pids === undefined ? undefined : String(pids)]
  ]
  return values.flatMap(([name, value]) => value === undefined || value === "" ? [] : [{ name, value }])
}

/** The agent needs the node's devices, mounts and namespaces; nothing that it runs inherits that. */
const defaultSecurityContext = { privileged: true }

/** An agent's Pod is ready when its containerd answers and it takes calls; it is looked at often, because a pool may be waiting for it. */
const readinessProbe = { httpGet: { path: "/readyz", port: ports.metrics }, periodSeconds: 2 }

const fillContainer = (
  pool: SandboxPool,
  agentImage: string,
  enrollment: Enrollment | undefined,
  container: Container
): Container => {
  const env = container.env ?? []
  const mounts = container.volumeMounts ?? []
  const isFree = ({ name }: EnvVar) => !env.some((own) => own.name === name)
  return {
    ...container,
    image: container.image ?? agentImage,
    securityContext: container.securityContext ?? defaultSecurityContext,
    readinessProbe: container.readinessProbe ?? readinessProbe,
    env: [
      ...env,
      ...[...identity, ...settings(pool), ...(enrollment === undefined ? [] : enrollmentEnv(enrollment))].filter(isFree)
    ],
    volumeMounts: [
      ...mounts,
      ...Object.entries(directories).filter(([name, { path }]) =>
        !mounts.some((mount) => mount.name === name || mount.mountPath === path)
      ).map(([name, { mountPropagation, path }]) => ({ name, mountPath: path, mountPropagation })),
      ...(enrollment === undefined ? [] : [{ name: token.volume, mountPath: token.path, readOnly: true }])
    ]
  }
}

/** The parts of a PodSpec that are read here; what else the template has passes through. */
const TemplateSpec = Schema.Struct({
  containers: Schema.optionalKey(Schema.Array(Schema.Struct({ name: Schema.String })))
})
const isTemplateSpec = Schema.is(TemplateSpec)

/** The template's spec; one that is none (the API server checks it, other stores may not) counts as absent. */
const templateSpec = ({ spec }: SandboxPool): Partial<PodSpec> => {
  const template = spec.agentTemplate?.spec
  return template !== undefined && isTemplateSpec(template) ? template : {}
}

/** JSON that is the same for the same content, whatever the order of its fields. */
const canonical = (value: unknown): unknown =>
  Array.isArray(value)
    ? value.map(canonical)
    : typeof value === "object" && value !== null
    ? Object.fromEntries(
      Object.entries(value).toSorted(([a], [b]) => a.localeCompare(b)).map(([k, v]) => [k, canonical(v)])
    )
    : value

const specOf = (pool: SandboxPool, agentImage: string, enrollment: Enrollment | undefined): PodSpec => {
  const own = templateSpec(pool)
  const containers = own.containers ?? []
  const agent = containers.find((container) => container.name === containerName) ?? { name: containerName }
  const volumes = own.volumes ?? []
  return {
    terminationGracePeriodSeconds,
    // Sandboxes' processes and shims are seen and ended by their node's numbers.
    hostPID: true,
    ...own,
    containers: [
      fillContainer(pool, agentImage, enrollment, agent),
      ...containers.filter((container) => container.name !== containerName)
    ],
    volumes: [
      ...volumes,
      ...Object.entries(directories).filter(([name]) => !volumes.some((volume) => volume.name === name))
        .map(([name, { path, type }]) => ({ name, hostPath: { path, type } })),
      ...(enrollment === undefined ? [] : [tokenVolume])
    ]
  }
}

/**
 * A pool's Pod and the hash of everything that it was made from, without what changes while agents live: they hear of
 * new authorities by themselves, and are told what to keep warm.
 */
export const render = (
  pool: SandboxPool,
  agentImage: string,
  enrollment?: Enrollment
): { readonly pod: Draft<Pod>; readonly hash: string } => {
  const { metadata: { name = "", namespace = "", uid = "" } } = pool
  const { warmImages: _, ...spec } = pool.spec
  const hashed = specOf(
    { ...pool, spec },
    agentImage,
    enrollment === undefined ? undefined : { ...enrollment, authorities: "" }
  )
  const template = pool.spec.agentTemplate?.metadata ?? {}
  const labels = { ...template.labels, [agentAppLabel.key]: agentAppLabel.value, [poolLabel]: name }
  const hash = createHash("sha256")
    .update(JSON.stringify(canonical({ spec: hashed, labels, annotations: template.annotations ?? {} })))
    .digest("hex").slice(0, 16)
  return {
    hash,
    pod: {
      metadata: {
        generateName: `${name}-agent-`,
        namespace,
        labels,
        annotations: { ...template.annotations, [templateHashAnnotation]: hash },
        ownerReferences: [{
          apiVersion,
          kind: "SandboxPool",
          name,
          uid,
          controller: true,
          blockOwnerDeletion: true
        }]
      },
      spec: specOf(pool, agentImage, enrollment)
    }
  }
}

/** The selector of a pool's agent Pods. */
export const selector = (pool: string): string => `${agentAppLabel.key}=${agentAppLabel.value},${poolLabel}=${pool}`
