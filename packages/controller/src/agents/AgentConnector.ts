/**
 * How a controller comes to talk with an agent: over gRPC, unless somebody who holds the agents in memory says
 * otherwise.
 */
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import { AgentService } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { SessionService } from "@fast-sandbox/grpc/gen/agent/v1/session_pb"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Endpoint } from "./AgentAddress.ts"

const credentialsOf = ({ credentials }: Endpoint): Effect.Effect<GrpcClient.Credentials> =>
  credentials ?? Effect.succeed({})

/** The calls of one agent. */
export type AgentClient = GrpcClient.GrpcClient<typeof AgentService, BoundaryError>

/** Opens a connection that closes with the scope. Whether anybody is at the other end shows with the first call. */
export const AgentConnector = Context.Reference<(endpoint: Endpoint) => Effect.Effect<AgentClient, never, Scope.Scope>>(
  "@fast-sandbox/controller/agents/AgentConnector",
  {
    defaultValue: () => (endpoint) =>
      Effect.flatMap(
        credentialsOf(endpoint),
        (credentials) => GrpcClient.makeBoundary(AgentService, { address: endpoint.address, credentials })
      )
  }
)

/** The calls of one agent about what goes on inside of its sandboxes. */
export type SessionClient = GrpcClient.GrpcClient<typeof SessionService, BoundaryError>

/**
 * Like {@link AgentConnector}, for sessions. A connection of its own: what sandboxes send and receive must not stand in the
 * way of what the controller says.
 */
export const SessionConnector = Context.Reference<
  (endpoint: Endpoint) => Effect.Effect<SessionClient, never, Scope.Scope>
>(
  "@fast-sandbox/controller/agents/SessionConnector",
  {
    defaultValue: () => (endpoint) =>
      Effect.flatMap(
        credentialsOf(endpoint),
        (credentials) => GrpcClient.makeBoundary(SessionService, { address: endpoint.address, credentials })
      )
  }
)
