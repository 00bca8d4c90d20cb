/**
 * The entry of fsb-ctl. What needs no parser is answered at once; everything else loads the commands.
 *
 * A start-up snapshot of V8 is made of this very program: with everything that most commands need loaded, and waiting
 * for its command line.
 */
import { version } from "@fast-sandbox/core/Version"
import { startupSnapshot } from "node:v8"

const start = (): void => {
  const args = process.argv.slice(2)
  const [first, ...rest] = args
  if (rest.length === 0 && (first === "--version" || first === "-v")) {
    process.stdout.write(`fsb-ctl ${version}\n`)
  } else {
    void import("./main.ts").then(({ main }) => main(args))
  }
}

if (startupSnapshot.isBuildingSnapshot()) {
  startupSnapshot.setDeserializeMainFunction(start)
  void import("./rehearsal.ts").then(({ rehearse }) => rehearse(process.env.FSB_REHEARSAL_ENDPOINT ?? ""))
} else {
  start()
}
