/**
 * Header blocks of HTTP/2 (RFC 7541). What is written uses no dynamic table, so that blocks do not depend on each other;
 * what is read may use one of as many bytes as the peer was allowed.
 */

/** Names are in lower case. Of a header that comes twice, the first counts. */
export type Headers = ReadonlyMap<string, string>

/** The block is none, or it uses a table that it may not use, or it is too large. */
export class MalformedBlock extends Error {
  override readonly name = "MalformedBlock"
}

/**
 * Largest list of headers that is read, as the protocol counts it: statuses carry a few kilobytes of details, tokens as
 * many, and a block of a few bytes may stand for a list that is much larger. Node's own limit.
 */
export const MAX_LIST_BYTES = 64 * 1024

/** Section 4.1: what each entry counts for beside its name and its value. */
const ENTRY_BYTES = 32

interface Entry {
  readonly name: string
  readonly value: string
}

const sizeOf = ({ name, value }: Entry): number => name.length + value.length + ENTRY_BYTES

/** Appendix A: names and values, `name` or `name: value`, from number 1 on. */
const staticTable = [
  ":authority",
  ":method: GET",
  ":method: POST",
  ":path: /",
  ":path: /index.html",
  ":scheme: http",
  ":scheme: https",
  ...["200", "204", "206", "304", "400", "404", "500"].map((status) => `:status: ${status}`),
  "accept-charset",
  "accept-encoding: gzip, deflate",
  "accept-language",
  "accept-ranges",
  "accept",
  "access-control-allow-origin",
  "age",
  "allow",
  "authorization",
  "cache-control",
  "content-disposition",
  "content-encoding",
  "content-language",
  "content-length",
  "content-location",
  "content-range",
  "content-type",
  "cookie",
  "date",
  "etag",
  "expect",
  "expires",
  "from",
  "host",
  "if-match",
  "if-modified-since",
  "if-none-match",
  "if-range",
  "if-unmodified-since",
  "last-modified",
  "link",
  "location",
  "max-forwards",
  "proxy-authenticate",
  "proxy-authorization",
  "range",
  "referer",
  "refresh",
  "retry-after",
  "server",
  "set-cookie",
  "strict-transport-security",
  "transfer-encoding",
  "user-agent",
  "vary",
  "via",
  "www-authenticate"
].map((entry) => {
  const [name = "", value = ""] = entry.split(": ")
  return { name, value }
})

const numbers = {
  /** Of whole headers. */
  headers: new Map(staticTable.map(({ name, value }, at) => [`${name}: ${value}`, at + 1])),
  /** Of names; the first of several. */
  names: new Map(staticTable.map(({ name }, at) => [name, at + 1] as const).toReversed())
}

/** Section 6: how an entry of a block begins, and how many bits of its first byte belong to a number. */
const forms = {
  indexed: { pattern: 0x80, bits: 7 },
  withIndexing: { pattern: 0x40, bits: 6 },
  tableSize: { pattern: 0x20, bits: 5 },
  /** A value that nobody on the way may put into a table either: a secret. */
  neverIndexed: { pattern: 0x10, bits: 4 },
  withoutIndexing: { pattern: 0x00, bits: 4 }
} as const

const HUFFMAN = 0x80
const LENGTH_BITS = 7

/** Numbers of more bits do not occur in a block that fits into memory. */
const MAX_NUMBER_BITS = 28

/** The length of each symbol's code in appendix B, of the end of a text the last: the code is canonical. */
const codeLengths = [
  [13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28],
  [28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28],
  [6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6],
  [5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10],
  [13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7],
  [7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6],
  [15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5],
  [6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28],
  [20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23],
  [24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24],
  [22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23],
  [21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23],
  [26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25],
  [19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27],
  [20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23],
  [26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26],
  [30]
].flat()

const END_OF_TEXT = 256

/** A text ends with fewer bits than this of its last byte's unused ones. */
const PADDING_BITS = 8

/** For each length: the first code, and the symbols of the codes from there on. */
const codesByLength = (() => {
  const groups: Array<{ readonly first: number; readonly symbols: ReadonlyArray<number> }> = []
  let first = 0
  for (let length = 0; length <= Math.max(...codeLengths); length++) {
    const symbols = codeLengths.flatMap((symbolLength, symbol) => symbolLength === length ? [symbol] : [])
    groups.push({ first, symbols })
    first = (first + symbols.length) * 2
  }
  return groups
})()

const decodeHuffman = (bytes: Buffer): string => {
  const symbols: Array<number> = []
  let code = 0
  let length = 0
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit--) {
      code = code * 2 + (byte >> bit & 1)
      length += 1
      const group = codesByLength[length]
      if (group === undefined) throw new MalformedBlock("no such code")
      const symbol = group.symbols[code - group.first]
      if (symbol === END_OF_TEXT) throw new MalformedBlock("the end of the text within it")
      if (symbol !== undefined) {
        symbols.push(symbol)
        code = 0
        length = 0
      }
    }
  }
  // what is left of the last byte is the beginning of the code for the end: ones
  if (length >= PADDING_BITS || code !== 2 ** length - 1) throw new MalformedBlock("no such padding")
  return Buffer.from(symbols).toString("latin1")
}

/** Reads a block from its beginning to its end. */
class Reader {
  readonly #block: Buffer
  #at = 0

  constructor(block: Buffer) {
    this.#block = block
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#block.length
  }

  peek(): number {
    return this.#block[this.#at] ?? 0
  }

