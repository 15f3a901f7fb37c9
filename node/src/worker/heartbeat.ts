/**
 * The heartbeat: one row per worker incarnation, from a thread and a connection of its own (see `heartbeat_thread`).
 *
 * It also tells what tasks say of their progress. A busy event loop does not delay it. It stops beating when the exchange has not turned for `stallTimeout`, because a
 * worker that cannot report should not keep its claims. When the last confirmed beat had been sent is in memory that both
 * threads see; without one for too long the incarnation ends (see `exchange`).
 */
import { Worker as Thread } from "node:worker_threads"

import type { Level, Logger } from "../logging.js"
import { monotonic } from "../clock.js"

const BEATS_PER_TIMEOUT = 6
/** Places in the shared memory: numbers of ms by the monotonic clock. */
export const TURNED_AT = 0
export const CONFIRMED_AT = 1

export interface ThreadData {
  url: string
  pooler: boolean
  incarnation: string
  interval: number
  stallTimeout: number
  shared: SharedArrayBuffer
}

/** What the thread says. */
export type Message =
  | { kind: "first" | "dead" }
  | { kind: "cancel"; ids: string[] }
  | { kind: "log"; level: Level; text: string }

export interface HeartbeatEvents {
  first: () => void
  dead: () => void
  cancel: (ids: string[]) => void
}

/** Beats for one incarnation until closed. */
export class Heartbeat {
  hasBeaten = false
  readonly #times: BigInt64Array
  readonly #interval: number
  #thread: Thread | undefined
  #closed = false

  constructor(
    private readonly about: { url: string; pooler: boolean; incarnation: string },
    private readonly timeout: number,
    private readonly stallTimeout: number,
    private readonly logger: Logger,
    private readonly events: HeartbeatEvents,
  ) {
    this.#interval = timeout / BEATS_PER_TIMEOUT
    this.#times = new BigInt64Array(new SharedArrayBuffer(16))
    this.turned(monotonic())
    Atomics.store(this.#times, CONFIRMED_AT, BigInt(Math.floor(monotonic())))
    this.#begin()
  }

  #begin(): void {
    const workerData: ThreadData = {
      ...this.about,
      interval: this.#interval,
      stallTimeout: this.stallTimeout,
      shared: this.#times.buffer as SharedArrayBuffer,
    }
    const thread = new Thread(new URL("./heartbeat_thread.js", import.meta.url), { workerData, execArgv: [] })
    this.#thread = thread
    thread.on("message", (message: Message) => this.#heard(message))
    thread.on("error", (error) => this.logger.error(`the heartbeat failed unexpectedly and begins anew: ${String(error)}`))
    thread.on("exit", () => {
      if (!this.#closed) setTimeout(() => this.#closed || this.#begin(), this.#interval)
    })
  }

  #heard(message: Message): void {
    if (this.#closed) return
    if (message.kind === "log") this.logger[message.level](message.text)
    else if (message.kind === "cancel") this.events.cancel(message.ids)
    else if (message.kind === "dead") this.events.dead()
    else {
      this.hasBeaten = true
      this.events.first()
    }
  }

  /** The exchange has turned. */
  turned(at: number): void {
    Atomics.store(this.#times, TURNED_AT, BigInt(Math.floor(at)))
  }

  /** Has the next beat tell how far an execution is (JSON). */
  note(id: string, progress: string): void {
    this.#thread?.postMessage([id, progress])
  }

  /** Whether a beat was confirmed lately enough that nobody can have taken over yet. */
  get isTrusted(): boolean {
    return this.confirmedAt + this.timeout - 2 * this.#interval > monotonic()
  }

  /** When the last beat that was confirmed had been sent. */
  get confirmedAt(): number {
    return Number(Atomics.load(this.#times, CONFIRMED_AT))
  }

  /** ms: how often the exchange has to turn at least. */
  get turnTime(): number {
    return Math.min(this.#interval, this.stallTimeout / 2)
  }

  get interval(): number {
    return this.#interval
  }

  /** Stops beating, in the middle of a call if need be. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#thread?.terminate()
  }
}
