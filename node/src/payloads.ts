/**
 * Payloads: what goes in and out of an execution, as JSON.
 *
 * Written ASCII-escaped, so that U+0000 and lone surrogates survive on their way through the database. What JSON cannot
 * say is refused with the path to it, before anything is stored: NaN, infinities, functions, symbols, BigInt, Map, Set,
 * binary data, nesting beyond DEPTH_MAX. A property that is undefined is left out, and a Date is its toJSON(), as in
 * JSON.stringify; an undefined item of an array is refused.
 *
 * Read strictly as well: a whole number that no double holds exactly is refused with its path, never rounded.
 */
import { InvalidInput, PayloadTooLarge } from "./errors.js"

/** Levels of arrays and objects. */
export const DEPTH_MAX = 1000
/** Default limit of one payload, bytes of JSON. */
export const PAYLOAD_BYTES_MAX = 1024 * 1024

const NOT_ASCII = /[^\x20-\x7e]/g // also the controls that JSON has escaped already
const LONG_NUMBER = /[0-9]{16}/
const WHOLE_NUMBER = /-?[0-9]+/y
const REST_OF_NUMBER = /[0-9.eE+-]*/y

/** The ASCII text of the JSON of a value; `what` names it in messages. Throws InvalidInput, PayloadTooLarge. */
export function encode(value: unknown, what: string, bytesMax: number = PAYLOAD_BYTES_MAX): string {
  const text = JSON.stringify(plain(value, what, "$", new Set(), { left: bytesMax }))
  const ascii = NOT_ASCII.test(text) ? text.replace(NOT_ASCII, escape) : text
  NOT_ASCII.lastIndex = 0
  if (ascii.length > bytesMax) {
    throw new PayloadTooLarge(
      `${what}: ${ascii.length} bytes, over the limit of ${bytesMax} (payloadBytesMax); store it elsewhere and pass where it is`,
    )
  }
  return ascii
}

/** The value of JSON text. Throws InvalidInput with the path of a whole number that a double cannot hold. */
export function decode(text: string, what: string): unknown {
  const value: unknown = JSON.parse(text)
  if (LONG_NUMBER.test(text)) refuseRounded(text, what)
  return value
}

function escape(character: string): string {
  return "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0")
}

/** The value with nothing in it but what JSON has. `budget` counts values, so that no structure is walked for ever. */
function plain(value: unknown, what: string, path: string, above: Set<object>, budget: { left: number }): unknown {
  switch (typeof value) {
    case "string":
    case "boolean":
      return value
    case "number":
      if (!Number.isFinite(value)) throw new InvalidInput(`${what}: ${path} is ${value}, which JSON cannot hold`)
      return value
    case "undefined":
      if (path === "$") return null
      throw new InvalidInput(`${what}: ${path} is undefined, which JSON cannot hold`)
    case "object":
      break
    default:
      throw new InvalidInput(`${what}: ${path} is a ${typeof value}, which JSON cannot hold`)
  }
  if (value === null) return null
  if ((budget.left -= 1) < 0) throw new PayloadTooLarge(`${what} has too many values for its limit (payloadBytesMax)`)
  if (above.has(value)) throw new InvalidInput(`${what}: ${path} contains itself, which JSON cannot hold`)
  if (above.size >= DEPTH_MAX) throw new InvalidInput(`${what} is nested deeper than ${DEPTH_MAX} levels`)
  if (Array.isArray(value)) {
    above.add(value)
    const items: unknown[] = []
    for (let index = 0; index < value.length; index++) {
      if ((budget.left -= 1) < 0) throw new PayloadTooLarge(`${what} has too many values for its limit (payloadBytesMax)`)
      items.push(plain(value[index], what, `${path}[${index}]`, above, budget))
    }
    above.delete(value)
    return items
  }
  if (value instanceof Map || value instanceof Set || ArrayBuffer.isView(value) || value instanceof ArrayBuffer) {
    throw new InvalidInput(`${what}: ${path} is a ${value.constructor.name}, which JSON cannot hold`)
  }
  if ("toJSON" in value && typeof value.toJSON === "function") {
    above.add(value)
    const shown = plain((value.toJSON as (key: string) => unknown)(""), what, path, above, budget)
    above.delete(value)
    return shown
  }
  if (value instanceof Promise) throw new InvalidInput(`${what}: ${path} is a Promise: await it`)
  if (value instanceof Error) throw new InvalidInput(`${what}: ${path} is an Error, of which JSON would hold nothing`)
  above.add(value)
  const entries: Record<string, unknown> = Object.create(null) as Record<string, unknown>
  for (const key of Object.keys(value)) {
    const item = (value as Record<string, unknown>)[key]
    if (item !== undefined) entries[key] = plain(item, what, `${path}.${key}`, above, budget)
  }
  above.delete(value)
  return entries
}

/** Looks at every number of JSON text that JSON.parse has accepted. */
function refuseRounded(text: string, what: string): void {
  const path: (string | number)[] = []
  let key = ""
  let expectKey = false
  for (let at = 0; at < text.length; ) {
    const character = text[at]
    if (character === '"') {
      let end = at + 1
      while (text[end] !== '"') end += text[end] === "\\" ? 2 : 1
      if (expectKey) key = JSON.parse(text.slice(at, end + 1)) as string
      expectKey = false
      at = end + 1
    } else if (character === "{" || character === "[") {
      path.push(character === "[" ? 0 : "")
      expectKey = character === "{"
      at += 1
    } else if (character === "}" || character === "]") {
      path.pop()
      at += 1
    } else if (character === ",") {
      const top = path.at(-1)
      if (typeof top === "number") path[path.length - 1] = top + 1
      else expectKey = true
      at += 1
    } else if (character === ":") {
      path[path.length - 1] = key
      at += 1
    } else {
      WHOLE_NUMBER.lastIndex = at
      const digits = WHOLE_NUMBER.exec(text)?.[0]
      REST_OF_NUMBER.lastIndex = at
      const whole = digits === undefined ? undefined : REST_OF_NUMBER.exec(text)?.[0]
      if (digits !== undefined && digits === whole && digits.length >= 16) {
        const number = Number(digits)
        // exact, or written as JavaScript writes that double
        if (String(number) !== digits && (!Number.isFinite(number) || BigInt(number) !== BigInt(digits))) {
          const where = path.map((part) => (typeof part === "number" ? `[${part}]` : `.${part}`)).join("")
          throw new InvalidInput(
            `${what}: $${where} is ${digits}, which no double holds exactly; pass ids and big numbers as strings`,
          )
        }
      }
      at += whole?.length ?? 1
    }
  }
}
