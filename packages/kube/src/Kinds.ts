/**
 * The built-in kinds that Fast Sandbox uses. The types name the fields that are read or written here; the objects keep
 * all others.
 */
import type { KubeKind, KubeObject, StoredMeta } from "./KubeObject.ts"

/** A condition of an object's status. */
export interface Condition {
  readonly type: string
  readonly status: "True" | "False" | "Unknown"
  readonly reason?: string | undefined
  readonly message?: string | undefined
  readonly observedGeneration?: number | undefined
  readonly lastTransitionTime?: string | undefined
}

interface Stored extends KubeObject {
  readonly metadata: StoredMeta
}

/** A namespace. */
export interface Namespace extends Stored {
  readonly spec?: { readonly finalizers?: ReadonlyArray<string> | undefined } | undefined
  readonly status?: { readonly phase?: "Active" | "Terminating" | undefined } | undefined
}

/** An environment variable of a container. */
export interface EnvVar {
  readonly name: string
  readonly value?: string | undefined
  readonly valueFrom?: unknown
}

/** A port that a container listens on. */
export interface ContainerPort {
  readonly name?: string | undefined
  readonly containerPort: number
  readonly hostPort?: number | undefined
  readonly protocol?: "TCP" | "UDP" | "SCTP" | undefined
}

/** A container of a Pod. */
export interface Container {
  readonly name: string
  readonly image?: string | undefined
  readonly command?: ReadonlyArray<string> | undefined
  readonly args?: ReadonlyArray<string> | undefined
  readonly workingDir?: string | undefined
  readonly env?: ReadonlyArray<EnvVar> | undefined
  readonly ports?: ReadonlyArray<ContainerPort> | undefined
  readonly resources?: {
    readonly limits?: { readonly [resource: string]: string | number } | undefined
    readonly requests?: { readonly [resource: string]: string | number } | undefined
  } | undefined
  readonly volumeMounts?:
    | ReadonlyArray<{
      readonly name: string
      readonly mountPath: string
      readonly subPath?: string | undefined
      readonly readOnly?: boolean | undefined
      readonly mountPropagation?: "None" | "HostToContainer" | "Bidirectional" | undefined
    }>
    | undefined
  readonly securityContext?: unknown
  readonly livenessProbe?: unknown
  readonly readinessProbe?: unknown
  readonly startupProbe?: unknown
  readonly lifecycle?: unknown
  readonly imagePullPolicy?: "Always" | "IfNotPresent" | "Never" | undefined
}

/** The desired state of a Pod. */
export interface PodSpec {
  readonly containers: ReadonlyArray<Container>
  readonly initContainers?: ReadonlyArray<Container> | undefined
  readonly volumes?: ReadonlyArray<{ readonly name: string }> | undefined
  readonly nodeName?: string | undefined
  readonly nodeSelector?: { readonly [key: string]: string } | undefined
  readonly affinity?: unknown
  readonly tolerations?: ReadonlyArray<unknown> | undefined
  readonly serviceAccountName?: string | undefined
  readonly automountServiceAccountToken?: boolean | undefined
  readonly hostNetwork?: boolean | undefined
  readonly hostPID?: boolean | undefined
  readonly restartPolicy?: "Always" | "OnFailure" | "Never" | undefined
  readonly terminationGracePeriodSeconds?: number | undefined
  readonly priorityClassName?: string | undefined
  readonly imagePullSecrets?: ReadonlyArray<{ readonly name?: string | undefined }> | undefined
}

/** What a container of a Pod is doing now. */
export interface ContainerState {
  readonly waiting?: { readonly reason?: string | undefined; readonly message?: string | undefined } | undefined
  readonly running?: { readonly startedAt?: string | undefined } | undefined
  readonly terminated?: {
    readonly exitCode: number
    readonly signal?: number | undefined
    readonly reason?: string | undefined
    readonly message?: string | undefined
    readonly startedAt?: string | undefined
    readonly finishedAt?: string | undefined
    readonly containerID?: string | undefined
  } | undefined
}

/** The observed state of one container of a Pod. */
export interface ContainerStatus {
  readonly name: string
  readonly ready: boolean
  readonly started?: boolean | undefined
  readonly restartCount: number
  readonly image: string
  readonly imageID: string
  readonly containerID?: string | undefined
  readonly state?: ContainerState | undefined
  readonly lastState?: ContainerState | undefined
}

