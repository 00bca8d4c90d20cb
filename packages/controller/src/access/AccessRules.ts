/**
 * What a caller of each Fast-Path call has to be allowed, in the words of Kubernetes' roles. One table: a call without a
 * line in it does not compile, and one that the table does not understand is refused.
 */
import { type DescMessage, isMessage, type Message, type MessageShape } from "@bufbuild/protobuf"
import { defaultNamespace, group } from "@fast-sandbox/core/Names"
import * as FastPath from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import * as Session from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import type { ResourceAttributes } from "@fast-sandbox/kube/Reviews"
import * as Option from "effect/Option"
import * as Pools from "../fastpath/Pools.ts"

/** Which objects a call is about. Empty: all of them. */
interface Subject {
  readonly namespace: string
  readonly name: string
}

/** What a request asks for: something that a role allows, or nothing that has to be kept from anybody who is known. */
export type Wanted = ResourceAttributes | "nothing"

/** What a request asks for; undefined when it does not say. */
type Rule = (request: Message) => Wanted | undefined

/** `sandboxes/exec` as its two parts. */
const partsOf = (resource: string) => {
  const [plural = "", subresource = ""] = resource.split("/")
  return { group: resource === "events" ? "" : group, resource: plural, subresource }
}

/** A line of the table. `subject` gives nothing for a request that does not name what it is about. */
const allow = <Desc extends DescMessage>(
  schema: Desc,
  verb: string,
  resource: string,
  subject: (request: MessageShape<Desc>) => Subject | undefined
): Rule =>
(request) => {
  const about = isMessage(request, schema) ? subject(request) : undefined
  return about === undefined ? undefined : { verb, ...partsOf(resource), ...about }
}

const allNamespaces = "*"

const namespaceOf = (namespace: string): string =>
  namespace === "" ? defaultNamespace : namespace === allNamespaces ? "" : namespace

const named = ({ namespace, sandboxName }: { readonly namespace: string; readonly sandboxName: string }): Subject => ({
  // all namespaces are no place for one sandbox: no role allows a namespace of that name
  namespace: namespace === "" ? defaultNamespace : namespace,
  name: sandboxName
})

const pool = ({ name, namespace }: { readonly name: string; readonly namespace: string }): Subject =>
  named({ namespace, sandboxName: name })

/** An agent is its pool's, whichever that is. */
const agent = ({ namespace }: { readonly namespace: string }): Subject => named({ namespace, sandboxName: "" })

const everyIn = ({ namespace }: { readonly namespace: string }): Subject => ({
  namespace: namespaceOf(namespace),
  name: ""
})

/** One running sandbox. */
const ofSandbox = ({ sandbox }: { readonly sandbox?: Session.SandboxRef | undefined }): Subject | undefined =>
  sandbox === undefined ? undefined : named(sandbox)

/** The sandbox of a stream, which its first message names in its header. */
const inHeader = ({ part }: {
  readonly part:
    | { readonly case: "header"; readonly value: { readonly sandbox?: Session.SandboxRef | undefined } }
    | { readonly case: string | undefined }
}): Subject | undefined => part.case === "header" && "value" in part ? ofSandbox(part.value) : undefined

/** The images of a pool's nodes; without a pool those of all nodes, which are nobody's in particular. */
const images = ({ namespace, poolRef }: { readonly namespace: string; readonly poolRef: string }): Subject =>
  poolRef === "" ? { namespace: "", name: "" } : { namespace: namespaceOf(namespace), name: poolRef }

