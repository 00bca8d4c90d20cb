/**
 * The columns in which the real server prints the built-in kinds.
 */
import { age } from "./Duration.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import type { Column } from "./ResourceType.ts"

const column = (
  name: string,
  cell: Column["cell"],
  options: { readonly type?: string; readonly format?: string; readonly priority?: number } = {}
): Column => ({
  name,
  type: options.type ?? "string",
  format: options.format ?? "",
  description: "",
  priority: options.priority ?? 0,
  cell
})

const wide = { priority: 1 }

/** The name, the first column of every table. */
export const nameColumn: Column = column("Name", (object) => Json.stringAt(object, "metadata", "name") ?? "", {
  format: "name"
})

/** The age, the last column of most tables. */
export const ageColumn: Column = column(
  "Age",
  (object, now) => age(Json.stringAt(object, "metadata", "creationTimestamp"), now)
)

const text = (fallback: string, ...path: ReadonlyArray<string>): Column["cell"] => (object) => {
  const value = Json.at(object, ...path)
  return value === undefined || value === null || value === ""
    ? fallback
    : typeof value === "object"
    ? JSON.stringify(value)
    : value
}

const podStatus = (pod: JsonObject): string => {
  const status = Json.objectAt(pod, "status")
  let reason = Json.stringAt(status, "reason") ?? Json.stringAt(status, "phase") ?? "Unknown"
  let running = false
  for (const container of Json.arrayAt(status, "containerStatuses").toReversed()) {
    const waiting = Json.stringAt(container, "state", "waiting", "reason")
    const terminated = Json.objectAt(container, "state", "terminated")
    if (waiting !== undefined && waiting !== "") reason = waiting
    else if (Json.stringAt(terminated, "reason")) reason = Json.stringAt(terminated, "reason") ?? reason
    else if (terminated !== Json.emptyObject) {
      const signal = Json.numberAt(terminated, "signal") ?? 0
      reason = signal !== 0 ? `Signal:${signal}` : `ExitCode:${Json.numberAt(terminated, "exitCode") ?? 0}`
    } else if (Json.at(container, "ready") === true && Json.at(container, "state", "running") !== undefined) {
      running = true
    }
  }
  if (reason === "Completed" && running) reason = "Running"
  if (Json.at(pod, "metadata", "deletionTimestamp") !== undefined) {
    return Json.stringAt(status, "reason") === "NodeLost" ? "Unknown" : "Terminating"
  }
  return reason
}

const pods: ReadonlyArray<Column> = [
  nameColumn,
  column("Ready", (pod) => {
    const ready = Json.arrayAt(pod, "status", "containerStatuses").filter((entry) => Json.at(entry, "ready") === true)
    return `${ready.length}/${Json.arrayAt(pod, "spec", "containers").length}`
  }),
  column("Status", podStatus),
  column("Restarts", (pod, now) => {
    const statuses = Json.arrayAt(pod, "status", "containerStatuses")
    const restarts = statuses.reduce((sum: number, entry) => sum + (Json.numberAt(entry, "restartCount") ?? 0), 0)
    const last = statuses.map((entry) => Json.stringAt(entry, "lastState", "terminated", "finishedAt") ?? "").toSorted()
      .at(
        -1
      )
    return restarts === 0 || last === undefined || last === ""
      ? String(restarts)
      : `${restarts} (${age(last, now)} ago)`
  }),
  ageColumn,
  column("IP", text("<none>", "status", "podIP"), wide),
  column("Node", text("<none>", "spec", "nodeName"), wide),
  column("Nominated Node", text("<none>", "status", "nominatedNodeName"), wide),
  column("Readiness Gates", (pod) => {
    const gates = Json.arrayAt(pod, "spec", "readinessGates")
    if (gates.length === 0) return "<none>"
    const met = gates.filter((gate) =>
      Json.arrayAt(pod, "status", "conditions").some((condition) =>
        Json.at(condition, "type") === Json.at(gate, "conditionType") && Json.at(condition, "status") === "True"
      )
    )
    return `${met.length}/${gates.length}`
  }, wide)
]

const eventTime = (event: JsonObject): string | undefined =>
  Json.stringAt(event, "series", "lastObservedTime") ?? Json.stringAt(event, "lastTimestamp") ??
    Json.stringAt(event, "eventTime") ?? Json.stringAt(event, "firstTimestamp")