/** The observed state of a Pod. */
export interface PodStatus {
  readonly phase?: "Pending" | "Running" | "Succeeded" | "Failed" | "Unknown" | undefined
  readonly conditions?: ReadonlyArray<Condition> | undefined
  readonly reason?: string | undefined
  readonly message?: string | undefined
  readonly podIP?: string | undefined
  readonly podIPs?: ReadonlyArray<{ readonly ip: string }> | undefined
  readonly hostIP?: string | undefined
  readonly startTime?: string | undefined
  readonly containerStatuses?: ReadonlyArray<ContainerStatus> | undefined
  readonly initContainerStatuses?: ReadonlyArray<ContainerStatus> | undefined
}

/** A Pod. */
export interface Pod extends Stored {
  readonly spec: PodSpec
  readonly status?: PodStatus | undefined
}

/** A name for the Pods that a selector finds. */
export interface Service extends Stored {
  readonly spec?: {
    readonly selector?: { readonly [label: string]: string } | undefined
    readonly ports?:
      | ReadonlyArray<{
        readonly name?: string | undefined
        readonly port: number
        /** A number, or the name of a container's port; left out: `port`. */
        readonly targetPort?: number | string | undefined
      }>
      | undefined
  } | undefined
}

/** Names an object of any kind from within another object. */
export interface ObjectReference {
  readonly apiVersion?: string | undefined
  readonly kind?: string | undefined
  readonly namespace?: string | undefined
  readonly name?: string | undefined
  readonly uid?: string | undefined
  readonly resourceVersion?: string | undefined
  readonly fieldPath?: string | undefined
}

/** A report about an object, kept for an hour or so, shown by `kubectl describe`. */
export interface Event extends Stored {
  readonly involvedObject: ObjectReference
  readonly type?: "Normal" | "Warning" | undefined
  readonly reason?: string | undefined
  readonly message?: string | undefined
  readonly count?: number | undefined
  readonly firstTimestamp?: string | undefined
  readonly lastTimestamp?: string | undefined
  readonly source?: { readonly component?: string | undefined; readonly host?: string | undefined } | undefined
  readonly reportingComponent?: string | undefined
  readonly reportingInstance?: string | undefined
}

/** A lock that expires: who holds it, and for how long without a renewal. Times are RFC 3339 with microseconds. */
export interface Lease extends Stored {
  readonly spec?: {
    readonly holderIdentity?: string | null | undefined
    readonly leaseDurationSeconds?: number | undefined
    readonly acquireTime?: string | undefined
    readonly renewTime?: string | undefined
    readonly leaseTransitions?: number | undefined
  } | undefined
}

/** Configuration as text or base64 encoded bytes. */
export interface ConfigMap extends Stored {
  readonly data?: { readonly [key: string]: string } | undefined
  readonly binaryData?: { readonly [key: string]: string } | undefined
  readonly immutable?: boolean | undefined
}

/** Secrets; the values of `data` are base64 encoded, `stringData` is written but never read back. */
export interface Secret extends Stored {
  readonly type?: string | undefined
  readonly data?: { readonly [key: string]: string } | undefined
  readonly stringData?: { readonly [key: string]: string } | undefined
  readonly immutable?: boolean | undefined
}

/** The identity of a Pod. */
export interface ServiceAccount extends Stored {
  readonly imagePullSecrets?: ReadonlyArray<{ readonly name?: string | undefined }> | undefined
  readonly automountServiceAccountToken?: boolean | undefined
}

/** A machine of the cluster. */
export interface Node extends Stored {
  readonly spec?: {
    readonly podCIDR?: string | undefined
    readonly providerID?: string | undefined
    readonly unschedulable?: boolean | undefined
    readonly taints?:
      | ReadonlyArray<{
        readonly key: string
        readonly value?: string | undefined
        readonly effect: "NoSchedule" | "PreferNoSchedule" | "NoExecute"
      }>
      | undefined
  } | undefined
  readonly status?: {
    readonly conditions?: ReadonlyArray<Condition> | undefined
    readonly addresses?: ReadonlyArray<{ readonly type: string; readonly address: string }> | undefined
    readonly capacity?: { readonly [resource: string]: string } | undefined
    readonly allocatable?: { readonly [resource: string]: string } | undefined
    readonly images?:
      | ReadonlyArray<{
        readonly names?: ReadonlyArray<string> | undefined
        readonly sizeBytes?: number | undefined
      }>
      | undefined
    readonly nodeInfo?: { readonly [key: string]: unknown } | undefined
  } | undefined
}

