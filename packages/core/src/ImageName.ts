/**
 * Names of images. Users write them short (`alpine`), containerd keeps them long (`docker.io/library/alpine:latest`);
 * one normal form makes all spellings one image.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

/** Where images without a registry come from, and where its images without an owner live: docker's conventions. */
const defaultRegistry = "docker.io"
const defaultOwner = "library"
const defaultTag = "latest"

/** docker.io's other name, which some tools write. */
const legacyDefaultRegistry = "index.docker.io"

/** The longest repository (registry and path together), from the distribution specification. */
const maxRepositoryLength = 255

/** A port never has more digits than this. */
const registryPattern =
  /^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?$/
const pathPattern = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/
const digestPattern = /^sha256:[a-f0-9]{64}$|^sha512:[a-f0-9]{128}$/
const bareDigestPattern = /^(?:sha256:)?[a-f0-9]{64}$/

/** The text is no image name. `problem` says which part is wrong. */
export class InvalidImageName extends Schema.TaggedError<InvalidImageName>()("InvalidImageName", {
  name: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `image name ${JSON.stringify(this.name)}: ${this.problem}`
  }
}

/** A name in parts. Without a tag only when it has a digest. */
export interface ImageName {
  /** Host and port. */
  readonly registry: string
  /** The path below the registry, such as `library/alpine`. */
  readonly path: string
  readonly tag: string | undefined
  readonly digest: string | undefined
}

const split = (text: string, separator: string): readonly [string, string | undefined] => {
  const at = text.indexOf(separator)
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)]
}

const isRegistry = (component: string): boolean =>
  component === "localhost" || component.includes(".") || component.includes(":") ||
  component.toLowerCase() !== component

/** Names that were read lately: a node has few images, and each start names one some times. Strangers choose names, too. */
const known = new Map<string, Result.Result<ImageName, InvalidImageName>>()
const maxKnown = 256
const maxKnownLength = 512

/** Reads a name, filling in docker's defaults. */
export const parse = (name: string): Result.Result<ImageName, InvalidImageName> => {
  const before = known.get(name)
  if (before !== undefined) {
    return before
  }
  if (known.size >= maxKnown) {
    known.clear()
  }
  const parsed = read(name)
  if (name.length <= maxKnownLength) {
    known.set(name, parsed)
  }
  return parsed
}

const read = (name: string): Result.Result<ImageName, InvalidImageName> => {
  const fail = (problem: string) => Result.fail(new InvalidImageName({ name, problem }))
  if (name === "") {
    return fail("it is empty")
  }
  if (bareDigestPattern.test(name)) {
    return fail("a digest alone names no image; write repository@digest")
  }
  const [tagged, digest] = split(name, "@")
  if (digest !== undefined && !digestPattern.test(digest)) {
    return fail("the digest after @ must be sha256: and 64 lower-case hexadecimal digits")
  }
  const colon = tagged.lastIndexOf(":")
  const hasTag = colon > tagged.lastIndexOf("/")
  const repository = hasTag ? tagged.slice(0, colon) : tagged
  const tag = hasTag ? tagged.slice(colon + 1) : undefined
  if (tag !== undefined && !tagPattern.test(tag)) {
    return fail("the tag must be up to 128 letters, digits, underscores, dots and dashes")
  }
  const [first, rest] = split(repository, "/")
  const written = rest !== undefined && isRegistry(first) ? { registry: first, path: rest } : undefined
  const registry = written === undefined || written.registry === legacyDefaultRegistry
    ? defaultRegistry
    : written.registry
  const bare = written === undefined ? repository : written.path
  const path = registry === defaultRegistry && !bare.includes("/") ? `${defaultOwner}/${bare}` : bare
  if (!registryPattern.test(registry)) {
    return fail("the registry must be a host name or address, with an optional port")
  }
  if (!pathPattern.test(path)) {
    return fail("the repository must be lower-case letters and digits, separated by single . _ - or /")
  }
  if (registry.length + 1 + path.length > maxRepositoryLength) {
    return fail(`the repository is longer than ${maxRepositoryLength} characters`)
  }
  return Result.succeed({ registry, path, tag: tag ?? (digest === undefined ? defaultTag : undefined), digest })
}

/** The long form. With a digest the tag is dropped, because the digest decides. */
export const format = (name: ImageName): string =>
  `${name.registry}/${name.path}${name.digest === undefined ? `:${name.tag ?? defaultTag}` : `@${name.digest}`}`

/** The normal form of a name; what is none stays as it is, and no image has it. */
export const normalizeOrKeep = (name: string): string =>
  Result.match(parse(name), { onFailure: () => name, onSuccess: format })

/** The normal form of a name, by which containerd knows the image. */
export const normalize = (name: string): Effect.Effect<string, InvalidImageName> =>
  Effect.fromResult(Result.map(parse(name), format))
