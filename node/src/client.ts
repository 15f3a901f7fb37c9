/**
 * The client: starts, asks, waits, signals, cancels, retries.
 *
 * Every method is one call of a SQL function, or a few. Single starts are coalesced: those that arrive while two calls are
 * in flight go together in the next one; at low load a start leaves at once. Ids are minted here before anything is sent,
 * so a start whose answer was lost is repeated unchanged and cannot happen twice.
 */
import { pause } from "./clock.js"
import { connectConfig, type ConnectOptions, resolveUrl } from "./config.js"
import { Database, type Row } from "./database.js"
import { type Duration, parseMilliseconds } from "./durations.js"
import {
  DatabaseUnavailable,
  ExecutionCancelled,
  ExecutionFailed,
  ExecutionFinished,
  ExecutionNotFound,
  type Failure,
  InvalidInput,
  RhythmError,
  WaitTimeout,
} from "./errors.js"
import { newId, parseId } from "./ids.js"
import { decode, encode } from "./payloads.js"
import {
  type NewExecution,
  type Outcome,
  Protocol,
  type Queryable,
  signalOn,
  START_COUNT_MAX,
  startOn,
  type StartResult,
} from "./protocol.js"
import { newExecution, type Start, startedId, type StartOptions, tagsText } from "./starts.js"
import { type AnyTask, checkName, type Task } from "./task.js"
import { OutcomeWaits } from "./waiting.js"
import { payloadText } from "./wire.js"

const CALLS_IN_FLIGHT = 2 // of coalesced starts
const CONNECTIONS_MAX = CALLS_IN_FLIGHT + 3
const REPEATS_MAX = 8 // times a call whose answer was lost is repeated before the error reaches the caller
const LIST_LIMIT_MAX = 10_000
const TIMER_MAX = 2 ** 31 - 1 // ms

/**
 * Types of workflows by name, for typed starts; empty until a declaration adds to it, like the one that `rhythm types`
 * writes:
 *
 *     declare module "rhythm-flow" { interface Workflows { processOrder: { inputs: {…}; output: {…} } } }
 */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type
export interface Workflows {}

type InputsOf<N> = N extends keyof Workflows ? (Workflows[N] extends { inputs: infer I } ? I : object) : object
type OutputOf<N> = N extends keyof Workflows ? (Workflows[N] extends { output: infer O } ? O : unknown) : unknown
/** Inputs may be left out where nothing of them is required. */
type InputsArgument<I> = object extends I ? [inputs?: I, options?: StartCallOptions] : [inputs: I, options?: StartCallOptions]

/** The options of a start, and the caller's own connection. */
export interface StartCallOptions extends StartOptions {
  /** A connection of `pg` on which the caller has begun a transaction: the start is written in it. */
  connection?: Queryable | undefined
}

export type Status = "pending" | "running" | "suspended" | "completed" | "failed" | "cancelled"

/**
 * What is known of one execution at one moment. `inputs`, `output`, `error`, `lastFailure` and `progress` are read when asked
 * for, and throw InvalidInput when they hold a whole number that no double holds exactly.
 */
export interface ExecutionInfo {
  id: string
  kind: "task" | "workflow"
  name: string
  status: Status
  /** why it is pending ("ready", "later", "retry", "unknown task", …) */
  reason: string | null
  queue: string
  priority: number
  key: string | null
  tags: Record<string, unknown> | null
  inputs: unknown
  /** when completed */
  output: unknown
  /** when failed or cancelled */
  error: Failure | null
  attempts: number
  lost: number
  parentId: string | null
  rootId: string
  createdAt: Date
  startedAt: Date | null
  finishedAt: Date | null
  /** when it waits for its time */
  availableAt: Date | null
  /** error of the last attempt that was followed by another */
  lastFailure: Failure | null
  lastFailureAt: Date | null
  limitKey: string | null
  /** how far it is, as a task has said last */
  progress: unknown
  progressAt: Date | null
}

/** One line of the log of an execution. */
export interface LogLine {
  number: number
  level: "debug" | "info" | "warn" | "error"
  at: Date
  text: string
}

