/**
 * The layers that images are put together from. Debian's libraries and node are the same bytes in all of them, so that a
 * node that has one image has most of the others.
 */
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import { join, posix } from "node:path"
import type { DebianPackage } from "./Debian.ts"
import * as SharedLibraries from "./SharedLibraries.ts"

/** The user that programs run as which need no privilege; the number that distroless images use. */
export const nonRoot = { name: "nonroot", id: 65532 } as const

/** Where Debian's dynamic linker and libraries are, and what the linker is called by every program. */
const platforms = {
  x64: { triplet: "x86_64-linux-gnu", linker: "ld-linux-x86-64.so.2", linkerDirectory: "lib64" },
  arm64: { triplet: "aarch64-linux-gnu", linker: "ld-linux-aarch64.so.1", linkerDirectory: "lib" }
} as const

const platform = process.arch === "arm64" ? platforms.arm64 : platforms.x64

const executable = 0o755
const binDirectory = "usr/bin"

const file = (path: string, content: string | Uint8Array, mode?: number): OciArchive.ImageFile =>
  mode === undefined ? { _tag: "File", path, content } : { _tag: "File", path, content, mode }

/** Adds the folders above each file and puts everything in the order of its path. */
const layer = (files: ReadonlyArray<OciArchive.ImageFile>) => {
  const all = new Map<string, OciArchive.ImageFile>()
  for (const entry of files) {
    for (let parent = posix.dirname(entry.path); parent !== "."; parent = posix.dirname(parent)) {
      if (!all.has(parent)) all.set(parent, { _tag: "Directory", path: parent })
    }
    all.set(entry.path, entry)
  }
  return OciArchive.layer([...all.values()].toSorted((a, b) => a.path < b.path ? -1 : 1), "zstd")
}

const read = (path: string, target: string, mode?: number) =>
  FileSystem.FileSystem.use((files) => Effect.map(files.readFile(path), (content) => file(target, content, mode)))

const libraryFiles = (libraries: ReadonlyMap<string, SharedLibraries.PackagedFile>) =>
  Effect.forEach(
    libraries,
    ([name, { path }]) =>
      read(path, `usr/lib/${platform.triplet}/${name}`, name === platform.linker ? executable : 0o644)
  )

/** What tells scanners, and people, which packages the files are from. Licences have to go with them. */
const papers = (shipped: ReadonlyArray<DebianPackage>, packages: ReadonlyArray<DebianPackage>) =>
  Effect.forEach(shipped, ({ control, name }) =>
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const documents = `usr/share/doc/${name}`
      // Packages of one source may share their papers: the folder is then a link to another package's.
      const shared = yield* Effect.option(files.readLink(join(directoryOf(packages, name), documents)))
      const holder = Option.match(shared, { onNone: () => name, onSome: (link) => posix.basename(link) })
      return [
        file(`var/lib/dpkg/status.d/${name}`, control),
        yield* read(
          join(directoryOf(packages, holder), `usr/share/doc/${holder}/copyright`),
          `${documents}/copyright`
        )
      ]
    })).pipe(Effect.map((files) => files.flat()))

const directoryOf = (packages: ReadonlyArray<DebianPackage>, name: string): string =>
  packages.find((one) => one.name === name)?.directory ?? name

const originsOf = (
  files: Iterable<SharedLibraries.PackagedFile>
): ReadonlyArray<DebianPackage> => [...new Set([...files].map(({ origin }) => origin))]

/** Certificates of the authorities as one file: Debian's package makes it when it is installed. */
const certificates = Effect.fnUntraced(function*({ directory }: DebianPackage) {
  const files = yield* FileSystem.FileSystem
  const folder = join(directory, "usr/share/ca-certificates/mozilla")
  const names = (yield* files.readDirectory(folder)).toSorted()
  const texts = yield* Effect.forEach(names, (name) => files.readFileString(join(folder, name)))
  return texts.map((text) => `${text.trimEnd()}\n`).join("")
})

const passwd = [
  "root:x:0:0:root:/:/sbin/nologin",
  "nobody:x:65534:65534:nobody:/:/sbin/nologin",
  `${nonRoot.name}:x:${nonRoot.id}:${nonRoot.id}:${nonRoot.name}:/:/sbin/nologin`
]
const group = ["root:x:0:", "nobody:x:65534:", `${nonRoot.name}:x:${nonRoot.id}:`]
const lines = (text: ReadonlyArray<string>): string => text.map((line) => `${line}\n`).join("")

