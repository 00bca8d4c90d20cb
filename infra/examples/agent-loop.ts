/**
 * The loop of an AI agent with one tool: the model writes code, a sandbox runs it, the model reads what came of it, until
 * it has an answer. What the program prints is shown while it runs.
 *
 * The model here is a script, not a language model: it needs no network and always does the same. Put a real one behind
 * the interface {@link Model}.
 *
 *     node infra/examples/agent-loop.ts
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

/** What the model said and heard so far. */
type Message =
  | { readonly role: "user" | "assistant"; readonly text: string }
  | { readonly role: "tool"; readonly exitCode: number; readonly output: string }

/** What the model wants next: a program to be run, or to be done. */
type Turn =
  | { readonly _tag: "Run"; readonly why: string; readonly code: string }
  | { readonly _tag: "Answer"; readonly text: string }

/** A language model, as far as the loop needs one. */
interface Model {
  readonly next: (history: ReadonlyArray<Message>) => Effect.Effect<Turn>
}

/** Tries, fails, reads the error, and does better. */
const scripted: Model = {
  next: (history) =>
    Effect.succeed((() => {
      const results = history.filter((message) => message.role === "tool")
      const last = results.at(-1)
      if (last === undefined) return { _tag: "Run", why: "count the primes", code: "python3 primes.py" }
      if (last.exitCode !== 0) {
        return {
          _tag: "Run",
          why: "there is no Python, so awk has to do",
          code:
            `seq 2 100 | awk '{ for (i = 2; i * i <= $1; i++) if ($1 % i == 0) next; print }' | tee /tmp/primes | tail -3
echo "$(wc -l < /tmp/primes) primes"`
        }
      }
      return { _tag: "Answer", text: `There are ${/(\d+) primes/.exec(last.output)?.[1]} primes up to 100.` }
    })())
}

/** A model that does not come to an end is stopped. */
const MAX_TURNS = 8

/** More than this of a program's output does not go back to the model. */
const MAX_OUTPUT = 10_000

const say = (text: string) => Effect.sync(() => process.stdout.write(text))

const answer = Effect.fnUntraced(function*(model: Model, question: string) {
  const sandboxes = yield* Sandboxes
  // one sandbox for the whole conversation, so that files stay; it goes when the conversation ends or is interrupted
  const sandbox = yield* sandboxes.scoped({ image: "busybox", args: ["sleep", "3600"], ttlSeconds: 3600 })

  /** Runs code and shows its output as it comes. */
  const run = Effect.fnUntraced(function*(code: string) {
    let output = ""
    let exitCode = 0
    const decoder = new TextDecoder()
    yield* sandbox.exec({ command: ["sh", "-c", code] }).pipe(Stream.runForEach((event) => {
      if (event._tag === "Exited") exitCode = event.exitCode
      if (event._tag !== "Output") return Effect.void
      const text = decoder.decode(event.bytes, { stream: true })
      output = (output + text).slice(-MAX_OUTPUT)
      return say(text)
    }))
    return { role: "tool", exitCode, output } as const
  })

  const history: Array<Message> = [{ role: "user", text: question }]
  for (let turn = 0; turn < MAX_TURNS; turn++) {
    const wish = yield* model.next(history)
    if (wish._tag === "Answer") return wish.text
    yield* say(`--- ${wish.why}\n`)
    history.push({ role: "assistant", text: wish.code }, yield* run(wish.code))
  }
  return "I could not find out."
}, Effect.scoped)

answer(scripted, "How many primes are there up to 100?").pipe(
  Effect.flatMap((text) => say(`=== ${text}\n`)),
  Effect.provide(Sandboxes.layer({
    endpoint: process.env.FSB_ENDPOINT ?? "unix:/var/lib/fast-sandbox/run/fastpath.sock"
  })),
  NodeRuntime.runMain
)
