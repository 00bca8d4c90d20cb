/**
 * Images for tests, made on the spot from Debian's static busybox: no registry, no download.
 */
import type { ImageFile, ImageRecipe } from "@fast-sandbox/containerd/OciArchive"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"

/** Where the package busybox-static puts it. */
const busyboxPath = "/usr/bin/busybox"

/** The name of {@link busybox}, in its long form. */
export const busyboxName = "docker.io/library/busybox:latest"

/** An image whose layers tests may change. */
export interface TestImage extends ImageRecipe {
  readonly layers: ReadonlyArray<ReadonlyArray<ImageFile>>
}

/** The programs that tests run; busybox decides by the name it is called by. */
// dprint-ignore
const applets = [
  "sh", "ash", "cat", "echo", "env", "false", "grep", "head", "hostname", "id", "ip", "kill", "ln", "ls", "mkdir",
  "mknod", "mount", "nc", "printf", "ps", "pwd", "rm", "seq", "sleep", "sort", "stat", "tail", "test", "touch", "tr",
  "true", "tty", "umask", "uname", "unshare", "wc", "wget", "yes", "dd", "date", "cp", "mv", "chmod", "chown", "find",
  "sed", "awk", "trap", "timeout", "nslookup", "netstat", "httpd", "stty", "vi", "dmesg", "df", "du", "free", "tar", "cut",
  "sync"
]

/** The files of a small root file system around busybox, with users `root`, `nobody` and `app` (1000, in group 2000). */
export const rootfs: Effect.Effect<
  ReadonlyArray<ImageFile>,
  PlatformError.PlatformError,
  FileSystem.FileSystem
> = Effect.gen(function*() {
  const fileSystem = yield* FileSystem.FileSystem
  const binary = yield* fileSystem.readFile(busyboxPath)
  return [
    ...["bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr", "var"].map((path): ImageFile => ({
      _tag: "Directory",
      path,
      mode: path === "tmp" ? 0o1777 : 0o755
    })),
    { _tag: "File", path: "bin/busybox", content: binary, mode: 0o755 },
    ...applets.map((name): ImageFile => ({ _tag: "Symlink", path: `bin/${name}`, target: "busybox" })),
    {
      _tag: "File",
      path: "etc/passwd",
      content: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\napp:x:1000:1000::/home:/bin/sh\n"
    },
    { _tag: "File", path: "etc/group", content: "root:x:0:\nnogroup:x:65534:\napp:x:1000:\nstaff:x:2000:app\n" }
  ]
})

/** `busybox:latest`: CMD is `sh`, as in docker's own. */
export const busybox: Effect.Effect<TestImage, PlatformError.PlatformError, FileSystem.FileSystem> = Effect.map(
  rootfs,
  (files) => ({
    names: [busyboxName],
    layers: [files],
    cmd: ["sh"],
    env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
  })
)

/** The same files under another name and with other defaults; what is not given stays as in {@link busybox}. */
export const variant = (
  name: string,
  changes: Partial<Omit<ImageRecipe, "names">>
): Effect.Effect<ImageRecipe, PlatformError.PlatformError, FileSystem.FileSystem> =>
  Effect.map(busybox, (recipe) => ({ ...recipe, ...changes, names: [name] }))
