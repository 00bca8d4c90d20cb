import { assert, describe, layer } from "@effect/vitest"
import * as Kubectl from "@fast-sandbox/testkit/Kubectl"
import { Effect, FileSystem } from "effect"
import { dirname } from "node:path"
import { fileURLToPath } from "node:url"
import { leavesNothing } from "./e2e/Census.ts"
import * as LocalStack from "./e2e/LocalStack.ts"
import * as TestStack from "./e2e/TestStack.ts"

leavesNothing()

const repository = fileURLToPath(new URL("../../..", import.meta.url))

/** The blocks of a page that are marked `sh test`. */
const blocksOf = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(/^```sh test\n([\s\S]*?)^```$/gm)].map(([, block = ""]) => block)

const pages = ["quick-start", "installation", "operations"]

describe("the documentation", () => {
  layer(TestStack.layer, TestStack.options)((it) => {
    for (const page of pages) {
      it.effect(`the commands of ${page}.md work`, () =>
        Effect.gen(function*() {
          const files = yield* FileSystem.FileSystem
          const { home } = yield* LocalStack.LocalStack
          const kubectl = yield* Kubectl.path
          const blocks = blocksOf(yield* files.readFileString(`${repository}/docs/${page}.md`))
          assert.isNotEmpty(blocks)
          for (const block of blocks) {
            const ran = yield* LocalStack.run("bash", ["-euo", "pipefail", "-c", block], {
              env: {
                PATH: `${dirname(LocalStack.fsbCtlPath)}:${dirname(kubectl)}:${process.env["PATH"]}`,
                HOME: dirname(home),
                KUBECONFIG: `${home}/kubeconfig`,
                FSB_ENDPOINT: `unix:${home}/run/fastpath.sock`
              }
            })
            assert.strictEqual(ran.code, 0, `${block}\n${ran.stdout}${ran.stderr}`)
          }
        }))
    }

    it.effect("the reference has every command", () =>
      Effect.gen(function*() {
        const files = yield* FileSystem.FileSystem
        const reference = yield* files.readFileString(`${repository}/docs/reference/cli.md`)
        const help = yield* LocalStack.run(LocalStack.fsbCtlPath, ["--help"], { env: { NO_COLOR: "1" } })
        const commands = [...help.stdout.matchAll(/^ {2}([a-z][a-z-]*)(?:, [a-z]+)* {3,}\S/gm)].map(([, name]) => name)
        assert.isAbove(commands.length, 10)
        for (const name of commands) assert.include(reference, `## fsb-ctl ${name}\n`)
      }))
  })
})
