/** How long to wait before the next attempt, and which errors deserve one. */
import { type Duration, parseSeconds } from "./durations.js"
import { InvalidInput } from "./errors.js"

type ErrorClass = abstract new (...args: never[]) => Error

/** A retry policy. The wait before retry n is `initial * factor ** (n - 1)`, at most `max`, moved by up to `jitter`. */
export interface Retry {
  /** Wait before the first retry. Default "1s". */
  initial?: Duration
  /** Growth from one wait to the next, 1 to 1000. Default 2. */
  factor?: number
  /** Longest wait. Default "5m". */
  max?: Duration
  /** Share of the wait that is random, 0 to 1. Default 0.2. */
  jitter?: number
  /** If given, only these errors are retried: classes, or their names. */
  retryOn?: readonly (ErrorClass | string)[]
  /** These errors are never retried. */
  noRetryOn?: readonly (ErrorClass | string)[]
}

/** The same as it is stored: durations in seconds, errors by name. */
export interface Policy {
  initial: number
  factor: number
  max: number
  jitter: number
  retry_on: string[]
  no_retry_on: string[]
}

/** Throws InvalidInput or InvalidDuration for a field that cannot be used. */
export function policyOf(retry: Retry = {}): Policy {
  const { initial = "1s", factor = 2, max = "5m", jitter = 0.2, retryOn = [], noRetryOn = [] } = retry
  if (!(factor >= 1 && factor <= 1000)) throw new InvalidInput(`retry: factor ${factor} is not between 1 and 1000`)
  if (!(jitter >= 0 && jitter <= 1)) throw new InvalidInput(`retry: jitter ${jitter} is not between 0 and 1`)
  return {
    initial: parseSeconds(initial),
    factor,
    max: parseSeconds(max),
    jitter,
    retry_on: retryOn.map(nameOf),
    no_retry_on: noRetryOn.map(nameOf),
  }
}

/** What of the policy a start says itself: lists left empty are the registration's. */
export function givenOf(retry: Retry): Partial<Policy> {
  const policy: Partial<Policy> = policyOf(retry)
  if (policy.retry_on?.length === 0) delete policy.retry_on
  if (policy.no_retry_on?.length === 0) delete policy.no_retry_on
  return policy
}

/** Whether the policy allows another attempt after this error; `own` is the execution's, the rest is the task's. */
export function isRetryable(error: unknown, task: Policy, own: Partial<Policy> | null): boolean {
  const names = namesOf(error)
  if ((own?.no_retry_on ?? task.no_retry_on).some((name) => names.has(name))) return false
  const only = own?.retry_on ?? task.retry_on
  return only.length === 0 || only.some((name) => names.has(name))
}

/** The names of an error's class and of those it extends, and its own name. */
function namesOf(error: unknown): Set<string> {
  const names = new Set<string>()
  if (!(error instanceof Error)) return names
  names.add(error.name)
  for (let at: unknown = Object.getPrototypeOf(error); at !== null && at !== Object.prototype; ) {
    names.add((at as { constructor: { name: string } }).constructor.name)
    at = Object.getPrototypeOf(at)
  }
  return names
}

function nameOf(kind: ErrorClass | string): string {
  return typeof kind === "string" ? kind : kind.name
}
