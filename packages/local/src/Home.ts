/**
 * The folder in which the one-machine stack keeps everything: a `rm -rf` of it, after `fsb-ctl down`, leaves nothing
 * behind. Every path that more than one part needs has its name here.
 */
import { InvalidArgument } from "@fast-sandbox/core/Errors"
import * as Effect from "effect/Effect"
import { createHash } from "node:crypto"
import { isAbsolute, join, resolve } from "node:path"

/** Where the stack lives when nobody says otherwise: it runs as root, as containerd does. */
export const defaultDirectory = "/var/lib/fast-sandbox"

/** The longest path of a unix socket that Linux takes: `sun_path` of unix(7), less its closing zero. */
const socketPathBytes = 107

/** Names of Pods are too long for socket paths; their digest is not, and two agents of a machine never share it. */
const digestLength = 12

const digest = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, digestLength)

/** Where an agent listens, in its folder. */
const agentSocketName = "agent.sock"

/** The longest socket path below a home: one of those that an agent makes for copies (see its `CopySockets`). */
const longestSocketSuffix = "/run//copies/01234567".length + digestLength

/** The paths of one home. */
export interface Home {
  readonly directory: string
  /** Names the running stack: its process id and start time. */
  readonly pidFile: string
  readonly log: string
  readonly fastPathSocket: string
  readonly apiServerDirectory: string
  readonly kubeconfig: string
  /** A configuration of fsb-ctl for the TCP port, with its token; there once a port was asked for. */
  readonly clientConfig: string
  readonly containerdDirectory: string
  /** One folder for each agent Pod: its state and its log. */
  readonly agentsDirectory: string
  /** One folder for each instance: the output of its program. */
  readonly logsDirectory: string
  /** The cgroup that all sandboxes of this home are below; two homes never share one. */
  readonly cgroupParent: string
}

/** The paths below `directory`, which must be absolute or relative to the working directory and not too long. */
export const make = (directory: string): Effect.Effect<Home, InvalidArgument> => {
  const root = resolve(directory)
  const excess = Buffer.byteLength(root) + longestSocketSuffix - socketPathBytes
  return !isAbsolute(root) || excess > 0
    ? Effect.fail(
      new InvalidArgument({
        field: "--home",
        problem: `${root} is ${excess} bytes too long for the sockets below it; choose a shorter path`
      })
    )
    : Effect.succeed({
      directory: root,
      pidFile: join(root, "run", "stack.pid"),
      log: join(root, "log", "stack.log"),
      fastPathSocket: join(root, "run", "fastpath.sock"),
      apiServerDirectory: join(root, "apiserver"),
      kubeconfig: join(root, "kubeconfig"),
      clientConfig: join(root, "client.json"),
      containerdDirectory: join(root, "containerd"),
      agentsDirectory: join(root, "agents"),
      logsDirectory: join(root, "logs"),
      cgroupParent: `/fast-sandbox-${digest(root)}`
    })
}

/** The folder of one agent Pod. */
export const agentDirectory = (home: Home, podName: string): string => join(home.agentsDirectory, podName)

/** The folder of one agent Pod's sockets. */
export const agentSockets = (home: Home, podName: string): string => join(home.directory, "run", digest(podName))

/** The socket of one agent Pod. */
export const agentSocket = (home: Home, podName: string): string => join(agentSockets(home, podName), agentSocketName)
