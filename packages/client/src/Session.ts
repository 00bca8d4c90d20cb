/**
 * What can be done inside of a running sandbox: run programs, copy files, connect to ports, look what it uses. None of
 * these calls is made a second time by itself, because a program that ran half may have done half.
 */
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import type * as DateTime from "effect/DateTime"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"

/** Columns and rows of a terminal. */
export interface TerminalSize {
  readonly columns: number
  readonly rows: number
}

/** What a running program is told beside its input. `signal` is a number. */
export type Control =
  | { readonly _tag: "Resize"; readonly size: TerminalSize }
  | { readonly _tag: "Signal"; readonly signal: number }

/** What to run, in a sandbox that runs. */
export interface ExecOptions<E = never, R = never> {
  readonly command: ReadonlyArray<string>
  /** Beside those of the sandbox. */
  readonly envs?: Readonly<Record<string, string>> | undefined
  /** uid, uid:gid, name or name:group; the sandbox's by default. */
  readonly user?: string | undefined
  readonly workingDir?: string | undefined
  /** What the program reads; its end is the end of the input. Empty where absent. */
  readonly stdin?: Stream.Stream<Uint8Array, E, R> | undefined
  readonly control?: Stream.Stream<Control, E, R> | undefined
  /** Gives the program a terminal of this size; all its output is stdout then. */
  readonly terminal?: TerminalSize | undefined
}

/** What a program does: it starts once, prints, and exits last. */
export type ExecEvent =
  | { readonly _tag: "Started" }
  | { readonly _tag: "Output"; readonly stream: "stdout" | "stderr"; readonly bytes: Uint8Array }
  | { readonly _tag: "Exited"; readonly exitCode: number }

/** How to be attached. */
export interface AttachOptions<E = never, R = never> {
  /** Goes to the program, which must have been created with stdin. */
  readonly stdin?: Stream.Stream<Uint8Array, E, R> | undefined
  /** The end of `stdin` is the end of the program's, for good. Otherwise it stays open for the next who attaches. */
  readonly closesStdin?: boolean | undefined
  readonly control?: Stream.Stream<Control, E, R> | undefined
  /** Begin with all that the program has printed so far. */
  readonly replay?: boolean | undefined
  /** The size of the terminal, where the program has one. */
  readonly size?: TerminalSize | undefined
}

/** What an attached caller sees. The stream ends when the program has. */
export type AttachEvent =
  | { readonly _tag: "Attached"; readonly tty: boolean }
  | { readonly _tag: "Output"; readonly stream: "stdout" | "stderr"; readonly bytes: Uint8Array }

/** A program that has ended, with all that it printed. The exit code is 128 + n for one that signal n ended. */
export interface ExecResult {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

/** Where an archive goes. */
export interface PutOptions {
  /** The path must be a folder that exists; the archive may have many topmost entries then. */
  readonly intoFolder?: boolean | undefined
  /** Keep the owners that the archive names; otherwise everything is the sandbox's user's. */
  readonly keepOwner?: boolean | undefined
}

/** What an archive is made of. */
export interface GetOptions {
  /** A link at the path itself is followed. */
  readonly followLink?: boolean | undefined
}

/** What an archive held; `bytes` are of its files' content. */
export interface Copied {
  readonly entries: number
  readonly bytes: number
}

/** What is used since the sandbox's start, or now. A limit of 0 is none; absent is what the node does not count. */
export interface Stats {
  readonly time: DateTime.Utc
  readonly cpuNanos: number
  /** Thousandths of a core. */
  readonly cpuLimitMillis: number
  readonly memoryBytes: number
  readonly memoryLimitBytes: number
  readonly pids: number
  readonly pidsLimit: number
  readonly readBytes: number | undefined
  readonly writtenBytes: number | undefined
}

/** A process of a sandbox, with the ids that it has inside. */
export interface ProcessInfo {
  readonly pid: number
  readonly parentPid: number
  readonly userId: number
  /** One letter, as ps has it. */
  readonly state: string
  readonly cpuNanos: number
  readonly memoryBytes: number
  readonly startedAt: DateTime.Utc
  readonly command: ReadonlyArray<string>
}

/**
 * The calls about one running sandbox. They fail with FailedPrecondition `NotRunning` when it does not run and
 * `SandboxEnded` when it ends meanwhile.
 */
export interface Session {
  /**
   * Runs a program. It ends with its caller: leaving the stream hangs it up, then kills it. FailedPrecondition
   * `CommandNotFound` and `CommandNotExecutable` say why it was never started.
   */
  readonly exec: <E = never, R = never>(
    options: ExecOptions<E, R>
  ) => Stream.Stream<ExecEvent, BoundaryError | E, R>
  /** Runs a program and keeps what it prints, up to 16 MiB; ResourceExhausted beyond. */
  readonly output: <E = never, R = never>(
    options: ExecOptions<E, R>
  ) => Effect.Effect<ExecResult, BoundaryError | E, R>
  /** The terminal or the output of the sandbox's own program, which goes on when the stream is left. */
  readonly attach: <E = never, R = never>(
    options?: AttachOptions<E, R>
  ) => Stream.Stream<AttachEvent, BoundaryError | E, R>
  readonly files: {
    /**
     * Unpacks a tar archive at an absolute path. Where it is a folder, into it; otherwise its parent must exist, and the
     * archive's topmost entry gets this name. What did not come whole never has its final name.
     */
    readonly put: <E, R>(
      path: string,
      archive: Stream.Stream<Uint8Array, E, R>,
      options?: PutOptions
    ) => Effect.Effect<Copied, BoundaryError | E, R>
    /** A file or a folder as a tar archive; with `/.` at the end, what is in the folder. NotFound where there is none. */
    readonly get: (path: string, options?: GetOptions) => Stream.Stream<Uint8Array, BoundaryError>
    /** Writes a file as a whole, or not at all. */
    readonly write: (
      path: string,
      content: string | Uint8Array,
      options?: { readonly mode?: number | undefined }
    ) => Effect.Effect<void, BoundaryError>
    /** Reads a file. InvalidArgument where the path is something else. */
    readonly read: (path: string) => Effect.Effect<Uint8Array, BoundaryError>
  }
  /**
   * A TCP connection to a port inside, on the loopback device: what is sent, and what comes back. Begins with an empty
   * element when the connection stands. FailedPrecondition `ConnectionRefused` when nothing listens.
   */
  readonly connect: <E, R>(
    port: number,
    sent: Stream.Stream<Uint8Array, E, R>
  ) => Stream.Stream<Uint8Array, BoundaryError | E, R>
  /** What is used, now and after every interval until the sandbox ends; once, where no interval is given. */
  readonly stats: (options?: { readonly intervalMillis?: number | undefined }) => Stream.Stream<Stats, BoundaryError>
  readonly processes: Effect.Effect<ReadonlyArray<ProcessInfo>, BoundaryError>
}
