/**
 * A script with promises: a sandbox, a program in it, its output. `await using` deletes the sandbox, whatever happens.
 *
 *     node infra/examples/script.ts
 */
import { connect } from "@fast-sandbox/client/Promise"

await using client = connect({
  endpoint: process.env.FSB_ENDPOINT ?? "unix:/var/lib/fast-sandbox/run/fastpath.sock"
})
await using sandbox = await client.run({ image: "busybox", args: ["sleep", "600"] })

await sandbox.files.write("/tmp/sum.awk", "{ sum += $1 } END { print sum }")
const { exitCode, stdout } = await sandbox.output({ command: ["sh", "-c", "seq 1 100 | awk -f /tmp/sum.awk"] })
process.stdout.write(`${sandbox.name} ended with ${exitCode} and said ${stdout.trim()}\n`)
