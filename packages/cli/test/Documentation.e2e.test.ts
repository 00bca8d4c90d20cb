import { assert, describe, layer } from "@effect/vitest"
import * as Kubectl from "@fast-sandbox/testkit/Kubectl"
import { Effect } from "effect"
import { dirname } from "node:path"
import { leavesNothing } from "./e2e/Census.ts"
import * as LocalStack from "./e2e/LocalStack.ts"
import * as TestStack from "./e2e/TestStack.ts"
import * as Pages from "./Pages.ts"

leavesNothing()

/** Where the pages say that everything of a machine's stack is. */
const usualHome = "/var/lib/fast-sandbox"

const pages = Pages.all.filter((page) => Pages.blocksOf(page).some(({ mark }) => mark === "test"))

/** Runs a block as its reader would, against the stack of this test. */
const run = Effect.fnUntraced(function*(language: "sh" | "ts", text: string) {
  const { home } = yield* LocalStack.LocalStack
  const kubectl = yield* Kubectl.path
  const block = text.replaceAll(usualHome, home)
  const [file, args] = language === "sh"
    ? ["bash", ["-euo", "pipefail", "-c", block]] as const
    : [process.execPath, ["--input-type=module-typescript", "--eval", block]] as const
  const { code, stderr, stdout } = yield* LocalStack.run(file, args, {
    env: {
      PATH: `${dirname(LocalStack.fsbCtlPath)}:${dirname(kubectl)}:${process.env["PATH"]}`,
      HOME: dirname(home),
      KUBECONFIG: `${home}/kubeconfig`,
      FSB_ENDPOINT: `unix:${home}/run/fastpath.sock`
    }
  })
  assert.strictEqual(code, 0, `${block}\n${stdout}${stderr}`)
})

describe("the documentation", () => {
  layer(TestStack.layer, TestStack.options)((it) => {
    for (const page of pages) {
      it.effect(`what ${page} has of commands and programs works`, () =>
        Effect.gen(function*() {
          const blocks = [
            ...Pages.tested(page, "sh").map((text) => ["sh", text] as const),
            ...Pages.tested(page, "ts").map((text) => ["ts", text] as const)
          ]
          assert.isNotEmpty(blocks)
          for (const [language, text] of blocks) yield* run(language, text)
        }))
    }

    it.effect("the reference has every command", () =>
      Effect.gen(function*() {
        const reference = Pages.read("docs/reference/cli.md")
        const help = yield* LocalStack.run(LocalStack.fsbCtlPath, ["--help"], { env: { NO_COLOR: "1" } })
        const commands = [...help.stdout.matchAll(/^ {2}([a-z][a-z-]*)(?:, [a-z]+)* {3,}\S/gm)].map(([, name]) => name)
        assert.isAbove(commands.length, 10)
        for (const name of commands) assert.include(reference, `## fsb-ctl ${name}\n`)
      }))
  })
})
