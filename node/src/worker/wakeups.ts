/**
 * Wake-ups: the hint that something may be there to claim, over LISTEN on a connection of its own.
 *
 * Nothing depends on it: a notification that is lost, late or superfluous costs a poll interval or one exchange. It
 * reconnects by itself, and gives one hint whenever it has, for what it may have missed.
 */
import type pg from "pg"

import { Backoff, maskUrl, newClient } from "../database.js"
import type { Logger } from "../logging.js"

const CHANNEL = "rhythm." // and the id of the incarnation
const LIVENESS = 30_000 // ms between checks that the connection still answers
const CHECK_TIMEOUT = 10_000

export class Wakeups {
  #client: pg.Client | undefined
  #timer: NodeJS.Timeout | undefined
  #closed = false
  readonly #backoff = new Backoff()

  constructor(
    private readonly url: string,
    private readonly incarnation: string,
    private readonly hint: () => void,
    private readonly logger: Logger,
  ) {
    void this.#connect()
  }

  async #connect(): Promise<void> {
    const client = newClient(this.url, "rhythm listen", CHECK_TIMEOUT)
    this.#client = client
    let lost = false
    const onLost = (error?: unknown) => {
      if (lost) return
      lost = true
      clearTimeout(this.#timer)
      client.end().catch(() => undefined)
      if (this.#closed) return
      this.logger.debug(`listener lost: ${error instanceof Error ? error.message : "closed"} url=${maskUrl(this.url)}`)
      this.#timer = setTimeout(() => void this.#connect(), this.#backoff.next())
    }
    client.on("error", onLost)
    client.on("end", () => onLost())
    client.on("notification", () => this.hint())
    try {
      await client.connect()
      await client.query(`listen "${CHANNEL}${this.incarnation}"`)
    } catch (error) {
      onLost(error)
      return
    }
    this.#backoff.reset()
    this.hint()
    const check = () => {
      client.query("select 1").then(() => (this.#timer = setTimeout(check, LIVENESS)), onLost)
    }
    this.#timer = setTimeout(check, LIVENESS)
    if (this.#closed) onLost()
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#client?.end().catch(() => undefined)
  }
}
