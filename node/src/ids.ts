/**
 * Ids: UUIDs of version 7 (RFC 9562), minted by whoever makes the request, so that a request whose answer was lost can
 * be repeated unchanged. Those of one process are strictly increasing, which keeps database pages warm.
 */
import { randomFillSync } from "node:crypto"

import { InvalidInput } from "./errors.js"

const POOL = 512 // random bytes fetched at a time
const TEXT = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i
const bytes = Buffer.alloc(16)
const random = Buffer.alloc(POOL)
let used = POOL
let lastMilliseconds = 0
let order = 0 // 12 bits that keep order within a millisecond

/** A fresh id. */
export function newId(): string {
  const now = Date.now()
  if (now > lastMilliseconds) {
    lastMilliseconds = now
    order = 0
  } else if (++order > 0xfff) {
    lastMilliseconds += 1
    order = 0
  }
  if (used + 8 > POOL) {
    randomFillSync(random)
    used = 0
  }
  bytes.writeUIntBE(lastMilliseconds, 0, 6)
  bytes.writeUInt16BE(0x7000 | order, 6)
  random.copy(bytes, 8, used, used + 8)
  used += 8
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8)
  return uuidText(bytes, 0)
}

/** The text of 16 bytes. */
export function uuidText(buffer: Buffer, offset: number): string {
  const hex = buffer.toString("hex", offset, offset + 16)
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}

/** The id, in lower case. Throws InvalidInput when it is none. */
export function parseId(value: unknown): string {
  if (typeof value !== "string" || !TEXT.test(value)) {
    throw new InvalidInput(`${String(value).slice(0, 100)} is not an execution id`)
  }
  return value.toLowerCase()
}