const events: ReadonlyArray<Column> = [
  column("Last Seen", (event, now) => age(eventTime(event), now)),
  column("Type", text("", "type")),
  column("Reason", text("", "reason")),
  column("Object", (event) => {
    const kind = (Json.stringAt(event, "involvedObject", "kind") ?? "").toLowerCase()
    return `${kind}/${Json.stringAt(event, "involvedObject", "name") ?? ""}`
  }),
  column("Subobject", text("", "involvedObject", "fieldPath"), wide),
  column(
    "Source",
    (event) =>
      [Json.stringAt(event, "source", "component"), Json.stringAt(event, "source", "host")].filter((part) =>
        part !== undefined && part !== ""
      ).join(", "),
    wide
  ),
  column("Message", (event) => (Json.stringAt(event, "message") ?? "").trim()),
  column(
    "First Seen",
    (event, now) => age(Json.stringAt(event, "firstTimestamp") ?? Json.stringAt(event, "eventTime"), now),
    wide
  ),
  column("Count", (event) => Json.numberAt(event, "series", "count") ?? Json.numberAt(event, "count") ?? 1, {
    type: "integer",
    priority: 1
  }),
  column("Name", (event) => Json.stringAt(event, "metadata", "name") ?? "", { format: "name", priority: 1 })
]

const size = (...path: ReadonlyArray<string>): Column["cell"] => (object) =>
  Object.keys(Json.objectAt(object, ...path)).length

const services: ReadonlyArray<Column> = [
  nameColumn,
  column("Type", text("<none>", "spec", "type")),
  column("Cluster-IP", text("<none>", "spec", "clusterIP")),
  column("External-IP", (service) => {
    const addresses = Json.arrayAt(service, "spec", "externalIPs")
    return addresses.length === 0 ? "<none>" : addresses.join(",")
  }),
  column("Port(s)", (service) => {
    const ports = Json.arrayAt(service, "spec", "ports").map((port) =>
      `${Json.numberAt(port, "port") ?? 0}/${Json.stringAt(port, "protocol") ?? "TCP"}`
    )
    return ports.length === 0 ? "<none>" : ports.join(",")
  }),
  ageColumn,
  column("Selector", (service) => {
    const pairs = Object.entries(Json.objectAt(service, "spec", "selector")).map(([key, value]) =>
      `${key}=${String(value)}`
    )
    return pairs.length === 0 ? "<none>" : pairs.join(",")
  }, wide)
]

const nodes: ReadonlyArray<Column> = [
  nameColumn,
  column("Status", (node) => {
    const ready = Json.arrayAt(node, "status", "conditions").find((condition) => Json.at(condition, "type") === "Ready")
    const state = ready === undefined ? "Unknown" : Json.at(ready, "status") === "True" ? "Ready" : "NotReady"
    return Json.at(node, "spec", "unschedulable") === true ? `${state},SchedulingDisabled` : state
  }),
  column("Roles", (node) => {
    const prefix = "node-role.kubernetes.io/"
    const roles = Object.keys(Json.objectAt(node, "metadata", "labels")).filter((key) => key.startsWith(prefix))
    return roles.length === 0 ? "<none>" : roles.map((key) => key.slice(prefix.length)).toSorted().join(",")
  }),
  ageColumn,
  column("Version", text("", "status", "nodeInfo", "kubeletVersion")),
  column("Internal-IP", (node) => {
    const address = Json.arrayAt(node, "status", "addresses").find((entry) => Json.at(entry, "type") === "InternalIP")
    return Json.stringAt(address, "address") ?? "<none>"
  }, wide),
  column("OS-Image", text("<unknown>", "status", "nodeInfo", "osImage"), wide),
  column("Kernel-Version", text("<unknown>", "status", "nodeInfo", "kernelVersion"), wide),
  column("Container-Runtime", text("<unknown>", "status", "nodeInfo", "containerRuntimeVersion"), wide)
]

const tables: ReadonlyMap<string, ReadonlyArray<Column>> = new Map([
  ["pods", pods],
  ["events", events],
  ["services", services],
  ["nodes", nodes],
  ["namespaces", [nameColumn, column("Status", text("", "status", "phase")), ageColumn]],
  ["leases", [nameColumn, column("Holder", text("", "spec", "holderIdentity")), ageColumn]],
  ["secrets", [
    nameColumn,
    column("Type", text("", "type")),
    column("Data", size("data"), { type: "string" }),
    ageColumn
  ]],
  ["configmaps", [
    nameColumn,
    column(
      "Data",
      (map) => Object.keys(Json.objectAt(map, "data")).length + Object.keys(Json.objectAt(map, "binaryData")).length
    ),
    ageColumn
  ]],
  ["serviceaccounts", [nameColumn, column("Secrets", (account) => Json.arrayAt(account, "secrets").length), ageColumn]],
  ["customresourcedefinitions", [
    nameColumn,
    column("Created At", text("", "metadata", "creationTimestamp"), { type: "date" })
  ]]
])

/** The columns of a built-in resource; name and age where it has none of its own. */
export const builtInColumns = (plural: string): ReadonlyArray<Column> => tables.get(plural) ?? [nameColumn, ageColumn]
