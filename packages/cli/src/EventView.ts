/**
 * Events as fsb-ctl prints them.
 */
import type { EventInfo } from "@fast-sandbox/client/Sandboxes"
import * as DateTime from "effect/DateTime"
import * as Age from "./Age.ts"
import type * as Output from "./Output.ts"
import * as Table from "./Table.ts"

/** The words of commands for the kinds of the API. */
const nouns: Readonly<Record<string, string>> = { Sandbox: "sandbox", SandboxPool: "pool", Pod: "agent" }

const nounOf = ({ kind }: EventInfo): string => nouns[kind] ?? kind.toLowerCase()

const ageOf = ({ last }: EventInfo, now: DateTime.DateTime): string =>
  Age.format(DateTime.toEpochMillis(now) - DateTime.toEpochMillis(last))

const about = (now: DateTime.DateTime): ReadonlyArray<Table.Column<EventInfo>> => [
  { heading: "AGE", cell: (event) => ageOf(event, now) },
  { heading: "TYPE", cell: ({ type }) => type },
  { heading: "REASON", cell: ({ reason }) => reason }
]

const message: Table.Column<EventInfo> = {
  heading: "MESSAGE",
  cell: ({ count, message }) => `${message.trim()}${count > 1 ? ` (${count} times)` : ""}`,
  narrow: "wrap"
}

/** Events in lists. */
export const events = (
  options: { readonly now: DateTime.DateTime; readonly namespaces: "one" | "all" }
): Output.View<EventInfo> => ({
  columns: [
    ...(options.namespaces === "all" ? [{ heading: "NAMESPACE", cell: ({ namespace }: EventInfo) => namespace }] : []),
    ...about(options.now),
    { heading: "OBJECT", cell: (event) => `${nounOf(event)}/${event.name}`, narrow: "shorten" },
    message
  ],
  wideColumns: [{ heading: "SOURCE", cell: ({ source }) => source }],
  name: (event) => `${nounOf(event)}/${event.name}`,
  object: (event) => ({
    apiVersion: "v1",
    kind: "Event",
    involvedObject: { kind: event.kind, namespace: event.namespace, name: event.name, uid: event.uid },
    type: event.type,
    reason: event.reason,
    message: event.message,
    count: event.count,
    firstTimestamp: DateTime.formatIso(event.first),
    lastTimestamp: DateTime.formatIso(event.last),
    source: { component: event.source }
  })
})

/** The events of one object, as a table without the object. */
export const ofOne = (events: ReadonlyArray<EventInfo>, now: DateTime.DateTime, terminal: number): string =>
  Table.format([...about(now), message], events, terminal)