/** A layer and the packages that its files are from. */
export interface Made {
  readonly layer: OciArchive.Layer
  readonly packages: ReadonlyArray<DebianPackage>
  /** The names of the libraries in it. */
  readonly libraries: ReadonlySet<string>
}

/** What node needs of Debian: its libraries, the authorities' certificates, users, a /tmp. */
export const base = Effect.fn("Layers.base")(function*(nodePath: string, packages: ReadonlyArray<DebianPackage>) {
  const libraries = yield* SharedLibraries.closure([nodePath], packages, platform.triplet)
  const linkerDirectory = `usr/${platform.linkerDirectory}`
  const authorities = packages.filter(({ name }) => name === "ca-certificates")
  const origins = [...originsOf(libraries.values()), ...authorities]
  return {
    packages: origins,
    libraries: new Set(libraries.keys()),
    layer: yield* layer([
      ...yield* libraryFiles(libraries),
      ...yield* papers(origins, packages),
      { _tag: "Symlink", path: "lib", target: "usr/lib" },
      { _tag: "Symlink", path: "bin", target: "usr/bin" },
      { _tag: "Symlink", path: "sbin", target: "usr/bin" },
      { _tag: "Symlink", path: "usr/sbin", target: "bin" },
      ...(platform.linkerDirectory === "lib" ? [] : [
        { _tag: "Symlink", path: platform.linkerDirectory, target: linkerDirectory } as const
      ]),
      {
        _tag: "Symlink",
        path: `${linkerDirectory}/${platform.linker}`,
        target: posix.relative(linkerDirectory, `usr/lib/${platform.triplet}/${platform.linker}`)
      },
      file(
        "etc/ssl/certs/ca-certificates.crt",
        (yield* Effect.forEach(authorities, certificates)).join("")
      ),
      file("etc/passwd", lines(passwd)),
      file("etc/group", lines(group)),
      file("etc/nsswitch.conf", "hosts: files dns\n"),
      file("etc/os-release", "ID=debian\n"),
      { _tag: "Directory", path: "tmp", mode: 0o1777 }
    ])
  } satisfies Made
})

/** Node itself, as its makers built it. */
export const node = Effect.fn("Layers.node")(function*(directory: string) {
  return yield* layer([
    yield* read(join(directory, "bin/node"), `${binDirectory}/node`, executable),
    yield* read(join(directory, "LICENSE"), "usr/share/doc/node/LICENSE")
  ])
})

/** Programs of Debian's, with the libraries that `base` has not. */
export const tools = Effect.fn("Layers.tools")(function*(
  names: ReadonlyArray<string>,
  packages: ReadonlyArray<DebianPackage>,
  base: Made
) {
  const programs = yield* Effect.forEach(
    names,
    (name) =>
      Effect.map(
        SharedLibraries.find(packages, name, ["usr/bin", "usr/sbin", "bin", "sbin"]),
        (found) => [name, found] as const
      )
  )
  const closure = yield* SharedLibraries.closure(programs.map(([, { path }]) => path), packages, platform.triplet)
  const libraries = new Map([...closure].filter(([name]) => !base.libraries.has(name)))
  const origins = originsOf([...programs.map(([, found]) => found), ...libraries.values()])
    .filter((origin) => !base.packages.includes(origin))
  return {
    packages: origins,
    libraries: new Set(libraries.keys()),
    layer: yield* layer([
      ...yield* Effect.forEach(programs, ([name, { path }]) => read(path, `${binDirectory}/${name}`, executable)),
      ...yield* libraryFiles(libraries),
      ...yield* papers(origins, packages)
    ])
  } satisfies Made
})

/** Our own files: path in the image to path on the build machine, and texts. */
export const app = Effect.fn("Layers.app")(function*(options: {
  readonly files: ReadonlyArray<{ readonly target: string; readonly source: string; readonly isProgram: boolean }>
  readonly texts: ReadonlyArray<{ readonly target: string; readonly text: string }>
}) {
  return yield* layer([
    ...yield* Effect.forEach(
      options.files,
      ({ isProgram, source, target }) => read(source, target, isProgram ? executable : 0o644)
    ),
    ...options.texts.map(({ target, text }) => file(target, text))
  ])
})
