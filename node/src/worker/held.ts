/** What a worker holds: one record per execution it has claimed and not yet reported. */
import { type Claim, FAILED, FAILED_FOR_GOOD, type Report, SINGLE } from "../protocol.js"
import type { TaskContext } from "../task.js"

/** One claimed execution. Its claim changes when the batch it came in is split. */
export class Held {
  /** a task that was called */
  begun = false
  beganAt = 0
  cancelAsked = false
  /** not held any more; the same execution may be held again, in another record */
  ended = false
  /** its attempt is over as far as anybody else is concerned; what still comes of it is ignored */
  abandoned = false
  context: TaskContext | undefined
  timer: NodeJS.Timeout | undefined

  constructor(readonly claim: Claim) {}

  get batch(): number {
    return this.claim.claim
  }

  retoken(claim: number, position: number = SINGLE): void {
    this.claim.claim = claim
    this.claim.position = position
  }
}

/** How the work on a held execution ended, ready to be sent. */
export interface Ended {
  held: Held
  action: number
  /** JSON; null: it is handed back */
  payload: string | null
  retryAfter: number | null
}

/** The record of the protocol. */
export function reportOf({ held, action, payload, retryAfter }: Ended): Report {
  const { claim, position, id } = held.claim
  return { claim, position, id, action, payload, retryAfter }
}

export const isFailure = (ended: Ended): boolean => ended.action === FAILED || ended.action === FAILED_FOR_GOOD
