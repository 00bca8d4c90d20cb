import { assert, describe, it } from "@effect/vitest"
import { EventRecorder } from "@fast-sandbox/kube/EventRecorder"
import { ConfigMap } from "@fast-sandbox/kube/Kinds"
import { Context, Effect, Layer, Schema } from "effect"
import { type Answer, type Asked, configMap, eventually, reply, served, status } from "./ScriptedServer.ts"

const decodeBody = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Record(Schema.String, Schema.Unknown)))
const decodeMeta = Schema.decodeUnknownSync(Schema.Struct({ name: Schema.String, namespace: Schema.String }))

/** Stores events as an API server does. */
const accept: Answer = (asked, response) => {
  const body = decodeBody(asked.body)
  reply(response, 200, {
    ...body,
    metadata: {
      name: "patched",
      ...(typeof body.metadata === "object" ? body.metadata : {}),
      uid: "u",
      resourceVersion: "1",
      creationTimestamp: ""
    }
  })
}

const scopedRecording = (answer: Answer) =>
  Effect.gen(function*() {
    const { context, server } = yield* served(answer)
    const built = yield* Layer.build(
      EventRecorder.layer({ component: "tester", instance: "pod-1" }).pipe(Layer.provide(Layer.succeedContext(context)))
    )
    return { recorder: Context.get(built, EventRecorder), server }
  })

const object = { ...configMap("a", "7") }
const started = { type: "Normal", reason: "Started", message: "it started" } as const

const bodies = (server: { readonly asked: ReadonlyArray<Asked> }) => server.asked.map((asked) => decodeBody(asked.body))

/** So many requests have been made and answered: they are made one after the other, so the next one comes after them. */
const answered = (
  recorder: EventRecorder["Service"],
  server: { readonly asked: ReadonlyArray<Asked> },
  requests: number
) =>
  Effect.gen(function*() {
    yield* eventually(() => server.asked.length >= requests)
    yield* recorder.record(ConfigMap, configMap("next", "9"), started)
    yield* eventually(() => server.asked.length > requests)
    assert.strictEqual(server.asked.length, requests + 1)
    assert.deepInclude(bodies(server)[requests]?.involvedObject, { name: "next" })
  })

describe("EventRecorder", () => {
  it.live("writes what kubectl describe shows", () =>
    Effect.gen(function*() {
      const { recorder, server } = yield* scopedRecording(accept)
      yield* recorder.record(ConfigMap, object, started)
      yield* eventually(() => server.asked.length === 1)
      const [event] = bodies(server)
      assert.strictEqual(server.asked[0]?.url.pathname, "/api/v1/namespaces/default/events")
      assert.match(decodeMeta(event?.metadata).name, /^a\.[0-9a-f]+$/)
      assert.deepInclude(event, {
        apiVersion: "v1",
        kind: "Event",
        type: "Normal",
        reason: "Started",
        message: "it started",
        count: 1,
        reportingComponent: "tester",
        reportingInstance: "pod-1"
      })
      assert.deepStrictEqual(event?.involvedObject, {
        apiVersion: "v1",
        kind: "ConfigMap",
        namespace: "default",
        name: "a",
        uid: "uid-a",
        resourceVersion: "7"
      })
      assert.match(String(event?.firstTimestamp), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
    }))

  it.live("counts what is repeated", () =>
    Effect.gen(function*() {
      const { recorder, server } = yield* scopedRecording(accept)
      yield* recorder.record(ConfigMap, object, started)
      yield* answered(recorder, server, 1)
      yield* recorder.record(ConfigMap, object, started)
      yield* eventually(() => server.asked.length === 3)
      assert.strictEqual(server.asked[2]?.method, "PATCH")
      assert.deepInclude(bodies(server)[2], { count: 2 })
    }))

  it.live("makes an event anew that the server has forgotten", () =>
    Effect.gen(function*() {
      const { recorder, server } = yield* scopedRecording((asked, response) =>
        asked.method === "PATCH" ? reply(response, 404, status(404, "NotFound")) : accept(asked, response)
      )
      yield* recorder.record(ConfigMap, object, started)
      yield* answered(recorder, server, 1)
      yield* recorder.record(ConfigMap, object, started)
      yield* eventually(() => server.asked.length === 4)
      assert.deepStrictEqual(server.asked.map((asked) => asked.method), ["POST", "POST", "PATCH", "POST"])
      assert.deepInclude(bodies(server)[3], { count: 2 })
    }))

  it.live("does not talk about one object without end, but still about others", () =>
    Effect.gen(function*() {
      const { recorder, server } = yield* scopedRecording(accept)
      for (let at = 0; at < 100; at++) {
        yield* recorder.record(ConfigMap, object, { ...started, message: `number ${at}` })
      }
      yield* recorder.record(ConfigMap, configMap("b", "8"), started)
      yield* answered(recorder, server, 26)
    }))

  it.live("never fails and never waits, whatever the API does", () =>
    Effect.gen(function*() {
      const { recorder, server } = yield* scopedRecording((_, response) =>
        reply(response, 403, status(403, "Forbidden"))
      )
      yield* recorder.record(ConfigMap, object, started)
      yield* eventually(() => server.asked.length === 1)
      const silent = yield* scopedRecording(() => {})
      for (let at = 0; at < 5000; at++) {
        yield* silent.recorder.record(ConfigMap, configMap(`o${at}`, "1"), started)
      }
    }))

  it.live("writes what is pending before it ends", () =>
    Effect.gen(function*() {
      const { context, server } = yield* served(accept)
      yield* Effect.gen(function*() {
        const recorder = yield* EventRecorder
        yield* recorder.record(ConfigMap, object, started)
        yield* recorder.record(ConfigMap, configMap("b", "8"), started)
      }).pipe(
        Effect.provide(EventRecorder.layer({ component: "tester" }).pipe(Layer.provide(Layer.succeedContext(context))))
      )
      assert.strictEqual(server.asked.length, 2)
    }))
})
