/**
 * Prints data in the form that `-o` chooses. json and yaml are objects in Kubernetes' shape: one object, or a `v1` List
 * of them; name is `kind/name`; table and wide are for people.
 */
import * as Effect from "effect/Effect"
import { Screen } from "./Screen.ts"
import * as Table from "./Table.ts"

/** What `-o` accepts. */
export const formats = ["table", "wide", "json", "yaml", "name"] as const

/** How data is printed. */
export type Format = typeof formats[number]

/** How one kind of things is printed. */
export interface View<A> {
  readonly columns: ReadonlyArray<Table.Column<A>>
  /** Beside `columns`, at the right. */
  readonly wideColumns: ReadonlyArray<Table.Column<A>>
  /** `kind/name` */
  readonly name: (item: A) => string
  /** In Kubernetes' shape. */
  readonly object: (item: A) => unknown
}

const JSON_INDENT = 2

const json = (object: unknown): string => `${JSON.stringify(object, null, JSON_INDENT)}\n`

// the library is large and most calls print none
const yaml = (object: unknown): Effect.Effect<string> =>
  Effect.promise(() => import("./Yaml.ts")).pipe(Effect.map(({ stringify }) => stringify(object, { lineWidth: 0 })))

const list = (items: ReadonlyArray<unknown>) => ({ apiVersion: "v1", kind: "List", metadata: {}, items })

const columns = <A>(view: View<A>, format: "table" | "wide"): ReadonlyArray<Table.Column<A>> =>
  format === "wide" ? [...view.columns, ...view.wideColumns] : view.columns

/** Prints an object that is no resource as json or yaml. */
export const printObject = Effect.fnUntraced(function*(format: "json" | "yaml", object: unknown) {
  const screen = yield* Screen
  yield* screen.data(format === "json" ? json(object) : yield* yaml(object))
})

/** Prints many things. An empty table is a word on stderr, so that a pipe gets nothing. */
export const printAll = Effect.fnUntraced(function*<A>(
  view: View<A>,
  items: ReadonlyArray<A>,
  options: { readonly format: Format; readonly whenEmpty: string }
) {
  const screen = yield* Screen
  switch (options.format) {
    case "json":
    case "yaml":
      return yield* printObject(options.format, list(items.map(view.object)))
    case "name":
      return yield* screen.data(items.map((item) => `${view.name(item)}\n`).join(""))
    case "table":
    case "wide":
      return items.length === 0
        ? yield* screen.talk(`${options.whenEmpty}\n`)
        : yield* screen.data(Table.format(columns(view, options.format), items))
  }
})

/** Prints one thing. `details` is what people get who did not choose a form. */
export const printOne = Effect.fnUntraced(function*<A>(
  view: View<A>,
  item: A,
  options: { readonly format: Format; readonly details: (item: A) => string }
) {
  const screen = yield* Screen
  switch (options.format) {
    case "json":
    case "yaml":
      return yield* printObject(options.format, view.object(item))
    case "name":
      return yield* screen.data(`${view.name(item)}\n`)
    case "wide":
      return yield* screen.data(Table.format(columns(view, "wide"), [item]))
    case "table":
      return yield* screen.data(options.details(item))
  }
})

/** Prints things as they come. */
export const printer = Effect.fnUntraced(function*(format: Format) {
  const screen = yield* Screen
  const table = Table.growing()
  let isFirst = true
  return Effect.fnUntraced(function*<A>(view: View<A>, items: ReadonlyArray<A>) {
    if (items.length === 0) return
    switch (format) {
      case "json":
      case "yaml":
        for (const item of items) {
          if (format === "yaml" && !isFirst) yield* screen.data("---\n")
          isFirst = false
          yield* printObject(format, view.object(item))
        }
        return
      case "name":
        return yield* screen.data(items.map((item) => `${view.name(item)}\n`).join(""))
      case "table":
      case "wide":
        return yield* screen.data(table(columns(view, format), items))
    }
  })
})
