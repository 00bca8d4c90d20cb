/**
 * Server reflection, so that tools such as grpcurl work without .proto files. The answers come from the descriptors in
 * the generated code. Both versions of the protocol are served, because tools in use speak either.
 *
 * Not the @grpc/reflection package: that one reads .proto files at run time, which a bundled program does not have.
 */
import { type DescFile, type DescService, toBinary } from "@bufbuild/protobuf"
import { nestedTypes } from "@bufbuild/protobuf/reflect"
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt"
import * as Stream from "effect/Stream"
import { ServerReflection as ServerReflectionV1 } from "./gen/grpc/reflection/v1/reflection_pb.ts"
import type { ServerReflectionRequest as RequestV1 } from "./gen/grpc/reflection/v1/reflection_pb.ts"
import { ServerReflection as ServerReflectionV1Alpha } from "./gen/grpc/reflection/v1alpha/reflection_pb.ts"
import type { ServerReflectionRequest as RequestV1Alpha } from "./gen/grpc/reflection/v1alpha/reflection_pb.ts"
import { codes } from "./GrpcError.ts"
import * as GrpcService from "./GrpcService.ts"

type Question = RequestV1["messageRequest"] | RequestV1Alpha["messageRequest"]

/** A file and all that it imports, each once, the file first. */
const withImports = (file: DescFile, seen: Set<DescFile> = new Set()): ReadonlySet<DescFile> => {
  if (seen.has(file)) return seen
  seen.add(file)
  for (const dependency of file.dependencies) withImports(dependency, seen)
  return seen
}

const filesAnswer = (file: DescFile) => ({
  case: "fileDescriptorResponse" as const,
  value: {
    fileDescriptorProto: Array.from(withImports(file), ({ proto }) => toBinary(FileDescriptorProtoSchema, proto))
  }
})

const refusal = (code: "NOT_FOUND" | "UNIMPLEMENTED", message: string) => ({
  case: "errorResponse" as const,
  value: { errorCode: codes.indexOf(code), errorMessage: message }
})

const answerFrom = (services: ReadonlyArray<DescService>) => {
  const files = new Map<string, DescFile>()
  const symbols = new Map<string, DescFile>()
  for (const file of services.flatMap((service) => [...withImports(service.file)])) {
    files.set(file.proto.name, file)
    for (const type of nestedTypes(file)) {
      symbols.set(type.typeName, file)
      if (type.kind !== "service") continue
      for (const method of type.methods) symbols.set(`${type.typeName}.${method.name}`, file)
    }
  }
  return (question: Question) => {
    switch (question.case) {
      case "listServices":
        return {
          case: "listServicesResponse" as const,
          value: { service: services.map(({ typeName }) => ({ name: typeName })) }
        }
      case "fileByFilename": {
        const file = files.get(question.value)
        return file === undefined ? refusal("NOT_FOUND", `no file ${question.value}`) : filesAnswer(file)
      }
      case "fileContainingSymbol": {
        const file = symbols.get(question.value)
        return file === undefined ? refusal("NOT_FOUND", `no symbol ${question.value}`) : filesAnswer(file)
      }
      case "fileContainingExtension":
      case "allExtensionNumbersOfType":
        return refusal("NOT_FOUND", "this server's messages have no extensions")
      case undefined:
        return refusal("UNIMPLEMENTED", "the request asks nothing that this server knows")
    }
  }
}

/** The reflection services that describe `services`; add them to what a {@link GrpcServer} serves. */
export const make = (
  services: ReadonlyArray<DescService>
): readonly [GrpcService.GrpcService<never>, GrpcService.GrpcService<never>] => {
  const answer = answerFrom([...services, ServerReflectionV1, ServerReflectionV1Alpha])
  return [
    GrpcService.authenticated(GrpcService.make(ServerReflectionV1, {
      serverReflectionInfo: (requests) =>
        Stream.map(requests, (request) => ({
          validHost: request.host,
          originalRequest: request,
          messageResponse: answer(request.messageRequest)
        }))
    })),
    GrpcService.authenticated(GrpcService.make(ServerReflectionV1Alpha, {
      serverReflectionInfo: (requests) =>
        Stream.map(requests, (request) => ({
          validHost: request.host,
          originalRequest: request,
          messageResponse: answer(request.messageRequest)
        }))
    }))
  ]
}
