import { defineConfig } from "vitest/config"
import projects from "./vitest.workspace.ts"

export default defineConfig({
  test: {
    projects,
    coverage: {
      provider: "v8",
      include: ["packages/*/src/**/*.ts"],
      exclude: ["packages/grpc/src/gen/**", "packages/local/src/apiserver/gen/**"],
      reporter: ["json-summary", "html"],
      reportOnFailure: true
    },
    reporters: ["default", "./packages/testkit/src/SummaryReporter.ts"]
  }
})
