/**
 * The real kubectl against the server: what a user types and what comes back.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import type { JsonObject } from "@fast-sandbox/local/apiserver/Json"
import * as Kubectl from "@fast-sandbox/testkit/Kubectl"
import { DateTime, Effect, Fiber, FileSystem, Layer } from "effect"
import { freshNamespace, TestServer } from "./TestServer.ts"
import { group, widget, widgetDefinition } from "./WidgetDefinition.ts"

const kubectl = Effect.fnUntraced(function*(args: string, input?: string) {
  const { kubeconfigPath } = yield* TestServer
  const words = args.match(/'[^']*'|\S+/g)?.map((word) => word.replaceAll("'", "")) ?? []
  return yield* Kubectl.run(kubeconfigPath, words, input)
})

/** Runs kubectl and expects it to succeed; gives what it printed. */
const ok = Effect.fnUntraced(function*(args: string, input?: string) {
  const { code, stderr, stdout } = yield* kubectl(args, input)
  assert.strictEqual(code, 0, `kubectl ${args}\n${stdout}${stderr}`)
  return stdout
})

const columns = (line: string | undefined): ReadonlyArray<string> => line?.trim().split(/ {2,}/) ?? []

const manifest = (spec: JsonObject): string => JSON.stringify(widget("a", spec, "kuapplies"))

const define = Effect.fnUntraced(function*(plural: string) {
  yield* ok("create -f -", JSON.stringify(widgetDefinition(plural)))
  yield* ok(`wait --for=condition=Established crd/${plural}.${group} --timeout=10s`)
  return yield* freshNamespace(plural)
})

