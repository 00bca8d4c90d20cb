import { assert, describe, it } from "@effect/vitest"
import * as JanitorConfig from "@fast-sandbox/janitor/JanitorConfig"
import { ConfigProvider, Effect } from "effect"

const read = (env: Record<string, string>) =>
  JanitorConfig.config.parse(ConfigProvider.fromEnv({ env })).pipe(Effect.result)

describe("JanitorConfig", () => {
  it.effect("needs no more than the node's name", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Effect.fromResult(yield* read({ NODE_NAME: "n" })), {
        containerdSocket: "/run/containerd/containerd.sock",
        containerdNamespace: "k8s.io",
        metrics: undefined,
        janitor: {
          nodeName: "n",
          mode: "remove",
          places: {
            cgroupParent: "/fast-sandbox",
            logDirectory: "/run/fast-sandbox/logs",
            agentsDirectory: "/run/fast-sandbox/agents"
          }
        }
      })
    }))

  it.effect("takes places and the mode from the environment", () =>
    Effect.gen(function*() {
      const { janitor } = yield* Effect.fromResult(
        yield* read({
          NODE_NAME: "n",
          FSB_STATE_DIR: "/s",
          FSB_LOG_DIR: "/l",
          FSB_CGROUP_PARENT: "/c",
          FSB_DRY_RUN: "true"
        })
      )
      assert.deepStrictEqual(janitor, {
        nodeName: "n",
        mode: "report",
        places: { cgroupParent: "/c", logDirectory: "/l", agentsDirectory: "/s/agents" }
      })
    }))

  it.effect("refuses what would make strangers' things ours", () =>
    Effect.gen(function*() {
      for (
        const env of [{}, { NODE_NAME: "" }, { NODE_NAME: "n", FSB_CGROUP_PARENT: "/" }, {
          NODE_NAME: "n",
          FSB_LOG_DIR: "logs"
        }]
      ) {
        assert.strictEqual((yield* read(env))._tag, "Failure", JSON.stringify(env))
      }
    }))
})
