/**
 * The entry of fsb-ctl. What needs no parser is answered at once; everything else loads the commands.
 */
import { version } from "@fast-sandbox/core/Version"

const [first, ...rest] = process.argv.slice(2)

if (rest.length === 0 && (first === "--version" || first === "-v")) {
  process.stdout.write(`fsb-ctl ${version}\n`)
} else {
  void import("./main.ts")
}
