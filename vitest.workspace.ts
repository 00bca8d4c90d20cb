import { fileURLToPath } from "node:url"
import type { TestProjectInlineConfiguration } from "vitest/config"

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url))

const project = (
  name: string,
  test: NonNullable<TestProjectInlineConfiguration["test"]>
): TestProjectInlineConfiguration => ({
  extends: true,
  root: path("."),
  test: { name, setupFiles: [path("./vitest.setup.ts")], ...test }
})

/**
 * The three suites, told apart by a file's ending. Since vitest 4 this file is no longer read by vitest itself:
 * `vitest.config.ts` imports it.
 *
 * - unit: no process, no privilege, no network beyond loopback
 * - integration: a containerd, runtime or API server of its own; wants root
 * - e2e: fsb-ctl and kubectl against a one-machine stack of its own; wants root
 *
 * They run one after the other: what counts processes and cgroups of the machine must not see another suite's.
 */
const projects: Array<TestProjectInlineConfiguration> = [
  project("unit", {
    include: ["packages/*/test/**/*.test.ts"],
    exclude: ["**/*.integration.test.ts", "**/*.e2e.test.ts"],
    sequence: { concurrent: true, groupOrder: 0 }
  }),
  project("integration", {
    include: ["packages/*/test/**/*.integration.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    fileParallelism: false,
    sequence: { groupOrder: 1 }
  }),
  project("e2e", {
    include: ["packages/*/test/**/*.e2e.test.ts"],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    fileParallelism: false,
    sequence: { groupOrder: 2 }
  })
]

export default projects
