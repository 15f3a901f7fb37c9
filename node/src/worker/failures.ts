/**
 * An error as what is stored of it, within limits, whatever it is:
 *
 *     {"name", "message", "type", "attempts", "retryable", "traceback"?, "data"?, "cause"?: {"name", "message", "cause"?}}
 *
 * Nothing here throws: objects of other people are asked for their text, and what cannot be said is left out.
 */
import { encode } from "../payloads.js"

const TEXT_MAX = 16 * 1024
const CAUSE_TEXT_MAX = 2 * 1024
const DATA_BYTES_MAX = 256 * 1024
const CAUSES_MAX = 8
const BYTES_MAX = 4 << 20
const OWN = new URL("../", import.meta.url).href // files of this package
const NAMES_OF_KINDS: Readonly<Record<string, string>> = { timeout: "TimeoutError", cancelled: "CancelledError" }

/** `kind`: "failed", "timeout" or "cancelled"; the last two also name it, as workflows catch them. */
export function failurePayload(
  error: unknown,
  { kind = "failed", attempts = 1, retryable = false }: { kind?: string; attempts?: number; retryable?: boolean } = {},
): string {
  const failure: Record<string, unknown> = {
    name: NAMES_OF_KINDS[kind] ?? nameOf(error),
    message: messageOf(error, TEXT_MAX),
    type: kind,
    attempts,
    retryable,
  }
  const stack = attempt(() => (error instanceof Error && kind === "failed" ? stackOf(error) : undefined))
  if (stack !== undefined) failure.traceback = stack
  const data = attempt(() => (error instanceof Error ? (error as { data?: unknown }).data : error))
  if (data !== undefined) {
    try {
      failure.data = JSON.parse(encode(data, "data", DATA_BYTES_MAX))
    } catch {
      failure.data_omitted = `its data is not JSON of at most ${DATA_BYTES_MAX} bytes`
    }
  }
  const cause = causeOf(error, 0)
  if (cause !== undefined) failure.cause = cause
  return encode(failure, "failure", BYTES_MAX)
}

/** The stack without the worker's own frames; undefined when there are no others: the message says it all. */
function stackOf(error: Error): string | undefined {
  const lines = (error.stack ?? "").split("\n")
  const foreign = lines.filter((line) => !(line.startsWith("    at ") && (line.includes(OWN) || line.includes("(node:"))))
  return foreign.some((line) => line.startsWith("    at ")) ? foreign.join("\n").slice(0, TEXT_MAX) : undefined
}

/** One line that says what it is. */
export function describe(error: unknown): string {
  return `${nameOf(error)}: ${messageOf(error, CAUSE_TEXT_MAX)}`
}

/** The name that its class gives, where nobody has said another one. */
function nameOf(error: unknown): string {
  const name = attempt(() => {
    if (!(error instanceof Error)) return "Error"
    return error.name === "Error" ? error.constructor.name : error.name
  })
  return typeof name === "string" && name ? name.slice(0, 200) : "Error"
}

function messageOf(error: unknown, max: number): string {
  const text = attempt(() => (error instanceof Error ? error.message : `it threw ${shown(error)}`))
  const message = typeof text === "string" ? text : "(its message cannot be shown)"
  return message.length > max ? `${message.slice(0, max)}…` : message
}

function shown(value: unknown): string {
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value)
}

function causeOf(error: unknown, depth: number): object | undefined {
  const found = attempt(() => (error instanceof Error ? error.cause : undefined))
  if (found === undefined || found === null || found === error || depth >= CAUSES_MAX) return undefined
  const cause = causeOf(found, depth + 1)
  return { name: nameOf(found), message: messageOf(found, CAUSE_TEXT_MAX), ...(cause === undefined ? {} : { cause }) }
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