  /** Section 5.1: a number that begins in the last bits of a byte. */
  number(bits: number): number {
    const most = 2 ** bits - 1
    let value = this.#byte() & most
    if (value < most) return value
    for (let shift = 0; shift < MAX_NUMBER_BITS; shift += 7) {
      const byte = this.#byte()
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) return value
    }
    throw new MalformedBlock("a number is too large")
  }

  text(): string {
    const isHuffman = (this.peek() & HUFFMAN) !== 0
    const length = this.number(LENGTH_BITS)
    const bytes = this.#block.subarray(this.#at, this.#at + length)
    if (bytes.length < length) throw new MalformedBlock("it ends within a text")
    this.#at += length
    return isHuffman ? decodeHuffman(bytes) : bytes.toString("latin1")
  }

  #byte(): number {
    const byte = this.#block[this.#at++]
    if (byte === undefined) throw new MalformedBlock("it ends within a number")
    return byte
  }
}

/**
 * What a peer's blocks refer to: the static table, and behind it the dynamic one (section 2.3), of which both sides have
 * to see every block in its order.
 */
export class Table {
  readonly #mostBytes: number
  /** The newest first. */
  readonly #entries: Array<Entry> = []
  #bytes = 0
  #limit: number

  /** The dynamic table has room for as many bytes as the peer was allowed. */
  constructor(mostBytes: number) {
    this.#mostBytes = mostBytes
    this.#limit = mostBytes
  }

  /** Throws a {@link MalformedBlock}. */
  entry(number: number): Entry {
    const found = number <= staticTable.length
      ? staticTable[number - 1]
      : this.#entries[number - staticTable.length - 1]
    if (found === undefined) throw new MalformedBlock(`there is no entry ${number}`)
    return found
  }

  /** Makes room for it first; what is larger than the whole table empties it. */
  add(entry: Entry): void {
    this.#shrink(this.#limit - sizeOf(entry))
    if (sizeOf(entry) > this.#limit) return
    this.#entries.unshift(entry)
    this.#bytes += sizeOf(entry)
  }

  /** Throws a {@link MalformedBlock}. */
  resize(bytes: number): void {
    if (bytes > this.#mostBytes) throw new MalformedBlock("the table is larger than it may be")
    this.#limit = bytes
    this.#shrink(bytes)
  }

  #shrink(bytes: number): void {
    while (this.#bytes > bytes) {
      const oldest = this.#entries.pop()
      if (oldest === undefined) return
      this.#bytes -= sizeOf(oldest)
    }
  }
}

/** The headers of a block. Throws a {@link MalformedBlock}. */
export const decode = (block: Buffer, table: Table): Headers => {
  const reader = new Reader(block)
  const headers = new Map<string, string>()
  let bytes = 0
  const add = (entry: Entry): void => {
    bytes += sizeOf(entry)
    if (bytes > MAX_LIST_BYTES) throw new MalformedBlock(`headers of more than ${MAX_LIST_BYTES} bytes`)
    if (!headers.has(entry.name)) headers.set(entry.name, entry.value)
  }
  const spelledOut = (bits: number): Entry => {
    const number = reader.number(bits)
    return { name: number === 0 ? reader.text() : table.entry(number).name, value: reader.text() }
  }
  while (!reader.isAtEnd) {
    const first = reader.peek()
    if ((first & forms.indexed.pattern) !== 0) {
      add(table.entry(reader.number(forms.indexed.bits)))
    } else if ((first & forms.withIndexing.pattern) !== 0) {
      const entry = spelledOut(forms.withIndexing.bits)
      table.add(entry)
      add(entry)
    } else if ((first & forms.tableSize.pattern) !== 0) {
      table.resize(reader.number(forms.tableSize.bits))
    } else {
      add(spelledOut(forms.withoutIndexing.bits))
    }
  }
  return headers
}

/** Numbers take no more bytes than this. */
const MAX_NUMBER_BYTES = 6

/** Writes a block into a buffer that is large enough. */
class Writer {
  readonly #block: Buffer
  #at = 0

  constructor(bytes: number) {
    this.#block = Buffer.allocUnsafe(bytes)
  }

  get block(): Buffer {
    return this.#block.subarray(0, this.#at)
  }

  number({ bits, pattern }: { readonly bits: number; readonly pattern: number }, number: number): void {
    const most = 2 ** bits - 1
    if (number < most) {
      this.#block[this.#at++] = pattern | number
      return
    }
    this.#block[this.#at++] = pattern | most
    let rest = number - most
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) this.#block[this.#at++] = rest % 0x80 + 0x80
    this.#block[this.#at++] = rest
  }

  text(text: string): void {
    this.number({ bits: LENGTH_BITS, pattern: 0 }, text.length)
    this.#at += this.#block.write(text, this.#at, "latin1")
  }
}

/** The values of these are secrets. */
const secrets = new Set(["authorization", "cookie"])

/**
 * The block of some headers, in their order: those whose names begin with a colon must come first. Blocks that follow each
 * other are one block.
 */
export const encode = (headers: Readonly<Record<string, string>>): Buffer => {
  const entries = Object.entries(headers)
  const writer = new Writer(
    entries.reduce((bytes, [name, value]) => bytes + name.length + value.length + 3 * MAX_NUMBER_BYTES, 0)
  )
  for (const [key, value] of entries) {
    const name = key.toLowerCase()
    const number = numbers.headers.get(`${name}: ${value}`)
    if (number !== undefined && value !== "") {
      writer.number(forms.indexed, number)
      continue
    }
    const named = numbers.names.get(name)
    writer.number(secrets.has(name) ? forms.neverIndexed : forms.withoutIndexing, named ?? 0)
    if (named === undefined) writer.text(name)
    writer.text(value)
  }
  return writer.block
}
