/**
 * The client library for programs without Effect: promises, async iterators and `await using`.
 *
 * ```ts
 * await using client = connect({ endpoint: "127.0.0.1:9090" })
 * await using sandbox = await client.run({ image: "alpine", args: ["echo", "hello"] })
 * for await (const line of sandbox.logs({ follow: true })) console.log(LogLine.text(line))
 * const { exitCode } = await sandbox.wait()
 * ```
 *
 * Promises reject with the failures of `Errors`; compare their `_tag`. Every call takes a `signal`:
 * aborting it cancels the call at the server.
 */
import type { PoolCapacity } from "@fast-sandbox/core/SandboxPool"
import type * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as LogLine from "./LogLine.ts"
import * as Sandboxes from "./Sandboxes.ts"
import type * as SandboxInfo from "./SandboxInfo.ts"
import type * as Session from "./Session.ts"

/** Where the server is, and how the client proves itself. */
export interface ConnectOptions extends Omit<Sandboxes.ConnectOptions, "token"> {
  /** Sent with every call, as a bearer token. */
  readonly token?: string | undefined
}

/** Lets a call be given up. */
export interface Abortable {
  readonly signal?: AbortSignal | undefined
}

/** What to run. Input and control may be any async iterable. */
export interface ExecOptions extends Omit<Session.ExecOptions, "stdin" | "control">, Abortable {
  readonly stdin?: AsyncIterable<Uint8Array> | string | undefined
  readonly control?: AsyncIterable<Session.Control> | undefined
}

/** How to be attached. */
export interface AttachOptions extends Omit<Session.AttachOptions, "stdin" | "control"> {
  readonly stdin?: AsyncIterable<Uint8Array> | undefined
  readonly control?: AsyncIterable<Session.Control> | undefined
}

