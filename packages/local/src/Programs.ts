/**
 * Where the machine's programs are. The usual folders are searched beside PATH, because that of a service or of a plain
 * user often lacks the administrator's.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import { delimiter, join } from "node:path"

const usualDirectories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]

/** The path of a program, if it is installed. */
export const find = Effect.fn("Programs.find")(function*(
  name: string
): Effect.fn.Return<Option.Option<string>, never, FileSystem.FileSystem> {
  const files = yield* FileSystem.FileSystem
  for (const directory of [...(process.env["PATH"] ?? "").split(delimiter), ...usualDirectories]) {
    const path = join(directory, name)
    if (directory !== "" && (yield* files.exists(path).pipe(Effect.orElseSucceed(() => false)))) {
      return Option.some(path)
    }
  }
  return Option.none()
})