/** What list looks for; everything given must fit. */
export interface ListOptions {
  name?: string | undefined
  status?: Status | readonly Status[] | undefined
  kind?: "task" | "workflow" | undefined
  queue?: string | undefined
  key?: string | undefined
  /** executions that carry at least these */
  tags?: Readonly<Record<string, unknown>> | undefined
  parent?: string | undefined
  /** Default 100. */
  limit?: number | undefined
  /** the id after which the next page goes on */
  before?: string | undefined
}

/** One execution, as a handle: cheap to make, and nothing is asked before a method is called. */
export class Execution<O = unknown> {
  constructor(
    readonly client: Client,
    readonly id: string,
    /** what was known when the handle came from get or list, or at the last refresh() */
    public info?: ExecutionInfo,
    /** known to exist; otherwise the first wait looks */
    readonly exists = info !== undefined,
  ) {}

  /**
   * Waits for the outcome and gives the output.
   *
   * Throws ExecutionFailed, ExecutionCancelled, ExecutionNotFound, or WaitTimeout (the execution carries on).
   */
  async result(options: { timeout?: Duration | undefined; signal?: AbortSignal | undefined } = {}): Promise<O> {
    return (await this.client.wait(this, options)) as O
  }

  /** Sends a signal to this execution (see Client.signal). */
  async signal(name: string, payload?: unknown, options: SignalOptions = {}): Promise<void> {
    await this.client.signal(this.id, name, payload, options)
  }

  /** Asks for this execution to be cancelled, or ends it (see Client.cancel). */
  async cancel(options: { force?: boolean } = {}): Promise<void> {
    await this.client.cancel(this.id, options)
  }

  /** Tries this execution again (see Client.retry). */
  async retry(options: { fromStart?: boolean } = {}): Promise<Execution<O>> {
    return (await this.client.retry(this.id, options)) as Execution<O>
  }

  /** The lines that this workflow has logged (see Client.logs). */
  async logs(options: LogOptions = {}): Promise<LogLine[]> {
    return await this.client.logs(this.id, options)
  }

  /** Asks the database, and gives and keeps what is known now. Throws ExecutionNotFound. */
  async refresh(): Promise<ExecutionInfo> {
    const { info } = await this.client.get(this.id)
    if (info === undefined) throw new TypeError("get() fills in what is known")
    this.info = info
    return info
  }

  /** The status when it was last asked for. */
  get status(): Status {
    if (this.info === undefined) throw new RhythmError("nothing is known of this execution yet: await execution.refresh()")
    return this.info.status
  }
}

export interface SignalOptions {
  /** makes repeating harmless when the caller repeats */
  sendId?: string | undefined
  /** the signal is sent by the commit of the transaction on this connection */
  connection?: Queryable | undefined
}

export interface LogOptions {
  /** and what is above it. Default "debug". */
  level?: LogLine["level"] | undefined
  /** only lines with a higher number. Default 0. */
  after?: number | undefined
  /** at most so many, the last ones */
  newest?: number | undefined
}

const LOG_LEVELS = ["debug", "info", "warn", "error"] as const

interface Queued {
  record: NewExecution
  resolve: (result: StartResult) => void
  reject: (error: unknown) => void
}

/** Starts, asks, waits, signals. `await using client = await connect()`, or close() it. */
export class Client implements AsyncDisposable {
  readonly #protocol: Protocol
  readonly #waits: OutcomeWaits
  #queued: Queued[] = []
  readonly #calls = new Set<Promise<void>>()

  /** Use `connect`. */
  constructor(
    database: Database,
    readonly payloadBytesMax: number,
  ) {
    this.#protocol = new Protocol(database)
    this.#waits = new OutcomeWaits(this.#protocol)
  }

