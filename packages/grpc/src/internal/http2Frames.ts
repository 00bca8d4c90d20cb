/**
 * Frames of HTTP/2 (RFC 9113): how they are written, and how they are found in a stream of bytes.
 */

/** Section 6. */
export const types = {
  data: 0x0,
  headers: 0x1,
  resetStream: 0x3,
  settings: 0x4,
  pushPromise: 0x5,
  ping: 0x6,
  goAway: 0x7,
  windowUpdate: 0x8,
  continuation: 0x9
} as const

/** What a bit of a frame says, by the type of the frame. */
export const flags = { acknowledged: 0x1, endStream: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const

/** Section 6.5.2. */
export const settings = {
  headerTableSize: 0x1,
  enablePush: 0x2,
  maxConcurrentStreams: 0x3,
  initialWindowSize: 0x4,
  maxFrameSize: 0x5,
  maxHeaderListSize: 0x6
} as const

/** Error codes of section 7. */
export const resets = {
  none: 0x0,
  protocolError: 0x1,
  refusedStream: 0x7,
  cancel: 0x8,
  enhanceYourCalm: 0xb,
  inadequateSecurity: 0xc
} as const

/** What a client says first. */
export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

/** Largest frame that a peer may send that was told nothing else: nobody is told anything else. */
export const DEFAULT_MAX_FRAME_BYTES = 16_384

/** What holds of every window until a peer says something else. */
export const DEFAULT_WINDOW_BYTES = 65_535

/** The highest bit of numbers of streams and of increments of windows has no meaning. */
export const THIRTY_ONE_BITS = 0x7fffffff

export const NOTHING = Buffer.alloc(0)

const HEADER_BYTES = 9
const SETTING_BYTES = 6
const PRIORITY_BYTES = 5

/** Bytes that frames have at least, by their type. */
const shortest: Readonly<Record<number, number>> = {
  [types.resetStream]: 4,
  [types.ping]: 8,
  [types.goAway]: 8,
  [types.windowUpdate]: 4
}

/** The peer does not keep to the protocol. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError"
}

/** A frame of a stream, or of the connection where `stream` is 0. */
export interface Frame {
  readonly type: number
  readonly flag: number
  readonly stream: number
  readonly payload: Buffer
}

/** A frame as it is sent. */
export const frame = (type: number, flag: number, stream: number, payload: Buffer): Buffer => {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + payload.length)
  bytes.writeUIntBE(payload.length, 0, 3)
  bytes[3] = type
  bytes[4] = flag
  bytes.writeUInt32BE(stream, 5)
  payload.copy(bytes, HEADER_BYTES)
  return bytes
}

/** The payload of a frame that is a number. */
export const uint32 = (value: number): Buffer => {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** A frame with settings and their values. */
export const settingsFrame = (values: ReadonlyArray<readonly [setting: number, value: number]>): Buffer => {
  const payload = Buffer.allocUnsafe(values.length * SETTING_BYTES)
  for (const [at, [setting, value]] of values.entries()) {
    payload.writeUInt16BE(setting, at * SETTING_BYTES)
    payload.writeUInt32BE(value, at * SETTING_BYTES + 2)
  }
  return frame(types.settings, 0, 0, payload)
}

/** The settings of a frame: of one that comes twice the last value. Throws a {@link ProtocolError}. */
export const settingsOf = (payload: Buffer): ReadonlyMap<number, number> => {
  if (payload.length % SETTING_BYTES !== 0) throw new ProtocolError("settings that are cut off")
  const values = new Map<number, number>()
  for (let at = 0; at < payload.length; at += SETTING_BYTES) {
    values.set(payload.readUInt16BE(at), payload.readUInt32BE(at + 2))
  }
  return values
}

/** Without the padding that data and headers may have. Throws a {@link ProtocolError}. */
export const unpadded = ({ flag, payload }: Frame): Buffer => {
  if ((flag & flags.padded) === 0) return payload
  const padding = payload[0] ?? 0
  if (padding >= payload.length) throw new ProtocolError("a frame of nothing but padding")
  return payload.subarray(1, payload.length - padding)
}

/** The part of a block of headers that a frame carries, without padding and priority. Throws a {@link ProtocolError}. */
export const blockOf = (frame: Frame): Buffer =>
  unpadded(frame).subarray((frame.flag & flags.priority) === 0 ? 0 : PRIORITY_BYTES)

/** Cuts a stream of bytes into frames. */
export class FrameReader {
  #unread: Buffer = NOTHING

  add(chunk: Buffer): void {
    this.#unread = this.#unread.length === 0 ? chunk : Buffer.concat([this.#unread, chunk])
  }

  /** Takes what has to come before all frames; whether it is there as a whole. Throws a {@link ProtocolError}. */
  expect(bytes: Buffer): boolean {
    const said = this.#unread.subarray(0, bytes.length)
    if (!said.equals(bytes.subarray(0, said.length))) throw new ProtocolError("it begins with something else")
    if (said.length < bytes.length) return false
    this.#unread = this.#unread.subarray(bytes.length)
    return true
  }

  /** The next frame that is there as a whole. Throws a {@link ProtocolError}. */
  next(): Frame | undefined {
    const unread = this.#unread
    if (unread.length < HEADER_BYTES) return undefined
    const length = unread.readUIntBE(0, 3)
    if (length > DEFAULT_MAX_FRAME_BYTES) throw new ProtocolError(`a frame of ${length} bytes`)
    const end = HEADER_BYTES + length
    if (unread.length < end) return undefined
    this.#unread = unread.subarray(end)
    const type = unread.readUInt8(3)
    if (length < (shortest[type] ?? 0)) throw new ProtocolError(`a frame of type ${type} is too short`)
    return {
      type,
      flag: unread.readUInt8(4),
      stream: unread.readUInt32BE(5) & THIRTY_ONE_BITS,
      payload: unread.subarray(HEADER_BYTES, end)
    }
  }
}
