/**
 * Sandboxes and images as fsb-ctl prints them.
 */
import type { ImageInfo } from "@fast-sandbox/client/Sandboxes"
import type { SandboxInfo } from "@fast-sandbox/client/SandboxInfo"
import * as Names from "@fast-sandbox/core/Names"
import { Condition } from "@fast-sandbox/core/ObjectMeta"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Age from "./Age.ts"
import * as Output from "./Output.ts"
import * as Progress from "./Progress.ts"
import * as Resource from "./Resource.ts"
import * as Table from "./Table.ts"

/** What docker's conventions fill in is left out again for people. */
const shortImage = (image: string): string => image.replace(/^docker\.io\/(library\/)?/, "")

const ageOf = (sandbox: SandboxInfo, now: DateTime.DateTime): string =>
  Age.format(DateTime.toEpochMillis(now) - DateTime.toEpochMillis(sandbox.createdAt))

const totalMillis = ({ startup }: SandboxInfo): number | undefined =>
  startup?.steps.reduce((sum, { millis }) => sum + millis, 0)

/** Milliseconds for people: `4.2 ms`. */
export const formatMillis = (millis: number): string => `${millis < 100 ? millis.toFixed(1) : Math.round(millis)} ms`

/** The resource from what is known of it, for servers that do not send it whole. */
const rebuilt = (sandbox: SandboxInfo) => ({
  apiVersion: Names.apiVersion,
  kind: "Sandbox",
  metadata: {
    name: sandbox.name,
    namespace: sandbox.namespace,
    creationTimestamp: DateTime.formatIso(sandbox.createdAt),
    labels: sandbox.labels
  },
  spec: { image: sandbox.image, poolRef: sandbox.pool },
  status: {
    phase: sandbox.phase,
    sandboxID: sandbox.instanceId,
    assignedPod: sandbox.agentPod,
    nodeName: sandbox.nodeName,
    endpoints: sandbox.endpoints,
    exitCode: sandbox.exitCode,
    signal: sandbox.signal,
    reason: sandbox.reason,
    message: sandbox.message,
    restarts: sandbox.restarts,
    startup: sandbox.startup
  }
})

const object = (sandbox: SandboxInfo): unknown =>
  Result.getOrElse(
    Result.try(() => Resource.parse(sandbox.resource)),
    () => rebuilt(sandbox)
  )

const namespaceColumn: Table.Column<SandboxInfo> = { heading: "NAMESPACE", cell: ({ namespace }) => namespace }

/** Sandboxes in lists. `namespaces` says whether they come from more than one. */
export const sandboxes = (
  options: { readonly now: DateTime.DateTime; readonly namespaces: "one" | "all" }
): Output.View<SandboxInfo> => ({
  columns: [
    ...(options.namespaces === "all" ? [namespaceColumn] : []),
    { heading: "NAME", cell: ({ name }) => name },
    { heading: "PHASE", cell: ({ phase }) => phase },
    { heading: "IMAGE", cell: ({ image }) => shortImage(image), narrow: "shorten" },
    { heading: "POOL", cell: ({ pool }) => pool, narrow: "shorten" },
    { heading: "AGENT", cell: ({ agentPod }) => agentPod, narrow: "shorten" },
    { heading: "AGE", cell: (sandbox) => ageOf(sandbox, options.now) }
  ],
  wideColumns: [
    {
      heading: "EXIT",
      cell: ({ exitCode, signal }) => signal === undefined ? `${exitCode ?? ""}` : `signal ${signal}`
    },
    { heading: "RESTARTS", cell: ({ restarts }) => String(restarts) },
    { heading: "START", cell: ({ startup }) => startup?.tier ?? "" },
    { heading: "NODE", cell: ({ nodeName }) => nodeName },
    { heading: "ENDPOINTS", cell: ({ endpoints }) => endpoints.join(",") }
  ],
  name: ({ name }) => `sandbox/${name}`,
  object
})

const Known = Schema.fromJsonString(Schema.Struct({
  metadata: Schema.Struct({ uid: Schema.optionalKey(Schema.String) }),
  status: Schema.optionalKey(Schema.Struct({ conditions: Schema.optionalKey(Schema.Array(Condition)) }))
}))

const decodeResource = Schema.decodeUnknownOption(Known)

/** What the resource says of itself; nothing where the server does not send it. */
export const metadata = ({ resource }: SandboxInfo): { readonly uid?: string } =>
  Option.getOrElse(Option.map(decodeResource(resource), ({ metadata }) => metadata), () => ({}))

/** The conditions of its status as a table; empty where there are none. */
export const conditions = ({ resource }: SandboxInfo, now: DateTime.DateTime, terminal: number): string => {
  const found = Option.flatMapNullishOr(decodeResource(resource), ({ status }) => status?.conditions)
  if (Option.isNone(found) || found.value.length === 0) return ""
  return Table.format<Condition>(
    [
      { heading: "TYPE", cell: ({ type }) => type },
      { heading: "STATUS", cell: ({ status }) => status },
      {
        heading: "SINCE",
        cell: ({ lastTransitionTime }) =>
          Option.match(DateTime.make(lastTransitionTime), {
            onNone: () => "",
            onSome: (since) => Age.format(DateTime.toEpochMillis(now) - DateTime.toEpochMillis(since))
          })
      },
      { heading: "REASON", cell: ({ reason }) => reason },
      { heading: "MESSAGE", cell: ({ message }) => message, narrow: "wrap" }
    ],
    found.value,
    terminal
  )
}

