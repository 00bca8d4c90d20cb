/**
 * The filter of what is executed in a sandbox beside its program. An OCI runtime takes it from its own record of the
 * container, and the record of a parked slot lets through what only init needed (`Orders.ts`). Init closes
 * that for the program before it becomes it; here it is closed in the record, once the slot stands.
 */
import { runtimeState } from "@fast-sandbox/containerd/ShimRuntime"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import type { InitSystemCall } from "./Orders.ts"

/** From include/uapi/linux/{filter,bpf_common,seccomp}.h */
const Code = { load: 0x20, jumpIfEqual: 0x15, give: 0x06 } as const
const offsets = { number: 0, architecture: 4 } as const
const refusal = 0x0005_0000
const EPERM = 1

/** By Node's name of the architecture: its number in include/uapi/linux/audit.h, and those of the calls. */
const numbers: Readonly<
  Record<string, { readonly audit: number; readonly calls: Readonly<Record<InitSystemCall, number>> }>
> = {
  x64: { audit: 0xc000_003e, calls: { umount2: 166, sethostname: 170 } },
  arm64: { audit: 0xc000_00b7, calls: { umount2: 39, sethostname: 161 } }
}

/** One instruction; jumps count the instructions that are left out. */
const instruction = (code: number, value: number, ifTrue = 0, ifFalse = 0): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt16LE(code, 0)
  bytes.writeUInt8(ifTrue, 2)
  bytes.writeUInt8(ifFalse, 3)
  bytes.writeUInt32LE(value, 4)
  return bytes
}

/** `filter`, a program of the kernel's classic BPF, after a refusal of what only init needed. */
export const closed = (filter: Buffer, architecture: string = process.arch): Buffer => {
  const known = Object.hasOwn(numbers, architecture) ? numbers[architecture] : undefined
  // Without a filter there is none to close; for which architectures there is one is told by SeccompProfile.
  return known === undefined ? filter : Buffer.concat([
    instruction(Code.load, offsets.architecture),
    instruction(Code.jumpIfEqual, known.audit, 0, 4),
    instruction(Code.load, offsets.number),
    instruction(Code.jumpIfEqual, known.calls.umount2, 1, 0),
    instruction(Code.jumpIfEqual, known.calls.sethostname, 0, 1),
    instruction(Code.give, refusal | EPERM),
    filter
  ])
}

/** runc's numbers for actions, and what it writes of a call that is let through for everybody. */
const allowedByRunc = /("name":"(?:umount2|sethostname)","action":)4(,"errnoRet":)null/g
const refusedByRunc = `$12$2${EPERM}`

const replace = Effect.fnUntraced(function*(path: string, change: (before: Buffer) => Buffer | string) {
  const files = yield* FileSystem.FileSystem
  const after = change(Buffer.from(yield* files.readFile(path)))
  // Renamed into place: newer runtimes link one compiled filter into the records of many.
  yield* files.writeFile(`${path}.closed`, Buffer.from(after), { mode: 0o600 })
  yield* files.rename(`${path}.closed`, path)
})

/** Closes it in the record that `runtime` has of a slot's container. */
export const close = Effect.fn("ExecFilter.close")(function*(options: {
  readonly runtime: string
  readonly namespace: string
  readonly containerId: string
}): Effect.fn.Return<void, PlatformError.PlatformError, FileSystem.FileSystem> {
  const directory = `${runtimeState}/${options.namespace}/${options.containerId}`
  yield* options.runtime === "crun"
    ? replace(`${directory}/seccomp.bpf`, (before) => closed(before))
    : replace(`${directory}/state.json`, (before) => before.toString().replace(allowedByRunc, refusedByRunc))
})
