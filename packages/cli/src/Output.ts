/**
 * Prints data in the form that `-o` chooses. json, yaml and jsonpath show objects in Kubernetes' shape: one object, or a
 * `v1` List of them; name is `kind/name`; table and wide are for people.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { LocalError } from "./Failure.ts"
import { Screen } from "./Screen.ts"
import * as Table from "./Table.ts"

/** The forms that are a single word. */
const words = ["table", "wide", "json", "yaml", "name"] as const

/** Begins the form with a template. */
const JSONPATH = "jsonpath="

/** What `-o` accepts, for messages. */
export const formats: ReadonlyArray<string> = [...words, `${JSONPATH}TEMPLATE`]

/** A template as kubectl has it. */
interface JsonPathForm {
  readonly template: string
}

/** Forms that show an object. */
export type ObjectForm = "json" | "yaml" | JsonPathForm

/** How data is printed. */
export type Format = typeof words[number] | JsonPathForm

/** Reads what follows `-o`. */
export const parseFormat = (text: string): Option.Option<Format> => {
  const word = words.find((word) => word === text)
  if (word !== undefined) return Option.some(word)
  return text.startsWith(JSONPATH) ? Option.some({ template: text.slice(JSONPATH.length) }) : Option.none()
}

/** Whether the form shows an object. */
export const isObjectForm = (format: Format): format is ObjectForm =>
  typeof format === "object" || format === "json" || format === "yaml"

/** How one kind of things is printed. */
export interface View<A> {
  readonly columns: ReadonlyArray<Table.Column<A>>
  /** Beside `columns`, at the right. Where they are shown, nothing is cut. */
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

const jsonPath = (template: string, object: unknown): Effect.Effect<string, LocalError> =>
  Effect.promise(() => import("./JsonPathTemplate.ts")).pipe(
    Effect.flatMap(({ render }) => Effect.fromResult(render(template, object))),
    Effect.mapError((problem) => new LocalError({ problem: `-o jsonpath: ${problem}` }))
  )

const list = (items: ReadonlyArray<unknown>) => ({ apiVersion: "v1", kind: "List", metadata: {}, items })

const columns = <A>(view: View<A>, format: "table" | "wide"): ReadonlyArray<Table.Column<A>> =>
  format === "wide" ? Table.whole([...view.columns, ...view.wideColumns]) : view.columns

/** The last part of `kind/name`. */
const bareName = (name: string): string => name.slice(name.indexOf("/") + 1)

/** Prints an object. */
export const printObject = Effect.fnUntraced(function*(format: ObjectForm, object: unknown) {
  const screen = yield* Screen
  if (typeof format === "object") return yield* screen.data(yield* jsonPath(format.template, object))
  yield* screen.data(format === "json" ? json(object) : yield* yaml(object))
})

/** Prints many things. An empty table is a word on stderr, so that a pipe gets nothing; quiet is just the names. */
export const printAll = Effect.fnUntraced(function*<A>(
  view: View<A>,
  items: ReadonlyArray<A>,
  options: { readonly format: Format; readonly whenEmpty: string }
) {
  const { format, whenEmpty } = options
  const screen = yield* Screen
  if (isObjectForm(format)) return yield* printObject(format, list(items.map(view.object)))
  if (format === "name") return yield* screen.data(items.map((item) => `${view.name(item)}\n`).join(""))
  if (screen.isQuiet) return yield* screen.data(items.map((item) => `${bareName(view.name(item))}\n`).join(""))
  yield* items.length === 0
    ? screen.talk(`${whenEmpty}\n`)
    : screen.data(Table.format(columns(view, format), items, screen.dataWidth()))
})

/** Prints one thing. `details` is what people get who did not choose a form. */
export const printOne = Effect.fnUntraced(function*<A>(
  view: View<A>,
  item: A,
  options: { readonly format: Format; readonly details: (item: A, terminal: number) => string }
) {
  const { details, format } = options
  const screen = yield* Screen
  if (isObjectForm(format)) return yield* printObject(format, view.object(item))
  switch (format) {
    case "name":
      return yield* screen.data(`${view.name(item)}\n`)
    case "wide":
      return yield* screen.data(Table.format(columns(view, "wide"), [item], screen.dataWidth()))
    case "table":
      return yield* screen.data(details(item, screen.dataWidth()))
  }
})

/** Prints a thing that was changed: its name, or what the user chose to see. */
export const printChanged = Effect.fnUntraced(function*<A>(
  view: View<A>,
  item: A,
  options: { readonly format: Option.Option<Format>; readonly details: (item: A, terminal: number) => string }
) {
  const { details, format } = options
  if (Option.isSome(format)) return yield* printOne(view, item, { format: format.value, details })
  const screen = yield* Screen
  yield* screen.data(`${bareName(view.name(item))}\n`)
})

/** Prints things as they come. */
export const printer = Effect.fnUntraced(function*(format: Format) {
  const screen = yield* Screen
  const table = Table.growing()
  let isFirst = true
  return Effect.fnUntraced(function*<A>(view: View<A>, items: ReadonlyArray<A>) {
    if (items.length === 0) return
    if (isObjectForm(format)) {
      for (const item of items) {
        if (format === "yaml" && !isFirst) yield* screen.data("---\n")
        isFirst = false
        yield* printObject(format, view.object(item))
      }
      return
    }
    yield* format === "name"
      ? screen.data(items.map((item) => `${view.name(item)}\n`).join(""))
      : screen.isQuiet
      ? screen.data(items.map((item) => `${bareName(view.name(item))}\n`).join(""))
      : screen.data(table(columns(view, format), items, screen.dataWidth()))
  })
})
