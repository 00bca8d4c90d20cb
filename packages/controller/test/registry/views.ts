/** Views of agents as tests write them. */
import { create } from "@bufbuild/protobuf"
import { ImageSchema, InstanceSchema, InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type { AgentView } from "../../src/agents/Agents.ts"

export const view = (uid: string, fields: Partial<AgentView> = {}): AgentView => ({
  uid,
  pod: `pod-${uid}`,
  namespace: "default",
  pool: "pool",
  node: `node-${uid}`,
  connection: "synced",
  since: 0,
  draining: false,
  slots: 1,
  slotsUsed: 0,
  portsUsed: new Set(),
  capacityRevision: 0n,
  instances: new Map(),
  parked: new Map(),
  warmImages: [],
  images: new Map(),
  runtimeNotes: [],
  runtimeProblem: undefined,
  ...fields
})

export const images = (...names: ReadonlyArray<string>): AgentView["images"] =>
  new Map(names.map((name) => [name, create(ImageSchema, { name, digest: `sha256:${"a".repeat(64)}` })]))

export interface Shown {
  readonly id: string
  readonly name: string
  readonly ports?: ReadonlyArray<number> | undefined
  readonly state?: InstanceState | undefined
}

export const instances = (shown: ReadonlyArray<Shown>): AgentView["instances"] =>
  new Map(shown.map(({ id, name, ports = [], state = InstanceState.RUNNING }) => [
    id,
    create(InstanceSchema, {
      instanceId: id,
      claim: { namespace: "default", sandboxName: name },
      spec: { exposedPorts: [...ports] },
      state
    })
  ]))
