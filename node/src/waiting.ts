/**
 * Waiting for outcomes: all waits of one client share one question to the database.
 *
 * Somebody who waits registers the id; one loop asks for all registered ids at once, soon after the first registration
 * and then at growing intervals. An answer is final, so nothing can be missed between two questions. When the database is
 * away the loop keeps asking: a wait ends by its outcome, by its own timeout, or because the client is closed.
 */
import { DatabaseUnavailable, RhythmError } from "./errors.js"
import type { Outcome, Protocol } from "./protocol.js"

const WAIT_FIRST = 2 // ms until the first question
const WAIT_LONGEST = 250 // ms between two questions, at most
const WAIT_GROWTH = 1.4
const IDS_PER_QUESTION = 5_000

interface Wait {
  resolve: (outcome: Outcome) => void
  reject: (error: Error) => void
}

/** The outstanding waits of one client. */
export class OutcomeWaits {
  readonly #waits = new Map<string, Set<Wait>>()
  #looping = false
  #closed = false
  #news = false
  #wake: (() => void) | undefined

  constructor(private readonly protocol: Protocol) {}

  /** The outcome of an execution that is known to exist, once there is one; `signal` gives the wait up. */
  outcome(id: string, signal: AbortSignal): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      if (this.#closed) {
        reject(closedError())
        return
      }
      const waits = this.#waits.get(id) ?? new Set<Wait>()
      this.#waits.set(id, waits)
      const giveUp = () => {
        waits.delete(wait)
        if (waits.size === 0 && this.#waits.get(id) === waits) this.#waits.delete(id)
        reject(signal.reason as Error)
      }
      const wait: Wait = {
        resolve: (outcome) => {
          signal.removeEventListener("abort", giveUp)
          resolve(outcome)
        },
        reject: (error) => {
          signal.removeEventListener("abort", giveUp)
          reject(error)
        },
      }
      waits.add(wait)
      signal.addEventListener("abort", giveUp, { once: true })
      if (signal.aborted) giveUp()
      this.#news = true
      this.#wake?.()
      if (!this.#looping) void this.#ask()
    })
  }

  /** Ends every wait with an error. */
  close(): void {
    this.#closed = true
    for (const id of [...this.#waits.keys()]) this.#settle(id, (wait) => wait.reject(closedError()))
    this.#wake?.()
  }

  #settle(id: string, how: (wait: Wait) => void): void {
    const waits = this.#waits.get(id)
    this.#waits.delete(id)
    waits?.forEach(how)
  }

  async #ask(): Promise<void> {
    this.#looping = true
    try {
      let pause = WAIT_FIRST
      while (this.#waits.size > 0) {
        if (this.#news) pause = WAIT_FIRST
        this.#news = false
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, pause)
          this.#wake = () => {
            clearTimeout(timer)
            resolve()
          }
        })
        this.#wake = undefined
        pause = Math.min(pause * WAIT_GROWTH, WAIT_LONGEST)
        const ids = [...this.#waits.keys()]
        for (let first = 0; first < ids.length; first += IDS_PER_QUESTION) {
          await this.#askOnce(ids.slice(first, first + IDS_PER_QUESTION))
        }
      }
    } finally {
      this.#looping = false
    }
  }

  async #askOnce(ids: string[]): Promise<void> {
    try {
      for (const [id, outcome] of await this.protocol.outcomes(ids)) {
        if (outcome !== null) this.#settle(id, (wait) => wait.resolve(outcome))
      }
    } catch (error) {
      if (error instanceof DatabaseUnavailable) return // asked again after the pause
      for (const id of ids) this.#settle(id, (wait) => wait.reject(error as Error))
    }
  }
}

function closedError(): RhythmError {
  return new RhythmError("the client was closed while this wait was under way")
}
