import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Editor from "../src/Editor.ts"
import * as Manifest from "../src/Manifest.ts"

const sandbox = (spec: string) =>
  `apiVersion: sandbox.fast.io/v1alpha1\nkind: Sandbox\nmetadata: { name: a }\nspec:\n  image: alpine\n  poolRef: p\n${spec}`

describe("Manifest", () => {
  it.effect("the template is a manifest", () =>
    Effect.gen(function*() {
      const manifest = yield* Manifest.parse(Manifest.template("web"))
      assert.deepInclude(manifest, { image: "alpine:latest", pool: "default-pool", consistencyMode: "fast" })
    }))

  it("the template fits into a terminal of 80 columns", () =>
    assert.deepStrictEqual(Manifest.template("web").split("\n").filter((line) => line.length >= 80), []))

  it.effect("every example in the template is right when it is taken in", () =>
    Effect.gen(function*() {
      const text = Manifest.template("web").replaceAll(/^# (?=[a-z_]+: ?(?:$|[[/])| {2}[A-Z]+:)/gm, "")
      const manifest = yield* Manifest.parse(text)
      assert.deepInclude(manifest, {
        command: ["/bin/sh", "-c"],
        exposedPorts: [8080],
        envs: { GREETING: "hello" },
        workingDir: "/srv"
      })
    }))

  it.effect("words that are numbers or booleans are texts; empty keys say nothing", () =>
    Effect.gen(function*() {
      const manifest = yield* Manifest.parse("args: [sleep, 1.5, true]\nenvs: { A: 1, B: }\ncommand:\nimage: x\n")
      assert.deepInclude(manifest, { args: ["sleep", "1.5", "true"], envs: { A: "1", B: "" }, command: undefined })
    }))

  for (
    const [text, line, says] of [
      ["image: [\n", 2, /./],
      ["image: a\nimage: b\n", 2, /unique/],
      ["image: a\n\nexposed_ports:\n  - 80\n  - 0\n", 5, /^exposed_ports\[1\]: /],
      ["exposed_ports: [80, 80]\n", 1, /^exposed_ports/],
      ["image: a\nconsistency_mode: quick\n", 2, /^consistency_mode: /],
      ["image: a\nnmae: b\n", 2, /^nmae: /],
      ["just a text\n", 1, /./],
      [sandbox("  exposedPorts: [0]\n"), 7, /^spec\.exposedPorts\[0\]: /],
      [sandbox("  envs:\n  - name: A\n    valueFrom: { secretKeyRef: { name: s, key: k } }\n"), 9, /kubectl apply/],
      [sandbox("  iamge: x\n"), 7, /^spec\.iamge: /]
    ] as const
  ) {
    it.effect(`tells the line of the mistake in ${JSON.stringify(text)}`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Manifest.parse(text))
        assert.strictEqual(error.line, line, error.problem)
        assert.match(error.problem, says)
      }))
  }
})

describe("Editor", () => {
  it("shows a mistake below its line, and takes it away again", () => {
    const text = "a: 1\nb: 2\nc: 3\n"
    const marked = Editor.withMark(text, new Manifest.ManifestError({ line: 2, problem: "b: is\nwrong" }))
    assert.strictEqual(marked, "a: 1\nb: 2\n# ^^^ b: is wrong\nc: 3\n")
    assert.strictEqual(Editor.withoutMarks(marked), text)
  })

  it("chooses the configured editor, then VISUAL, then EDITOR, then vi", () => {
    assert.strictEqual(Editor.choose("a", { VISUAL: "b", EDITOR: "c" }), "a")
    assert.strictEqual(Editor.choose(undefined, { VISUAL: "b", EDITOR: "c" }), "b")
    assert.strictEqual(Editor.choose(undefined, { VISUAL: "", EDITOR: "c" }), "c")
    assert.strictEqual(Editor.choose(undefined, {}), "vi")
  })

  it("a name never leaves the cache", () =>
    assert.strictEqual(Editor.cachePath("/root", "../../x"), "/root/.fsb-ctl/cache/..%2F..%2Fx.yaml"))
})
