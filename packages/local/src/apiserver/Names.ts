/**
 * The grammars of names and labels (RFC 1123, qualified names) with the texts that users know from Kubernetes.
 */

const subdomain = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/
const label = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/
const qualifiedPart = /^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/

/** RFC 1123 limits, in bytes. */
const subdomainLimit = 253
const labelLimit = 63

const subdomainText =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and " +
  "end with an alphanumeric character (e.g. 'example.com', regex used for validation is " +
  "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"

const labelText =
  "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with " +
  "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is " +
  "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"

const qualifiedText = (what: string) =>
  `${what} must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric ` +
  "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is " +
  "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"

const labelValueText =
  "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and " +
  "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is " +
  "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"

const longerThan = (limit: number) => `must be no more than ${limit} bytes`

/** Problems of a segment of a path, the grammar of the names of roles and bindings. */
export const segmentProblems = (name: string): ReadonlyArray<string> => [
  ...(name === "." || name === ".." ? [`may not be '${name}'`] : []),
  ...["/", "%"].flatMap((character) => name.includes(character) ? [`may not contain '${character}'`] : [])
]

/** Problems of a DNS-1123 subdomain, the grammar of most names. */
export const subdomainProblems = (name: string): ReadonlyArray<string> => [
  ...(name.length > subdomainLimit ? [longerThan(subdomainLimit)] : []),
  ...(subdomain.test(name) ? [] : [subdomainText])
]

/** Problems of a DNS-1123 label, the grammar of namespaces. */
export const labelProblems = (name: string): ReadonlyArray<string> => [
  ...(name.length > labelLimit ? [longerThan(labelLimit)] : []),
  ...(label.test(name) ? [] : [labelText])
]

/** Problems of a key of labels and annotations: an optional DNS prefix and a name. */
export const qualifiedNameProblems = (key: string): ReadonlyArray<string> => {
  const parts = key.split("/")
  const name = parts.at(-1) ?? ""
  if (parts.length > 2) {
    return [
      `${qualifiedText("a qualified name")} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')`
    ]
  }
  const prefix = parts.length === 2 ? parts[0] ?? "" : undefined
  return [
    ...(prefix === "" ? ["prefix part must be non-empty"] : []),
    ...(prefix === undefined || prefix === ""
      ? []
      : subdomainProblems(prefix).map((problem) => `prefix part ${problem}`)),
    ...(name === "" ? ["name part must be non-empty"] : []),
    ...(name.length > labelLimit ? [`name part ${longerThan(labelLimit)}`] : []),
    ...(name === "" || qualifiedPart.test(name) ? [] : [qualifiedText("name part")])
  ]
}

/** Problems of a label's value. */
export const labelValueProblems = (value: string): ReadonlyArray<string> => [
  ...(value.length > labelLimit ? [longerThan(labelLimit)] : []),
  ...(value === "" || qualifiedPart.test(value) ? [] : [labelValueText])
]
