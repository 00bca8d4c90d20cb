/**
 * Where this program sees the root of the file system that containerd lives in: the program's own, unless it runs in a
 * container that shares the node's process ids, which sees it as `/proc/1/root`.
 */
import * as Context from "effect/Context"

/** Put before absolute paths as containerd knows them. Empty where containerd's root is the program's own. */
export const HostRoot = Context.Reference<string>("@fast-sandbox/containerd/HostRoot", { defaultValue: () => "" })
