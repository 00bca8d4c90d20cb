/**
 * What the end-to-end tests of one file share: a stack of their own, and the client library connected to it.
 */
import { NodeServices } from "@effect/platform-node"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as ContainerdDaemon from "@fast-sandbox/containerd/ContainerdDaemon"
import * as Kubectl from "@fast-sandbox/testkit/Kubectl"
import { Context, Effect, FileSystem, Layer } from "effect"
import * as LocalStack from "./LocalStack.ts"

const client = Layer.unwrap(
  Effect.map(LocalStack.LocalStack, ({ home }) => Sandboxes.layer({ endpoint: `unix:${home}/run/fastpath.sock` }))
)

const stack = (options: Parameters<typeof LocalStack.layer>[1]) =>
  client.pipe(
    Layer.provideMerge(Layer.unwrap(Effect.map(Kubectl.path, (path) => LocalStack.layer(path, options))))
  )

/** The stack, with a TCP port where one is named, and its client on the unix socket. */
export const layerWith = (options: { readonly listen?: string | undefined }) =>
  stack(options).pipe(Layer.provideMerge(NodeServices.layer))

/** A containerd that is not the stack's own. */
export class Daemon extends Context.Service<Daemon, ContainerdDaemon.Daemon>()("@fast-sandbox/cli/test/e2e/Daemon") {}

const daemon = Layer.effect(
  Daemon,
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const directory = yield* files.makeTempDirectoryScoped({ prefix: "fsb-ctd-" })
    return Daemon.of(yield* ContainerdDaemon.scoped({ directory: `${directory}/containerd` }))
  })
)

/** The stack on a containerd that it neither starts nor keeps, as on a machine that has one. */
export const layerOnContainerd = Layer.unwrap(
  Effect.map(Daemon, ({ socket }) => stack({ containerd: socket }))
).pipe(Layer.provideMerge(daemon), Layer.provideMerge(NodeServices.layer))

/** The stack and its client. */
export const layer = layerWith({})

/** Options of `layer` in a test file: a stack starts in seconds, and what it does takes real time. */
export const options = { timeout: 120_000, excludeTestServices: true } as const
