/**
 * The images of the nodes: what they hold is known from their agents' views; changes go to one agent of each node,
 * because the agents of a node share its images.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { type BoundaryError, FailedPrecondition, InvalidArgument, NotFound } from "@fast-sandbox/core/Errors"
import * as ImageName from "@fast-sandbox/core/ImageName"
import { defaultNamespace } from "@fast-sandbox/core/Names"
import { key as keyOf } from "@fast-sandbox/core/Sandbox"
import type { Image, ImageProgress as AgentProgress } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type {
  ImageInfoSchema,
  ImageProgressSchema,
  LoadImageRequest
} from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import { Agents, type AgentView } from "../agents/Agents.ts"
import { Registry } from "../registry/Registry.ts"
import * as Audit from "./Audit.ts"

/** An image and the nodes that hold it. */
export type ImageInfo = MessageInitShape<typeof ImageInfoSchema>

/** How far a node is. */
export type ImageProgress = MessageInitShape<typeof ImageProgressSchema>

/** Which nodes: those of a pool, or all when it is empty. An empty namespace is `default`. */
export interface Nodes {
  readonly poolRef: string
  readonly namespace: string
}

/** The images of the nodes. */
export class Images extends Context.Service<Images, {
  list(nodes: Nodes): Effect.Effect<ReadonlyArray<ImageInfo>, BoundaryError>
  pull(image: string, nodes: Nodes): Stream.Stream<ImageProgress, BoundaryError>
  /** The first part carries the header, the others the archive, which every node reads at the slowest one's pace. */
  load(parts: Stream.Stream<LoadImageRequest, BoundaryError>): Stream.Stream<ImageProgress, BoundaryError>
  /** The nodes that held it. */
  remove(image: string, nodes: Nodes): Effect.Effect<ReadonlyArray<string>, BoundaryError>
}>()("@fast-sandbox/controller/fastpath/Images") {
  static get layer(): Layer.Layer<Images, never, Agents | Registry> {
    return Layer.effect(Images, make)
  }
}

/** Nodes that work on one request at once: a registry serves that many pulls without throttling them. */
const concurrency = 16

/** Parts of an archive that a faster node may be ahead of a slower one: a few megabytes of memory. */
const loadAhead = 16

const normalized = (image: string) =>
  ImageName.normalize(image).pipe(
    Effect.mapError(({ problem }) => new InvalidArgument({ field: "image", problem }))
  )

const progressOf = (agent: AgentView) => ({ currentBytes, digest, image, status, totalBytes }: AgentProgress) => ({
  node: agent.node,
  image,
  status,
  currentBytes,
  totalBytes,
  digest
})

const headerOf = ({ part }: LoadImageRequest) =>
  part.case === "header"
    ? Effect.succeed(part.value)
    : Effect.fail(new InvalidArgument({ field: "header", problem: "the first message must carry it" }))

const dataOf = ({ part }: LoadImageRequest) =>
  part.case === "data"
    ? Effect.succeed(part.value)
    : Effect.fail(new InvalidArgument({ field: "data", problem: "every message but the first must carry it" }))

/** Makes the operations. */
export const make: Effect.Effect<Images["Service"], never, Agents | Registry> = Effect.gen(function*() {
  const agents = yield* Agents
  const registry = yield* Registry

  /** One agent that answers for each node. */
  const chosen = Effect.fnUntraced(function*({ namespace: space, poolRef }: Nodes) {
    const namespace = space === "" ? defaultNamespace : space
    if (poolRef !== "" && Option.isNone(yield* registry.usage(namespace, poolRef))) {
      return yield* new NotFound({ kind: "pool", name: keyOf(namespace, poolRef) })
    }
    const byNode = new Map<string, AgentView>()
    for (const agent of yield* agents.list) {
      const isWanted = poolRef === "" || (agent.namespace === namespace && agent.pool === poolRef)
      if (isWanted && agent.connection === "synced" && !byNode.has(agent.node)) {
        byNode.set(agent.node, agent)
      }
    }
    return [...byNode.values()]
  })

  const someone = Effect.fnUntraced(function*(nodes: Nodes) {
    const targets = yield* chosen(nodes)
    const [first, ...others] = targets
    return first === undefined
      ? yield* new FailedPrecondition({
        reason: "NoAgent",
        problem: `no agent ${
          nodes.poolRef === "" ? "" : `of pool ${nodes.poolRef} `
        }answers, so there is no node to work on`
      })
      : [first, ...others] as const
  })

  return Images.of({
    list: Effect.fn("Images.list")(function*(nodes) {
      const images = new Map<string, { readonly image: Image; readonly nodes: Array<string> }>()
      for (const agent of yield* chosen(nodes)) {
        for (const image of agent.images.values()) {
          const key = `${image.name} ${image.digest}`
          const known = images.get(key)
          if (known === undefined) {
            images.set(key, { image, nodes: [agent.node] })
          } else {
            known.nodes.push(agent.node)
          }
        }
      }
      return [...images].toSorted(([left], [right]) => left < right ? -1 : 1).map(([, { image, nodes }]) => ({
        name: image.name,
        digest: image.digest,
        sizeBytes: image.sizeBytes,
        nodes: nodes.toSorted()
      }))
    }),
    pull: (image, nodes) =>
      Stream.unwrap(
        Effect.gen(function*() {
          const name = yield* normalized(image)
          const targets = yield* someone(nodes)
          return Stream.mergeAll(
            targets.map((agent) => Stream.map(agents.pullImage(agent.uid, name), progressOf(agent))),
            { concurrency }
          )
        })
      ).pipe(Audit.session("pull", image)),
    load: (parts) =>
      Stream.unwrap(
        Effect.gen(function*() {
          const [first, rest] = yield* Stream.peel(parts, Sink.head())
          const header = yield* Option.match(first, {
            onNone: () => Effect.fail(new InvalidArgument({ field: "header", problem: "the stream is empty" })),
            onSome: headerOf
          })
          const targets = yield* someone(header)
          const archive = Stream.mapEffect(rest, dataOf)
          const copies = yield* Stream.broadcastN(archive, { n: targets.length, capacity: loadAhead })
          return Stream.mergeAll(
            targets.map((agent, index) =>
              Stream.map(
                agents.loadImage(
                  agent.uid,
                  copies[index] ?? Stream.empty,
                  header.name === "" ? undefined : header.name
                ),
                progressOf(agent)
              )
            ),
            { concurrency: "unbounded" }
          )
        })
      ).pipe(Audit.session("load", "archive")),
    remove: Effect.fn("Images.remove")(function*(image, nodes) {
      const name = yield* normalized(image)
      const targets = yield* someone(nodes)
      const removed = yield* Effect.forEach(targets, ({ node, uid }) =>
        agents.removeImage(uid, name).pipe(
          Effect.as(Option.some(node)),
          Effect.catchTag("NotFound", () => Effect.succeed(Option.none<string>()))
        ), { concurrency })
      const held = removed.flatMap(Option.toArray)
      return held.length === 0 ? yield* new NotFound({ kind: "image", name }) : held.toSorted()
    }, (effect, image) => Audit.mutation("remove", image)(effect))
  })
})
