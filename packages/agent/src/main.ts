/**
 * The agent's process. Configured by its environment, see `AgentConfig`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { version } from "@fast-sandbox/core/Version"
import * as Logs from "@fast-sandbox/telemetry/Logs"
import * as Tracing from "@fast-sandbox/telemetry/Tracing"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Runtime from "effect/Runtime"
import * as Agent from "./Agent.ts"
import { AgentConfig } from "./AgentConfig.ts"
import { Departure } from "./Departure.ts"

const environment = Departure.layer.pipe(
  Layer.provideMerge(AgentConfig.layer),
  Layer.provideMerge(NodeServices.layer),
  Layer.provideMerge(Layer.merge(Logs.layer, Tracing.layer({ name: "fast-sandbox-agent", version })))
)

const program = Effect.raceFirst(
  Layer.launch(Agent.layer),
  Departure.use(({ parentGone }) => parentGone)
).pipe(
  Effect.provide(environment)
)

/** A SIGTERM interrupts; an agent that left in order has done what it was asked. */
const teardown: Runtime.Teardown = (exit, onExit) =>
  Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) ? onExit(0) : Runtime.defaultTeardown(exit, onExit)

NodeRuntime.runMain(program, { teardown })
