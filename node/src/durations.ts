/**
 * Durations: text like "500ms", "30s", "5m", "2h", "7d", also in parts ("1h30m"), or a number of milliseconds.
 *
 * Text without a unit is refused: elsewhere in Rhythm it would be seconds.
 */
import { InvalidDuration } from "./errors.js"

/** A number is milliseconds. */
export type Duration = number | string

const MILLISECONDS_MAX = 10 * 366 * 86_400_000 // ten years; longer waits are a mistake
const UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
}
const PART = /([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|w)/g
const WHOLE = /^(?:[0-9]+(?:\.[0-9]+)?\s*(?:ms|s|m|h|d|w)\s*)+$/
const TEXT_MAX = 64

/** The duration in milliseconds. Throws InvalidDuration for what is not between zero and ten years. */
export function parseMilliseconds(value: Duration): number {
  const milliseconds = typeof value === "string" ? parseText(value) : value
  if (typeof milliseconds !== "number" || !(milliseconds >= 0 && milliseconds <= MILLISECONDS_MAX)) {
    throw new InvalidDuration(`${shown(value)} is not a duration between zero and ten years; write for example "30s"`)
  }
  return milliseconds
}

/** The same in seconds, as the database takes them. */
export function parseSeconds(value: Duration): number {
  return parseMilliseconds(value) / 1000
}

function parseText(value: string): number {
  const text = value.trim()
  if (text.length > TEXT_MAX || !WHOLE.test(text)) {
    throw new InvalidDuration(
      `${shown(value)} is not a duration; write for example "500ms", "30s", "5m", "2h", "7d", or a number of milliseconds`,
    )
  }
  let sum = 0
  for (const [, number, unit] of text.matchAll(PART)) sum += Number(number) * (UNITS[unit ?? ""] ?? Number.NaN)
  return sum
}

function shown(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value.slice(0, TEXT_MAX)) : String(value)
}
