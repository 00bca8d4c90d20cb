/**
 * One change at a time for each sandbox, in this controller: creates, deletes, updates and the writes behind answers of
 * one name follow each other. Between controllers the Kubernetes API decides.
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as KeyedLock from "./internal/KeyedLock.ts"

/** Locks by `namespace/name`. */
export class SandboxLocks extends Context.Service<SandboxLocks, KeyedLock.KeyedLock>()(
  "@fast-sandbox/controller/fastpath/SandboxLocks"
) {
  static readonly layer: Layer.Layer<SandboxLocks> = Layer.sync(SandboxLocks, KeyedLock.make)
}
