/**
 * Connections to Postgres: a pool, and its errors in Rhythm's own terms.
 *
 * Nothing here or above uses session state, so any pooler may stand in between; with `pooler` no statements are
 * prepared, which is what PgBouncer in transaction mode needs. A call that fails because the database went away throws
 * DatabaseUnavailable; whether a write was committed is then unknown, and every function may be repeated unchanged. Only
 * what Postgres itself has rolled back for a reason that passes (deadlock, serialization failure) is repeated here.
 */
import pg from "pg"

import { pause } from "./clock.js"
import {
  ConfigurationError,
  DatabaseUnavailable,
  ExecutionFinished,
  ExecutionNotFound,
  IncarnationDead,
  InvalidInput,
  RetryRefused,
  RhythmError,
  SchemaMismatch,
  SignalRefused,
  StartRefused,
} from "./errors.js"
import { TYPES } from "./wire.js"

const CONNECT_TIMEOUT = 10_000 // ms for one connection to be made
/** For one call of a function, ms. */
export const CALL_TIMEOUT = 30_000
const IDLE_TIMEOUT = 300_000 // ms after which an idle connection is closed
const REPEATS_MAX = 5 // of a call that Postgres rolled back for a reason that passes
const BACKOFF_FIRST = 100
const BACKOFF_MAX = 5_000

const PASSING = new Set(["40001", "40P01"])
const UNAVAILABLE_CLASSES = new Set(["08", "53", "57", "58"])
const UNAVAILABLE = new Set(["25006", "55P03"])
const NO_SCHEMA = new Set(["3F000", "42883", "42P01", "42703"])
const NO_STATEMENT = new Set(["26000", "42P05"])

export type Row = Record<string, unknown>

/** One SQL call: prepared under its name where that is allowed. */
export interface Statement {
  readonly name: string
  readonly text: string
}

export interface DatabaseOptions {
  poolMax: number
  pooler: boolean
  applicationName: string
  /** ms for one call */
  timeout?: number
}

/** Waiting times between attempts to reach something: doubled each time, half of it random. */
export class Backoff {
  #next = BACKOFF_FIRST
  constructor(private readonly max = BACKOFF_MAX) {}

  /** To be called when it was reached. */
  reset(): void {
    this.#next = BACKOFF_FIRST
  }

  /** How long to wait now, ms. */
  next(): number {
    const delay = this.#next
    this.#next = Math.min(delay * 2, this.max)
    return delay * (0.5 + Math.random() / 2)
  }
}

/** The URL without its password, for messages. */
export function maskUrl(url: string): string {
  return url.replace(/(:\/\/[^:/@?]*):[^@]*@/, "$1:***@").replace(/(password=)[^&]*/gi, "$1***")
}

/** Throws InvalidInput for what is not the URL of a PostgreSQL database. */
export function checkUrl(url: string): void {
  if (!/^postgres(ql)?:\/\//.test(url)) {
    throw new InvalidInput(`${maskUrl(url)} is not the URL of a PostgreSQL database (postgresql://...)`)
  }
}

/** A client of the driver for this URL; the driver's own defaults and variables count for what the URL leaves out. */
export function newClient(url: string, applicationName: string, timeout: number): pg.Client {
  return new pg.Client(settings(url, applicationName, timeout))
}

function settings(url: string, applicationName: string, timeout: number): pg.ClientConfig {
  return {
    connectionString: url,
    application_name: applicationName,
    connectionTimeoutMillis: CONNECT_TIMEOUT,
    query_timeout: timeout,
    keepAlive: true,
    types: TYPES,
  }
}

/** A pool of connections whose calls throw Rhythm's errors. */
export class Database {
  readonly #pool: pg.Pool
  readonly #pooler: boolean

