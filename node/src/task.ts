/**
 * Tasks: named functions that executions call.
 *
 * `task` registers a function under a name for the workers of this process, and gives it back, still callable as before.
 * Inputs are one object; with a schema they are validated before the function sees them, and the schema is registered, so
 * that calls of the task in workflows are checked against it before they run.
 */
import { type Duration, parseMilliseconds } from "./durations.js"
import { ConfigurationError, InvalidInput, TaskAbandoned } from "./errors.js"
import { Logger } from "./logging.js"
import { encode } from "./payloads.js"
import { type Policy, policyOf, type Retry } from "./retry.js"
import { type InputsOfSchema, type JsonSchema, type OutputOfSchema, type StandardSchema } from "./schema.js"

export const NAME_LENGTH_MAX = 200
export const RETRIES_MAX = 1_000_000
export const PRIORITY_MAX = 100
const PROGRESS_BYTES_MAX = 4 * 1024
const LONE_SURROGATE = /\p{Surrogate}/u

/** How a task is run, and what a start or a call of it takes its options from. */
export interface TaskOptions<S = StandardSchema | JsonSchema> {
  /** Default "default". */
  queue?: string
  /** Attempts after the first. Default 0. */
  retries?: number
  /** Waits between attempts, and for which errors. */
  retry?: Retry
  /** Longest one attempt may take; then `ctx.signal` is aborted. Default none. */
  timeout?: Duration
  /** -100 to 100, higher first. Default 0. */
  priority?: number
  /** Of the inputs: a Standard Schema (zod, valibot, ArkType, …), or a JSON Schema (needs the package ajv). */
  schema?: S
  /** What is registered for checking calls, where the schema cannot be described as JSON Schema by itself. */
  jsonSchema?: JsonSchema
}

/** What a task may know of the attempt it runs in. In plain calls and tests make one yourself: everything has a default. */
export class TaskContext {
  /** this execution */
  readonly executionId: string
  /** counted from 1 */
  readonly attempt: number
  /** the workflow that called it, or null */
  readonly parentId: string | null
  /** the task's name */
  readonly name: string
  readonly #given: Partial<ContextFields>
  #stop: AbortController | undefined
  #reason: Error | undefined
  #logger: Logger | undefined

  constructor(fields: Partial<ContextFields> = {}) {
    this.executionId = fields.executionId ?? "00000000-0000-0000-0000-000000000000"
    this.attempt = fields.attempt ?? 1
    this.parentId = fields.parentId ?? null
    this.name = fields.name ?? "task"
    this.#given = fields
  }

  /** The same in every attempt, different for every call: hand it to services that remember requests. */
  get idempotencyKey(): string {
    return this.#given.idempotencyKey ?? this.executionId
  }

  /** Aborted when the attempt times out, is cancelled, or its worker lets go of it; the reason says which. */
  get signal(): AbortSignal {
    // made when it is first asked for: most tasks never do, and it takes longer than a small task
    if (this.#stop === undefined) {
      this.#stop = new AbortController()
      if (this.#reason !== undefined) this.#stop.abort(this.#reason)
    }
    return this.#stop.signal
  }

  /** Its lines carry the execution's id and the attempt. */
  get logger(): Logger {
    this.#logger ??= (this.#given.logger ?? new Logger(() => undefined)).with({
      execution_id: this.executionId,
      attempt: this.attempt,
      task: this.name,
    })
    return this.#logger
  }

  /**
   * Says how far the task is, for whoever looks at the execution: any JSON of at most 4 KiB. The newest counts; it is
   * written with the worker's next heartbeat (every sixth of its timeout, 5 s by default), so saying it often costs next
   * to nothing. Throws InvalidInput or PayloadTooLarge.
   */
  progress(value: unknown): void {
    const text = encode(value, `progress of task ${JSON.stringify(this.name)}`, PROGRESS_BYTES_MAX)
    this.#given.note?.(text)
  }

  /** Says that the task is still at it. Throws TaskAbandoned when nobody waits for this attempt any more. */
  heartbeat(): void {
    if (this.#reason !== undefined) throw new TaskAbandoned(`${this.name}: ${this.#reason.message}`, { cause: this.#reason })
  }

  /** Aborts `signal`. For workers, and for tests of tasks. */
  abort(reason: Error): void {
    this.#reason ??= reason
    this.#stop?.abort(this.#reason)
  }
}