/** What can be done inside of a running sandbox. It means what `Session` means. */
export interface Inside {
  /** Runs a program; leaving the iteration ends it. */
  readonly exec: (options: ExecOptions) => AsyncIterable<Session.ExecEvent>
  /** Runs a program and gives what it printed. */
  readonly output: (options: ExecOptions) => Promise<Session.ExecResult>
  readonly attach: (options?: AttachOptions) => AsyncIterable<Session.AttachEvent>
  readonly files: {
    readonly put: (
      path: string,
      archive: AsyncIterable<Uint8Array>,
      options?: Session.PutOptions & Abortable
    ) => Promise<Session.Copied>
    readonly get: (path: string, options?: { readonly followLink?: boolean | undefined }) => AsyncIterable<Uint8Array>
    readonly write: (
      path: string,
      content: string | Uint8Array,
      options?: { readonly mode?: number | undefined } & Abortable
    ) => Promise<void>
    readonly read: (path: string, options?: Abortable) => Promise<Uint8Array>
  }
  readonly connect: (port: number, sent: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>
  readonly stats: (options?: { readonly intervalMillis?: number | undefined }) => AsyncIterable<Session.Stats>
  readonly processes: (options?: Abortable) => Promise<ReadonlyArray<Session.ProcessInfo>>
}

/** A sandbox that is stopped gracefully and deleted when it is disposed of. */
export interface Sandbox extends Sandboxes.Created, Inside, AsyncDisposable {
  readonly info: (options?: Abortable) => Promise<SandboxInfo.SandboxInfo>
  /** Waits for one of the phases; for the end of the program where none are given. */
  readonly wait: (
    options?: Partial<Omit<Sandboxes.WaitOptions, "namespace">> & Abortable
  ) => Promise<SandboxInfo.SandboxInfo>
  readonly logs: (options?: Omit<Sandboxes.LogsOptions, "namespace">) => AsyncIterable<LogLine.LogLine>
}

/** The calls of a Fast-Path server. They mean what those of the service `Sandboxes` mean. */
export interface Client extends AsyncDisposable {
  /** Creates a sandbox for `await using`. */
  readonly run: (options: Sandboxes.CreateOptions & Abortable) => Promise<Sandbox>
  /** Creates a sandbox that stays until it is deleted. */
  readonly create: (options: Sandboxes.CreateOptions & Abortable) => Promise<Sandboxes.Created>
  readonly get: (name: string, options?: Sandboxes.CallOptions & Abortable) => Promise<SandboxInfo.SandboxInfo>
  readonly list: (
    options?: Sandboxes.ListOptions & Abortable
  ) => Promise<ReadonlyArray<SandboxInfo.SandboxInfo>>
  readonly watch: (options?: Sandboxes.WatchOptions) => AsyncIterable<Sandboxes.WatchEvent>
  readonly wait: (
    name: string,
    options: Sandboxes.WaitOptions & Abortable
  ) => Promise<SandboxInfo.SandboxInfo>
  readonly waitForCondition: (
    name: string,
    goal: Sandboxes.ConditionGoal,
    options?: Sandboxes.CallOptions & Abortable
  ) => Promise<SandboxInfo.SandboxInfo>
  readonly waitForDeletion: (name: string, options?: Sandboxes.CallOptions & Abortable) => Promise<void>
  readonly delete: (name: string, options?: Sandboxes.ForceOptions & Abortable) => Promise<void>
  readonly update: (
    name: string,
    options: Sandboxes.UpdateOptions & Abortable
  ) => Promise<SandboxInfo.SandboxInfo>
  readonly reset: (name: string, options?: Sandboxes.CallOptions & Abortable) => Promise<SandboxInfo.SandboxInfo>
  readonly logs: (name: string, options?: Sandboxes.LogsOptions) => AsyncIterable<LogLine.LogLine>
  /** What can be done inside of a sandbox while it runs. */
  readonly inside: (name: string, options?: Pick<Sandboxes.CallOptions, "namespace">) => Inside
  readonly images: {
    readonly list: (options?: Sandboxes.ImageOptions & Abortable) => Promise<ReadonlyArray<Sandboxes.ImageInfo>>
    readonly pull: (image: string, options?: Sandboxes.ImageOptions) => AsyncIterable<Sandboxes.ImageProgress>
    readonly load: (
      archive: AsyncIterable<Uint8Array>,
      options?: Sandboxes.ImageOptions & { readonly name?: string | undefined }
    ) => AsyncIterable<Sandboxes.ImageProgress>
    readonly remove: (image: string, options?: Sandboxes.ImageOptions & Abortable) => Promise<ReadonlyArray<string>>
  }
  readonly pools: {
    readonly list: (options?: Sandboxes.ScopeOptions & Abortable) => Promise<ReadonlyArray<Sandboxes.PoolInfo>>
    readonly get: (name: string, options?: Sandboxes.CallOptions & Abortable) => Promise<Sandboxes.PoolInfo>
    readonly create: (name: string, options: Sandboxes.PoolOptions & Abortable) => Promise<Sandboxes.PoolInfo>
    readonly scale: (
      name: string,
      options: PoolCapacity & Sandboxes.CallOptions & Abortable
    ) => Promise<Sandboxes.PoolInfo>
    readonly delete: (name: string, options?: Sandboxes.ForceOptions & Abortable) => Promise<void>
  }
  readonly agents: {
    readonly list: (options?: Sandboxes.AgentOptions & Abortable) => Promise<ReadonlyArray<Sandboxes.AgentInfo>>
    readonly drain: (name: string, options?: Sandboxes.CallOptions & Abortable) => Promise<Sandboxes.AgentInfo>
    readonly resume: (name: string, options?: Sandboxes.CallOptions & Abortable) => Promise<Sandboxes.AgentInfo>
  }
  readonly events: (options?: Sandboxes.EventOptions) => AsyncIterable<Sandboxes.EventInfo>
  readonly serverVersion: (options?: Sandboxes.CallOptions & Abortable) => Promise<Sandboxes.ServerVersion>
  /** Ends every call and deletes the sandboxes that are still in use. */
  readonly close: () => Promise<void>
}

const fromIterable = <A>(iterable: AsyncIterable<A>): Stream.Stream<A, unknown> =>
  Stream.fromAsyncIterable(iterable, (cause) => cause)

const execOptions = ({ control, stdin, ...options }: ExecOptions): Session.ExecOptions<unknown> => ({
  ...options,
  stdin: stdin === undefined
    ? undefined
    : typeof stdin === "string"
    ? Stream.make(new TextEncoder().encode(stdin))
    : fromIterable(stdin),
  control: control === undefined ? undefined : fromIterable(control)
})

/** Connects with the first call. A malformed endpoint rejects that call. */
export const connect = (options: ConnectOptions): Client => {
  const runtime = ManagedRuntime.make(Sandboxes.Sandboxes.layer({
    ...options,
    token: options.token === undefined ? undefined : Redacted.make(options.token)
  }))
  const inUse = new Set<Scope.Closeable>()

  const call = <A, E>(
    options: Abortable | undefined,
    use: (sandboxes: Sandboxes.Sandboxes["Service"]) => Effect.Effect<A, E>
  ): Promise<A> => runtime.runPromise(Sandboxes.Sandboxes.use(use), { signal: options?.signal })

  const iterate = <A, E>(
    use: (sandboxes: Sandboxes.Sandboxes["Service"]) => Stream.Stream<A, E>
  ): AsyncIterable<A> => ({
    async *[Symbol.asyncIterator]() {
      const context = await runtime.context()
      yield* Stream.toAsyncIterableWith(Stream.unwrap(Sandboxes.Sandboxes.useSync(use)), context)
    }
  })

  const release = async (scope: Scope.Closeable) => {
    if (inUse.delete(scope)) await runtime.runPromise(Scope.close(scope, Exit.void))
  }

  const insideOf = (session: (sandboxes: Sandboxes.Sandboxes["Service"]) => Session.Session): Inside => ({
    exec: (options) => iterate((sandboxes) => session(sandboxes).exec(execOptions(options))),
    output: (options) => call(options, (sandboxes) => session(sandboxes).output(execOptions(options))),
    attach: ({ control, stdin, ...options } = {}) =>
      iterate((sandboxes) =>
        session(sandboxes).attach({
          ...options,
          stdin: stdin === undefined ? undefined : fromIterable(stdin),
          control: control === undefined ? undefined : fromIterable(control)
        })
      ),
    files: {
      put: (path, archive, options) =>
        call(options, (sandboxes) => session(sandboxes).files.put(path, fromIterable(archive), options)),
      get: (path, options) => iterate((sandboxes) => session(sandboxes).files.get(path, options)),
      write: (path, content, options) =>
        call(options, (sandboxes) => session(sandboxes).files.write(path, content, options)),
      read: (path, options) => call(options, (sandboxes) => session(sandboxes).files.read(path))
    },
    connect: (port, sent) => iterate((sandboxes) => session(sandboxes).connect(port, fromIterable(sent))),
    stats: (options) => iterate((sandboxes) => session(sandboxes).stats(options)),
    processes: (options) => call(options, (sandboxes) => session(sandboxes).processes)
  })

  const run: Client["run"] = async (options) => {
    const scope = Scope.makeUnsafe()
    inUse.add(scope)
    try {
      const sandbox = await call(options, (sandboxes) => Scope.provide(sandboxes.scoped(options), scope))
      return {
        ...sandbox,
        ...insideOf(() => sandbox),
        info: (options) => call(options, () => sandbox.info),
        wait: (options) => call(options, () => sandbox.wait({ for: Sandboxes.terminal, ...options })),
        logs: (options) => iterate(() => sandbox.logs(options)),
        [Symbol.asyncDispose]: () => release(scope)
      }
    } catch (error) {
      await release(scope)
      throw error
    }
  }

  const close = async () => {
    await Promise.all([...inUse].map(release))
    await runtime.dispose()
  }

  return {
    run,
    create: (options) => call(options, (sandboxes) => sandboxes.create(options)),
    get: (name, options) => call(options, (sandboxes) => sandboxes.get(name, options)),
    list: (options) => call(options, (sandboxes) => sandboxes.list(options)),
    watch: (options) => iterate((sandboxes) => sandboxes.watch(options)),
    wait: (name, options) => call(options, (sandboxes) => sandboxes.wait(name, options)),
    waitForCondition: (name, goal, options) =>
      call(options, (sandboxes) => sandboxes.waitForCondition(name, goal, options)),
    waitForDeletion: (name, options) => call(options, (sandboxes) => sandboxes.waitForDeletion(name, options)),
    delete: (name, options) => call(options, (sandboxes) => sandboxes.delete(name, options)),
    update: (name, options) => call(options, (sandboxes) => sandboxes.update(name, options)),
    reset: (name, options) => call(options, (sandboxes) => sandboxes.reset(name, options)),
    logs: (name, options) => iterate((sandboxes) => sandboxes.logs(name, options)),
    inside: (name, options) => insideOf((sandboxes) => sandboxes.inside(name, options)),
    images: {
      list: (options) => call(options, (sandboxes) => sandboxes.images.list(options)),
      pull: (image, options) => iterate((sandboxes) => sandboxes.images.pull(image, options)),
      load: (archive, options) => iterate((sandboxes) => sandboxes.images.load(fromIterable(archive), options)),
      remove: (image, options) => call(options, (sandboxes) => sandboxes.images.remove(image, options))
    },
    pools: {
      list: (options) => call(options, (sandboxes) => sandboxes.pools.list(options)),
      get: (name, options) => call(options, (sandboxes) => sandboxes.pools.get(name, options)),
      create: (name, options) => call(options, (sandboxes) => sandboxes.pools.create(name, options)),
      scale: (name, options) => call(options, (sandboxes) => sandboxes.pools.scale(name, options)),
      delete: (name, options) => call(options, (sandboxes) => sandboxes.pools.delete(name, options))
    },
    agents: {
      list: (options) => call(options, (sandboxes) => sandboxes.agents.list(options)),
      drain: (name, options) => call(options, (sandboxes) => sandboxes.agents.drain(name, options)),
      resume: (name, options) => call(options, (sandboxes) => sandboxes.agents.resume(name, options))
    },
    events: (options) => iterate((sandboxes) => sandboxes.events(options)),
    serverVersion: (options) => call(options, (sandboxes) => sandboxes.serverVersion(options)),
    close,
    [Symbol.asyncDispose]: close
  }
}
