/**
 * Where a Fast-Path server is: `unix:/absolute/path` or `host:port`.
 */
import { InvalidArgument } from "@fast-sandbox/core/Errors"
import * as Result from "effect/Result"

const PORT_MAX = 65535

/** The last colon separates the port, so that IPv6 addresses in brackets pass. */
const hostPortPattern = /^(\[[0-9a-fA-F:.]+\]|[^\s:/]+):(\d{1,5})$/

const refuse = (problem: string): Result.Result<never, InvalidArgument> =>
  Result.fail(new InvalidArgument({ field: "endpoint", problem }))

/** The address in the form that gRPC takes, or what is wrong with it. */
export const parse = (endpoint: string): Result.Result<string, InvalidArgument> => {
  if (endpoint.startsWith("unix:")) {
    const path = endpoint.slice("unix:".length).replace(/^\/\/(?=\/)/, "")
    return path.startsWith("/")
      ? Result.succeed(`unix:${path}`)
      : refuse(
        `${JSON.stringify(endpoint)} must name an absolute path, such as unix:/var/lib/fast-sandbox/run/fastpath.sock`
      )
  }
  const [, host, port] = hostPortPattern.exec(endpoint) ?? []
  return host === undefined || Number(port) < 1 || Number(port) > PORT_MAX
    ? refuse(`${JSON.stringify(endpoint)} must be unix:/path or host:port, such as 10.0.0.7:9090`)
    : Result.succeed(endpoint)
}
