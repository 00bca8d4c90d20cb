/**
 * Runs Node to write a start-up snapshot of fsb-ctl. What is rehearsed meanwhile calls a server that stands here, in
 * another process: one within the snapshot would leave its code there.
 */
import { create, type DescMessage, type DescMethodUnary, type MessageInitShape, toBinary } from "@bufbuild/protobuf"
import { FastPathService } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import * as Grpc from "@grpc/grpc-js"
import { execFile } from "node:child_process"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"

const answer = <I extends DescMessage, O extends DescMessage>(
  server: Grpc.Server,
  method: DescMethodUnary<I, O>,
  response: MessageInitShape<O>
) => {
  const bytes = Buffer.from(toBinary(method.output, create(method.output, response)))
  const handle: Grpc.handleUnaryCall<Buffer, Buffer> = (_, callback) => callback(null, bytes)
  server.register(`/${method.parent.typeName}/${method.name}`, handle, (_) => _, (_) => _, "unary")
}

const listen = async (path: string): Promise<Grpc.Server> => {
  const server = new Grpc.Server()
  const startup = { tier: "parked", steps: [{ name: "claim", millis: 1 }] }
  const { createSandbox, listSandboxes } = FastPathService.method
  answer(server, createSandbox, { sandboxId: "1", agentPod: "agent", sandboxName: "web", startup })
  answer(server, listSandboxes, { items: [{ sandboxId: "1", sandboxName: "web", phase: "Running", image: "alpine" }] })
  await promisify(server.bindAsync.bind(server))(`unix:${path}`, Grpc.ServerCredentials.createInsecure())
  return server
}

/** Runs Node with these arguments; `chunks` is the folder of what it loads. */
export const runSnapshotBuilder = async (
  args: ReadonlyArray<string>,
  { chunks, cwd }: { readonly chunks: string; readonly cwd: string }
): Promise<void> => {
  const directory = await mkdtemp(join(tmpdir(), "fsb-rehearsal-"))
  const socket = join(directory, "fastpath.sock")
  const server = await listen(socket)
  try {
    await promisify(execFile)(process.execPath, args, {
      cwd,
      // neither the user's configuration nor other variables of the build belong into it
      env: { PATH: process.env["PATH"], FSB_BUILD_DIRECTORY: chunks, FSB_REHEARSAL_ENDPOINT: `unix:${socket}` }
    })
  } finally {
    server.forceShutdown()
    await rm(directory, { recursive: true, force: true })
  }
}