/** The table, by the name of the method in generated code. */
export const rules: Readonly<Record<keyof typeof FastPath.FastPathService.method, Rule>> = {
  // as for a create of Kubernetes, no name: roles that name objects speak of those that exist
  createSandbox: allow(
    FastPath.CreateRequestSchema,
    "create",
    "sandboxes",
    ({ namespace }) => named({ namespace, sandboxName: "" })
  ),
  deleteSandbox: allow(FastPath.DeleteRequestSchema, "delete", "sandboxes", named),
  updateSandbox: allow(FastPath.UpdateRequestSchema, "update", "sandboxes", named),
  resetSandbox: allow(FastPath.ResetRequestSchema, "update", "sandboxes", named),
  getSandbox: allow(FastPath.GetRequestSchema, "get", "sandboxes", named),
  listSandboxes: allow(FastPath.ListRequestSchema, "list", "sandboxes", everyIn),
  watchSandboxes: allow(FastPath.WatchRequestSchema, "watch", "sandboxes", ({ namespace, sandboxName }) => ({
    namespace: namespaceOf(namespace),
    name: sandboxName
  })),
  logs: allow(FastPath.LogsRequestSchema, "get", "sandboxes/log", named),
  listImages: allow(FastPath.ListImagesRequestSchema, "get", "sandboxpools/images", images),
  pullImage: allow(FastPath.PullImageRequestSchema, "create", "sandboxpools/images", images),
  loadImage: allow(
    FastPath.LoadImageRequestSchema,
    "create",
    "sandboxpools/images",
    ({ part }) => part.case === "header" ? images(part.value) : undefined
  ),
  removeImage: allow(FastPath.RemoveImageRequestSchema, "delete", "sandboxpools/images", images),
  exec: allow(Session.ExecRequestSchema, "create", "sandboxes/exec", inHeader),
  attach: allow(Session.AttachRequestSchema, "create", "sandboxes/attach", inHeader),
  copyTo: allow(Session.CopyToRequestSchema, "create", "sandboxes/copy", inHeader),
  copyFrom: allow(Session.CopyFromRequestSchema, "get", "sandboxes/copy", ofSandbox),
  copyDirectly: (request) => {
    const part = isMessage(request, Session.DirectCopyRequestSchema) ? request.part : undefined
    const subject = part?.case === undefined ? undefined : ofSandbox(part.value)
    const verb = part?.case === "to" ? "create" : "get"
    return subject === undefined ? undefined : { verb, ...partsOf("sandboxes/copy"), ...subject }
  },
  portForward: allow(Session.PortForwardRequestSchema, "create", "sandboxes/portforward", inHeader),
  stats: allow(Session.StatsRequestSchema, "get", "sandboxes/stats", ofSandbox),
  processes: allow(Session.ProcessesRequestSchema, "get", "sandboxes/stats", ofSandbox),
  listPools: allow(FastPath.ListPoolsRequestSchema, "list", "sandboxpools", everyIn),
  getPool: allow(FastPath.GetPoolRequestSchema, "get", "sandboxpools", pool),
  createPool: allow(
    FastPath.CreatePoolRequestSchema,
    "create",
    "sandboxpools",
    ({ resource }) =>
      Option.match(Pools.namespaceOfResource(resource), {
        onNone: () => undefined,
        onSome: (namespace) => pool({ namespace, name: "" })
      })
  ),
  scalePool: allow(FastPath.ScalePoolRequestSchema, "update", "sandboxpools", pool),
  deletePool: allow(FastPath.DeletePoolRequestSchema, "delete", "sandboxpools", pool),
  listAgents: allow(FastPath.ListAgentsRequestSchema, "list", "sandboxpools/agents", everyIn),
  drainAgent: allow(FastPath.DrainAgentRequestSchema, "update", "sandboxpools/agents", agent),
  resumeAgent: allow(FastPath.ResumeAgentRequestSchema, "update", "sandboxpools/agents", agent),
  watchEvents: allow(FastPath.WatchEventsRequestSchema, "watch", "events", everyIn),
  getVersion: () => "nothing"
}

/** What a request asks for, by the name of its method in generated code; undefined for what the table does not know. */
export const wanted = (method: string, request: Message): Wanted | undefined => {
  const rule = Object.entries(rules).find(([name]) => name === method)?.[1]
  return rule?.(request)
}
