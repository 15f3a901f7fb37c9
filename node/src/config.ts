/**
 * Configuration: an option wins over the environment (the variables of the Python package), that over the default.
 *
 * A number as an option is milliseconds; in the environment and on the command line it is seconds, as everywhere there.
 * Without a URL the command `rhythm db url` is asked, which knows the project's file and its embedded database.
 */
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { delimiter, dirname, join } from "node:path"
import { promisify } from "node:util"

import { type Duration, parseMilliseconds } from "./durations.js"
import { ConfigurationError, NotConfigured } from "./errors.js"
import { type Level, LEVELS } from "./logging.js"
import { PAYLOAD_BYTES_MAX } from "./payloads.js"

const ASK_TIMEOUT = 120_000 // ms for `rhythm db url`, which may have to start a server

/** What clients and workers have in common. */
export interface ConnectOptions {
  /** Any PostgreSQL 15 or newer. Default: RHYTHM_DATABASE_URL, else what `rhythm db url` says. */
  url?: string | undefined
  /** The URL leads through a pooler in transaction mode. Default false. */
  pooler?: boolean | undefined
  /** Largest inputs, output or signal, bytes of JSON. Default 1 MiB. */
  payloadBytesMax?: number | undefined
}

/** What a worker takes besides. */
export interface WorkerOptions extends ConnectOptions {
  /** Queues to serve. Default: "default" and those its tasks name. */
  queues?: readonly string[] | undefined
  /** Tasks at a time. Default 100. */
  concurrency?: number | undefined
  /** A worker not heard of for so long is dead, and its work is taken over. Default 30 s, at least 1 s. */
  heartbeatTimeout?: Duration | undefined
  /** A worker whose exchange stands for so long stops beating. Default 60 s. */
  stallTimeout?: Duration | undefined
  /** Time that running tasks get when a worker stops. Default 30 s. */
  drainTimeout?: Duration | undefined
  /** Longest time between two looks for work. Default 1 s. */
  pollInterval?: Duration | undefined
  /** A direct URL for wake-ups, beside a pooler. Default none. */
  listenUrl?: string | undefined
  /** Finished executions are kept for so long. Default: for ever. */
  retention?: Duration | undefined
  /** An idempotency key is kept at least so long. Default 30 d. */
  keyWindow?: Duration | undefined
}

/** The same, complete; durations in ms. */
export interface WorkerConfig {
  pooler: boolean
  payloadBytesMax: number
  queues: readonly string[]
  concurrency: number
  heartbeatTimeout: number
  stallTimeout: number
  drainTimeout: number
  pollInterval: number
  listenUrl: string | undefined
  retention: number | undefined
  keyWindow: number
}

/** What of ConnectOptions needs no question. */
export function connectConfig(options: ConnectOptions): { pooler: boolean; payloadBytesMax: number } {
  return {
    pooler: options.pooler ?? flag("RHYTHM_POOLER") ?? false,
    payloadBytesMax: whole("payloadBytesMax", options.payloadBytesMax, "RHYTHM_PAYLOAD_BYTES_MAX", PAYLOAD_BYTES_MAX, 1, 64 << 20),
  }
}

/** Throws ConfigurationError naming what cannot be used. */
export function workerConfig(options: WorkerOptions): WorkerConfig {
  return {
    ...connectConfig(options),
    queues: options.queues ?? list("RHYTHM_QUEUES"),
    concurrency: whole("concurrency", options.concurrency, "RHYTHM_CONCURRENCY", 100, 1, 10_000),
    heartbeatTimeout: duration("heartbeatTimeout", options.heartbeatTimeout, "RHYTHM_HEARTBEAT_TIMEOUT", 30_000, 1000),
    stallTimeout: duration("stallTimeout", options.stallTimeout, "RHYTHM_STALL_TIMEOUT", 60_000, 1000),
    drainTimeout: duration("drainTimeout", options.drainTimeout, "RHYTHM_DRAIN_TIMEOUT", 30_000, 0),
    pollInterval: duration("pollInterval", options.pollInterval, "RHYTHM_POLL_INTERVAL", 1000, 10),
    listenUrl: options.listenUrl ?? variable("RHYTHM_LISTEN_URL"),
    retention: duration("retention", options.retention, "RHYTHM_RETENTION", undefined, 60_000),
    keyWindow: duration("keyWindow", options.keyWindow, "RHYTHM_KEY_WINDOW", 30 * 86_400_000, 60_000),
  }
}

