import { assert, describe, it } from "@effect/vitest"
import * as Errors from "@fast-sandbox/core/Errors"
import * as Failure from "../src/Failure.ts"

const cases: ReadonlyArray<readonly [failure: Failure.Failure, said: string, code: number]> = [
  [
    new Failure.UsageError({ command: "image pull", problem: "IMAGE is missing" }),
    "fsb-ctl image pull: IMAGE is missing\nSee 'fsb-ctl image pull --help'\n",
    125
  ],
  [new Failure.LocalError({ problem: "no file" }), "fsb-ctl: no file\n", 125],
  [new Failure.Declined({ notice: "nothing was started" }), "nothing was started\n", 125],
  [new Failure.PipeClosed(), "", 141],
  [new Failure.Ended({ exitCode: 3 }), "", 3],
  [
    new Errors.InvalidArgument({ field: "spec.exposedPorts[1]", problem: "is given twice" }),
    "fsb-ctl: --ports (spec.exposedPorts[1]): is given twice\n",
    125
  ],
  [
    new Errors.InvalidArgument({ field: "spec.sandboxResources.cpu", problem: "must be a quantity" }),
    "fsb-ctl: --cpu (spec.sandboxResources.cpu): must be a quantity\n",
    125
  ],
  [
    new Errors.FailedPrecondition({ reason: "CommandNotFound", problem: "/nope: no such file" }),
    "fsb-ctl: /nope: no such file\n",
    127
  ],
  [
    new Errors.FailedPrecondition({ reason: "CommandNotExecutable", problem: "/etc/passwd: permission denied" }),
    "fsb-ctl: /etc/passwd: permission denied\n",
    126
  ],
  [
    new Errors.NotFound({ kind: "sandbox", name: "a", hint: "it is being deleted" }),
    "fsb-ctl: sandbox a not found; it is being deleted\n",
    125
  ],
  [
    new Errors.Unavailable({ target: "10.0.0.1:9090", problem: "connection refused" }),
    "fsb-ctl: can't reach the server at 10.0.0.1:9090 (connection refused)\n",
    125
  ],
  [
    new Errors.Unavailable({ target: "containerd", problem: "it is restarting" }),
    "fsb-ctl: containerd is unavailable: it is restarting\n",
    125
  ],
  [new Errors.Internal({ problem: "see\nthe \u001b[31mlog" }), "fsb-ctl: the server failed: see; the ?[31mlog\n", 125]
]

describe("Failure", () => {
  for (const [failure, said, code] of cases) {
    it(`${failure._tag}: ${JSON.stringify(said)}`, () => {
      assert.strictEqual(Failure.describe(failure), said)
      assert.strictEqual(Failure.exitCode(failure), code)
    })
  }
})
