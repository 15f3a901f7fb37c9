/**
 * The loop of exchanges: reports out, claims in. The same rules as the Python worker's.
 *
 * While one exchange is in flight, reports gather; the next one carries all of them and asks for more work. At most
 * IN_FLIGHT_MAX are in flight. A batch of claims is split by the first exchange that reports some of its members: until its
 * answer brings the new tokens, no other exchange reports members of that batch. What an answer brings begins only when
 * the next exchange is on its way: so Postgres finds more while JavaScript runs it.
 *
 * Unknown outcomes. When an exchange fails because the database went away, nobody knows whether it was committed. Its
 * reports stay here, nothing more is sent until every other exchange has ended, and then the database is asked what this
 * incarnation holds: what it still holds is sent again, under its present token; what it does not hold any more was
 * committed, or taken over, and is dropped; what it holds and we have never seen was claimed by the lost answer, and is
 * run. So nothing is guessed and nothing is sent twice. It is asked again every AUDIT ms.
 *
 * Answers of two exchanges may come in another order than they were committed, so a record is dropped by identity, never
 * by id. If an exchange fails on data, its reports are sent in halves until the culprit stands alone; that one fails with
 * OutcomeRefused.
 *
 * An execution that was lost before is claimed alone, by a worker that holds nothing else: only the culprit can take a
 * worker down. A worker that hears of one claims nothing until its hands are free, but not for long.
 *
 * Without a trusted heartbeat others may be about to take over: the incarnation is cut off, claims nothing more, and winds
 * up: what the worker still has to report or to hand back is sent when the database answers.
 */
import { Backoff, isAboutData } from "../database.js"
import { DatabaseUnavailable, IncarnationDead } from "../errors.js"
import type { Logger } from "../logging.js"
import { encode } from "../payloads.js"
import { CLAIM_COUNT_MAX, type Claim, type ExchangeResult, FAILED_FOR_GOOD, HANDED_BACK, type Protocol } from "../protocol.js"
import { monotonic, pause, turn, Wake } from "../clock.js"
import { type Ended, Held, isFailure, reportOf } from "./held.js"
import type { Heartbeat } from "./heartbeat.js"
import type { Lane } from "./lane.js"

export const IN_FLIGHT_MAX = 2
const REPORTS_MAX = 500
const CLEARING = 5_000 // ms for which a worker claims nothing to get its hands free for a suspect
const CLEARING_PAUSE = 30_000 // before it tries again, when what it holds takes longer
const CLAIM_BYTES_FULL = 1 << 20 // claims larger than this may have been cut short by their limit of bytes
const SETTLE = 30 // ms without news, until a worker that holds something asks to be notified of more
const AUDIT = 60_000
const BATCH_FIRST = 32 // tasks in the first claims; doubled while batches run through
const REFUSED = "OutcomeRefused"

/** What the loop needs of the rest of the worker. */
export interface Work {
  /** Runs what was claimed. */
  accept(held: Held[]): void
  /** A report was committed. */
  confirmed(ended: Ended): void
  /** Stops everything; leaves with the exchange what is to be reported or handed back. */
  cutOff(): void
}

interface Wanted {
  limit: number
  free: number
}

const NOTHING: Wanted = { limit: 0, free: 0 }

export class Exchange {
  heartbeat!: Heartbeat // set before run()
  readonly held = new Map<string, Held>()
  reports: Ended[] = []
  handBacks: Held[] = []
  claiming = true
  windingUp = false
  turnedAt = monotonic()
  /** when the database last answered */
  answeredAt = monotonic()
  unanswered = false
  #arrived: Held[] = []
  #batch = BATCH_FIRST
  readonly #splitting = new Set<number>() // batches whose new tokens are on their way
  readonly #flights = new Set<Promise<void>>()
  readonly #wake = new Wake()
  #uncertain = false
  #epoch = 0 // how often the database was asked what is held
  #claimsInFlight = 0
  #look = true // something may be there to claim
  #over: string | undefined // why this incarnation is over
  #listening = false // the database notifies this incarnation of what becomes claimable
  #settledDown = false // nothing has happened for SETTLE
  #crowded = false // no room was left when it last looked
  #clearingUntil = 0
  #clearAgainAt = 0
  #suspectsHeld = 0
  #passAt = Number.POSITIVE_INFINITY // when a rate lets something pass
  #auditAt = monotonic() + AUDIT
  readonly #backoff = new Backoff()
  readonly #trouble = new Backoff()

  constructor(
    private readonly protocol: Protocol,
    private readonly incarnation: string,
    private readonly lane: Lane,
    private readonly work: Work,
    private readonly queues: readonly number[],
    private readonly names: readonly number[],
    private readonly pollInterval: number,
    private readonly logger: Logger,
  ) {}