  /** Sends what is under way and disconnects. Waits that are still under way end with an error. */
  async close(): Promise<void> {
    while (this.#calls.size > 0) await Promise.all(this.#calls)
    this.#waits.close()
    await this.#protocol.database.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  // --- starting ---

  /**
   * Starts a workflow or a task, durably: when this resolves, it will run.
   *
   * With `key` the start happens once per name and key: a second one with equal inputs answers with the first execution,
   * one with other inputs is refused. With `connection` the row is written in the caller's own transaction.
   * Throws InvalidInput, PayloadTooLarge, StartRefused, SignalRefused, DatabaseUnavailable.
   */
  async start<I, O, G>(task: Task<I, O, G>, ...args: InputsArgument<G>): Promise<Execution<Awaited<O>>>
  async start<N extends string>(name: N, ...args: InputsArgument<InputsOf<N>>): Promise<Execution<OutputOf<N>>>
  async start(target: string | AnyTask, ...args: unknown[]): Promise<Execution> {
    const [inputs, options = {}] = args as [object?, StartCallOptions?]
    const record = newExecution(target, inputs, options, this.payloadBytesMax)
    let result: StartResult
    if (options.connection !== undefined) {
      result = (await startOn(options.connection, [record]))[0] ?? { id: record.id, status: "started" }
    } else {
      result = await this.#coalesced(record)
    }
    return new Execution(this, startedId(record, result), undefined, true)
  }

  /**
   * Starts all of them, a thousand in each round trip, and gives the ids in order.
   *
   * Throws what `start` throws; starts of earlier round trips stand. With `connection` all of it happens in the caller's
   * own transaction.
   */
  async startMany(starts: Iterable<Start>, options: { connection?: Queryable | undefined } = {}): Promise<string[]> {
    const records = Array.from(starts, (start) => newExecution(start.name, start.inputs, start, this.payloadBytesMax))
    const ids: string[] = []
    const { connection } = options
    for (let first = 0; first < records.length; first += START_COUNT_MAX) {
      const portion = records.slice(first, first + START_COUNT_MAX)
      const results =
        connection === undefined
          ? await this.#repeat(() => this.#protocol.start(portion))
          : await startOn(connection, portion)
      results.forEach((result, index) => {
        const record = portion[index]
        if (record !== undefined) ids.push(startedId(record, result))
      })
    }
    return ids
  }

  #coalesced(record: NewExecution): Promise<StartResult> {
    return new Promise((resolve, reject) => {
      this.#queued.push({ record, resolve, reject })
      if (this.#calls.size < CALLS_IN_FLIGHT) {
        const call = this.#sendQueued().finally(() => this.#calls.delete(call))
        this.#calls.add(call)
      }
    })
  }

  async #sendQueued(): Promise<void> {
    await Promise.resolve() // those that are started in the same turn go together
    while (this.#queued.length > 0) {
      const batch = this.#queued.splice(0, START_COUNT_MAX)
      await this.#send(batch)
    }
  }

