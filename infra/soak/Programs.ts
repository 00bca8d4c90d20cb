/**
 * What sandboxes run during a soak: the ways in which programs begin, go on and end that need different care.
 */

/** A program, and how it must look when everything has settled and nobody killed it. */
export interface Program {
  readonly name: string
  readonly args: ReadonlyArray<string>
  /** The code it exits with by itself; absent: it runs until it is stopped. */
  readonly exitCode?: number | undefined
  /** Seconds between the stop signal and SIGKILL. */
  readonly graceSeconds: number
}

const shell = (script: string): ReadonlyArray<string> => ["sh", "-c", script]

/** All of them, all for busybox. */
export const programs: ReadonlyArray<Program> = [
  { name: "exits", args: shell("exit 0"), exitCode: 0, graceSeconds: 10 },
  { name: "fails", args: shell("exit 3"), exitCode: 3, graceSeconds: 10 },
  { name: "runs", args: shell("trap 'exit 0' TERM; sleep 100000 & wait"), graceSeconds: 10 },
  { name: "stubborn", args: shell("trap '' TERM; while :; do sleep 1; done"), graceSeconds: 1 },
  {
    name: "forks",
    args: shell("for i in 1 2 3 4 5; do sleep 100000 & done; trap 'exit 0' TERM; wait"),
    graceSeconds: 2
  },
  { name: "prints", args: shell("seq 1 20000; exit 5"), exitCode: 5, graceSeconds: 10 },
  { name: "chatters", args: shell("while :; do seq 1 50; usleep 200000; done"), graceSeconds: 1 }
]
