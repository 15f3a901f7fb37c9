/**
 * Values on the wire: arguments of the SQL functions as arrays in PostgreSQL's binary format, answers as text.
 *
 *     array   = dimensions (0 or 1), has nulls, element type, [length, lower bound 1], element ...
 *     element = length in bytes (-1: null), bytes                all numbers int32, big-endian
 *
 * A Buffer is what the driver sends in binary.
 */
import pg from "pg"

const INT2 = 21
const INT4 = 23
const INT8 = 20
const FLOAT8 = 701
const TEXT = 25
const BYTEA = 17
const UUID = 2950
const HEADER = 20
const EMPTY_HEADER = 12
const TWO_TO_32 = 2 ** 32

/** Codec byte in front of a stored payload: ASCII JSON. */
export const JSON_CODEC = 1

type Nullable<T> = readonly (T | null)[]

/** An array; `sizeOf` gives the bytes of an element, `write` writes them. */
function array<T>(
  oid: number,
  values: Nullable<T>,
  sizeOf: (value: T) => number,
  write: (buffer: Buffer, value: T, at: number) => void,
): Buffer {
  let bytes = values.length ? HEADER : EMPTY_HEADER
  for (const value of values) bytes += 4 + (value === null ? 0 : sizeOf(value))
  const buffer = Buffer.allocUnsafe(bytes)
  buffer.writeInt32BE(values.length ? 1 : 0, 0)
  buffer.writeInt32BE(values.includes(null) ? 1 : 0, 4)
  buffer.writeInt32BE(oid, 8)
  if (values.length === 0) return buffer
  buffer.writeInt32BE(values.length, 12)
  buffer.writeInt32BE(1, 16)
  let at = HEADER
  for (const value of values) {
    const size = value === null ? -1 : sizeOf(value)
    buffer.writeInt32BE(size, at)
    at += 4
    if (value === null) continue
    write(buffer, value, at)
    at += size
  }
  return buffer
}

const two = (): number => 2
const four = (): number => 4
const eight = (): number => 8
const sixteen = (): number => 16

/** smallint[] */
export const int2s = (values: Nullable<number>): Buffer => array(INT2, values, two, (b, v, at) => b.writeInt16BE(v, at))
/** integer[] */
export const int4s = (values: Nullable<number>): Buffer => array(INT4, values, four, (b, v, at) => b.writeInt32BE(v, at))
/** bigint[], of safe integers */
export const int8s = (values: Nullable<number>): Buffer =>
  array(INT8, values, eight, (b, v, at) => {
    b.writeInt32BE(Math.floor(v / TWO_TO_32), at)
    b.writeUInt32BE(v - Math.floor(v / TWO_TO_32) * TWO_TO_32, at + 4)
  })
/** double precision[] */
export const float8s = (values: Nullable<number>): Buffer =>
  array(FLOAT8, values, eight, (b, v, at) => b.writeDoubleBE(v, at))
/** uuid[] */
export const uuids = (values: Nullable<string>): Buffer =>
  array(UUID, values, sixteen, (b, v, at) => b.write(v.replaceAll("-", ""), at, "hex"))
/** text[]; nothing with U+0000 or lone surrogates */
export const textArray = (values: Nullable<string>): Buffer =>
  array(TEXT, values, (text) => Buffer.byteLength(text), (b, v, at) => b.write(v, at))
/** bytea[] of payloads, which are ASCII, with their codec byte in front */
export const payloads = (values: Nullable<string>): Buffer =>
  array(BYTEA, values, (text) => 1 + text.length, writePayload)

/** One payload with its codec byte. */
export function payload(text: string): Buffer {
  const buffer = Buffer.allocUnsafe(1 + text.length)
  writePayload(buffer, text, 0)
  return buffer
}

function writePayload(buffer: Buffer, text: string, at: number): void {
  buffer[at] = JSON_CODEC
  buffer.write(text, at + 1, "latin1")
}

/** The text of a stored payload, which the driver gives in hexadecimal. Throws RangeError for a codec of a later release. */
export function payloadText(hex: string): string {
  if (!hex.startsWith("01")) {
    throw new RangeError(`a payload is stored in form ${hex.slice(0, 2) || "none"}, which this release cannot read`)
  }
  return Buffer.from(hex.slice(2), "hex").toString("utf8")
}

// --- answers, as text: the driver has no other ------------------------------------------------------------

type Read = (text: string) => unknown

const same: Read = (text) => text
const SCALARS: Readonly<Record<number, Read>> = {
  16: (text) => text === "t", // boolean
  17: (text) => text.slice(2), // bytea: without the \\x in front
  20: Number, // bigint
  21: Number, // smallint
  23: Number, // integer
  701: Number, // double precision
  2278: () => null, // void
  1184: pg.types.getTypeParser(pg.types.builtins.TIMESTAMPTZ) as Read,
}
/** Arrays whose elements are never quoted, and how to read one. */
const PLAIN_ARRAYS: Readonly<Record<number, Read>> = {
  1000: (text) => text === "t", // boolean[]
  1005: Number, // smallint[]
  1007: Number, // integer[]
  1016: Number, // bigint[]
  1022: Number, // double precision[]
  2951: same, // uuid[]
  1001: (text) => text.slice(4, -1), // bytea[]: "\\\\x…", in quotes
}
const TEXT_ARRAY = 1009
const readTexts = pg.types.getTypeParser(TEXT_ARRAY as never) as Read

function readArray(text: string, read: Read): unknown[] {
  if (text === "{}") return []
  const elements = text.slice(1, -1).split(",")
  return read === same && !text.includes("NULL")
    ? elements
    : elements.map((element) => (element === "NULL" ? null : read(element)))
}

/** How the driver reads columns of answers. */
export const TYPES = {
  getTypeParser(oid: number): Read {
    const element = PLAIN_ARRAYS[oid]
    if (element !== undefined) return (text) => readArray(text, element)
    return oid === TEXT_ARRAY ? readTexts : (SCALARS[oid] ?? same)
  },
}