  async #send(batch: Queued[]): Promise<void> {
    try {
      const results = await this.#repeat(() => this.#protocol.start(batch.map((queued) => queued.record)))
      batch.forEach((queued, index) => {
        const result = results[index]
        if (result !== undefined) queued.resolve(result)
      })
    } catch (error) {
      if (batch.length === 1 || error instanceof DatabaseUnavailable || !(error instanceof RhythmError)) {
        for (const queued of batch) queued.reject(error)
        return
      }
      // one refused start undoes the whole call: the halves go again, so that only the culprit fails
      const middle = batch.length >> 1
      await this.#send(batch.slice(0, middle))
      await this.#send(batch.slice(middle))
    }
  }

  /** Makes an idempotent call, again while the connection fails under it, with growing pauses. */
  async #repeat<T>(call: () => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await call()
      } catch (error) {
        if (!(error instanceof DatabaseUnavailable) || attempt === REPEATS_MAX - 1) throw error
        await pause(50 * 2 ** attempt)
      }
    }
  }

  // --- asking ---

  /** A handle for an id, without asking the database. Throws InvalidInput when it is not an id. */
  execution(id: string): Execution {
    return new Execution(this, parseId(id))
  }

  /** The execution, with what is known of it. Throws ExecutionNotFound. */
  async get(id: string): Promise<Execution> {
    const wanted = parseId(id)
    const row = await this.#protocol.get(wanted)
    if (row === undefined) throw new ExecutionNotFound(`no execution with the id ${wanted}`)
    return new Execution(this, wanted, infoOf(row))
  }

  /** Executions that fit all that is given, newest first. */
  async list(options: ListOptions = {}): Promise<Execution[]> {
    const { limit = 100, status, tags, parent, before } = options
    if (!Number.isInteger(limit) || limit < 1 || limit > LIST_LIMIT_MAX) {
      throw new InvalidInput(`limit ${limit} is not between 1 and ${LIST_LIMIT_MAX}`)
    }
    const rows = await this.#protocol.list([
      status === undefined ? null : [status].flat(),
      options.name ?? null,
      options.kind ?? null,
      options.queue ?? null,
      parent === undefined ? null : parseId(parent),
      tags === undefined ? null : tagsText(tags),
      before === undefined ? null : parseId(before),
      limit,
      options.key ?? null,
    ])
    return rows.map((row) => new Execution(this, row.id as string, infoOf(row)))
  }

  /** The output of an execution, once it has finished (see Execution.result). */
  async wait(
    target: Execution | string,
    options: { timeout?: Duration | undefined; signal?: AbortSignal | undefined } = {},
  ): Promise<unknown> {
    const execution = typeof target === "string" ? this.execution(target) : target
    const stop = new AbortController()
    const timeout = options.timeout === undefined ? undefined : parseMilliseconds(options.timeout)
    const late = new WaitTimeout(`execution ${execution.id} has not finished within ${timeout ?? 0} ms; it carries on`)
    const timer = timeout === undefined || timeout > TIMER_MAX ? undefined : setTimeout(() => stop.abort(late), timeout)
    const giveUp = () => stop.abort(options.signal?.reason)
    options.signal?.addEventListener("abort", giveUp, { once: true })
    if (options.signal?.aborted) giveUp()
    try {
      if (!execution.exists) await this.#outcome(execution.id)
      return resultOf(await this.#waits.outcome(execution.id, stop.signal))
    } catch (error) {
      if (error !== late) throw error
      // a timeout shorter than one question must not hide the outcome
      const last = await this.#outcome(execution.id)
      if (last === null) throw late
      return resultOf(last)
    } finally {
      clearTimeout(timer)
      options.signal?.removeEventListener("abort", giveUp)
    }
  }

  /** Throws ExecutionNotFound. */
  async #outcome(id: string): Promise<Outcome | null> {
    const found = (await this.#protocol.outcomes([id])).get(id)
    if (found === undefined) throw new ExecutionNotFound(`no execution has the id ${id}`)
    return found
  }

  /** What a workflow has written with `console`, and warnings of the engine, oldest first. Throws ExecutionNotFound. */
  async logs(id: string, options: LogOptions = {}): Promise<LogLine[]> {
    const { level = "debug", after = 0, newest } = options
    const from = LOG_LEVELS.indexOf(level)
    if (from < 0) throw new InvalidInput(`level ${JSON.stringify(level)}: the levels are ${LOG_LEVELS.join(", ")}`)
    if (after < 0 || (newest !== undefined && newest < 1)) {
      throw new InvalidInput(`after is ${after}, newest ${newest ?? "none"}: numbers of lines begin at 1`)
    }
    const rows = await this.#protocol.logs(parseId(id), after, from + 1, newest ?? null)
    return rows.map((row) => ({
      number: row.number as number,
      level: LOG_LEVELS[(row.level as number) - 1] ?? "info",
      at: row.logged_at as Date,
      text: JSON.parse(payloadText(row.text as string)) as string,
    }))
  }

  // --- telling ---

  /**
   * Sends a signal to a workflow: kept until it is read, delivered once, in the order of sending.
   *
   * Throws ExecutionNotFound, ExecutionFinished, SignalRefused, InvalidInput, PayloadTooLarge.
   */
  async signal(id: string, name: string, payload?: unknown, options: SignalOptions = {}): Promise<void> {
    const target = parseId(id)
    checkName(name, "name of a signal")
    const json = encode(payload, `payload of signal ${JSON.stringify(name)}`, this.payloadBytesMax)
    const sendId = options.sendId === undefined ? newId() : parseId(options.sendId)
    const { connection } = options
    if (connection !== undefined) await signalOn(connection, target, name, json, sendId)
    else await this.#repeat(() => this.#protocol.signal(target, name, json, sendId))
  }

  /**
   * Asks for an execution to be cancelled; asking twice is asking once. `force` ends it as cancelled at once, wherever it
   * stands, without running any more of it. Throws ExecutionNotFound, ExecutionFinished.
   */
  async cancel(id: string, options: { force?: boolean } = {}): Promise<void> {
    const target = parseId(id)
    let calls = 0
    await this.#repeat(async () => {
      calls += 1
      try {
        await this.#protocol.cancel(target, options.force ?? false)
      } catch (error) {
        // the call whose answer was lost may have ended it
        if (!(error instanceof ExecutionFinished) || calls === 1) throw error
      }
    })
  }

  /**
   * Tries again what has failed, or was cancelled; gives the execution to wait for. `fromStart`: a new execution instead,
   * with the same name, inputs and options. Throws ExecutionNotFound, RetryRefused.
   */
  async retry(id: string, options: { fromStart?: boolean } = {}): Promise<Execution> {
    const target = parseId(id)
    const fresh = newId()
    if (options.fromStart) {
      await this.#repeat(() => this.#protocol.startAgain(target, fresh))
      return new Execution(this, fresh, undefined, true)
    }
    await this.#repeat(() => this.#protocol.retry(target, fresh))
    return new Execution(this, target, undefined, true)
  }
}

