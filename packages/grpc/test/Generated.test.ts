import { assert, describe, it } from "@effect/vitest"
import { FastPathService, file_fastpath_v1_fastpath as file } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import { execFile } from "node:child_process"
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url))

/** The tags that existing clients speak, from the contract. */
const fixedFields: Record<string, Record<string, number>> = {
  CreateRequest: {
    image: 1,
    pool_ref: 2,
    exposed_ports: 3,
    command: 4,
    args: 5,
    namespace: 6,
    consistency_mode: 7,
    name: 8,
    envs: 9,
    working_dir: 10
  },
  CreateResponse: { sandbox_id: 1, agent_pod: 2, endpoints: 3, sandbox_name: 4 },
  DeleteRequest: { sandbox_name: 1, namespace: 2 },
  DeleteResponse: { success: 1 },
  GetRequest: { sandbox_name: 1, namespace: 2 },
  ListRequest: { namespace: 1 },
  ListResponse: { items: 1 },
  SandboxInfo: {
    sandbox_id: 1,
    phase: 2,
    agent_pod: 3,
    endpoints: 4,
    created_at: 5,
    image: 6,
    pool_ref: 7,
    sandbox_name: 8
  },
  UpdateRequest: {
    sandbox_name: 1,
    namespace: 2,
    expire_time_seconds: 3,
    reset_revision: 4,
    failure_policy: 5,
    recovery_timeout_seconds: 6,
    labels: 7
  },
  UpdateResponse: { success: 1, message: 2, sandbox: 3 }
}

/** Tags that the contract keeps for what existing clients know. */
const FIRST_FREE_TAG = 20

const fixedEnums: Record<string, Record<string, number>> = {
  ConsistencyMode: { FAST: 0, STRONG: 1 },
  FailurePolicy: { MANUAL: 0, AUTO_RECREATE: 1 }
}

const fixedMethods: Record<string, readonly [input: string, output: string]> = {
  CreateSandbox: ["CreateRequest", "CreateResponse"],
  DeleteSandbox: ["DeleteRequest", "DeleteResponse"],
  UpdateSandbox: ["UpdateRequest", "UpdateResponse"],
  ListSandboxes: ["ListRequest", "ListResponse"],
  GetSandbox: ["GetRequest", "SandboxInfo"]
}

const readTree = async (folder: string): Promise<Record<string, string>> => {
  const names = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith(".ts")).toSorted()
  const texts = await Promise.all(names.map((name) => readFile(join(folder, name), "utf8")))
  return Object.fromEntries(names.map((name, index) => [name, texts[index] ?? ""]))
}

const message = (name: string) => file.messages.find((message) => message.name === name)

describe("generated code", () => {
  it("is what the protos generate", { timeout: 60_000 }, async () => {
    const scratch = await mkdtemp(join(tmpdir(), "fsb-gen-"))
    try {
      // the template's output folder is relative to the one given here
      await promisify(execFile)(path("../../../node_modules/.bin/buf"), ["generate", "-o", join(scratch, "proto")], {
        cwd: path("../../../proto")
      })
      const fresh = await readTree(join(scratch, "packages/grpc/src/gen"))
      const committed = await readTree(path("../src/gen"))
      assert.isNotEmpty(Object.keys(fresh))
      assert.deepStrictEqual(Object.keys(committed), Object.keys(fresh), "run npm run generate")
      for (const [name, text] of Object.entries(fresh)) {
        assert.isTrue(committed[name] === text, `${name} is stale: run npm run generate`)
      }
    } finally {
      await rm(scratch, { recursive: true, force: true })
    }
  })
})

describe("fastpath.v1", () => {
  for (const [name, fields] of Object.entries(fixedFields)) {
    it(`keeps the tags of ${name}`, () => {
      const old = message(name)?.fields.filter(({ number }) => number < FIRST_FREE_TAG)
      assert.deepStrictEqual(Object.fromEntries(old?.map(({ name, number }) => [name, number]) ?? []), fields)
    })
  }

  it("keeps the kinds of fields that clients encode", () => {
    const type = (owner: string, name: string) => {
      const field = message(owner)?.fields.find((field) => field.name === name)
      return [field?.proto.type, field?.fieldKind, field?.oneof?.name].join()
    }
    const [INT64, INT32, STRING] = [3, 5, 9]
    assert.strictEqual(type("CreateRequest", "exposed_ports"), `${INT32},list,`)
    assert.strictEqual(type("CreateRequest", "image"), `${STRING},scalar,`)
    assert.strictEqual(type("SandboxInfo", "created_at"), `${INT64},scalar,`)
    const oneofs = message("UpdateRequest")?.fields.filter(({ oneof }) => oneof !== undefined)
    assert.deepStrictEqual(oneofs?.map(({ number }) => number), [3, 4, 5, 6])
    assert.strictEqual(new Set(oneofs?.map(({ oneof }) => oneof?.name)).size, 1)
  })

  for (const [name, values] of Object.entries(fixedEnums)) {
    it(`keeps the values of ${name}`, () => {
      const known = file.enums.find((type) => type.name === name)?.values
      assert.deepStrictEqual(Object.fromEntries(known?.map(({ name, number }) => [name, number]) ?? []), values)
    })
  }

  it("keeps the methods", () => {
    assert.strictEqual(FastPathService.typeName, "fastpath.v1.FastPathService")
    for (const [name, [input, output]] of Object.entries(fixedMethods)) {
      const method = FastPathService.methods.find((method) => method.name === name)
      assert.deepStrictEqual([method?.input.name, method?.output.name, method?.methodKind], [input, output, "unary"])
    }
  })
})
