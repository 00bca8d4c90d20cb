import { assert, layer } from "@effect/vitest"
import { ConfigMap, Namespace, Pod, Secret } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { KubeError, KubeErrorReason } from "@fast-sandbox/kube/KubeError"
import * as LeaderElection from "@fast-sandbox/kube/LeaderElection"
import * as Reflector from "@fast-sandbox/kube/Reflector"
import { Deferred, Effect, Fiber, Option, Stream } from "effect"
import { Contract, layer as contractLayer, until } from "./Contract.ts"
import { Widget } from "./Widget.ts"

const reason = <A, R>(effect: Effect.Effect<A, KubeError, R>): Effect.Effect<KubeErrorReason["_tag"], A, R> =>
  Effect.map(Effect.flip(effect), (error) => error.reason._tag)

const world = Effect.gen(function*() {
  const client = yield* KubeClient
  const { namespace } = yield* Contract
  return { client, namespace }
})

layer(contractLayer, { excludeTestServices: true, timeout: "90 seconds" })("the Kubernetes API", (it) => {
  it.effect("creates, reads, replaces, patches and deletes", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      const created = yield* client.create(ConfigMap, { metadata: { name: "crud", namespace }, data: { a: "1" } })
      assert.isNotEmpty(created.metadata.uid)
      assert.isNotEmpty(created.metadata.resourceVersion)
      assert.match(created.metadata.creationTimestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
      assert.strictEqual(
        yield* reason(client.create(ConfigMap, { metadata: { name: "crud", namespace } })),
        "AlreadyExists"
      )
      const ref = { name: "crud", namespace }
      assert.deepStrictEqual((yield* client.get(ConfigMap, ref)).data, { a: "1" })
      const replaced = yield* client.update(ConfigMap, { ...created, data: { b: "2" } })
      assert.deepStrictEqual(replaced.data, { b: "2" })
      assert.notStrictEqual(replaced.metadata.resourceVersion, created.metadata.resourceVersion)
      assert.strictEqual(replaced.metadata.uid, created.metadata.uid)
      const same = yield* client.update(ConfigMap, replaced)
      assert.strictEqual(same.metadata.resourceVersion, replaced.metadata.resourceVersion)
      const merged = yield* client.patch(ConfigMap, ref, { type: "merge", body: { data: { b: null, c: "3" } } })
      assert.deepStrictEqual(merged.data, { c: "3" })
      const operated = yield* client.patch(ConfigMap, ref, {
        type: "json",
        body: [{ op: "test", path: "/data/c", value: "3" }, { op: "add", path: "/data/d", value: "4" }]
      })
      assert.deepStrictEqual(operated.data, { c: "3", d: "4" })
      assert.strictEqual(
        yield* reason(client.patch(ConfigMap, ref, {
          type: "json",
          body: [{ op: "test", path: "/data/c", value: "no" }]
        })),
        "Invalid"
      )
      yield* client.delete(ConfigMap, ref)
      assert.strictEqual(yield* reason(client.get(ConfigMap, ref)), "NotFound")
      assert.strictEqual(yield* reason(client.delete(ConfigMap, ref)), "NotFound")
    }))

  it.effect("stores nothing on a dry run", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      yield* client.create(ConfigMap, { metadata: { name: "dry", namespace } }, { dryRun: true })
      assert.strictEqual(yield* reason(client.get(ConfigMap, { name: "dry", namespace })), "NotFound")
    }))

  it.effect("makes up names", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      const make = client.create(ConfigMap, { metadata: { generateName: "made-", namespace } })
      const [one, two] = yield* Effect.all([make, make])
      assert.match(one.metadata.name, /^made-[a-z0-9]{5}$/)
      assert.notStrictEqual(one.metadata.name, two.metadata.name)
    }))

  it.effect("merges the lists of built-in kinds by their keys", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      const pod = yield* client.create(Pod, {
        metadata: { name: "strategic", namespace },
        spec: { nodeName: "nowhere", containers: [{ name: "a", image: "a" }, { name: "b", image: "b" }] }
      })
      const patched = yield* client.patch(Pod, pod.metadata, {
        type: "strategic",
        body: { spec: { containers: [{ name: "b", image: "c" }] } }
      })
      assert.deepStrictEqual(patched.spec.containers.map(({ image, name }) => [name, image]), [["a", "a"], ["b", "c"]])
      yield* client.delete(Pod, pod.metadata, { gracePeriodSeconds: 0 })
    }))

  it.effect("refuses stale writes and stale deletes", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      const first = yield* client.create(ConfigMap, { metadata: { name: "stale", namespace } })
      yield* client.update(ConfigMap, { ...first, data: { a: "1" } })
      assert.strictEqual(yield* reason(client.update(ConfigMap, { ...first, data: { a: "2" } })), "Conflict")
      assert.strictEqual(
        yield* reason(client.patch(ConfigMap, first.metadata, {
          type: "merge",
          body: { metadata: { resourceVersion: first.metadata.resourceVersion }, data: { a: "2" } }
        })),
        "Conflict"
      )
      assert.strictEqual(
        yield* reason(client.delete(ConfigMap, first.metadata, { preconditions: { uid: "another" } })),
        "Conflict"
      )
      assert.strictEqual(
        yield* reason(client.delete(ConfigMap, first.metadata, {
          preconditions: { resourceVersion: first.metadata.resourceVersion }
        })),
        "Conflict"
      )
      yield* client.delete(ConfigMap, first.metadata, { preconditions: { uid: first.metadata.uid } })
    }))

  it.effect("exactly one of many concurrent writers of one version wins", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      const start = yield* client.create(ConfigMap, { metadata: { name: "race", namespace } })
      const results = yield* Effect.forEach(
        Array.from({ length: 16 }, (_, at) => at),
        (at) => Effect.result(client.update(ConfigMap, { ...start, data: { winner: String(at) } })),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(results.filter((result) => result._tag === "Success").length, 1)
    }))

  it.effect("selects by labels and fields, and pages", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      for (const [name, app] of [["s1", "x"], ["s2", "x"], ["s3", "y"], ["s4", undefined]] as const) {
        yield* client.create(Secret, {
          metadata: { name, namespace, ...(app === undefined ? {} : { labels: { app } }) },
          stringData: { key: "value" }
        })
      }
      const names = (selection: { readonly labelSelector?: string; readonly fieldSelector?: string }) =>
        Effect.map(
          client.list(Secret, { namespace, ...selection }),
          (page) => page.items.map((item) => item.metadata.name).filter((name) => /^s\d$/.test(name))
        )
      assert.deepStrictEqual(yield* names({ labelSelector: "app=x" }), ["s1", "s2"])
      assert.deepStrictEqual(yield* names({ labelSelector: "app!=x" }), ["s3", "s4"])
      assert.deepStrictEqual(yield* names({ labelSelector: "app in (x, y),app notin (y)" }), ["s1", "s2"])
      assert.deepStrictEqual(yield* names({ labelSelector: "!app" }), ["s4"])
      assert.deepStrictEqual(yield* names({ labelSelector: "app" }), ["s1", "s2", "s3"])
      assert.deepStrictEqual(yield* names({ fieldSelector: "metadata.name=s3" }), ["s3"])
      assert.strictEqual(
        yield* reason(client.list(Secret, { namespace, fieldSelector: "spec.nothing=1" })),
        "BadRequest"
      )
      const secret = yield* client.get(Secret, { name: "s1", namespace })
      assert.deepStrictEqual(secret.data, { key: Buffer.from("value").toString("base64") })
      const paged: Array<string> = []
      let next: string | undefined
      do {
        const page = yield* client.list(Secret, { namespace, limit: 2, continue: next, labelSelector: "app" })
        assert.isAtMost(page.items.length, 2)
        paged.push(...page.items.map((item) => item.metadata.name))
        next = page.continue
      } while (next !== undefined)
      assert.deepStrictEqual(paged, ["s1", "s2", "s3"])
      yield* client.deleteCollection(Secret, { namespace, labelSelector: "app=x" })
      assert.deepStrictEqual(yield* names({}), ["s3", "s4"])
    }))

  it.effect("checks custom resources by their schema and rules, fills in defaults, prunes", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      const make = (name: string, spec: Widget["spec"]) =>
        client.create(Widget, { metadata: { name, namespace }, spec })
      const widget = yield* make("fine", { color: "red", origin: "here" })
      assert.strictEqual(widget.spec.size, 3)
      assert.strictEqual(widget.metadata.generation, 1)
      const invalid = yield* Effect.flip(make("bad", { color: "red", size: 10 }))
      assert.strictEqual(invalid.reason._tag, "Invalid")
      if (invalid.reason._tag === "Invalid") {
        assert.deepStrictEqual(invalid.reason.causes.map(({ field }) => field), ["spec.size"])
      }
      assert.strictEqual(yield* reason(make("bad", { color: "" })), "Invalid")
      assert.strictEqual(yield* reason(make("bad", { color: "red", tags: ["a", "a"] })), "Invalid")
      const moved = yield* Effect.flip(client.update(Widget, { ...widget, spec: { ...widget.spec, origin: "there" } }))
      assert.strictEqual(moved.reason._tag, "Invalid")
      assert.include(moved.message, "origin can't be changed")
      const pruned = yield* client.patch(Widget, widget.metadata, {
        type: "merge",
        body: { spec: { size: 4, unknown: true } }
      })
      assert.isFalse("unknown" in pruned.spec)
      assert.strictEqual(pruned.metadata.generation, 2)
      assert.strictEqual(
        yield* reason(client.patch(Widget, widget.metadata, { type: "strategic", body: { spec: { size: 5 } } })),
        "BadRequest"
      )
    }))

  it.effect("keeps status and spec apart", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      const created = yield* client.create(Widget, {
        metadata: { name: "status", namespace },
        spec: { color: "red" },
        status: { phase: "Forged" }
      })
      assert.isUndefined(created.status)
      const reported = yield* client.updateStatus(Widget, {
        ...created,
        spec: { color: "blue" },
        status: { phase: "Ready" }
      })
      assert.strictEqual(reported.spec.color, "red")
      assert.strictEqual(reported.status?.phase, "Ready")
      assert.strictEqual(reported.metadata.generation, created.metadata.generation)
      const changed = yield* client.update(Widget, {
        ...reported,
        spec: { ...reported.spec, color: "blue" },
        status: { phase: "Forged" }
      })
      assert.strictEqual(changed.spec.color, "blue")
      assert.strictEqual(changed.status?.phase, "Ready")
      const patched = yield* client.patchStatus(Widget, created.metadata, {
        type: "merge",
        body: { status: { phase: "Done" } }
      })
      assert.strictEqual(patched.status?.phase, "Done")
      assert.strictEqual((yield* client.getStatus(Widget, created.metadata)).status?.phase, "Done")
      assert.strictEqual(yield* reason(client.updateStatus(Widget, created)), "Conflict")
    }))

  it.effect("scales", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      const widget = yield* client.create(Widget, {
        metadata: { name: "scale", namespace },
        spec: { color: "red", replicas: 2 }
      })
      yield* client.patchStatus(Widget, widget.metadata, {
        type: "merge",
        body: { status: { replicas: 1, selector: "a=b" } }
      })
      const scale = yield* client.getScale(Widget, widget.metadata)
      assert.strictEqual(scale.spec?.replicas, 2)
      assert.deepStrictEqual(scale.status, { replicas: 1, selector: "a=b" })
      yield* client.setScale(Widget, widget.metadata, 5)
      assert.strictEqual((yield* client.get(Widget, widget.metadata)).spec.replicas, 5)
    }))

  it.effect("applies: creates, merges, owns, conflicts, forces, removes", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      const metadata = { name: "applied", namespace }
      const ours = { fieldManager: "ours" }
      const theirs = { fieldManager: "theirs" }
      yield* client.apply(Widget, { metadata, spec: { color: "red", size: 1 } }, ours)
      const both = yield* client.apply(Widget, { metadata, spec: { color: "red", replicas: 2 } }, theirs)
      assert.deepInclude(both.spec, { color: "red", size: 1, replicas: 2 })
      assert.strictEqual(
        yield* reason(client.apply(Widget, { metadata, spec: { color: "red", size: 2 } }, theirs)),
        "Conflict"
      )
      const forced = yield* client.apply(Widget, { metadata, spec: { color: "red", size: 2 } }, {
        ...theirs,
        force: true
      })
      assert.strictEqual(forced.spec.size, 2)
      // What a manager no longer declares is removed if nobody else declares it.
      assert.isUndefined(forced.spec.replicas)
      const again = yield* client.apply(Widget, { metadata, spec: { color: "red", size: 2 } }, theirs)
      assert.strictEqual(again.metadata.resourceVersion, forced.metadata.resourceVersion)
      const status = yield* client.applyStatus(Widget, { metadata, status: { phase: "Ready" } }, ours)
      assert.strictEqual(status.status?.phase, "Ready")
    }))

  it.effect("keeps an object until its finalizers are gone", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      const ref = { name: "held", namespace }
      yield* client.create(Widget, {
        metadata: { ...ref, finalizers: ["contract.fast.io/hold"] },
        spec: { color: "red" }
      })
      yield* client.delete(Widget, ref)
      const terminating = yield* client.get(Widget, ref)
      assert.isString(terminating.metadata.deletionTimestamp)
      yield* client.delete(Widget, ref)
      const late = yield* Effect.flip(client.patch(Widget, ref, {
        type: "merge",
        body: { metadata: { finalizers: ["contract.fast.io/hold", "contract.fast.io/more"] } }
      }))
      assert.oneOf(late.reason._tag, ["Invalid", "Forbidden"])
      yield* client.patch(Widget, ref, { type: "merge", body: { metadata: { finalizers: null } } })
      assert.strictEqual(yield* reason(client.get(Widget, ref)), "NotFound")
    }))

  it.effect("watches from a version on, in order, without gap or repetition", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      const before = yield* client.list(Widget, { namespace })
      const selection = { namespace, labelSelector: "watch=yes" }
      const make = (name: string) =>
        client.create(Widget, { metadata: { name, namespace, labels: { watch: "yes" } }, spec: { color: "red" } })
      const one = yield* make("w1")
      yield* client.patch(Widget, one.metadata, { type: "merge", body: { spec: { color: "blue" } } })
      yield* make("w2")
      yield* client.delete(Widget, one.metadata)
      const objects = (from: string, count: number) =>
        client.watch(Widget, { ...selection, resourceVersion: from, timeout: "30 seconds" }).pipe(
          Stream.filter((event) => event._tag !== "Bookmark"),
          Stream.take(count),
          Stream.runCollect
        )
      const events = yield* objects(before.resourceVersion, 4)
      assert.deepStrictEqual(events.map((event) => `${event._tag} ${event.object.metadata.name}`), [
        "Added w1",
        "Modified w1",
        "Added w2",
        "Deleted w1"
      ])
      const second = events[1]?.object.metadata.resourceVersion ?? ""
      const rest = yield* objects(second, 2)
      assert.deepStrictEqual(rest, events.slice(2))
      const live = yield* Effect.forkChild(objects(events[3]?.object.metadata.resourceVersion ?? "", 1))
      yield* client.patch(Widget, { name: "w2", namespace }, {
        type: "merge",
        body: { metadata: { labels: { watch: "no" } } }
      })
      // Leaving the selection is a deletion to those who watch it.
      assert.deepStrictEqual((yield* Fiber.join(live)).map((event) => event._tag), ["Deleted"])
    }))

  it.effect("ends a watch in time, and says when a version can't be served", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      const { resourceVersion } = yield* client.list(Widget, { namespace })
      yield* client.watch(Widget, { namespace, resourceVersion, timeout: "1 seconds" }).pipe(Stream.runDrain)
      const error = yield* Effect.flip(
        Stream.runDrain(client.watch(Widget, { namespace, resourceVersion: "garbage", timeout: "1 seconds" }))
      )
      assert.oneOf(error.reason._tag, ["BadRequest", "Invalid"])
    }))

  it.effect("a reflector keeps up with many writers", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      const store = yield* Reflector.make(Widget, {
        namespace,
        labelSelector: "reflect=yes",
        pageSize: 7,
        indices: { color: (widget) => [widget.spec.color] }
      })
      const make = (at: number) =>
        client.create(Widget, {
          metadata: { name: `r${at}`, namespace, labels: { reflect: "yes" } },
          spec: { color: at % 2 === 0 ? "even" : "odd" }
        })
      const numbers = Array.from({ length: 40 }, (_, at) => at)
      yield* Effect.forEach(numbers.slice(0, 20), make, { concurrency: 8, discard: true })
      yield* store.synced
      yield* Effect.forEach(numbers.slice(20), make, { concurrency: 8, discard: true })
      yield* Effect.forEach(
        numbers.filter((at) => at % 4 === 0),
        (at) => client.delete(Widget, { name: `r${at}`, namespace }),
        { concurrency: 8, discard: true }
      )
      const expected = numbers.filter((at) => at % 4 !== 0).map((at) => `r${at}`).toSorted().join()
      yield* until(
        Effect.map(store.list, (all) => all.map(({ metadata }) => metadata.name).join()),
        (names) => names === expected
      )
      assert.strictEqual((yield* store.byIndex("color", "even")).length, 10)
      assert.deepStrictEqual(yield* store.health, { synced: true, problem: Option.none() })
    }))

  it.effect("elects one leader, and the next when it is gone", () =>
    Effect.gen(function*() {
      const { namespace } = yield* world
      const log: Array<string> = []
      const lead = (identity: string) =>
        LeaderElection.run({
          name: "leader",
          namespace,
          identity,
          leaseDuration: "3 seconds",
          renewDeadline: "2 seconds",
          retryPeriod: "200 millis"
        })(Effect.acquireUseRelease(
          Effect.sync(() => log.push(`+${identity}`)),
          () => Effect.never,
          () => Effect.sync(() => log.push(`-${identity}`))
        ))
      const first = yield* Effect.forkChild(lead("a"))
      yield* until(Effect.sync(() => log.length), (length) => length === 1)
      yield* Effect.forkChild(lead("b"))
      yield* Effect.sleep("1 seconds")
      assert.deepStrictEqual(log, ["+a"])
      yield* Fiber.interrupt(first)
      yield* until(Effect.sync(() => log.length), (length) => length === 3)
      assert.deepStrictEqual(log, ["+a", "-a", "+b"])
    }))

  it.effect("empties a namespace that is deleted", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      const name = `${namespace}-gone`
      yield* client.create(Namespace, { metadata: { name } })
      yield* client.create(Widget, { metadata: { name: "w", namespace: name }, spec: { color: "red" } })
      yield* client.delete(Namespace, { name })
      yield* until(
        reason(client.get(Namespace, { name })).pipe(Effect.orElseSucceed(() => "still there" as const)),
        (tag) => tag === "NotFound"
      )
      assert.deepStrictEqual((yield* client.list(Widget, { namespace: name })).items, [])
    }))

  it.effect("interrupting a watch lets the server go", () =>
    Effect.gen(function*() {
      const { client, namespace } = yield* world
      const seen = yield* Deferred.make<void>()
      const fiber = yield* client.watch(ConfigMap, { namespace }).pipe(
        Stream.runForEach(() => Deferred.succeed(seen, undefined)),
        Effect.forkChild
      )
      yield* client.create(ConfigMap, { metadata: { name: "seen", namespace } })
      yield* Deferred.await(seen)
      yield* Fiber.interrupt(fiber)
      yield* client.get(ConfigMap, { name: "seen", namespace })
    }))

  it.effect("names its version and its health", () =>
    Effect.gen(function*() {
      const { client } = yield* world
      assert.property(yield* client.request({ path: "/version" }), "gitVersion")
      assert.strictEqual(yield* client.request({ path: "/readyz" }), "ok")
      assert.strictEqual(yield* reason(client.request({ path: "/apis/nothing.here/v1/things" })), "NotFound")
    }))
})