/** A client for the database of the options, the environment, or `rhythm db url`. Throws NotConfigured, DatabaseUnavailable. */
export async function connect(options: ConnectOptions = {}): Promise<Client> {
  const { pooler, payloadBytesMax } = connectConfig(options)
  const url = await resolveUrl(options.url)
  const database = new Database(url, { poolMax: CONNECTIONS_MAX, pooler, applicationName: "rhythm client" })
  try {
    await database.rows({ name: "hello", text: "select 1 as hello" })
  } catch (error) {
    await database.close()
    throw error
  }
  return new Client(database, payloadBytesMax)
}

function resultOf(outcome: Outcome): unknown {
  const value = decode(outcome.payload, `output of execution ${outcome.id}`)
  if (outcome.status === "completed") return value
  if (outcome.status === "cancelled") throw new ExecutionCancelled(`execution ${outcome.id} was cancelled`)
  throw new ExecutionFailed(value as Failure, outcome.id)
}

function infoOf(row: Row): ExecutionInfo {
  const id = row.id as string
  const completed = row.status === "completed"
  // Read when asked for: what a task in another language got or gave may hold numbers that no double does.
  const read = (column: string, what: string): unknown => {
    const stored = row[column] as string | null
    return stored === null ? null : decode(payloadText(stored), `${what} of execution ${id}`)
  }
  return {
    id,
    kind: row.kind as "task" | "workflow",
    name: row.name as string,
    status: row.status as Status,
    reason: row.reason as string | null,
    queue: row.queue as string,
    priority: row.priority as number,
    key: row.key as string | null,
    tags: row.tags === null ? null : (JSON.parse(row.tags as string) as Record<string, unknown>),
    get inputs() {
      return read("inputs_payload", "inputs")
    },
    get output() {
      return completed ? read("outcome_payload", "output") : null
    },
    get error() {
      return completed ? null : (read("outcome_payload", "error") as Failure | null)
    },
    attempts: row.attempts as number,
    lost: row.lost as number,
    parentId: row.parent_id as string | null,
    rootId: row.root_id as string,
    createdAt: row.created_at as Date,
    startedAt: row.started_at as Date | null,
    finishedAt: row.finished_at as Date | null,
    availableAt: row.available_at as Date | null,
    get lastFailure() {
      return read("failure_payload", "last failure") as Failure | null
    },
    lastFailureAt: row.last_failure_at as Date | null,
    limitKey: row.limit_key as string | null,
    get progress() {
      return read("progress_payload", "progress")
    },
    progressAt: row.progress_at as Date | null,
  }
}
