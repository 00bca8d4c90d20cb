/**
 * Publishes results: adds those of this machine, where there are any, to docs/performance, and makes the page and its
 * picture anew from what is there.
 *
 *     npm run generate:performance
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { fileURLToPath } from "node:url"
import * as Page from "./Page.ts"
import * as Plot from "./Plot.ts"
import * as Results from "./Results.ts"

const repository = fileURLToPath(new URL("../..", import.meta.url))

const main = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const published = `${repository}/docs/performance/results.json`
  const own = `${repository}/bench/results.json`
  if (yield* files.exists(own)) {
    const mine = yield* Results.read(own)
    const before = yield* Effect.orElseSucceed(Results.read(published), () => mine)
    yield* files.writeFileString(published, Results.format(Results.merge(before, mine)))
  }
  const results = yield* Results.read(published)
  yield* files.writeFileString(`${repository}/docs/performance.md`, Page.page(results))
  const starts = Results.rows(results).filter(({ name }) => Page.starts.test(name))
  if (starts.length > 0) {
    const picture = Plot.svg("From request to running program", new Map(starts.map((row) => [row.name, row])))
    yield* files.writeFileString(`${repository}/docs/performance/starts.svg`, picture)
  }
})

main.pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