/** A structural OpenAPI v3 schema: the JSON Schema dialect of CustomResourceDefinitions. */
export interface JsonSchemaProps {
  readonly [keyword: string]: unknown
}

/** A column of `kubectl get`. Those with a `priority` above 0 are shown with `-o wide`. */
export interface PrinterColumn {
  readonly name: string
  readonly type: "string" | "integer" | "number" | "boolean" | "date"
  readonly jsonPath: string
  readonly description?: string | undefined
  readonly format?: string | undefined
  readonly priority?: number | undefined
}

/** One version of a custom resource. */
export interface CustomResourceVersion {
  readonly name: string
  readonly served: boolean
  readonly storage: boolean
  readonly schema?: { readonly openAPIV3Schema?: JsonSchemaProps | undefined } | undefined
  readonly subresources?: {
    readonly status?: Record<string, never> | undefined
    readonly scale?: {
      readonly specReplicasPath: string
      readonly statusReplicasPath: string
      readonly labelSelectorPath?: string | undefined
    } | undefined
  } | undefined
  readonly additionalPrinterColumns?: ReadonlyArray<PrinterColumn> | undefined
}

/** The definition of a custom resource. */
export interface CustomResourceDefinition extends Stored {
  readonly spec: {
    readonly group: string
    readonly scope: "Namespaced" | "Cluster"
    readonly names: {
      readonly plural: string
      readonly singular?: string | undefined
      readonly kind: string
      readonly listKind?: string | undefined
      readonly shortNames?: ReadonlyArray<string> | undefined
      readonly categories?: ReadonlyArray<string> | undefined
    }
    readonly versions: ReadonlyArray<CustomResourceVersion>
  }
  readonly status?: { readonly conditions?: ReadonlyArray<Condition> | undefined } | undefined
}

/** The scale subresource: how many replicas are wanted, and how many there are. */
export interface Scale extends Stored {
  readonly spec?: { readonly replicas?: number | undefined } | undefined
  readonly status?: { readonly replicas?: number | undefined; readonly selector?: string | undefined } | undefined
}

const core = { group: "", version: "v1" } as const

/** `v1/Namespace` */
export const Namespace: KubeKind<Namespace> = { ...core, kind: "Namespace", plural: "namespaces", namespaced: false }

/** `v1/Pod` */
export const Pod: KubeKind<Pod> = { ...core, kind: "Pod", plural: "pods", namespaced: true }

/** `v1/Service` */
export const Service: KubeKind<Service> = { ...core, kind: "Service", plural: "services", namespaced: true }

/** `v1/Event` */
export const Event: KubeKind<Event> = { ...core, kind: "Event", plural: "events", namespaced: true }

/** `v1/ConfigMap` */
export const ConfigMap: KubeKind<ConfigMap> = { ...core, kind: "ConfigMap", plural: "configmaps", namespaced: true }

/** `v1/Secret` */
export const Secret: KubeKind<Secret> = { ...core, kind: "Secret", plural: "secrets", namespaced: true }

/** `v1/ServiceAccount` */
export const ServiceAccount: KubeKind<ServiceAccount> = {
  ...core,
  kind: "ServiceAccount",
  plural: "serviceaccounts",
  namespaced: true
}

/** `v1/Node` */
export const Node: KubeKind<Node> = { ...core, kind: "Node", plural: "nodes", namespaced: false }

/** `coordination.k8s.io/v1/Lease` */
export const Lease: KubeKind<Lease> = {
  group: "coordination.k8s.io",
  version: "v1",
  kind: "Lease",
  plural: "leases",
  namespaced: true
}

/** `apiextensions.k8s.io/v1/CustomResourceDefinition` */
export const CustomResourceDefinition: KubeKind<CustomResourceDefinition> = {
  group: "apiextensions.k8s.io",
  version: "v1",
  kind: "CustomResourceDefinition",
  plural: "customresourcedefinitions",
  namespaced: false
}

/** `autoscaling/v1/Scale`, which is never addressed by itself: it is a subresource of other kinds. */
export const Scale: KubeKind<Scale> = {
  group: "autoscaling",
  version: "v1",
  kind: "Scale",
  plural: "scales",
  namespaced: true
}