const BAR_WIDTH = 30

/** Where the time of its start went, as bars; empty where that is not known. */
export const startup = (sandbox: SandboxInfo): string => {
  const { startup } = sandbox
  const total = totalMillis(sandbox)
  if (startup === undefined || total === undefined || total === 0) return ""
  return startup.steps.map(({ millis, name }) =>
    `${millis.toFixed(1).padStart(8)} ms  ${
      "#".repeat(Math.round(millis / total * BAR_WIDTH)).padEnd(BAR_WIDTH)
    }  ${name}\n`
  ).join("") + `${total.toFixed(1).padStart(8)} ms  ${"".padEnd(BAR_WIDTH)}  in all, ${startup.tier}\n`
}

/** What lists can be sorted by: their columns. */
export const orders = ["name", "phase", "image", "pool", "agent", "node", "age", "restarts"] as const

const sortKey = (order: typeof orders[number], sandbox: SandboxInfo): string | number => {
  switch (order) {
    case "age":
      return DateTime.toEpochMillis(sandbox.createdAt)
    case "agent":
      return sandbox.agentPod
    case "node":
      return sandbox.nodeName
    default:
      return sandbox[order]
  }
}

/** Compares two sandboxes; equal ones by their names. By age the oldest come first. */
export const compare = (order: typeof orders[number]) => (a: SandboxInfo, b: SandboxInfo): number => {
  const left = sortKey(order, a)
  const right = sortKey(order, b)
  if (left !== right) return left < right ? -1 : 1
  return a.namespace.localeCompare(b.namespace) || a.name.localeCompare(b.name)
}

const formatTime = (time: DateTime.Utc | undefined): string => time === undefined ? "" : DateTime.formatIso(time)

const formatEnd = ({ exitCode, signal }: SandboxInfo): string => {
  if (signal !== undefined) return `signal ${signal}`
  return exitCode === undefined ? "" : `code ${exitCode}`
}

const formatStartup = (sandbox: SandboxInfo): string => {
  const { startup } = sandbox
  if (startup === undefined) return ""
  const steps = startup.steps.map(({ millis, name }) => `${name} ${formatMillis(millis)}`).join(", ")
  return `${startup.tier}, ${formatMillis(totalMillis(sandbox) ?? 0)}${steps === "" ? "" : ` (${steps})`}`
}

/** Everything about one sandbox, for people. */
export const details = (now: DateTime.DateTime) => (sandbox: SandboxInfo, terminal: number): string =>
  Table.formatPairs([
    ["Name", sandbox.name],
    ["Namespace", sandbox.namespace],
    ["Phase", sandbox.phase],
    ["Reason", [sandbox.reason, sandbox.message].filter((part) => part !== "").join(": ")],
    ["Ended with", formatEnd(sandbox)],
    ["Image", sandbox.image],
    ["Pool", sandbox.pool],
    ["Agent", sandbox.agentPod],
    ["Node", sandbox.nodeName],
    ["Instance", sandbox.instanceId],
    ["Endpoints", sandbox.endpoints.join(", ")],
    ["Labels", Object.entries(sandbox.labels).map(([key, value]) => `${key}=${value}`).join(", ")],
    ["Created", `${formatTime(sandbox.createdAt)} (${ageOf(sandbox, now)} ago)`],
    ["Started", formatTime(sandbox.startedAt)],
    ["Finished", formatTime(sandbox.finishedAt)],
    ["Start", formatStartup(sandbox)],
    ["Restarts", sandbox.restarts === 0 ? "" : String(sandbox.restarts)]
  ], terminal)

const DIGEST_SHOWN = 19

/** Images in lists. */
export const images: Output.View<ImageInfo> = {
  columns: [
    { heading: "IMAGE", cell: ({ name }) => shortImage(name), narrow: "shorten" },
    { heading: "SIZE", cell: ({ sizeBytes }) => Progress.formatBytes(sizeBytes) },
    { heading: "NODES", cell: ({ nodes }) => String(nodes.length) },
    { heading: "DIGEST", cell: ({ digest }) => digest.slice(0, DIGEST_SHOWN) }
  ],
  wideColumns: [{ heading: "ON", cell: ({ nodes }) => nodes.join(", "), narrow: "wrap" }],
  name: ({ name }) => `image/${name}`,
  object: ({ digest, name, nodes, sizeBytes }) => ({
    apiVersion: Names.apiVersion,
    kind: "Image",
    metadata: { name },
    status: { digest, sizeBytes, nodes }
  })
}

/** A sandbox after a change: its name, or what the user chose to see. */
export const printChanged = Effect.fnUntraced(function*(sandbox: SandboxInfo, format: Option.Option<Output.Format>) {
  const now = yield* DateTime.now
  yield* Output.printChanged(sandboxes({ now, namespaces: "one" }), sandbox, { format, details: details(now) })
})