describe("kubectl", () => {
  layer(Layer.mergeAll(TestServer.layer, NodeServices.layer), { excludeTestServices: true, timeout: 30_000 })((it) => {
    it.effect("sees the server and its resources", () =>
      Effect.gen(function*() {
        assert.include(yield* ok("version"), "Server Version: v1.35.0")
        const resources = yield* ok("api-resources")
        assert.match(resources, /pods\s+po\s+v1\s+true\s+Pod/)
        assert.match(resources, /leases\s+coordination.k8s.io\/v1\s+true\s+Lease/)
        assert.include(yield* ok("api-versions"), "apiextensions.k8s.io/v1")
        assert.match(yield* ok("get namespaces"), /default\s+Active/)
        assert.strictEqual((yield* ok("auth can-i create pods")).trim(), "yes")
        assert.include(yield* ok("cluster-info"), "is running at")
      }))

    it.effect("creates, shows, labels, annotates, patches and deletes built-in kinds", () =>
      Effect.gen(function*() {
        const namespace = yield* freshNamespace("typed")
        const n = `-n ${namespace}`
        yield* ok(`create configmap cm --from-literal=a=b ${n}`)
        yield* ok(`create secret generic s --from-literal=a=b ${n}`)
        yield* ok(`create serviceaccount sa ${n}`)
        yield* ok(`create service clusterip svc --tcp=80:8080 ${n}`)
        yield* ok(`run p --image=busybox ${n}`)
        assert.match(yield* ok(`get configmap,secret,sa,svc,pods ${n}`), /pod\/p\s+0\/1\s+Pending/)
        assert.strictEqual(yield* ok(`get configmap cm ${n} -o jsonpath={.data.a}`), "b")
        yield* ok(`label pod p tier=one ${n}`)
        assert.strictEqual(yield* ok(`get pods -l tier=one -o name ${n}`), "pod/p\n")
        yield* ok(`annotate pod p note=hi ${n}`)
        yield* ok(`patch pod p ${n} -p '{"spec":{"containers":[{"name":"p","image":"alpine"}]}}'`)
        assert.strictEqual(yield* ok(`get pod p ${n} -o jsonpath={.spec.containers[0].image}`), "alpine")
        yield* ok(`patch configmap cm ${n} --type=json -p '[{"op":"add","path":"/data/c","value":"d"}]'`)
        assert.include(yield* ok(`describe configmap cm ${n}`), "c:\n----\nd")
        assert.include(yield* ok(`describe pod p ${n}`), "Image:        alpine")
        assert.strictEqual((yield* ok(`get pods ${n} --field-selector status.phase=Pending -o name`)).trim(), "pod/p")
        yield* ok(`delete pod p ${n} --wait`)
        assert.include((yield* kubectl(`get pod p ${n}`)).stderr, "Error from server (NotFound): pods \"p\" not found")
        yield* ok(`delete namespace ${namespace} --timeout=20s`)
      }))

    it.effect("gives service accounts roles and tokens, which are what they may do", () =>
      Effect.gen(function*() {
        const namespace = yield* freshNamespace("roles")
        const n = `-n ${namespace}`
        yield* ok(`create serviceaccount robot ${n}`)
        yield* ok(`create role viewer --verb=get,list --resource=configmaps ${n}`)
        yield* ok(`create rolebinding robot --role=viewer --serviceaccount=${namespace}:robot ${n}`)
        yield* ok(`create clusterrole nodes-${namespace} --verb=list --resource=nodes`)
        yield* ok(
          `create clusterrolebinding ${namespace} --clusterrole=nodes-${namespace} --serviceaccount=${namespace}:robot`
        )
        const token = (yield* ok(`create token robot --duration=10m ${n}`)).trim()
        const { kubeconfigPath } = yield* TestServer
        const own = `${kubeconfigPath}.robot`
        const files = yield* FileSystem.FileSystem
        const config = JSON.parse(yield* files.readFileString(kubeconfigPath))
        yield* files.writeFileString(
          own,
          JSON.stringify({ ...config, users: [{ name: "fast-sandbox", user: { token } }] })
        )
        const asRobot = (...args: ReadonlyArray<string>) => Kubectl.run(own, [...args, "-n", namespace])
        assert.strictEqual((yield* asRobot("auth", "can-i", "list", "configmaps")).stdout.trim(), "yes")
        assert.strictEqual((yield* asRobot("auth", "can-i", "delete", "configmaps")).stdout.trim(), "no")
        assert.strictEqual((yield* asRobot("get", "configmaps")).code, 0)
        assert.strictEqual((yield* asRobot("get", "nodes")).code, 0)
        assert.include((yield* asRobot("get", "secrets")).stderr, "Error from server (Forbidden)")
        assert.include((yield* asRobot("auth", "whoami")).stdout, `system:serviceaccount:${namespace}:robot`)
        yield* ok(`delete clusterrolebinding ${namespace}`)
        yield* ok(`delete clusterrole nodes-${namespace}`)
        assert.strictEqual((yield* asRobot("get", "nodes")).code, 1)
      }))

    it.effect("applies as client and as server, and sees conflicts", () =>
      Effect.gen(function*() {
        const namespace = yield* define("kuapplies")
        const n = `-n ${namespace}`
        assert.include(
          yield* ok(`apply ${n} -f -`, manifest({ image: "x", replicas: 2, labels: { a: "1", b: "2" } })),
          "created"
        )
        assert.include(
          yield* ok(`apply ${n} -f -`, manifest({ image: "x", replicas: 2, labels: { a: "1", b: "2" } })),
          "unchanged"
        )
        assert.include(
          yield* ok(`apply ${n} -f -`, manifest({ image: "x", replicas: 3, labels: { a: "1" } })),
          "configured"
        )
        assert.strictEqual(yield* ok(`get kuapplies a ${n} -o jsonpath={.spec.labels}`), "{\"a\":\"1\"}")
        const refused = yield* kubectl(`apply ${n} -f -`, manifest({ image: "x", nonsense: 1 }))
        assert.strictEqual(refused.code, 1)
        assert.include(refused.stderr, "unknown field \"spec.nonsense\"")
        const other = JSON.stringify(widget("b", { image: "x", replicas: 2 }, "kuapplies"))
        assert.include(yield* ok(`apply --server-side --field-manager=one ${n} -f -`, other), "serverside-applied")
        const more = JSON.stringify(widget("b", { image: "x", replicas: 4 }, "kuapplies"))
        const conflict = yield* kubectl(`apply --server-side --field-manager=two ${n} -f -`, more)
        assert.include(conflict.stderr, "conflict with \"one\": .spec.replicas")
        yield* ok(`apply --server-side --field-manager=two --force-conflicts ${n} -f -`, more)
        assert.strictEqual(yield* ok(`get kuapplies b ${n} -o jsonpath={.spec.replicas}`), "4")
        assert.include(yield* ok(`diff --server-side --field-manager=two --force-conflicts ${n} -f -`, more), "")
        yield* ok(
          `apply --server-side ${n} -f -`,
          JSON.stringify({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "c" }, data: { k: "v" } })
        )
        yield* ok(
          `replace ${n} -f -`,
          JSON.stringify({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "c" }, data: { k: "w" } })
        )
        assert.strictEqual(yield* ok(`get cm c ${n} -o jsonpath={.data.k}`), "w")
      }))

    it.effect("prints the definition's columns, explains and scales", () =>
      Effect.gen(function*() {
        const namespace = yield* define("kucolumns")
        const n = `-n ${namespace}`
        yield* ok(`create ${n} -f -`, JSON.stringify(widget("a", { image: "x", replicas: 4 }, "kucolumns")))
        const [header, row] = (yield* ok(`get kucolumns ${n}`)).split("\n")
        assert.deepStrictEqual(columns(header), ["NAME", "PHASE", "REPLICAS", "AGE"])
        assert.deepStrictEqual(row?.trim().split(/\s+/).slice(0, 2), ["a", "4"])
        assert.deepStrictEqual(columns((yield* ok(`get kucx ${n} -o wide`)).split("\n")[0]), [
          "NAME",
          "PHASE",
          "IMAGE",
          "REPLICAS",
          "AGE"
        ])
        assert.include(yield* ok("explain kucolumns.spec.image"), "What to run.")
        assert.include(yield* ok("explain pod.spec.containers --recursive"), "imagePullPolicy")
        yield* ok(`scale kucolumns/a --replicas=7 ${n}`)
        assert.strictEqual(yield* ok(`get kucolumns a ${n} -o jsonpath={.spec.replicas}`), "7")
        assert.include(yield* ok(`describe kucolumns a ${n}`), "Replicas:")
        assert.include(
          yield* ok(`get kucolumns ${n} -o custom-columns=N:.metadata.name,R:.spec.replicas`),
          "N     R\na     7\n"
        )
        yield* ok(`patch kucolumns a ${n} --type=merge --subresource=status -p '{"status":{"phase":"Running"}}'`)
        yield* ok(`wait kucolumns/a ${n} --for=jsonpath={.status.phase}=Running --timeout=5s`)
      }))

    it.effect("watches and waits", () =>
      Effect.gen(function*() {
        const namespace = yield* freshNamespace("kuwatch")
        const n = `-n ${namespace}`
        yield* ok(`create configmap cm ${n}`)
        const waiting = yield* ok(`wait --for=delete configmap/cm --timeout=20s ${n}`).pipe(Effect.forkChild)
        const watching = yield* kubectl(`get configmaps ${n} -w --request-timeout=3s --output-watch-events`).pipe(
          Effect.forkChild
        )
        yield* Effect.sleep("500 millis")
        yield* ok(`delete configmap cm ${n}`)
        assert.include(yield* Fiber.join(waiting), "condition met")
        const { stdout } = yield* Fiber.join(watching)
        assert.match(stdout, /ADDED\s+cm/)
        assert.match(stdout, /DELETED\s+cm/)
      }))

    it.effect("shows events of an object", () =>
      Effect.gen(function*() {
        const namespace = yield* freshNamespace("kuevents")
        const n = `-n ${namespace}`
        yield* ok(`run p --image=busybox ${n}`)
        const uid = yield* ok(`get pod p ${n} -o jsonpath={.metadata.uid}`)
        const now = DateTime.formatIso(DateTime.startOf(yield* DateTime.now, "second"))
        yield* ok(
          `create ${n} -f -`,
          JSON.stringify({
            apiVersion: "v1",
            kind: "Event",
            metadata: { name: "p.1" },
            involvedObject: { apiVersion: "v1", kind: "Pod", name: "p", namespace, uid },
            reason: "Started",
            message: "it runs",
            type: "Normal",
            source: { component: "agent" },
            firstTimestamp: now,
            lastTimestamp: now,
            count: 1
          })
        )
        assert.match(yield* ok(`get events ${n}`), /Normal\s+Started\s+pod\/p\s+it runs/)
        assert.match(yield* ok(`events ${n} --for pod/p`), /Started/)
        assert.match(yield* ok(`describe pod p ${n}`), /Normal\s+Started\s+\S+\s+agent\s+it runs/)
      }))

    it.effect("deletes a definition with everything in it", () =>
      Effect.gen(function*() {
        const namespace = yield* define("kudooms")
        yield* ok(`create -n ${namespace} -f -`, JSON.stringify(widget("a", { image: "x" }, "kudooms")))
        yield* ok(`delete crd kudooms.${group} --timeout=20s`)
        const { stderr } = yield* kubectl(`get kudooms -n ${namespace}`)
        assert.match(stderr, /the server (could not find|doesn't have)/)
      }))
  })
})
