import { assert, describe, it } from "@effect/vitest"
import * as PodCgroups from "@fast-sandbox/containerd/PodCgroups"

const uid = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0"
const inUnit = uid.replaceAll("-", "_")

/** The cgroup of the agent's container, and where its sandboxes belong. */
const examples: ReadonlyArray<readonly [driver: string, own: string, parent: string]> = [
  ["cgroupfs, burstable", `/kubepods/burstable/pod${uid}/9f86d0`, `/kubepods/burstable/pod${uid}/fast-sandbox`],
  ["cgroupfs, guaranteed", `/kubepods/pod${uid}/9f86d0`, `/kubepods/pod${uid}/fast-sandbox`],
  [
    "systemd, besteffort",
    `/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod${inUnit}.slice/cri-containerd-9f86d0.scope`,
    `/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod${inUnit}.slice/fast-sandbox`
  ],
  [
    "systemd, guaranteed, in a node that is a container",
    `/system.slice/docker-1.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod${inUnit}.slice/x.scope`,
    `/system.slice/docker-1.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod${inUnit}.slice/fast-sandbox`
  ],
  ["another Pod's", `/kubepods/pod1${uid.slice(1)}/9f86d0`, "/fast-sandbox"],
  ["a view of its own", "/", "/fast-sandbox"],
  ["a process of the machine", "/user.slice/user-0.slice/session-1.scope", "/fast-sandbox"]
]

describe("PodCgroups", () => {
  it.each(examples)("finds the Pod's: %s", (_, own, parent) => {
    assert.strictEqual(PodCgroups.parentOf("/fast-sandbox", uid, `0::${own}\n`), parent)
    const legacy = `12:cpu,cpuacct:/elsewhere\n9:memory:${own}\n1:name=systemd:/elsewhere\n0::/elsewhere\n`
    assert.strictEqual(PodCgroups.parentOf("/fast-sandbox", uid, legacy), parent)
    assert.isTrue(PodCgroups.owns("/fast-sandbox", `${parent}/8a0e`))
  })

  it("knows the sandboxes of one installation from those of others", () => {
    const nested = `/kubepods/burstable/pod${uid}`
    assert.isTrue(PodCgroups.owns("/fast-sandbox-1", `/fast-sandbox-1/${PodCgroups.nameOf(uid)}/8a0e`))
    for (
      const path of [
        `${nested}/fast-sandbox/8a0e`,
        `${nested}/8a0e`,
        "/fast-sandbox/8a0e",
        "/fast-sandbox-12/8a0e",
        "/other/fast-sandbox-1/8a0e"
      ]
    ) {
      assert.isFalse(PodCgroups.owns("/fast-sandbox-1", path), path)
    }
  })
})
