import { assert, describe, it } from "@effect/vitest"
import { config } from "@fast-sandbox/agent/AgentConfig"
import { ConfigProvider, Effect } from "effect"

const pod = { POD_NAME: "a", POD_UID: "u", POD_NAMESPACE: "n" }

const parse = (env: Readonly<Record<string, string>>) =>
  config.parse(ConfigProvider.fromEnv({ env: { ...pod, ...env } }))

describe("AgentConfig", () => {
  it.effect("has a default for all but the Pod", () =>
    Effect.gen(function*() {
      const settings = yield* parse({})
      assert.deepStrictEqual(settings.listen, { _tag: "Unix", path: "/run/fast-sandbox/agent.sock" })
      assert.strictEqual(settings.logDirectory, "/run/fast-sandbox/logs")
      assert.strictEqual(settings.containerdNamespace, "k8s.io")
      assert.strictEqual(settings.onTerm, "stop")
      assert.isFalse(settings.pullOnCreate)
      const error = yield* Effect.flip(config.parse(ConfigProvider.fromEnv({ env: {} })))
      assert.strictEqual(error._tag, "ConfigError")
    }))

  it.effect("reads addresses, quantities and switches", () =>
    Effect.gen(function*() {
      const settings = yield* parse({
        FSB_AGENT_LISTEN: "10.0.0.1:5758",
        FSB_DEFAULT_CPU: "500m",
        FSB_DEFAULT_MEMORY: "128Mi",
        FSB_DEFAULT_PIDS: "64",
        FSB_EXIT_WITH_PARENT: "1",
        FSB_SLOTS: "7"
      })
      assert.deepStrictEqual(settings.listen, { _tag: "Tcp", host: "10.0.0.1", port: 5758 })
      assert.deepStrictEqual(settings.limits, {
        cpuMillis: 500,
        memoryBytes: 128 * 1024 * 1024,
        pids: 64,
        diskBytes: undefined
      })
      assert.isTrue(settings.exitWithParent)
      assert.strictEqual(settings.slots, 7)
    }))

  it.effect.each([
    ["FSB_AGENT_LISTEN", "somewhere"],
    ["FSB_SLOTS", "0"],
    ["FSB_SLOTS", "many"],
    ["FSB_STATE_DIR", "relative"],
    ["FSB_DEFAULT_MEMORY", "lots"],
    ["FSB_ON_TERM", "panic"],
    ["FSB_RUNTIME_TYPE", "qemu"]
  ])("refuses %s=%s", ([name, value]) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(parse({ [name ?? ""]: value ?? "" }))
      assert.include(error.message, name ?? "")
    }))
})
