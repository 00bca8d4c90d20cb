/**
 * containerd's content store: blobs by digest. Manifests, configurations and compressed layers of images live here.
 */
import { WriteAction } from "@fast-sandbox/grpc/gen/containerd/content_pb"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { ContainerdClient, named, namedStream } from "./ContainerdClient.ts"
import { ContainerdError, ignoreNotFound, isAlreadyExists } from "./ContainerdError.ts"

/** The largest blob that is read into memory: a manifest, an index or a configuration. Real ones are a few KiB. */
export const maxDocumentBytes = 8 * 1024 * 1024

/** How much of a blob goes into one message; containerd refuses more than 16 MiB. */
const maxChunkBytes = 1024 * 1024

/** The blob is larger than what is read into memory. */
export class BlobTooLarge extends Schema.TaggedError<BlobTooLarge>()("BlobTooLarge", {
  digest: Schema.String,
  limitBytes: Schema.Number
}) {
  override get message(): string {
    return `${this.digest} is larger than ${this.limitBytes} bytes`
  }
}

/** A stored blob. */
export interface Blob {
  readonly digest: string
  readonly sizeBytes: number
}

/** A write that is under way, this program's or another's. `totalBytes` is 0 while unknown. */
export interface Ingest {
  readonly ref: string
  readonly offsetBytes: number
  readonly totalBytes: number
}

/**
 * The blobs of one containerd namespace.
 *
 * - `read` gives a small blob whole.
 * - `write` stores a stream under the lease; with `expected` containerd refuses (FAILED_PRECONDITION) what has another
 *   digest. A blob that is there already is not read. A write that fails leaves nothing.
 * - `label` sets labels, by which containerd's garbage collector learns what a blob refers to.
 */
export class Content extends Context.Service<Content, {
  readonly read: (digest: string) => Effect.Effect<Uint8Array, ContainerdError | BlobTooLarge>
  readonly info: (digest: string) => Effect.Effect<Blob, ContainerdError>
  readonly write: <E, R>(blob: {
    readonly ref: string
    readonly leaseId: string
    readonly expected?: string | undefined
    readonly body: Stream.Stream<Uint8Array, E, R>
  }) => Effect.Effect<Blob, E | ContainerdError, R>
  readonly label: (digest: string, labels: Readonly<Record<string, string>>) => Effect.Effect<void, ContainerdError>
  readonly ingests: Effect.Effect<ReadonlyArray<Ingest>, ContainerdError>
  readonly list: Effect.Effect<ReadonlyArray<Blob>, ContainerdError>
}>()("@fast-sandbox/containerd/Content") {
  static readonly layer: Layer.Layer<Content, never, ContainerdClient> = Layer.effect(
    Content,
    Effect.gen(function*() {
      const { options, raw: { content, leases } } = yield* ContainerdClient

      const read = Effect.fn("Content.read")(function*(digest: string) {
        let size = 0
        const chunks: Array<Uint8Array> = []
        yield* content.read({ digest }, options.call).pipe(
          namedStream("Content.read"),
          Stream.runForEach(({ data }) => {
            size += data.length
            chunks.push(data)
            return size > maxDocumentBytes
              ? Effect.fail(new BlobTooLarge({ digest, limitBytes: maxDocumentBytes }))
              : Effect.void
          })
        )
        return Buffer.concat(chunks)
      })

      const info = Effect.fn("Content.info")((digest: string) =>
        content.info({ digest }, options.call).pipe(
          Effect.map(({ info }) => ({ digest, sizeBytes: Number(info?.size ?? 0n) })),
          named("Content.info")
        )
      )

      const keep = (digest: string, leaseId: string) =>
        leases.addResource({ id: leaseId, resource: { id: digest, type: "content" } }, options.call).pipe(
          named("Leases.addResource")
        )

      const send = <E, R>(blob: {
        readonly ref: string
        readonly leaseId: string
        readonly expected: string
        readonly body: Stream.Stream<Uint8Array, E, R>
      }): Effect.Effect<Blob, E | ContainerdError, R> =>
        Effect.suspend(() => {
          let offset = 0
          const { expected, ref } = blob
          const requests = blob.body.pipe(
            Stream.flatMap((bytes) => Stream.fromIterable(slices(bytes))),
            Stream.map((data) => {
              const request = { action: WriteAction.WRITE, ref, expected, offset: BigInt(offset), data }
              offset += data.length
              return request
            }),
            Stream.concat(Stream.suspend(() =>
              Stream.make({
                action: WriteAction.COMMIT,
                ref,
                expected,
                offset: BigInt(offset),
                total: BigInt(offset)
              })
            )),
            // Keeps the failures of the body apart from those of the call.
            Stream.mapError((error) => ({ body: error }))
          )
          const { metadata } = options.leased(blob.leaseId)
          return content.write(requests, { metadata }).pipe(
            Stream.mapError((error) =>
              "body" in error
                ? error
                : {
                  call: new ContainerdError({ operation: "Content.write", code: error.code, details: error.details })
                }
            ),
            Stream.runFold(() => "", (_, response) => response.digest),
            Effect.mapError((error) => "body" in error ? error.body : error.call),
            Effect.flatMap((digest) =>
              digest === ""
                ? Effect.fail(
                  new ContainerdError({
                    operation: "Content.write",
                    code: "UNAVAILABLE",
                    details: "the stream ended before the blob was stored"
                  })
                )
                : Effect.succeed({ digest, sizeBytes: offset })
            )
          )
        })

      const abort = (ref: string) =>
        content.abort({ ref }, options.call).pipe(
          named("Content.abort"),
          ignoreNotFound,
          Effect.ignore({ log: "Warn" })
        )

      return Content.of({
        read,
        info,
        write: Effect.fn("Content.write")(function*(blob) {
          const expected = blob.expected ?? ""
          return yield* send({ ...blob, expected }).pipe(
            Effect.onError(() => abort(blob.ref)),
            Effect.catchIf(
              (error) => expected !== "" && isAlreadyExists(error),
              () => Effect.andThen(keep(expected, blob.leaseId), info(expected))
            )
          )
        }),
        label: Effect.fn("Content.label")((digest, labels) =>
          content.update({
            info: { digest, labels: { ...labels } },
            updateMask: { paths: Object.keys(labels).map((key) => `labels.${key}`) }
          }, options.call).pipe(Effect.asVoid, named("Content.label"))
        ),
        ingests: content.listStatuses({}, options.call).pipe(
          Effect.map(({ statuses }) =>
            statuses.map(({ offset, ref, total }) => ({
              ref,
              offsetBytes: Number(offset),
              totalBytes: Number(total)
            }))
          ),
          named("Content.ingests")
        ),
        list: content.list({}, options.call).pipe(
          Stream.runCollect,
          Effect.map((pages) =>
            pages.flatMap(({ info }) => info.map(({ digest, size }) => ({ digest, sizeBytes: Number(size) })))
          ),
          named("Content.list")
        )
      })
    })
  )
}

const slices = function*(bytes: Uint8Array): Generator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += maxChunkBytes) {
    yield bytes.subarray(start, start + maxChunkBytes)
  }
}
