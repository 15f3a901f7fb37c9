/** From what a caller asks for to the record that the protocol sends, with every check that needs no database. */
import { type Duration, parseSeconds } from "./durations.js"
import { InvalidInput, StartRefused } from "./errors.js"
import { newId, parseId } from "./ids.js"
import { encode } from "./payloads.js"
import type { NewExecution, StartResult } from "./protocol.js"
import { givenOf, type Retry } from "./retry.js"
import { type AnyTask, checkName, checkPriority, checkRetries, checkTimeout } from "./task.js"

const KEY_POLICIES = { return: 1, reject: 2, replace: 3, afterFailure: 4 } as const
const KEY_LENGTH_MAX = 500
const TAGS_BYTES_MAX = 16 * 1024

/** The options of a start; what is not given comes from the task's registration, or is the default. */
export interface StartOptions {
  /** Idempotency key, unique per name. Default none. */
  key?: string | undefined
  /** What a taken key does. Default "return": the execution that has it. */
  keyPolicy?: keyof typeof KEY_POLICIES | undefined
  /** Default: the task's registered queue, else "default". */
  queue?: string | undefined
  /** -100 to 100, higher first. Default 0. */
  priority?: number | undefined
  /** Wait this long before the first attempt. */
  delay?: Duration | undefined
  /** Or: not before this moment. */
  at?: Date | undefined
  /** Attempts after the first. Default 0. */
  retries?: number | undefined
  /** Waits between them, and for which errors. */
  retry?: Retry | undefined
  /** Longest one attempt may take. Default none. */
  timeout?: Duration | undefined
  /** Small object to find executions by. */
  tags?: Readonly<Record<string, unknown>> | undefined
  /** The execution's id, if the caller mints it; then a repeated start is harmless. */
  id?: string | undefined
  /** Send this signal as well: to the execution that runs under the key, or to the new one. */
  signal?: string | undefined
  /** Its payload. Default null. */
  signalPayload?: unknown
  /** Its send id, if the caller mints it. */
  sendId?: string | undefined
  /** What it counts for in the limits of keys of its queue. Default none. */
  limitKey?: string | undefined
}

/** One entry of startMany. */
export interface Start extends StartOptions {
  name: string | AnyTask
  inputs?: object | undefined
}

/** The record of one start. Throws InvalidInput or PayloadTooLarge for what can never work. */
export function newExecution(
  target: string | AnyTask,
  inputs: object | undefined,
  options: StartOptions,
  bytesMax: number,
): NewExecution {
  const name = typeof target === "string" ? checkName(target, "name of a workflow or task") : target.name
  const what = `inputs of ${JSON.stringify(name)}`
  if (inputs !== undefined && (typeof inputs !== "object" || (inputs as unknown) === null || Array.isArray(inputs))) {
    throw new InvalidInput(`${what} must be an object`)
  }
  if (options.delay !== undefined && options.at !== undefined) throw new InvalidInput("give either delay or at, not both")
  if (options.at !== undefined && !(options.at instanceof Date && Number.isFinite(options.at.getTime()))) {
    throw new InvalidInput("at must be a valid Date")
  }
  const policy = options.keyPolicy ?? "return"
  if (!Object.hasOwn(KEY_POLICIES, policy)) {
    throw new InvalidInput(`keyPolicy ${JSON.stringify(policy)} is not one of ${Object.keys(KEY_POLICIES).join(", ")}`)
  }
  return {
    id: options.id === undefined ? newId() : parseId(options.id),
    name,
    kind: typeof target === "string" ? 0 : 1,
    inputs: inputs === undefined ? "{}" : encode(inputs, what, bytesMax),
    queue: options.queue === undefined ? null : checkName(options.queue, "queue"),
    priority: options.priority === undefined ? null : checkPriority(options.priority),
    delaySeconds: options.delay === undefined ? null : parseSeconds(options.delay),
    availableAt: options.at ?? null,
    key: options.key === undefined ? null : checkName(options.key, "key", KEY_LENGTH_MAX),
    keyPolicy: KEY_POLICIES[policy],
    retries: options.retries === undefined ? null : checkRetries(options.retries),
    retry: options.retry === undefined ? null : JSON.stringify(givenOf(options.retry)),
    timeout: options.timeout === undefined ? null : checkTimeout(options.timeout),
    tags: options.tags === undefined ? null : tagsText(options.tags),
    signal: newSignal(target, options, bytesMax),
    limitKey: options.limitKey === undefined ? null : checkName(options.limitKey, "limit key"),
  }
}

function newSignal(target: string | AnyTask, options: StartOptions, bytesMax: number): NewExecution["signal"] {
  const { signal, signalPayload, sendId } = options
  if (signal === undefined) {
    if (signalPayload !== undefined || sendId !== undefined) {
      throw new InvalidInput("signalPayload and sendId belong to a signal: give its name as signal")
    }
    return null
  }
  if ((options.keyPolicy ?? "return") !== "return") {
    throw new InvalidInput(`keyPolicy ${JSON.stringify(options.keyPolicy)} does not go with signal`)
  }
  if (typeof target !== "string") throw new InvalidInput(`${JSON.stringify(target.name)} takes no signal: only workflows do`)
  return {
    name: checkName(signal, "name of a signal"),
    payload: encode(signalPayload, `payload of signal ${JSON.stringify(signal)}`, bytesMax),
    sendId: sendId === undefined ? newId() : parseId(sendId),
  }
}

/** Tags as JSON text that the database can index. */
export function tagsText(tags: object): string {
  const text = encode(tags, "tags", TAGS_BYTES_MAX)
  if (/\\u0000|\\ud[89a-f]/i.test(text)) {
    JSON.parse(text, (key, value: unknown) => {
      for (const part of [key, value]) {
        if (typeof part === "string" && (part.includes("\0") || /\p{Surrogate}/u.test(part))) {
          throw new InvalidInput(`tags hold the text ${JSON.stringify(part).slice(0, 60)}, which the database cannot index`)
        }
      }
      return value
    })
  }
  return text
}

/** The id that stands for a start. Throws StartRefused when it was refused for its key's sake. */
export function startedId(record: NewExecution, result: StartResult): string {
  if (result.status === "key_conflict" || result.status === "key_taken") {
    const why = result.status === "key_conflict" ? "with other inputs" : "and the key policy is to reject that"
    throw new StartRefused(
      `the key ${JSON.stringify(record.key)} of ${JSON.stringify(record.name)} belongs to execution ${result.id}, ${why}`,
      result.status,
    )
  }
  return result.id
}