interface ContextFields {
  executionId: string
  attempt: number
  parentId: string | null
  name: string
  idempotencyKey: string
  logger: Logger
  /** takes JSON */
  note: (progress: string) => void
}

/** The function of a task. */
export type Handler<I, O> = (inputs: I, ctx: TaskContext) => O | Promise<O>

/** A task: the function, still callable, with its name and options. */
export interface Task<I = never, O = unknown, Given = I> {
  (inputs: I, ctx?: TaskContext): O | Promise<O>
  readonly name: string
  readonly queue: string
  readonly retries: number
  readonly policy: Policy
  /** ms; 0: none */
  readonly timeout: number
  readonly priority: number
  readonly schema: StandardSchema | JsonSchema | undefined
  readonly jsonSchema: JsonSchema | undefined
  /** Type of the inputs that a caller gives; no value. */
  readonly given?: Given
}

/** A task of any type. */
export type AnyTask = Task<never, unknown, unknown>

const registry = new Map<string, AnyTask>()

/**
 * Makes a task of a function and registers it for the workers of this process.
 *
 * Throws ConfigurationError for a name that is taken, and InvalidInput for options that cannot be used.
 */
export function task<I extends object, O>(name: string, handler: Handler<I, O>): Task<I, O>
export function task<S extends StandardSchema, O>(
  name: string,
  options: TaskOptions<S> & { schema: S },
  handler: Handler<OutputOfSchema<S>, O>,
): Task<OutputOfSchema<S>, O, InputsOfSchema<S>>
export function task<I extends object, O>(
  name: string,
  options: TaskOptions<JsonSchema>,
  handler: Handler<I, O>,
): Task<I, O>
export function task(
  name: string,
  options: TaskOptions | Handler<never, unknown>,
  handler?: Handler<never, unknown>,
): AnyTask {
  const given = typeof options === "function" ? {} : options
  const call = typeof options === "function" ? options : handler
  if (typeof call !== "function") throw new InvalidInput(`task ${JSON.stringify(name)}: the last argument is its function`)
  checkName(name, "name of a task")
  const { queue = "default", retries = 0, priority = 0, timeout } = given
  checkName(queue, "queue")
  checkRetries(retries)
  checkPriority(priority)
  if (registry.has(name)) throw new ConfigurationError(`there are two tasks named ${JSON.stringify(name)}`)
  const made = Object.assign((inputs: never, ctx: TaskContext = new TaskContext({ name })) => call(inputs, ctx), {
    queue,
    retries,
    policy: policyOf(given.retry),
    timeout: timeout === undefined ? 0 : checkTimeout(timeout),
    priority,
    schema: given.schema,
    jsonSchema: given.jsonSchema,
  })
  Object.defineProperty(made, "name", { value: name })
  registry.set(name, made)
  return made
}

/** The tasks of this process, by name. */
export function registeredTasks(): ReadonlyMap<string, AnyTask> {
  return registry
}

/** Throws InvalidInput for what cannot be the name of anything. */
export function checkName(name: unknown, what: string, max: number = NAME_LENGTH_MAX): string {
  if (typeof name !== "string" || name.length === 0 || name.length > max || name.includes("\0") || LONE_SURROGATE.test(name)) {
    throw new InvalidInput(`${shown(name)} is not a ${what}: it must be text of 1 to ${max} characters`)
  }
  return name
}

export function checkRetries(retries: unknown): number {
  if (!Number.isInteger(retries) || Number(retries) < 0 || Number(retries) > RETRIES_MAX) {
    throw new InvalidInput(`retries ${shown(retries)} is not a whole number from 0 to ${RETRIES_MAX}`)
  }
  return Number(retries)
}

export function checkPriority(priority: unknown): number {
  if (!Number.isInteger(priority) || Math.abs(Number(priority)) > PRIORITY_MAX) {
    throw new InvalidInput(`priority ${shown(priority)} is not a whole number from ${-PRIORITY_MAX} to ${PRIORITY_MAX}`)
  }
  return Number(priority)
}

/** ms, at least 1. */
export function checkTimeout(timeout: Duration): number {
  const milliseconds = parseMilliseconds(timeout)
  if (milliseconds === 0) throw new InvalidInput(`timeout ${shown(timeout)} must be longer than nothing`)
  return Math.max(1, Math.round(milliseconds))
}

function shown(value: unknown): string {
  return (JSON.stringify(value) as string | undefined)?.slice(0, 100) ?? typeof value
}
