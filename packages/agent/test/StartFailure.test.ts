import { assert, describe, it } from "@effect/vitest"
import { fromStart } from "@fast-sandbox/agent/StartFailure"
import { ContainerdError } from "@fast-sandbox/containerd/ContainerdError"

const failure = (details: string) =>
  fromStart("tool")(new ContainerdError({ operation: "Tasks.create", code: "UNKNOWN", details }))

const oci = (said: string) => `failed to create shim task: OCI runtime create failed: ${said}: unknown`

describe("StartFailure", () => {
  it.each([
    ["executable file `tool` not found in $PATH: No such file or directory", "CommandNotFound"],
    [
      "runc create failed: unable to start container process: exec: \"tool\": executable file not found in $PATH",
      "CommandNotFound"
    ],
    [
      "runc create failed: unable to start container process: exec: \"/tool\": stat /tool: no such file or directory",
      "CommandNotFound"
    ],
    ["exec container process `/tool`: No such file or directory", "CommandNotFound"],
    ["open executable: Permission denied", "CommandNotExecutable"],
    ["open executable: Operation not permitted", "CommandNotExecutable"],
    ["runc create failed: unable to start container process: exec: \"/etc\": is a directory", "CommandNotExecutable"],
    [
      "runc create failed: unable to start container process: exec: \"/etc/passwd\": permission denied",
      "CommandNotExecutable"
    ],
    ["exec container process `/tool`: Exec format error", "CommandNotExecutable"],
    ["exec container process `/tool`: Permission denied", "CommandNotExecutable"],
    ["chdir `/nope`: No such file or directory", "StartFailed"],
    ["mount `proc` to `proc`: Permission denied", "StartFailed"]
  ])("%s is %s", (said, reason) => {
    const error = failure(oci(said))
    assert.strictEqual(error._tag === "FailedPrecondition" ? error.reason : error._tag, reason)
    assert.match(error.message, /^tool could not be started: [^\n]+$/)
  })

  it("keeps the innermost words of what it does not know, on one line", () => {
    assert.strictEqual(
      failure(oci("runc create failed: unable to start container process: error during init:\nno cgroup")).message,
      "tool could not be started: error during init:; no cgroup"
    )
  })

  it("blames the node where the runtime said nothing", () => {
    assert.strictEqual(failure("connection error").message.includes("tool"), false)
    assert.strictEqual(failure("connection error")._tag, "Internal")
  })
})