/** How a worker of the command line logs. */
export function logConfig(level?: string, format?: string): { level: Level; format: "text" | "json" } {
  const wanted = (level ?? variable("RHYTHM_LOG_LEVEL") ?? "info").toLowerCase()
  const known = LEVELS.find((one) => one === wanted)
  if (known === undefined) throw new ConfigurationError(`log level ${JSON.stringify(wanted)} is none of ${LEVELS.join(", ")}`)
  const shape = (format ?? variable("RHYTHM_LOG_FORMAT") ?? "text").toLowerCase()
  if (shape !== "text" && shape !== "json") {
    throw new ConfigurationError(`log format ${JSON.stringify(shape)} is neither text nor json`)
  }
  return { level: known, format: shape }
}

/** A duration of the command line or the environment, where a number is seconds. */
export function parseSetting(text: string): number {
  return /^[0-9]+(\.[0-9]+)?$/.test(text.trim()) ? parseMilliseconds(Number(text) * 1000) : parseMilliseconds(text)
}

/** The URL of the database. Throws NotConfigured when there is none to be had. */
export async function resolveUrl(given: string | undefined): Promise<string> {
  const url = given ?? variable("RHYTHM_DATABASE_URL")
  if (url !== undefined) return url
  if (process.env.RHYTHM_ENV?.trim().toLowerCase() === "production") {
    throw new NotConfigured("no database is configured: set RHYTHM_DATABASE_URL (RHYTHM_ENV is production, so none is started)")
  }
  const command = findCommand()
  if (command === undefined) {
    throw new NotConfigured(
      "no database is configured: set RHYTHM_DATABASE_URL, pass { url }, or install the command rhythm " +
        "(pip install rhythm-flow) in a project made by `rhythm init`, whose embedded database is then found",
    )
  }
  try {
    const { stdout } = await promisify(execFile)(command, ["db", "url"], { timeout: ASK_TIMEOUT })
    return stdout.trim()
  } catch (error) {
    const said = (error as { stderr?: string }).stderr?.trim() ?? ""
    throw new NotConfigured(`no database is configured: ${said || (error as Error).message}`)
  }
}

/** The command `rhythm`: on the path, else in the nearest .venv from the working directory upwards. */
function findCommand(): string | undefined {
  const folders = (process.env.PATH ?? "").split(delimiter)
  for (let at = process.cwd(); ; at = dirname(at)) {
    folders.push(join(at, ".venv", "bin"))
    if (at === dirname(at)) break
  }
  return folders.map((folder) => join(folder, "rhythm")).find((path) => existsSync(path))
}

function variable(name: string): string | undefined {
  return process.env[name] || undefined
}

function flag(name: string): boolean | undefined {
  const text = variable(name)?.trim().toLowerCase()
  if (text === undefined) return undefined
  if (["true", "1", "yes", "on"].includes(text)) return true
  if (["false", "0", "no", "off"].includes(text)) return false
  throw new ConfigurationError(`${name}: ${JSON.stringify(text)} is neither true nor false`)
}

function list(name: string): string[] {
  return (variable(name) ?? "").split(",").map((part) => part.trim()).filter(Boolean)
}

function whole(option: string, given: number | undefined, name: string, otherwise: number, low: number, high: number): number {
  const text = given === undefined ? variable(name) : undefined
  const value = given ?? (text === undefined ? otherwise : Number(text.replaceAll("_", "")))
  if (!Number.isInteger(value) || value < low || value > high) {
    throw new ConfigurationError(`${text === undefined ? option : name}: ${text ?? value} is not a whole number from ${low} to ${high}`)
  }
  return value
}

function duration<T extends number | undefined>(
  option: string,
  given: Duration | undefined,
  name: string,
  otherwise: T,
  low: number,
): number | T {
  const text = given === undefined ? variable(name) : undefined
  if (given === undefined && text === undefined) return otherwise
  const where = text === undefined ? option : name
  let value: number
  try {
    value = text === undefined ? parseMilliseconds(given ?? 0) : parseSetting(text)
  } catch (error) {
    throw new ConfigurationError(`${where}: ${(error as Error).message}`)
  }
  if (value < low) throw new ConfigurationError(`${where}: ${value} ms is shorter than ${low} ms`)
  return value
}
