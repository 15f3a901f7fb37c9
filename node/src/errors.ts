/**
 * Every error that Rhythm throws on purpose, as one tree; the names are those of the Python package.
 *
 *     RhythmError
 *     ├── NotConfigured         no database is configured here
 *     ├── ConfigurationError    an option or a variable is wrong
 *     ├── DatabaseUnavailable   the database cannot be reached, or stopped answering
 *     ├── SchemaMismatch        the database's schema is older or newer than this release
 *     ├── InvalidInput          what was passed in cannot be used
 *     │   ├── InvalidDuration, PayloadTooLarge, OutputTooLarge, OutputInvalid, TaskInputInvalid
 *     ├── StartRefused, SignalRefused, RetryRefused
 *     ├── ExecutionNotFound, ExecutionFinished
 *     ├── ExecutionFailed       from result(): carries the remote error
 *     ├── ExecutionCancelled    from result()
 *     ├── WaitTimeout           result({ timeout }) ran out; the execution carries on
 *     ├── TaskNotRetryable      throw it in a task: this failure is final
 *     ├── TaskRetryAfter        throw it in a task: try again after a given delay
 *     ├── TaskTimeout, TaskCancelled, TaskAbandoned    reasons of ctx.signal
 *     └── IncarnationDead       this worker was declared dead; nothing it holds counts any more
 */

/** Base of every error that Rhythm throws on purpose. */
export class RhythmError extends Error {
  override get name(): string {
    return this.constructor.name
  }
}

/** No database is configured here. */
export class NotConfigured extends RhythmError {}
/** An option, a variable or a task's declaration cannot be used. */
export class ConfigurationError extends RhythmError {}
/** The database cannot be reached, or it stopped answering. */
export class DatabaseUnavailable extends RhythmError {}
/** The schema in the database does not fit this release of Rhythm. */
export class SchemaMismatch extends RhythmError {}
/** What was passed in cannot be used. */
export class InvalidInput extends RhythmError {}
/** This is not a duration. */
export class InvalidDuration extends InvalidInput {}
/** The inputs or the payload are larger than the limit. */
export class PayloadTooLarge extends InvalidInput {}
/** The task's output is larger than the limit. */
export class OutputTooLarge extends InvalidInput {}
/** The task's output holds something that JSON cannot. */
export class OutputInvalid extends InvalidInput {}
/** The inputs do not fit the task's schema. */
export class TaskInputInvalid extends InvalidInput {}
/** The execution has too many unread signals. */
export class SignalRefused extends RhythmError {}
/** No execution with this id. */
export class ExecutionNotFound extends RhythmError {}
/** The execution has finished already. */
export class ExecutionFinished extends RhythmError {}
/** The execution was cancelled. */
export class ExecutionCancelled extends RhythmError {}
/** The wait ran out of time; the execution carries on. */
export class WaitTimeout extends RhythmError {}
/** Thrown by a task: this failure is final, whatever its retry policy says. */
export class TaskNotRetryable extends RhythmError {}
/** The attempt took longer than its timeout. */
export class TaskTimeout extends RhythmError {}
/** Somebody wants the task cancelled. */
export class TaskCancelled extends RhythmError {}
/** Nobody waits for this attempt any more. */
export class TaskAbandoned extends RhythmError {}
/** This worker has no task of that name. */
export class TaskNotFoundError extends RhythmError {}
/** This worker incarnation was declared dead; what it held has been taken over. */
export class IncarnationDead extends RhythmError {}

/** The start was refused; `code` says why ("key_conflict", "key_taken", "unknown_definition", …). */
export class StartRefused extends RhythmError {
  constructor(
    message: string,
    readonly code: string,
  ) {
    super(message)
  }
}

/** The execution cannot be retried; `code` says why ("not_finished", "completed", "consumed", "nothing_kept", …). */
export class RetryRefused extends RhythmError {
  constructor(
    message: string,
    readonly code: string,
  ) {
    super(message)
  }
}

/** Thrown by a task: make the next attempt after this long, if attempts are left. */
export class TaskRetryAfter extends RhythmError {
  /** @param milliseconds - from 0 on */
  constructor(
    message: string,
    readonly milliseconds: number,
  ) {
    super(message)
    if (!(milliseconds >= 0 && milliseconds < Number.POSITIVE_INFINITY)) {
      throw new RangeError(`TaskRetryAfter: ${milliseconds} is not a number of milliseconds from 0 on`)
    }
  }
}

/** What is stored of an error. */
export interface Failure {
  name?: string
  message?: string
  /** "failed", "timeout", "cancelled" or "lost" */
  type?: string
  attempts?: number
  retryable?: boolean
  /** of a task in Python */
  traceback?: string
  /** of a workflow, or of a task in Node.js */
  stack?: string
  data?: unknown
  cause?: { name: string; message: string; cause?: unknown }
  /** what a workflow threw when that was not an Error */
  thrown?: unknown
}

/** The execution failed; the fields say what its error was. */
export class ExecutionFailed extends RhythmError {
  readonly remoteName: string
  readonly remoteMessage: string
  readonly type: string
  readonly remoteStack: string | undefined
  readonly thrown: unknown
  readonly data: unknown

  constructor(
    readonly failure: Failure,
    readonly executionId: string,
  ) {
    const text =
      "thrown" in failure
        ? `threw ${JSON.stringify(failure.thrown)}`
        : `${failure.name ?? "Error"}: ${failure.message ?? ""}`
    super(`execution ${executionId} failed: ${text}`)
    this.remoteName = failure.name ?? "Error"
    this.remoteMessage = failure.message ?? ""
    this.type = failure.type ?? "failed"
    this.remoteStack = failure.traceback ?? failure.stack
    this.thrown = failure.thrown
    this.data = failure.data
  }
}
