/**
 * Tasks: from a claim to an outcome.
 *
 * A function that returns a value ends there and then; one that returns a promise is waited for. Long batches give the
 * event loop a turn every SLICE ms. An attempt that runs into its timeout fails with type "timeout", and its signal is
 * aborted; what its function still returns is ignored. Whatever a task throws is its failure, and retried by its policy.
 *
 * A task that somebody wants cancelled confirms it by ending with what stopped it: the reason of its signal, an
 * AbortError, or TaskAbandoned of its context. Any other end is its outcome.
 */
import { parseMilliseconds } from "../durations.js"
import {
  InvalidInput,
  OutputInvalid,
  OutputTooLarge,
  PayloadTooLarge,
  TaskAbandoned,
  TaskCancelled,
  TaskInputInvalid,
  TaskNotFoundError,
  TaskNotRetryable,
  TaskRetryAfter,
  TaskTimeout,
} from "../errors.js"
import type { Logger } from "../logging.js"
import { decode, encode } from "../payloads.js"
import { CANCELLED, type Claim, COMPLETED, FAILED, FAILED_FOR_GOOD } from "../protocol.js"
import { isRetryable, type Policy } from "../retry.js"
import type { Validate } from "../schema.js"
import { type AnyTask, TaskContext } from "../task.js"
import { monotonic } from "../clock.js"
import { describe, failurePayload } from "./failures.js"
import type { Ended, Held } from "./held.js"
import type { Lane } from "./lane.js"

const SLICE = 10 // ms: longest run of tasks without giving the event loop a turn
const SURPLUS_AFTER = 1_000 // ms that claimed tasks wait before it is looked whether they should go back
const TIMER_MAX = 2 ** 31 - 1

/** A task with what its schema became. */
export interface Prepared {
  task: AnyTask
  validate: Validate | undefined
}

/** Runs the tasks of one worker. `report` is called once for each that has begun, unless the worker lets go of it. */
export class Runner {
  #stopped = false
  #slice = false
  #surplus: NodeJS.Timeout | undefined

  constructor(
    private readonly tasks: ReadonlyMap<string, Prepared>,
    private readonly lane: Lane,
    private readonly payloadBytesMax: number,
    private readonly logger: Logger,
    private readonly report: (ended: Ended) => void,
    private readonly onSurplus: (held: Held[]) => void,
    private readonly note: (id: string, progress: string) => void,
  ) {}

  /** Takes claimed tasks and starts as many as there is room for. */
  begin(batch: Held[]): void {
    this.lane.waiting.push(...batch)
    this.goOn()
  }

  /** Starts waiting tasks, for at most one slice of time. */
  goOn(): void {
    if (this.#slice || this.#stopped) return
    const { lane } = this
    const began = monotonic()
    let now = began
    let taken = 0
    let instant = 0
    while (taken < lane.waiting.length && lane.hasRoom) {
      const held = lane.waiting[taken++]
      if (held !== undefined && this.#start(held, now)) instant += 1
      now = monotonic()
      if (now - began > SLICE) break
    }
    lane.waiting.splice(0, taken)
    if (instant > 0) lane.took((now - began) / taken)
    if (lane.waiting.length === 0) return
    if (lane.hasRoom) {
      this.#slice = true
      setImmediate(() => {
        this.#slice = false
        this.goOn()
      })
    } else {
      this.#surplus ??= setTimeout(() => {
        this.#surplus = undefined
        if (this.#stopped) return
        const surplus = lane.takeSurplus()
        if (surplus.length > 0) this.onSurplus(surplus)
        this.goOn()
      }, SURPLUS_AFTER)
    }
  }

  /** Calls it. Returns whether it has ended already. */
  #start(held: Held, now: number): boolean {
    const { claim } = held
    if (held.cancelAsked) {
      this.#cancelled(held)
      return true
    }
    held.begun = true
    const prepared = this.tasks.get(claim.name)
    if (prepared === undefined) {
      this.#failed(held, new TaskNotFoundError(`no task named ${JSON.stringify(claim.name)} is registered in this worker`))
      return true
    }
    let output: unknown
    let waits: boolean
    try {
      output = this.#call(held, prepared)
      waits = isThenable(output) // what is asked here may be anything, and throw
    } catch (error) {
      this.#failed(held, error, prepared.task.policy)
      return true
    }
    if (!waits) {
      this.#completed(held, prepared.task, output)
      return true
    }
    this.lane.began(held, now)
    if (claim.timeout > 0) this.#limit(held, prepared.task.policy, claim.timeout)
    Promise.resolve(output).then(
      (value) => this.#settled(held, () => this.#completed(held, prepared.task, value)),
      (error: unknown) => this.#settled(held, () => this.#failed(held, error, prepared.task.policy)),
    )
    return false
  }

