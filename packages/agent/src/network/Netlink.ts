/**
 * How netlink messages are written: a header, then attributes, which may hold attributes. Numbers are in the machine's
 * own byte order (all machines that we run on are little-endian), addresses and ports in the network's.
 * https://docs.kernel.org/userspace-api/netlink/intro.html
 */

/** From include/uapi/linux/netlink.h */
export const Flag = { request: 1, acknowledge: 4, exclusive: 0x200, create: 0x400 } as const

const headerBytes = 16
const attributeHeaderBytes = 4
const nestedBit = 0x8000

const align = (length: number): number => (length + 3) & ~3

/** A 16-bit number. */
export const u16 = (value: number): Buffer => {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16LE(value)
  return bytes
}

/** A 32-bit number. */
export const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

/** A zero-terminated string. */
export const text = (value: string): Buffer => Buffer.from(`${value}\0`)

/** An attribute, filled up to a multiple of four bytes. */
export const attribute = (type: number, ...payload: ReadonlyArray<Uint8Array>): Buffer => {
  const body = Buffer.concat(payload)
  const length = attributeHeaderBytes + body.length
  return Buffer.concat([u16(length), u16(type), body], align(length))
}

/** An attribute that holds attributes. */
export const nested = (type: number, ...attributes: ReadonlyArray<Uint8Array>): Buffer =>
  attribute(type | nestedBit, ...attributes)

/** A message; every one is a request. */
export const message = (type: number, flags: number, ...payload: ReadonlyArray<Uint8Array>): Buffer => {
  const body = Buffer.concat(payload)
  return Buffer.concat([u32(headerBytes + body.length), u16(type), u16(flags | Flag.request), u32(0), u32(0), body])
}
