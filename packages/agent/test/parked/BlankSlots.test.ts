import { assert, describe, it } from "@effect/vitest"
import { AgentConfig, config } from "@fast-sandbox/agent/AgentConfig"
import { BlankSlots } from "@fast-sandbox/agent/parked/BlankSlots"
import { RootExchange, RootNotExchanged } from "@fast-sandbox/agent/parked/RootExchange"
import { SlotFiles } from "@fast-sandbox/agent/parked/SlotFiles"
import { SandboxContainer } from "@fast-sandbox/agent/SandboxContainer"
import { ConfigProvider, Effect, identity, Layer } from "effect"

const image = (chainId: string) => ({
  image: {
    name: `${chainId}:latest`,
    manifestDigest: "",
    configDigest: "",
    config: { entrypoint: [], cmd: [], env: [], workingDir: "", user: "", stopSignal: "" },
    chainId,
    sizeBytes: 0
  },
  user: { uid: 0, gid: 0 },
  stopSignal: 15
})

type Outcome = "done" | Pick<RootNotExchanged, "step" | "code">

/** What is learned from exchanges that end like this, each for an image of its own. */
const learned = (...outcomes: ReadonlyArray<Outcome>) => {
  const left = [...outcomes]
  const settings = Layer.effect(
    AgentConfig,
    config.parse(ConfigProvider.fromEnv({ env: { POD_NAME: "a", POD_UID: "u", POD_NAMESPACE: "n" } }))
  ).pipe(Layer.orDie)
  const roots = Layer.mock(RootExchange)({
    isThere: true,
    exchange: () =>
      Effect.suspend(() => {
        const outcome = left.shift() ?? "done"
        return outcome === "done" ? Effect.void : Effect.fail(new RootNotExchanged(outcome))
      })
  })
  return Effect.gen(function*() {
    const blanks = yield* BlankSlots
    const served: Array<boolean> = []
    for (const index of outcomes.keys()) {
      served.push(yield* blanks.furnish({ id: "s", pid: 1 }, image(String(index)), () => identity))
    }
    assert.deepStrictEqual(served, outcomes.map((outcome) => outcome === "done"))
    return {
      unsuited: [...outcomes.keys()].filter((index) => !blanks.suits(image(String(index)))),
      wanted: blanks.wanted(),
      note: yield* blanks.note
    }
  }).pipe(Effect.provide(
    BlankSlots.layer.pipe(
      Layer.provide([
        roots,
        settings,
        Layer.mock(SandboxContainer)({ rootOf: () => Effect.succeed([]) }),
        Layer.mock(SlotFiles)({ parking: undefined })
      ])
    )
  ))
}

const missed = { step: "finding the slot", code: "ESRCH" } as const
const odd = { step: "carrying mounts over", code: "ENOTDIR" } as const

describe("BlankSlots", () => {
  it.effect("remember an image whose root is odd, and nothing about the others", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* learned("done", odd, missed, { step: "carrying mounts over", code: "EPERM" }), {
        unsuited: [1, 3],
        wanted: 2,
        note: "blankSlots on: 2"
      })
    }))

  it.effect("are given up where the kernel or the agent's rights don't do it", () =>
    Effect.gen(function*() {
      for (
        const refusal of [
          { step: "mounting the root file system", code: "ENOSYS" },
          { step: "entering the slot", code: "EPERM" }
        ] as const
      ) {
        const { note, wanted } = yield* learned(refusal)
        assert.strictEqual(wanted, 0)
        assert.strictEqual(note, `blankSlots off: ${refusal.step}: ${refusal.code}`)
      }
    }))

  it.effect("are given up where the agent does not see them, which one that died is no sign of", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* learned(missed, missed, "done", missed, odd, missed, missed)).wanted, 2)
      assert.strictEqual((yield* learned(missed, missed, missed)).wanted, 0)
    }))
})
