/**
 * What the end-to-end tests of one file share: a stack of their own, and the client library connected to it.
 */
import { NodeServices } from "@effect/platform-node"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Kubectl from "@fast-sandbox/testkit/Kubectl"
import { Effect, Layer } from "effect"
import * as LocalStack from "./LocalStack.ts"

const client = Layer.unwrap(
  Effect.map(LocalStack.LocalStack, ({ home }) => Sandboxes.layer({ endpoint: `unix:${home}/run/fastpath.sock` }))
)

/** The stack, with a TCP port where one is named, and its client on the unix socket. */
export const layerWith = (options: { readonly listen?: string | undefined }) =>
  client.pipe(
    Layer.provideMerge(Layer.unwrap(Effect.map(Kubectl.path, (path) => LocalStack.layer(path, options)))),
    Layer.provideMerge(NodeServices.layer)
  )

/** The stack and its client. */
export const layer = layerWith({})

/** Options of `layer` in a test file: a stack starts in seconds, and what it does takes real time. */
export const options = { timeout: 120_000, excludeTestServices: true } as const