  #call(held: Held, { task, validate }: Prepared): unknown {
    const { claim } = held
    let inputs: unknown
    try {
      inputs = decode(claim.inputs, `inputs of task ${JSON.stringify(task.name)}`)
    } catch (error) {
      throw new TaskInputInvalid(error instanceof Error ? error.message : "the inputs are not JSON")
    }
    const context = (held.context = new TaskContext({
      executionId: claim.id,
      attempt: claim.attempt,
      parentId: claim.parentId,
      name: task.name,
      idempotencyKey: idempotencyKey(claim),
      logger: this.logger,
      note: (progress) => this.note(claim.id, progress),
    }))
    if (validate === undefined) return task(inputs as never, context)
    const valid = validate(inputs)
    return valid instanceof Promise ? valid.then((value) => task(value as never, context)) : task(valid as never, context)
  }

  #limit(held: Held, policy: Policy, milliseconds: number): void {
    const expire = () => {
      if (held.abandoned || this.#stopped) return
      const { claim } = held
      const late = new TaskTimeout(
        `attempt ${claim.attempt} of task ${JSON.stringify(claim.name)} took longer than its timeout of ${claim.timeout / 1000} s`,
      )
      held.abandoned = true
      held.context?.abort(late)
      this.#fail(held, late, this.#retryable(late, claim, policy), "timeout")
      this.lane.overdue(held, monotonic())
      this.goOn()
    }
    // a longer one is set again: that is what timers can do
    const wait = (left: number) => {
      held.timer = setTimeout(() => (left > TIMER_MAX ? wait(left - TIMER_MAX) : expire()), Math.min(left, TIMER_MAX))
    }
    wait(milliseconds)
  }

  #settled(held: Held, outcome: () => void): void {
    clearTimeout(held.timer)
    this.lane.ended(held, monotonic())
    if (held.abandoned) this.logger.debug("it ended after its attempt was over", { execution_id: held.claim.id })
    else outcome()
    this.goOn()
  }

  #completed(held: Held, task: AnyTask, output: unknown): void {
    const what = `output of task ${JSON.stringify(task.name)}`
    let payload: string
    try {
      payload = encode(output, what, this.payloadBytesMax)
    } catch (error) {
      this.#failed(held, refusal(error, what, this.payloadBytesMax))
      return
    }
    this.report({ held, action: COMPLETED, payload, retryAfter: null })
  }

  #failed(held: Held, error: unknown, policy?: Policy): void {
    if (held.cancelAsked && isStop(error, held)) this.#cancelled(held)
    else this.#fail(held, error, policy !== undefined && this.#retryable(error, held.claim, policy), "failed")
  }

  #retryable(error: unknown, claim: Claim, policy: Policy): boolean {
    if (error instanceof TaskRetryAfter) return true
    if (error instanceof TaskNotRetryable || error instanceof TaskInputInvalid) return false
    return isRetryable(error instanceof TaskTimeout ? asTimeoutError(error) : error, policy, claim.retry)
  }

  #fail(held: Held, error: unknown, retryable: boolean, kind: string): void {
    const { claim } = held
    this.logger.info("failed", {
      execution_id: claim.id,
      attempt: claim.attempt,
      task: claim.name,
      type: kind,
      error: describe(error),
    })
    this.report({
      held,
      action: retryable ? FAILED : FAILED_FOR_GOOD,
      payload: failurePayload(error, { kind, attempts: claim.attempt, retryable }),
      retryAfter: error instanceof TaskRetryAfter ? parseMilliseconds(error.milliseconds) / 1000 : null,
    })
  }

  #cancelled(held: Held): void {
    const { claim } = held
    this.logger.info("cancelled", { execution_id: claim.id, attempt: claim.attempt, task: claim.name })
    const error = new TaskCancelled(`task ${JSON.stringify(claim.name)} was cancelled`)
    const payload = failurePayload(error, { kind: "cancelled", attempts: claim.attempt })
    this.report({ held, action: CANCELLED, payload, retryAfter: null })
  }

  /** Somebody wants it cancelled: what has not begun never does, what runs is told by its signal. */
  cancel(held: Held): void {
    held.cancelAsked = true
    const waiting = this.lane.waiting.indexOf(held)
    if (waiting >= 0) {
      this.lane.waiting.splice(waiting, 1)
      this.#cancelled(held)
    } else {
      held.context?.abort(new TaskCancelled(`task ${JSON.stringify(held.claim.name)} was cancelled`))
    }
  }

  /** Everything claimed that has not begun; it will not begin any more. */
  takeWaiting(): Held[] {
    return this.lane.waiting.splice(0)
  }

  /** Begins nothing more, and tells what runs; outcomes that still come are ignored. */
  letGo(): void {
    this.#stopped = true
    clearTimeout(this.#surplus)
    this.takeWaiting()
    for (const held of this.lane.underWay) {
      clearTimeout(held.timer)
      held.abandoned = true
      held.context?.abort(new TaskAbandoned("its worker has let go of it"))
    }
  }
}

function isThenable(value: unknown): boolean {
  return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function"
}

/** Whether a task has ended with what stopped it. */
function isStop(error: unknown, held: Held): boolean {
  if (error instanceof TaskAbandoned || error instanceof TaskCancelled) return true
  if (held.context?.signal.aborted !== true) return false
  return error === held.context.signal.reason || (error instanceof Error && error.name === "AbortError")
}

/** Policies know a timeout by the name that workflows catch it by. */
function asTimeoutError(error: TaskTimeout): Error {
  return Object.defineProperty(new TaskTimeout(error.message), "name", { value: "TimeoutError" })
}

function refusal(error: unknown, what: string, bytesMax: number): Error {
  if (error instanceof PayloadTooLarge) {
    return new OutputTooLarge(`${what} is over the limit of ${bytesMax} bytes (payloadBytesMax); store it elsewhere and return where it is`)
  }
  if (error instanceof InvalidInput) return new OutputInvalid(error.message)
  return new OutputInvalid(`${what} cannot be written as JSON: ${describe(error)}`)
}

/** The token a task may hand to services: the same in every attempt, different for every call. */
function idempotencyKey({ key, parentId, operation, id }: Claim): string {
  return key ?? (parentId === null ? id : `${parentId}:${operation ?? 0}`)
}
