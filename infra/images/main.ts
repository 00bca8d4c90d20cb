/**
 * Builds the images of the programs that run on a cluster: `dist/images/{controller,agent,janitor}.tar`, OCI archives, and
 * beside each its bill of materials. From Debian's packages, npm's node and the bundles of `make build`; no container
 * engine is needed. The same inputs give the same bytes.
 *
 *     node infra/images/main.ts
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Debian from "./Debian.ts"
import * as Layers from "./Layers.ts"
import * as Sbom from "./Sbom.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const dist = join(root, "dist")
const target = join(dist, "images")

/** What an image has beside node and its bundle. */
interface Image {
  readonly user: "nonroot" | "root"
  /** Programs of Debian's that it calls. */
  readonly tools: ReadonlyArray<string>
  /** Whether it puts our own native programs onto its node. */
  readonly hasNative: boolean
  /** Node's options that keep its memory small; see docs/performance.md. */
  readonly nodeOptions: ReadonlyArray<string>
}

/**
 * glibc keeps what V8's compilers gave back, in an arena for each thread: one arena, and blocks of 128 KiB and more to and
 * from the kernel, are 6 MB less in each idle program.
 */
const mallocEnvironment = [
  "MALLOC_ARENA_MAX=1",
  "MALLOC_MMAP_THRESHOLD_=131072",
  "MALLOC_TRIM_THRESHOLD_=131072"
]

const images: Readonly<Record<"controller" | "agent" | "janitor", Image>> = {
  controller: { user: "nonroot", tools: [], hasNative: false, nodeOptions: ["--max-semi-space-size=2"] },
  // It makes namespaces, mounts and firewall rules of the node.
  agent: {
    user: "root",
    tools: ["ip", "nft", "mount", "umount", "nsenter"],
    hasNative: true,
    nodeOptions: ["--max-semi-space-size=1"]
  },
  // It unmounts and removes what dead agents left, now and then: compilers for it would weigh more than they are worth.
  janitor: {
    user: "root",
    tools: ["ip", "umount"],
    hasNative: false,
    nodeOptions: ["--max-semi-space-size=1", "--lite-mode"]
  }
}

/** Where the files that the images take are from, of Debian 12. Libraries are found in them by name. */
const basePackages = ["ca-certificates", "gcc-12-base", "libc6", "libgcc-s1", "libstdc++6"]
// dprint-ignore
const toolPackages = [
  "iproute2", "libblkid1", "libbpf1", "libbsd0", "libcap2", "libedit2", "libelf1", "libgmp10", "libjansson4", "libmd0",
  "libmnl0", "libmount1", "libnftables1", "libnftnl11", "libpcre2-8-0", "libselinux1", "libtinfo6", "libxtables12",
  "mount", "nftables", "util-linux", "zlib1g"
]

const nodeDirectory = join(root, "node_modules", `node-linux-${process.arch}`)

const readJson = <S extends Schema.Codec<unknown, unknown>>(schema: S, path: string) =>
  FileSystem.FileSystem.use((files) => files.readFileString(path)).pipe(
    Effect.flatMap(Schema.decodeUnknownEffect(Schema.fromJsonString(schema)))
  )

const Release = Schema.Struct({ version: Schema.String })
const NpmPackage = Schema.Struct({ name: Schema.String, version: Schema.String, license: Schema.String })
const Bundled = Schema.Struct({
  agent: Schema.Array(NpmPackage),
  controller: Schema.Array(NpmPackage),
  janitor: Schema.Array(NpmPackage)
})

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1)

const build = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  yield* files.makeDirectory(target, { recursive: true })
  const { version } = yield* readJson(Release, join(root, "package.json"))
  const { version: nodeVersion } = yield* readJson(Release, join(nodeDirectory, "package.json"))
  const bundled = yield* readJson(Bundled, join(dist, "packages.json"))
  const native = (yield* files.readDirectory(dist)).filter((name) => /^fsb-[a-z]+$/.test(name)).toSorted()

  const packages = yield* Debian.packages([...basePackages, ...toolPackages], join(target, "cache"))
  const base = yield* Layers.base(join(nodeDirectory, "bin/node"), packages)
  const node = yield* Layers.node(nodeDirectory)

  for (const name of ["controller", "agent", "janitor"] as const) {
    const { hasNative, nodeOptions, tools, user } = images[name]
    const toolLayers = tools.length === 0 ? [] : [yield* Layers.tools(tools, packages, base)]
    const sbom = Sbom.make({
      name: `fast-sandbox/${name}`,
      version,
      nodeVersion,
      npm: bundled[name],
      debian: [base, ...toolLayers].flatMap((made) => made.packages)
    })
    const app = yield* Layers.app({
      files: [
        { target: `app/${name}.cjs`, source: join(dist, `${name}.cjs`), isProgram: false },
        { target: `app/${name}.cjs.map`, source: join(dist, `${name}.cjs.map`), isProgram: false },
        { target: "usr/share/doc/fast-sandbox/LICENSE", source: join(root, "LICENSE"), isProgram: false },
        ...(hasNative ? native : []).map((program) => ({
          target: `app/${program}`,
          source: join(dist, program),
          isProgram: true
        }))
      ],
      texts: [{ target: "usr/share/doc/fast-sandbox/sbom.cdx.json", text: sbom }]
    })
    const layers = [base.layer, node, ...toolLayers.map(({ layer }) => layer), app]
    const recipe: OciArchive.ImageRecipe = {
      names: [`docker.io/fast-sandbox/${name}:${version}`],
      layers,
      entrypoint: ["/usr/bin/node", ...nodeOptions, `/app/${name}.cjs`],
      env: [
        "PATH=/usr/bin",
        "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
        ...mallocEnvironment,
        ...(hasNative ? ["FSB_NATIVE_DIR=/app"] : [])
      ],
      workingDir: "/",
      user: user === "root" ? "0:0" : `${Layers.nonRoot.id}:${Layers.nonRoot.id}`,
      labels: {
        "org.opencontainers.image.title": `fast-sandbox ${name}`,
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": "MIT"
      }
    }
    const path = join(target, `${name}.tar`)
    yield* files.writeFileString(join(target, `${name}.cdx.json`), sbom)
    yield* OciArchive.make([recipe]).pipe(Stream.run(files.sink(path)))
    const { size } = yield* files.stat(path)
    const unpacked = layers.reduce((sum, { uncompressedBytes }) => sum + uncompressedBytes, 0)
    yield* Effect.sync(() =>
      process.stdout.write(`${path}: ${megabytes(Number(size))} MB, unpacked ${megabytes(unpacked)} MB\n`)
    )
  }
})

build.pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
