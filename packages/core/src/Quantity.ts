/**
 * Kubernetes resource quantities (`500m`, `1.5`, `128Mi`, `1e3`), as far as limits need them.
 * Grammar: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
 */
import * as Option from "effect/Option"

const suffixes: Readonly<Record<string, number>> = {
  "": 1,
  n: 1e-9,
  u: 1e-6,
  m: 1e-3,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60
}

/** Matches every quantity that {@link parse} accepts. */
export const pattern = /^(\d+|\d+\.\d*|\.\d+)([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?$/u

/** The value in base units (cores, bytes), or none when the text is not a quantity. */
export const parse = (text: string): Option.Option<number> => {
  const match = pattern.exec(text)
  if (match === null) {
    return Option.none()
  }
  const [, digits = "", suffix = ""] = match
  const factor = Object.hasOwn(suffixes, suffix) ? suffixes[suffix] ?? 1 : Number(`1${suffix}`)
  const value = Number(digits) * factor
  return Number.isFinite(value) ? Option.some(value) : Option.none()
}

/** Thousandths of a core, rounded up. */
export const parseCpuMillis = (text: string): Option.Option<number> =>
  Option.map(parse(text), (cores) => Math.ceil(Number((cores * 1000).toPrecision(12))))

/** Bytes, rounded up. */
export const parseBytes = (text: string): Option.Option<number> => Option.map(parse(text), (bytes) => Math.ceil(bytes))
