/**
 * Closes a vitest run with one line over all suites, `N passed, N failed, N skipped`, for whoever reads only the end.
 * A file that could not even be collected counts as one failure.
 */
import type { Reporter, TestModule } from "vitest/node"

export default class SummaryReporter implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>, errors: ReadonlyArray<unknown>): void {
    const counts = { passed: 0, failed: errors.length, skipped: 0 }
    for (const module of modules) {
      if (module.state() === "failed" && module.errors().length > 0) {
        counts.failed++
      }
      for (const test of module.children.allTests()) {
        const { state } = test.result()
        counts[state === "pending" ? "skipped" : state]++
      }
    }
    // After the other reporters' last words, which are written on the same event.
    process.on("exit", () => {
      process.stdout.write(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`)
    })
  }
}
