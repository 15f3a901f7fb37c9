/**
 * Maintenance: what is due in the database, and what dead workers left behind. Any worker may do any of it at any time; the
 * SQL function elects one where that matters. Whatever goes wrong is logged and the next run tries again.
 */
import { Backoff } from "../database.js"
import { DatabaseUnavailable } from "../errors.js"
import type { Logger } from "../logging.js"
import type { Protocol } from "../protocol.js"
import { monotonic } from "../clock.js"

const IDLE_FACTOR = 2 // it runs at least every so many poll intervals
const EARLIEST = 1 // ms: shortest pause between two runs

export class Maintenance {
  #timer: NodeJS.Timeout | undefined // of the next run; undefined while one is under way
  #running: Promise<void> | undefined
  #dueAt = 0
  #closed = false
  readonly #backoff = new Backoff()

  constructor(
    private readonly protocol: Protocol,
    private readonly settings: { pollInterval: number; retention: number | undefined; keyWindow: number },
    private readonly onMoved: () => void,
    private readonly logger: Logger,
  ) {
    this.#arm()
  }

  #arm(): void {
    if (this.#closed) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined
        this.#running = this.#run()
      },
      Math.max(0, this.#dueAt - monotonic()),
    )
  }

  /** Something of this worker's own will be due then. */
  dueIn(milliseconds: number): void {
    const dueAt = monotonic() + Math.max(milliseconds, 0) + EARLIEST
    if (dueAt >= this.#dueAt) return
    this.#dueAt = dueAt
    if (this.#timer !== undefined) this.#arm()
  }

  async #run(): Promise<void> {
    const { pollInterval, retention, keyWindow } = this.settings
    this.#dueAt = monotonic() + pollInterval * IDLE_FACTOR * (0.8 + Math.random() / 5)
    try {
      const result = await this.protocol.maintain(retention === undefined ? null : retention / 1000, keyWindow / 1000)
      this.#backoff.reset()
      if (result.nextDue !== null) this.dueIn(result.nextDue * 1000)
      if (result.reclaimed > 0) this.logger.info(`took over ${result.reclaimed} executions of dead workers`)
      if (result.moved > 0 || result.reclaimed > 0) this.onMoved()
      if (result.more) this.#dueAt = 0
    } catch (error) {
      this.#dueAt = monotonic() + this.#backoff.next()
      const text = `maintenance failed: ${error instanceof Error ? error.message : String(error)}`
      if (error instanceof DatabaseUnavailable) this.logger.debug(text)
      else this.logger.error(text)
    }
    this.#arm()
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#running
  }
}
