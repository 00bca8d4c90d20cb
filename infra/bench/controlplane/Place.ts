/**
 * The folder in which a benchmark's control plane lives, and what has a name in it for more than one of its programs.
 */
import { AgentAddress } from "@fast-sandbox/controller/agents/AgentAddress"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import type { KubeConfigError } from "@fast-sandbox/kube/KubeConfig"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { join } from "node:path"

/** What a program prints when it does its work. */
export const readyLine = "ready"

export const apiServerDirectory = (directory: string): string => join(directory, "apiserver")

export const fastPathSocket = (directory: string): string => join(directory, "fastpath.sock")

export const agentSocket = (directory: string, pod: string): string => join(directory, `${pod}.sock`)

/** Agents as the one-machine stack finds them: each at a socket of its own. */
export const agentAddresses = (directory: string): Layer.Layer<AgentAddress> =>
  Layer.succeed(
    AgentAddress,
    AgentAddress.of({
      resolve: ({ metadata }) =>
        Effect.succeed(Option.some({ address: `unix:${agentSocket(directory, metadata.name)}` }))
    })
  )

/** The API of a server that another process runs. */
export const kubeClient = (directory: string): Layer.Layer<KubeClient, KubeConfigError> =>
  KubeClient.layer.pipe(Layer.provide(KubeConfig.layerFile(join(apiServerDirectory(directory), "kubeconfig"))))

/** Tells whoever started this program that it does its work. */
export const ready: Layer.Layer<never> = Layer.effectDiscard(
  Effect.sync(() => {
    process.stdout.write(`${readyLine}\n`)
  })
)
