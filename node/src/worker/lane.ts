/**
 * The lane: how many tasks run at a time, and how many are claimed ahead.
 *
 * Claimed ahead is only what will begin soon, within BUFFER by what tasks take on average: so the lane never runs dry for
 * want of an answer, and nothing waits here that another worker could run. When what waits would have to wait for longer
 * than PATIENCE nevertheless, because tasks take longer than those before, it goes back uncharged.
 *
 * A task that has timed out, and does not heed its signal, no longer takes a place; but at most `width` such tasks may
 * still be at it, and further ones keep theirs.
 */
import { monotonic } from "../clock.js"
import type { Held } from "./held.js"

const WAITING_MAX = 1_000 // tasks claimed and not begun
const BUFFER = 100 // ms: what is claimed ahead should begin within so long
const AT_ONCE = 10 // ms: what begins within so long begins at once
const PATIENCE = 1_000 // ms: what will not begin within so long is given back
const SHARE = 0.2 // of the newest measurement in the moving average

export class Lane {
  readonly waiting: Held[] = []
  readonly underWay = new Set<Held>()
  readonly #overdue = new Set<Held>()
  /** of exchanges under way */
  asked = 0
  /** claimed, and not handed to the runner yet */
  arrived = 0
  #average = 0 // ms that one task takes; 0: not known
  #movedAt = 0

  constructor(readonly width: number) {}

  get hasRoom(): boolean {
    return this.underWay.size < this.width
  }

  /** How many more to claim; 0 or less: none. */
  room(): number {
    const ahead = this.#average ? Math.min(WAITING_MAX, Math.floor((this.width * BUFFER) / this.#time())) : 0
    return this.width - this.underWay.size + ahead - this.waiting.length - this.asked - this.arrived
  }

  /** How many of those that `room` allows would begin at once. */
  free(): number {
    const time = this.#time()
    const soon = time ? Math.floor((this.width * AT_ONCE) / time) : 0
    return Math.min(this.room(), Math.max(this.width - this.underWay.size - this.asked - this.arrived, soon, 1))
  }

  began(held: Held, now: number): void {
    held.beganAt = this.#movedAt = now
    this.underWay.add(held)
  }

  ended(held: Held, now: number): void {
    this.#movedAt = now
    this.#overdue.delete(held)
    if (this.underWay.delete(held)) this.took(now - held.beganAt)
  }

  /** Nobody waits for it any more, but it is still at it. */
  overdue(held: Held, now: number): void {
    if (this.#overdue.size >= this.width) return
    this.ended(held, now)
    this.#overdue.add(held)
  }

  /** Takes note of what one task took, ms. */
  took(milliseconds: number): void {
    this.#average = this.#average ? this.#average + (milliseconds - this.#average) * SHARE : milliseconds
  }

  /** Takes out what will not begin soon, the youngest first. */
  takeSurplus(): Held[] {
    const time = this.#time()
    const keep = time ? Math.floor((this.width * PATIENCE) / time) : this.waiting.length
    return this.waiting.splice(Math.max(keep, 0))
  }

  /** What one task takes: the average, or how long none has begun or ended, if that is longer already. */
  #time(): number {
    return this.hasRoom ? this.#average : Math.max(this.#average, monotonic() - this.#movedAt)
  }
}
