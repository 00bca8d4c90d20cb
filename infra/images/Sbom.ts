/**
 * The bill of materials of an image, as CycloneDX 1.5: what it was made of, by package, with digests where there are any.
 * It tells no time and has no random number, so that the same image has the same one.
 */
import type { DebianPackage } from "./Debian.ts"

/** A package of npm that is in a bundle. */
export interface NpmPackage {
  readonly name: string
  readonly version: string
  readonly license: string
}

/** What an image is made of. */
export interface Materials {
  readonly name: string
  readonly version: string
  readonly debian: ReadonlyArray<DebianPackage>
  readonly npm: ReadonlyArray<NpmPackage>
  readonly nodeVersion: string
}

const purl = (type: string, name: string, version: string, qualifiers = ""): string =>
  `pkg:${type}/${name.split("/").map(encodeURIComponent).join("/")}@${encodeURIComponent(version)}${qualifiers}`

const component = (
  purl: string,
  { license, name, sha256, version }: {
    readonly name: string
    readonly version: string
    readonly license?: string
    readonly sha256?: string
  }
) => ({
  type: "library",
  "bom-ref": purl,
  name,
  version,
  purl,
  ...(license === undefined ? {} : { licenses: [{ expression: license }] }),
  ...(sha256 === undefined ? {} : { hashes: [{ alg: "SHA-256", content: sha256 }] })
})

/** As the text of a file. */
export const make = ({ debian, name, nodeVersion, npm, version }: Materials): string =>
  `${
    JSON.stringify(
      {
        bomFormat: "CycloneDX",
        specVersion: "1.5",
        version: 1,
        metadata: { component: { type: "container", "bom-ref": name, name, version } },
        components: [
          component(purl("generic", "node", nodeVersion), { name: "node", version: nodeVersion, license: "MIT" }),
          ...npm.map((one) => component(purl("npm", one.name, one.version), one)),
          ...debian.map((one) =>
            component(purl("deb", `debian/${one.name}`, one.version, `?arch=${one.architecture}`), {
              name: one.name,
              version: one.version,
              sha256: one.sha256
            })
          )
        ]
      },
      null,
      2
    )
  }\n`
