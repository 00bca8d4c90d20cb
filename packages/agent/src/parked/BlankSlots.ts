/**
 * Slots without an image: a started container as any parked one, on a root file system with nothing in it, which is
 * exchanged for that of an image when somebody asks for one of which nothing is parked. What takes an OCI runtime its
 * time (processes, namespaces, cgroup, mounts) is done then; a snapshot is left.
 *
 * Where a blank slot can't serve, a container of its own does. What is learned from it is kept: an image whose root is odd
 * takes no more of them, and where the kernel or the agent's rights don't do it, none are made.
 */
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import { RecentSet } from "@fast-sandbox/core/RecentSet"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { AgentConfig } from "../AgentConfig.ts"
import type { PreparedImage } from "../ImageCatalog.ts"
import { SandboxContainer } from "../SandboxContainer.ts"
import { RootExchange, type RootNotExchanged, type Slot, type Step } from "./RootExchange.ts"
import { SlotFiles } from "./SlotFiles.ts"

/** Images that are known not to be served so. Who has more of them pays a millisecond for each forgotten one. */
const maxOdd = 1000

/** Steps whose failure is the image's, unless it is the machine's. */
const imageSteps: ReadonlySet<Step> = new Set(["mounting the root file system", "carrying mounts over"])

/** A slot may have died just now; so many in a row that are not found say that the agent does not see the node's processes. */
const maxMissed = 3

/** Whether the machine can't do it, whatever the image: an old kernel, or rights that the agent lacks. */
const isOfMachine = ({ code, step }: RootNotExchanged): boolean =>
  code === "ENOSYS" || (code === "EPERM" && step !== "carrying mounts over")

/** Measures a step of a create under its name. */
type Measure = (name: "snapshot" | "rootfs") => <A, E>(self: Effect.Effect<A, E>) => Effect.Effect<A, E>

/**
 * - `wanted` is how many should wait now.
 * - `suits` says whether a blank slot may become a sandbox of that image.
 * - `furnish` gives a blank slot the root of an image; false when the slot is of no use any more. The slot's container then
 *   has a snapshot, also when it failed.
 * - `note` tells people whether there are such slots, and why not.
 */
export class BlankSlots extends Context.Service<BlankSlots, {
  readonly wanted: () => number
  readonly suits: (image: PreparedImage) => boolean
  readonly furnish: (slot: Slot, image: PreparedImage, measure: Measure) => Effect.Effect<boolean>
  readonly note: Effect.Effect<string>
}>()("@fast-sandbox/agent/parked/BlankSlots") {
  static readonly layer: Layer.Layer<BlankSlots, never, AgentConfig | RootExchange | SandboxContainer | SlotFiles> =
    Layer.effect(
      BlankSlots,
      Effect.suspend(() => make)
    )
}

const make = Effect.gen(function*() {
  const { blankSlots } = yield* AgentConfig
  const { parking } = yield* SlotFiles
  const roots = yield* RootExchange
  const sandboxes = yield* SandboxContainer
  const odd = new RecentSet<string>(maxOdd)
  let missed = 0
  let problem = parking?.message ?? (roots.isThere ? undefined : "fsb-rootfs is not there")

  const learn = Effect.fnUntraced(function*({ image }: PreparedImage, error: RootNotExchanged | BoundaryError) {
    if (error._tag !== "RootNotExchanged") {
      return yield* Effect.logInfo("an image's root could not be prepared", { image: image.name }, error.message)
    }
    missed = error.step === "finding the slot" ? missed + 1 : 0
    if (isOfMachine(error) || missed === maxMissed) {
      problem = error.message
      return yield* Effect.logWarning("no blank slots are made from now on", error.message)
    }
    if (imageSteps.has(error.step)) {
      odd.add(image.chainId)
    }
    yield* Effect.logInfo("a blank slot could not take an image's root", { image: image.name }, error.message)
  })

  return BlankSlots.of({
    wanted: () => problem === undefined ? blankSlots : 0,
    suits: ({ image }) => !odd.has(image.chainId),
    furnish: Effect.fn("BlankSlots.furnish")((slot, image, measure) =>
      sandboxes.rootOf(slot.id, image).pipe(
        measure("snapshot"),
        Effect.flatMap((mounts) => measure("rootfs")(roots.exchange(slot, mounts))),
        Effect.andThen(Effect.sync(() => {
          missed = 0
          return true
        })),
        Effect.catch((error) => Effect.as(learn(image, error), false))
      )
    ),
    note: Effect.sync(() =>
      problem !== undefined
        ? `blankSlots off: ${problem}`
        : blankSlots === 0
        ? "blankSlots off: none are wanted"
        : `blankSlots on: ${blankSlots}`
    )
  })
})
