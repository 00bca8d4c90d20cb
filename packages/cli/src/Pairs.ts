/**
 * `KEY=VALUE` arguments: environment variables and labels.
 */
import * as Result from "effect/Result"

const environmentName = /^[^=\s]+$/

/** Splits at the first equals sign; without one there is no value. */
const split = (text: string): readonly [key: string, value: string | undefined] => {
  const at = text.indexOf("=")
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)]
}

/**
 * Environment variables. `KEY` alone takes the value from `environment`, and is left out where that has none, as docker
 * does it. Fails with what is wrong.
 */
export const environment = (
  texts: ReadonlyArray<string>,
  environment: Readonly<Record<string, string | undefined>>
): Result.Result<Readonly<Record<string, string>>, string> => {
  const variables: Record<string, string> = {}
  for (const text of texts) {
    const [key, value] = split(text)
    if (!environmentName.test(key)) return Result.fail(`${JSON.stringify(text)} must be KEY=VALUE or KEY`)
    const found = value ?? environment[key]
    if (found !== undefined) variables[key] = found
  }
  return Result.succeed(variables)
}

/** Labels to set (`KEY=VALUE`) or remove (`KEY-`, as an empty value). Fails with what is wrong. */
export const labels = (texts: ReadonlyArray<string>): Result.Result<Readonly<Record<string, string>>, string> => {
  const found: Record<string, string> = {}
  for (const text of texts) {
    const [key, value] = split(text)
    if (value === undefined && key.length > 1 && key.endsWith("-")) {
      found[key.slice(0, -1)] = ""
    } else if (value === undefined || key === "") {
      return Result.fail(`${JSON.stringify(text)} must be KEY=VALUE, or KEY- to remove it`)
    } else {
      found[key] = value
    }
  }
  return Result.succeed(found)
}
