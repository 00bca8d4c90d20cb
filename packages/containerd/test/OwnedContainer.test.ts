import { create } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import type { Container } from "@fast-sandbox/containerd/Containers"
import * as OwnedContainer from "@fast-sandbox/containerd/OwnedContainer"
import { anchorLabel } from "@fast-sandbox/containerd/ShimGroups"
import { containerLabels } from "@fast-sandbox/core/Names"
import { InstanceSchema } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { Result } from "effect"

const instance = (resourceUid: string) =>
  create(InstanceSchema, {
    instanceId: "i",
    claim: { namespace: "default", sandboxName: "a", claimUid: "claim", resourceUid }
  })

const container = (
  labels: Readonly<Record<string, string>>,
  extensions: Container["extensions"] = OwnedContainer.instanceExtensions(instance("uid"))
): Container => ({
  id: "i",
  labels,
  image: "",
  runtime: "",
  runtimeOptions: undefined,
  spec: undefined,
  snapshotter: "overlayfs",
  snapshotKey: "i",
  extensions,
  createdAtMillis: 0,
  updatedAtMillis: 0
})

const managed = {
  [containerLabels.managed]: "true",
  [containerLabels.agentUid]: "pod",
  [containerLabels.sandboxName]: "a"
}

describe("OwnedContainer", () => {
  it("reads whose a container is", () => {
    assert.deepInclude(OwnedContainer.read(container(managed)), {
      kind: "instance",
      agentUid: "pod",
      sandboxName: "a",
      binding: { _tag: "Bound", resourceUid: "uid" }
    })
    assert.deepInclude(OwnedContainer.read(container(managed, OwnedContainer.instanceExtensions(instance("")))), {
      binding: { _tag: "Unbound" }
    })
    assert.strictEqual(
      OwnedContainer.read(container({ ...managed, [containerLabels.sandboxName]: "" }))?.kind,
      "parked"
    )
    assert.strictEqual(
      OwnedContainer.read(container({ ...managed, [OwnedContainer.repairLabel]: "true" }))?.kind,
      "repair"
    )
    assert.strictEqual(OwnedContainer.read(container({ ...managed, [anchorLabel]: "0" }))?.kind, "anchor")
  })

  it("never takes a container of the kubelet's for ours, whatever labels its image has", () => {
    assert.isUndefined(OwnedContainer.read(container({})))
    assert.isUndefined(OwnedContainer.read(container({ ...managed, [containerLabels.managed]: "yes" })))
    assert.isUndefined(OwnedContainer.read(container({ ...managed, "io.cri-containerd.kind": "container" })))
    assert.isUndefined(OwnedContainer.read(container({ ...managed, "io.kubernetes.pod.uid": "x" })))
    assert.isUndefined(OwnedContainer.read(container({ [anchorLabel]: "0", "io.kubernetes.pod.uid": "x" })))
  })

  it("says what it can't read", () => {
    const unreadable = (extensions: Container["extensions"]) =>
      OwnedContainer.read(container(managed, extensions))?.binding
    const { [OwnedContainer.instanceExtension]: written } = OwnedContainer.instanceExtensions(instance("uid"))
    assert.strictEqual(unreadable({})?._tag, "Unreadable")
    const bytes = new Uint8Array([255, 255])
    assert.strictEqual(
      unreadable({ [OwnedContainer.instanceExtension]: { typeUrl: written?.typeUrl ?? "", value: bytes } })?._tag,
      "Unreadable"
    )
    assert.strictEqual(
      unreadable({ [OwnedContainer.instanceExtension]: { typeUrl: "another", value: written?.value ?? bytes } })?._tag,
      "Unreadable"
    )
    assert.isTrue(Result.isSuccess(OwnedContainer.instanceOf(container(managed))))
  })
})
