/**
 * String formats of structural schemas. An unknown format restricts nothing, as upstream.
 */
import { isIP } from "node:net"

const dateTime = /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$/
const date = /^\d{4}-\d{2}-\d{2}$/
const duration = /^[+-]?(\d+(\.\d*)?(ns|us|\u00b5s|ms|s|m|h))+$|^0$/
const uuid = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i
const hostname = /^([a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?\.?$/
const email = /^[^\s@]+@[^\s@]+$/
const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/
const hexColor = /^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$/
const mac = /^([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}$/

const isCidr = (value: string): boolean => {
  const [address = "", prefix = "", ...rest] = value.split("/")
  const version = isIP(address)
  return rest.length === 0 && version !== 0 && /^\d{1,3}$/.test(prefix) && Number(prefix) <= (version === 4 ? 32 : 128)
}

const formats: ReadonlyMap<string, (value: string) => boolean> = new Map([
  ["date-time", (value) => dateTime.test(value) && !Number.isNaN(Date.parse(value))],
  ["datetime", (value) => dateTime.test(value) && !Number.isNaN(Date.parse(value))],
  ["date", (value) => date.test(value) && !Number.isNaN(Date.parse(value))],
  ["duration", (value) => duration.test(value)],
  ["uuid", (value) => uuid.test(value)],
  ["uuid3", (value) => uuid.test(value)],
  ["uuid4", (value) => uuid.test(value)],
  ["uuid5", (value) => uuid.test(value)],
  ["hostname", (value) => hostname.test(value)],
  ["email", (value) => email.test(value)],
  ["ipv4", (value) => isIP(value) === 4],
  ["ipv6", (value) => isIP(value) === 6],
  ["ip", (value) => isIP(value) !== 0],
  ["cidr", isCidr],
  ["uri", (value) => URL.canParse(value) || value.startsWith("/")],
  ["byte", (value) => base64.test(value)],
  ["hexcolor", (value) => hexColor.test(value)],
  ["mac", (value) => mac.test(value)]
])

/** The format's name if the value breaks it. */
export const formatProblem = (format: string, value: string): string | undefined => {
  const accepts = formats.get(format)
  return accepts === undefined || accepts(value) ? undefined : format
}