  constructor(
    readonly url: string,
    options: DatabaseOptions,
  ) {
    checkUrl(url)
    this.#pooler = options.pooler
    this.#pool = new pg.Pool({
      ...settings(url, options.applicationName, options.timeout ?? CALL_TIMEOUT),
      max: options.poolMax,
      idleTimeoutMillis: IDLE_TIMEOUT,
    })
    this.#pool.on("error", () => undefined) // an idle connection was lost: the pool has dropped it
    // one that is in use says so as well, besides failing its call
    this.#pool.on("connect", (client) => client.on("error", () => undefined))
  }

  /** The rows of a call. */
  async rows(statement: Statement, values: unknown[] = []): Promise<Row[]> {
    for (let repeat = 0; ; repeat++) {
      try {
        return await this.#call(statement, values)
      } catch (error) {
        if (repeat < REPEATS_MAX && PASSING.has(stateOf(error) ?? "")) {
          await pause(Math.random() * 20 * 2 ** repeat)
        } else {
          throw translate(error, this.url)
        }
      }
    }
  }

  /** The one row of a call. */
  async row(statement: Statement, values: unknown[] = []): Promise<Row> {
    const [row] = await this.rows(statement, values)
    if (row === undefined) throw new TypeError(`${statement.name} gave no row`)
    return row
  }

  async #call(statement: Statement, values: unknown[]): Promise<Row[]> {
    const connection = await this.#pool.connect()
    let broken = true
    try {
      const { text, name } = statement
      const result = await connection.query<Row>(this.#pooler ? { text, values } : { text, name: `rhythm_${name}`, values })
      broken = false
      return result.rows
    } catch (error) {
      broken = stateOf(error) === undefined || stateOf(error)?.startsWith("57") === true
      throw error
    } finally {
      connection.release(broken)
    }
  }

  /** Closes the connections. */
  async close(): Promise<void> {
    await this.#pool.end()
  }
}

function stateOf(error: unknown): string | undefined {
  const code = error instanceof pg.DatabaseError ? error.code : undefined
  return code?.length === 5 ? code : undefined
}

/** The error of Rhythm for one of the driver; whatever it has no word for is given back as it is. */
export function translate(error: unknown, url: string): unknown {
  if (error instanceof RhythmError || !(error instanceof Error)) return error
  const where = url ? `the database at ${maskUrl(url)}` : "the database"
  const state = stateOf(error)
  if (state === undefined) {
    // network, timeouts, and what the driver says when a connection has gone
    const code = (error as NodeJS.ErrnoException).code
    if (error instanceof TypeError || error instanceof RangeError) return error
    const reason = [...new Set(reasons(error))].join("; ") || (code ?? error.name)
    return new DatabaseUnavailable(`${where} cannot be reached: ${url ? reason.replaceAll(url, maskUrl(url)) : reason}`, {
      cause: error,
    })
  }
  return translateState(state, error, (error as { detail?: string }).detail, where)
}

function reasons(error: Error): string[] {
  return error instanceof AggregateError ? error.errors.map((one: Error) => one.message) : error.message ? [error.message] : []
}

function translateState(state: string, error: Error, detail: string | undefined, where: string): Error {
  const { message } = error
  switch (state) {
    case "RH001":
      return new StartRefused(message, detail ?? "refused")
    case "RH002":
      return new IncarnationDead(message)
    case "RH003":
      return new ExecutionNotFound(message)
    case "RH004":
      return new ExecutionFinished(message)
    case "RH005":
      return new SignalRefused(message)
    case "RH007":
      return new DatabaseUnavailable(message)
    case "RH008":
      return new RetryRefused(message, detail ?? "refused")
  }
  if (state === "RH006" || state.startsWith("22") || state === "23514") return new InvalidInput(message)
  if (NO_SCHEMA.has(state)) {
    return new SchemaMismatch(`${where} does not hold this release's schema (${message}): run \`rhythm migrate\``)
  }
  if (state === "42501") {
    return new ConfigurationError(
      `the role that is logged in may not do this (${message}): log in as the owner of the schema, ` +
        "or grant it rhythm_worker (`rhythm migrate --roles`)",
    )
  }
  if (NO_STATEMENT.has(state) || (state === "08P01" && message.startsWith("bind message"))) {
    return new ConfigurationError(
      `${where} forgets prepared statements, as a pooler in transaction mode does: set pooler (RHYTHM_POOLER=true, --pooler)`,
    )
  }
  const kind = state.slice(0, 2)
  if (kind === "28" || kind === "3D") return new DatabaseUnavailable(`${where} refuses the connection: ${message}`)
  if (UNAVAILABLE_CLASSES.has(kind) || UNAVAILABLE.has(state) || PASSING.has(state)) {
    return new DatabaseUnavailable(`${where} cannot do it now: ${message}`)
  }
  return error
}

/** Whether an error may be due to what was sent: everything else would hit the next call just the same. */
export function isAboutData(error: unknown): boolean {
  if (error instanceof InvalidInput) return true
  if (error instanceof RhythmError) return false
  const state = stateOf(error)
  return state === undefined || !NOT_ABOUT_DATA.has(state.slice(0, 2))
}

/** Classes of SQLSTATE: syntax and privileges, features, configuration, transaction and authorization states. */
const NOT_ABOUT_DATA = new Set(["42", "0A", "F0", "25", "28", "2D", "40", "55"])