  // --- from the rest of the worker ---

  /** Something may be there to claim. */
  hint(): void {
    this.#look = true
    this.#wake.set()
  }

  /** A task has ended: there may be room again for what could not be claimed before. */
  room(): void {
    if (this.#crowded) this.hint()
  }

  /** Takes a report to send; of what is not held any more, none. */
  report(ended: Ended): void {
    if (this.held.get(ended.held.claim.id) !== ended.held) return
    this.reports.push(ended)
    this.#wake.set()
  }

  /** Takes executions to give back uncharged. */
  handBack(held: readonly Held[]): void {
    this.handBacks.push(...held)
    this.#wake.set()
  }

  /** This incarnation is over: nothing more is sent. */
  end(why: string): void {
    this.#over ??= why
    this.#wake.set()
  }

  /** Nothing is on its way or to be sent, and what the database has taken in is known. */
  get isSettled(): boolean {
    return !(this.reports.length || this.handBacks.length || this.#flights.size || this.#uncertain)
  }

  get isIdle(): boolean {
    return this.held.size === 0 && this.isSettled
  }

  /** What was claimed and not handed on yet never begins. */
  dropArrived(): void {
    this.#arrived = []
  }

  // --- the loop ---

  /** Runs until `stopped`. Throws IncarnationDead when this incarnation is over. */
  async run(stopped: () => boolean): Promise<void> {
    while (!stopped()) {
      this.turnedAt = monotonic()
      this.heartbeat.turned(this.turnedAt)
      if (this.#over !== undefined) throw new IncarnationDead(this.#over)
      if (!this.windingUp && !this.heartbeat.isTrusted) this.#windUp()
      else if (this.#uncertain || monotonic() > this.#auditAt) await this.#reconcile()
      else if (this.#launch()) continue
      else if (this.#arrived.length > 0) await this.#begin()
      else if (this.windingUp && this.isSettled) {
        this.end("this worker was cut off from the database; what had begun is lost")
      } else await this.#sleep()
    }
  }

  /** Wakes the loop, to see that it is stopped. */
  wake(): void {
    this.#wake.set()
  }

  /** Has the rest of the worker run what was claimed, once what was launched is on its way to Postgres. */
  async #begin(): Promise<void> {
    if (this.#launch()) await turn()
    this.lane.arrived = 0
    const arrived = this.#arrived.filter((held) => !held.ended)
    this.#arrived = []
    if (this.claiming) this.work.accept(arrived)
    else this.handBack(arrived)
  }

  async #sleep(): Promise<void> {
    const ask = !this.#listening && this.#flights.size === 0 && this.#wanted().limit > 0
    let longest = Math.min(this.pollInterval, this.heartbeat.turnTime, Math.max(this.#passAt - monotonic(), 0))
    if (ask) longest = Math.min(longest, SETTLE)
    await this.#wake.wait(longest)
    if (!this.#wake.isSet) {
      this.#look = true // polling is the promise
      this.#settledDown = true
    }
    this.#wake.clear()
  }

  /** Starts one exchange if there is reason for one. Returns whether it did. */
  #launch(): boolean {
    if (this.#flights.size >= IN_FLIGHT_MAX) return false
    const reports = this.#sendable()
    const backs = this.#returnable(reports)
    let wanted = this.#wanted()
    if (this.#passAt <= monotonic()) {
      this.#passAt = Number.POSITIVE_INFINITY
      this.#look = true
    }
    // a report may have made something claimable: the next step of a workflow, a retry
    const look = this.#look || reports.length > 0
    const claims = wanted.limit > 0 && look && !(this.#claimsInFlight > 0 && reports.length === 0)
    if (!(reports.length || backs.length || claims)) return false
    if (!claims) wanted = NOTHING
    // Noted here and not later: the next look must already see it.
    const batches = new Set([...reports.map((ended) => ended.held.batch), ...backs.map((held) => held.batch)])
    for (const batch of batches) this.#splitting.add(batch)
    if (claims) {
      this.#claimsInFlight += 1
      this.#look = false
    }
    this.lane.asked += wanted.limit
    const flight = this.#fly(reports, backs, wanted)
      .catch((error: unknown) => this.#lost(reports, backs, error))
      .finally(() => {
        this.#flights.delete(flight)
        for (const batch of batches) this.#splitting.delete(batch)
        if (claims) this.#claimsInFlight -= 1
        this.lane.asked -= wanted.limit
        this.#wake.set()
      })
    this.#flights.add(flight)
    return true
  }

  #lost(reports: Ended[], backs: Held[], error: unknown): void {
    this.reports.unshift(...reports)
    this.handBacks.unshift(...backs)
    this.#uncertain = true
    if (error instanceof IncarnationDead) {
      this.end("this worker was declared dead; what it held has been taken over")
    } else if (error instanceof DatabaseUnavailable) {
      this.unanswered = true
      this.logger.warning(`exchange failed, its outcome is unknown: ${error.message}`)
    } else {
      this.logger.error(`exchange failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
    }
  }

  #wanted(): Wanted {
    if (!this.claiming || this.#suspectsHeld || !this.heartbeat.hasBeaten || !this.#handsFree()) return NOTHING
    const limit = Math.min(this.#batch, CLAIM_COUNT_MAX, this.lane.room())
    this.#crowded = limit <= 0
    return limit > 0 ? { limit, free: Math.min(limit, this.lane.free()) } : NOTHING
  }

  /** False while this worker waits for what it holds to end, to be able to take a suspect. */
  #handsFree(): boolean {
    if (this.#clearingUntil === 0) return true
    if (this.held.size > 0 || this.#flights.size > 0) {
      if (monotonic() < this.#clearingUntil) return false
      this.#clearAgainAt = monotonic() + CLEARING_PAUSE
    }
    this.#clearingUntil = 0
    return true
  }

  /** Takes the reports that may be sent now: not those of a batch that is being split. */
  #sendable(): Ended[] {
    const taken: Ended[] = []
    const kept: Ended[] = []
    for (const ended of this.reports) {
      const busy = taken.length >= REPORTS_MAX || this.#splitting.has(ended.held.batch)
      ;(busy ? kept : taken).push(ended)
    }
    this.reports = kept
    return taken
  }

  #returnable(reports: readonly Ended[]): Held[] {
    if (this.handBacks.length === 0) return []
    // What has ended meanwhile is reported and not handed back, or was already: never both.
    const reporting = new Set([...reports, ...this.reports].map((ended) => ended.held))
    const backs = [...new Set(this.handBacks)].filter((held) => !held.ended && !reporting.has(held))
    this.handBacks = backs.filter((held) => this.#splitting.has(held.batch))
    return backs.filter((held) => !this.#splitting.has(held.batch))
  }

  // --- one exchange ---

  async #fly(reports: Ended[], backs: Held[], wanted: Wanted): Promise<void> {
    try {
      await this.#send(reports, backs, wanted)
    } catch (error) {
      if (!(error instanceof DatabaseUnavailable || error instanceof IncarnationDead)) await pause(this.#trouble.next())
      throw error
    }
  }

  async #send(reports: Ended[], backs: Held[], wanted: Wanted): Promise<void> {
    const alone =
      this.#claimsInFlight <= 1 && this.held.size === reports.length + backs.length && this.#flights.size === 0
    const idle = this.#wantsNotice(reports, wanted)
    this.#settledDown = false
    let result: ExchangeResult
    try {
      result = await this.protocol.exchange(this.incarnation, {
        epoch: this.#epoch,
        reports: [
          ...reports.map(reportOf),
          ...backs.map((held) => reportOf({ held, action: HANDED_BACK, payload: null, retryAfter: null })),
        ],
        queues: this.queues,
        names: this.names,
        limit: wanted.limit,
        free: wanted.free,
        alone,
        idle,
      })
    } catch (error) {
      if (error instanceof DatabaseUnavailable || error instanceof IncarnationDead || !isAboutData(error)) throw error
      await this.#bisect(reports, backs, error)
      this.#look = true
      return
    }
    this.answeredAt = monotonic()
    this.unanswered = false
    this.#trouble.reset()
    this.#settle(result, reports, backs)
    this.#take(result, wanted)
    this.#listening = idle && result.claims.length === 0
  }

  /** Whether this worker sleeps if it gets nothing: it holds nothing, or only what takes its time. */
  #wantsNotice(reports: readonly Ended[], wanted: Wanted): boolean {
    if (wanted.limit === 0) return false
    return this.#settledDown || this.held.size <= reports.length
  }

  /** What the answer says about what was sent. */
  #settle(result: ExchangeResult, reports: readonly Ended[], backs: readonly Held[]): void {
    for (const ended of reports) {
      const { held } = ended
      this.#drop(held)
      if (!result.refused.has(held.claim.id)) {
        this.work.confirmed(ended)
      } else {
        this.logger.warning("refused: it was taken over or has finished", {
          execution_id: held.claim.id,
          attempt: held.claim.attempt,
        })
      }
    }
    for (const held of backs) this.#drop(held)
    for (const [id, claim] of result.retokened) this.held.get(id)?.retoken(claim)
  }

  #drop(held: Held): void {
    if (held.ended) return
    held.ended = true
    if (this.held.get(held.claim.id) === held) this.held.delete(held.claim.id)
    if (held.claim.lost) this.#suspectsHeld -= 1
  }

  #take(result: ExchangeResult, wanted: Wanted): void {
    const { claims } = result
    if (claims.length > 0) {
      this.#hold(claims)
      const full = claims.length >= wanted.limit
      if (full && wanted.limit === this.#batch) this.#batch = Math.min(this.#batch * 2, CLAIM_COUNT_MAX)
      if (full || bytesOf(claims) > CLAIM_BYTES_FULL) this.#look = true // a limit ended the claim: more may be there
    } else if (result.checkAgain) {
      this.#look = true
    }
    const now = monotonic()
    if (wanted.limit > 0) {
      this.#passAt = result.nextPassSeconds === null ? Number.POSITIVE_INFINITY : now + result.nextPassSeconds * 1000
    }
    if (result.suspectsWaiting && this.#clearingUntil === 0 && now >= this.#clearAgainAt) {
      this.#clearingUntil = now + CLEARING
      this.#look = true
    }
  }

  #hold(claims: readonly Claim[]): void {
    for (const claim of claims) {
      const held = new Held(claim)
      this.held.set(claim.id, held)
      if (claim.lost) this.#suspectsHeld += 1
      this.#arrived.push(held)
    }
    this.lane.arrived += claims.length
  }

  // --- when something is wrong ---

  async #bisect(reports: Ended[], backs: Held[], error: unknown): Promise<void> {
    const why = error instanceof Error ? error.message : String(error)
    if (reports.length + backs.length > 1 && reports.length > 0) {
      this.logger.warning(`an exchange of ${reports.length} reports was refused as a whole: ${why}`)
      const middle = Math.max(1, reports.length >> 1)
      await this.#send(reports.slice(0, middle), [], NOTHING)
      await this.#send(reports.slice(middle), backs, NOTHING)
      return
    }
    const [ended] = reports
    if (ended === undefined) {
      this.logger.error(`handing back failed: ${why}`)
      for (const held of backs) this.#drop(held)
      return
    }
    const { held } = ended
    if (isFailure(ended) && ended.payload?.startsWith(`{"name":"${REFUSED}"`)) {
      // It stays held, and is handed back when this worker drains: running it again here would end the same way.
      this.logger.error(`its failure cannot be stored either: ${why}`, { execution_id: held.claim.id })
      return
    }
    this.logger.error(`its outcome cannot be stored: ${why}`, { execution_id: held.claim.id })
    const failure = { name: REFUSED, message: `the database refuses the outcome: ${why}`.slice(0, 2000), type: "failed" }
    const payload = encode(failure, "failure")
    await this.#send([{ held, action: FAILED_FOR_GOOD, payload, retryAfter: null }], [], NOTHING)
  }

  /** No heartbeat was confirmed for too long: this incarnation ends when the rest of it has been sent. */
  #windUp(): void {
    this.logger.error(
      `no confirmed heartbeat: this incarnation ends; it holds ${this.held.size} executions and has ${this.reports.length} reports to send`,
    )
    this.claiming = false
    this.windingUp = true
    this.work.cutOff()
    this.#uncertain = true
  }

  /** Asks the database what this incarnation holds, and goes by that. */
  async #reconcile(): Promise<void> {
    if (this.#flights.size > 0) {
      await Promise.race([...this.#flights, pause(Math.min(this.pollInterval, this.heartbeat.turnTime))])
      return
    }
    this.#epoch += 1
    const known = [...this.held.values()]
    let answer
    try {
      answer = await this.protocol.held(this.incarnation, this.#epoch, known.map((held) => held.claim))
    } catch (error) {
      this.unanswered = error instanceof DatabaseUnavailable
      if (!this.unanswered) this.logger.error(`asking for the claims failed: ${String(error)}`)
      await pause(this.#backoff.next())
      return
    }
    this.answeredAt = monotonic()
    this.unanswered = false
    if (this.#uncertain) {
      this.logger.info(`the database answers again: ${answer.tokens.size} of ${known.length} executions are still held`)
    }
    this.#uncertain = false
    this.#auditAt = monotonic() + AUDIT
    this.#backoff.reset()
    for (const held of known) {
      const token = answer.tokens.get(held.claim.id)
      if (token === undefined) this.#drop(held)
      else held.retoken(...token)
    }
    this.reports = this.reports.filter((ended) => !ended.held.ended)
    this.handBacks = this.handBacks.filter((held) => !held.ended)
    const unknown = answer.claims.filter((claim) => !this.held.has(claim.id))
    if (unknown.length > 0) {
      const verb = this.claiming ? "running" : "handing back"
      this.logger.warning(`${verb} ${unknown.length} executions whose claims were not known here`)
      this.#hold(unknown)
    }
    this.#look = true
  }
}

function bytesOf(claims: readonly Claim[]): number {
  return claims.reduce((sum, claim) => sum + claim.inputs.length, 0)
}
