import { assert, describe, it } from "@effect/vitest"
import { describe as described } from "@fast-sandbox/agent/parked/RootExchange"

const overlay = (lowerdir: string, ...others: ReadonlyArray<string>) => ({
  type: "overlay",
  source: "overlay",
  options: ["index=off", "workdir=/s/9/work", "upperdir=/s/9/fs", `lowerdir=${lowerdir}`, ...others]
})

describe("RootExchange", () => {
  it("names layers from the directory that they have in common", () => {
    assert.deepStrictEqual(described([overlay("/s/12/fs:/s/1/fs", "volatile")]), [
      "/s",
      "source=overlay",
      "index=off",
      "workdir=/s/9/work",
      "upperdir=/s/9/fs",
      "lowerdir=12/fs:1/fs",
      "volatile"
    ])
    assert.deepStrictEqual(described([overlay("/s/1/fs")])?.[0], "/s/1")
    assert.deepStrictEqual(described([overlay("/a:/b")])?.[0], "/")
    assert.include(described([overlay("/a:/b")]) ?? [], "lowerdir=a:b")
  })

  it("does not take what the kernel would cut, nor what is no overlay", () => {
    const layers = (count: number) => Array.from({ length: count }, (_, at) => `/layers/${100 + at}`).join(":")
    assert.isDefined(described([overlay(layers(64))]))
    assert.isUndefined(described([overlay(layers(65))]))
    assert.isUndefined(described([{ type: "bind", source: "/s/9/fs", options: ["rbind", "rw"] }]))
    assert.isUndefined(described([overlay("/a"), overlay("/b")]))
    assert.isUndefined(described([]))
  })
})
