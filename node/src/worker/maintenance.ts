/**
 * Maintenance: what is due in the database, and what dead workers left behind. Any worker may do any of it at any time; the
 * SQL function elects one where that matters. Whatever goes wrong is logged and the next run tries again.
 */
import { Backoff } from "../database.js"
import { DatabaseUnavailable } from "../errors.js"
import type { Logger } from "../logging.js"
import type { Protocol } from "../protocol.js"
import { monotonic } from "./clock.js"

const IDLE_FACTOR = 2 // it runs at least every so many poll intervals
const EARLIEST = 1 // ms: shortest pause between two runs

export class Maintenance {
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined
  #dueAt = 0
  #busy = false
  #soonest = Number.POSITIVE_INFINITY // what has become due later while it ran
  #closed = false
  readonly #backoff = new Backoff()

  constructor(
    private readonly protocol: Protocol,
    private readonly settings: { pollInterval: number; retention: number | undefined; keyWindow: number },
    private readonly onMoved: () => void,
    private readonly logger: Logger,
  ) {
    this.#schedule(0)
  }

  #schedule(milliseconds: number): void {
    if (this.#closed) return
    clearTimeout(this.#timer)
    this.#dueAt = monotonic() + milliseconds
    this.#timer = setTimeout(() => {
      this.#running = this.#run()
    }, milliseconds)
  }

  /** Something of this worker's own will be due then. */
  dueIn(milliseconds: number): void {
    if (!this.#busy && monotonic() + milliseconds + EARLIEST < this.#dueAt) this.#schedule(milliseconds + EARLIEST)
    else this.#soonest = Math.min(this.#soonest, monotonic() + milliseconds + EARLIEST)
  }

  async #run(): Promise<void> {
    const { pollInterval, retention, keyWindow } = this.settings
    let wait = pollInterval * IDLE_FACTOR * (0.8 + Math.random() / 5)
    this.#busy = true
    this.#soonest = Number.POSITIVE_INFINITY
    try {
      const result = await this.protocol.maintain(retention === undefined ? null : retention / 1000, keyWindow / 1000)
      this.#backoff.reset()
      if (result.nextDue !== null) wait = Math.min(wait, Math.max(result.nextDue, 0) * 1000 + EARLIEST)
      if (result.reclaimed > 0) this.logger.info(`took over ${result.reclaimed} executions of dead workers`)
      if (result.moved > 0 || result.reclaimed > 0) this.onMoved()
      if (result.more) wait = 0
    } catch (error) {
      wait = this.#backoff.next()
      const text = `maintenance failed: ${error instanceof Error ? error.message : String(error)}`
      if (error instanceof DatabaseUnavailable) this.logger.debug(text)
      else this.logger.error(text)
    }
    this.#busy = false
    this.#schedule(Math.max(0, Math.min(wait, this.#soonest - monotonic())))
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#running
  }
}
