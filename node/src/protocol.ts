/**
 * The protocol: one method per SQL function of schema `rhythm` that clients and workers call. Nothing is decided here.
 *
 * Every method may throw DatabaseUnavailable; it is then unknown whether a write was committed, and right to repeat it
 * unchanged: starts and signals carry their own ids, outcomes are fenced by tokens that a committed exchange has used
 * up, and `held` tells what an incarnation holds if the answer with its claims was lost.
 */
import type { Database, Row, Statement } from "./database.js"
import { SchemaMismatch } from "./errors.js"
import type { Policy } from "./retry.js"
import { float8s, int2s, int4s, int8s, payload, payloads, payloadText, textArray, uuids } from "./wire.js"

/** The number of rhythm.protocol() that this release's workers understand. */
export const PROTOCOL = 2
/** Executions in one claim. */
export const CLAIM_COUNT_MAX = 500
/** Executions in one start. */
export const START_COUNT_MAX = 1000
/** Position that marks a claim of one execution. */
export const SINGLE = 511

/** What an outcome says, as codes of the protocol. */
export const COMPLETED = 1
export const FAILED = 2
export const CANCELLED = 3
export const FAILED_FOR_GOOD = 4
export const HANDED_BACK = 6

/** An execution that was claimed. */
export interface Claim {
  claim: number
  /** in its batch; SINGLE: it stands alone */
  position: number
  readonly id: string
  readonly name: string
  /** JSON */
  readonly inputs: string
  readonly attempt: number
  readonly lost: number
  /** ms; 0: none */
  readonly timeout: number
  readonly parentId: string | null
  readonly operation: number | null
  readonly key: string | null
  /** the execution's own; what it leaves out is the task's */
  readonly retry: Partial<Policy> | null
}

/** What an exchange says about one claimed execution. */
export interface Report {
  claim: number
  position: number
  id: string
  /** one of the codes above */
  action: number
  /** JSON, ASCII */
  payload: string | null
  /** seconds */
  retryAfter: number | null
}

/** One exchange: reports in, claims out. */
export interface ExchangeRequest {
  epoch: number
  reports: Report[]
  queues: readonly number[]
  /** ids of names that may be claimed; none: nothing is */
  names: readonly number[]
  /** how many to claim, and how many of them would begin at once */
  limit: number
  free: number
  /** nothing else is held here: a suspect may be claimed */
  alone: boolean
  /** notify me of what becomes claimable */
  idle: boolean
}

export interface ExchangeResult {
  claims: Claim[]
  refused: Set<string>
  /** new claims of the members of batches that were split */
  retokened: Map<string, number>
  suspectsWaiting: boolean
  checkAgain: boolean
  nextPassSeconds: number | null
}

/** A task as a worker registers it. */
export interface Registration {
  name: string
  queue: string
  retries: number
  /** null: the defaults */
  retry: Policy | null
  /** ms; 0: none */
  timeout: number
  priority: number
  inputSchema: unknown
}

/** One execution to start; what is null comes from the registration of its name, else from the defaults. */
export interface NewExecution {
  id: string
  name: string
  /** 0: whichever is known by that name; 1: a task */
  kind: 0 | 1
  inputs: string
  queue: string | null
  priority: number | null
  delaySeconds: number | null
  availableAt: Date | null
  key: string | null
  keyPolicy: number
  retries: number | null
  retry: string | null
  timeout: number | null
  tags: string | null
  signal: { name: string; payload: string; sendId: string } | null
  limitKey: string | null
}

export interface StartResult {
  id: string
  status: "started" | "existing" | "replaced" | "key_conflict" | "key_taken"
}

export interface Outcome {
  id: string
  status: "completed" | "failed" | "cancelled"
  /** JSON */
  payload: string
}

const START_STATUSES = ["started", "existing", "replaced", "key_conflict", "key_taken"] as const

/** Arguments of rhythm.exchange about commits of workflows, which are advanced elsewhere. */
const NO_COMMITS = [
  "commit_report", "commit_child", "commit_ids", "versions", "seen", "snapshots", "statuses", "outcomes", "keep", "lines",
  "functions", "awaiting", "outstanding", "unread_signals", "child_commit", "child_ids", "child_inputs", "child_name",
  "child_kinds", "child_names", "child_operations", "child_queue", "child_queues", "child_priorities", "child_delays",
  "child_keys", "child_retries", "child_retry", "child_timeouts", "timer_commit", "timer_operations", "timer_delays",
  "timer_due", "drop_commit", "drop_operations", "group_first", "group_modes", "group_members", "group_counts",
  "cancel_commit", "cancel_ids",
]
  .map((name) => `p_${name} => null`)
  .join(", ")

const CLAIM_COLUMNS =
  "r.t_attempts, r.t_lost, r.t_names, r.t_inputs, r.t_timeouts, r.t_extra, r.x_parents, " +
  "r.x_operations, r.x_keys, r.x_retry"

const EXCHANGE: Statement = {
  name: "exchange",
  text:
    `select r.o_refused, r.o_new_ids, r.o_new_claims, r.o_suspects, r.o_check_again, r.o_next_pass, r.t_claim, r.t_ids, ${CLAIM_COLUMNS} ` +
    "from rhythm.exchange(p_incarnation => $1::uuid, p_epoch => $2::integer, p_claims => $3::bigint[], " +
    "p_positions => $4::smallint[], p_ids => $5::uuid[], p_actions => $6::smallint[], p_payloads => $7::bytea[], " +
    "p_retry_after => $8::double precision[], p_batches => $9::bigint[], p_batch_counts => $10::integer[], " +
    `${NO_COMMITS}, p_queues => $11::integer[], p_names => $12::integer[], p_singles => '{}', ` +
    "p_task_counts => $13::integer[], p_task_limits => $14::integer[], p_workflow_limit => 0, p_alone => $15::boolean, " +
    "p_idle => $16::boolean, p_parents => false, p_task_free => $17::integer[]) r",
}
const HELD: Statement = {
  name: "held",
  text:
    `select r.m_ids, r.m_claims, r.m_positions, r.m_known, r.t_members, ${CLAIM_COLUMNS} ` +
    "from rhythm.held($1::uuid, $2::integer, $3::uuid[], $4::integer[], $5::integer[]) r",
}
const REGISTER: Statement = {
  name: "register",
  text:
    "select o_queues, o_names, o_conflicts from rhythm.register_worker($1::uuid, $2::text, $3::integer, $4::text, " +
    "$5::integer, false, $6::text[], $7::text[], $8::text[], $9::integer[], $10::text[], $11::bigint[], " +
    "$12::integer[], $13::text[])",
}
const START_TYPES = [
  "uuid[]", "bytea[]", "integer[]", "smallint[]", "text[]", "integer[]", "text[]", "integer[]", "timestamptz[]",
  "double precision[]", "text[]", "smallint[]", "integer[]", "text[]", "bigint[]", "text[]", "text[]", "text[]",
  "bytea[]", "uuid[]", "text[]",
]
const START_CALL = `rhythm.start_many(${START_TYPES.map((type, i) => `$${i + 1}::${type}`).join(", ")})`
const START: Statement = { name: "start_many", text: `select o_ids, o_statuses from ${START_CALL}` }
const SIGNAL: Statement = { name: "signal", text: "select rhythm.signal($1::uuid, $2::text, $3::bytea, $4::uuid)" }
const OUTCOMES: Statement = { name: "outcomes", text: "select id, status, payload from rhythm.outcomes_of($1::uuid[])" }
const LISTED =
  "id, kind, name, status, reason, queue, priority, key, tags, inputs_payload, outcome_payload, attempts, lost, " +
  "parent_id, root_id, created_at, started_at, finished_at, available_at, failure_payload, last_failure_at, limit_key, " +
  "progress_payload, progress_at"
const GET: Statement = { name: "get", text: `select ${LISTED} from rhythm.list_executions(p_id => $1::uuid)` }
const LIST: Statement = {
  name: "list",
  text:
    `select ${LISTED} from rhythm.list_executions(null, $1::text[], $2::text, $3::text, $4::text, $5::uuid, $6::text, ` +
    "$7::uuid, $8::integer, $9::text)",
}
const LOGS: Statement = {
  name: "logs",
  text: "select number, level, logged_at, text from rhythm.logs_of($1::uuid, $2::integer, $3::smallint, $4::integer)",
}
const call = (name: string, types: string): Statement => ({
  name,
  text: `select rhythm.${name}(${types.split(" ").filter(Boolean).map((type, i) => `$${i + 1}::${type}`).join(", ")}) as answer`,
})
const PROTOCOL_NUMBER = call("protocol", "")
const MAINTAIN: Statement = {
  name: "maintain",
  text:
    "select o_next_due, o_moved, o_reclaimed, o_more from rhythm.maintain($1::double precision, $2::double precision)",
}
const UNREGISTER = call("unregister_worker", "uuid")
const HEARTBEAT = call("heartbeat", "uuid")
const NOTE_PROGRESS = call("note_progress", "uuid uuid[] bytea[]")
const CANCEL = call("cancel", "uuid")
const TERMINATE = call("terminate", "uuid")
const RETRY = call("retry", "uuid uuid")
const START_AGAIN = call("start_again", "uuid uuid")

/** The functions, on one database. */
export class Protocol {
  readonly #names = new Map<number, string>()

  constructor(readonly database: Database) {}

  // --- workers ---

  /** Throws SchemaMismatch for a database that speaks another protocol. */
  async check(): Promise<void> {
    const { answer } = await this.database.row(PROTOCOL_NUMBER)
    if (answer !== PROTOCOL) {
      const what =
        Number(answer) < PROTOCOL ? "run `rhythm migrate`" : "use the release that migrated it, or a newer one"
      throw new SchemaMismatch(
        `the database speaks protocol ${String(answer)}, this release of Rhythm ${PROTOCOL}: ${what}`,
      )
    }
  }

  /** Registers an incarnation with its tasks. Returns the ids of its queues and names, and tasks registered otherwise. */
  async register(
    incarnation: string,
    about: { host: string; pid: number; version: string; heartbeatTimeout: number },
    queues: readonly string[],
    tasks: readonly Registration[],
  ): Promise<{ queues: number[]; names: number[]; conflicts: string[] }> {
    await this.check()
    const row = await this.database.row(REGISTER, [
      incarnation,
      about.host,
      about.pid,
      about.version,
      Math.round(about.heartbeatTimeout),
      textArray(queues),
      textArray(tasks.map((task) => task.name)),
      textArray(tasks.map((task) => task.queue)),
      int4s(tasks.map((task) => task.retries)),
      textArray(tasks.map((task) => (task.retry === null ? null : JSON.stringify(task.retry)))),
      int8s(tasks.map((task) => task.timeout)),
      int4s(tasks.map((task) => task.priority)),
      textArray(tasks.map((task) => JSON.stringify(task.inputSchema))),
    ])
    const queueIds = row.o_queues as number[]
    const nameIds = row.o_names as number[]
    nameIds.forEach((id, index) => this.#names.set(id, tasks[index]?.name ?? ""))
    return { queues: queueIds, names: nameIds, conflicts: row.o_conflicts as string[] }
  }

  async unregister(incarnation: string): Promise<void> {
    await this.database.rows(UNREGISTER, [incarnation])
  }

  /** Keeps an incarnation alive; returns what of it is to be cancelled. Throws IncarnationDead. */
  async heartbeat(incarnation: string): Promise<string[]> {
    return (await this.database.row(HEARTBEAT, [incarnation])).answer as string[]
  }

  /** Notes how far executions are (JSON); those that the incarnation does not hold are passed over. */
  async noteProgress(incarnation: string, notes: ReadonlyMap<string, string>): Promise<void> {
    await this.database.rows(NOTE_PROGRESS, [incarnation, uuids([...notes.keys()]), payloads([...notes.values()])])
  }

  /** Does what is due, whoever it belongs to. `nextDue`: seconds until more is, null when that is not known. */
  async maintain(
    retentionSeconds: number | null,
    keyWindowSeconds: number,
  ): Promise<{ nextDue: number | null; moved: number; reclaimed: number; more: boolean }> {
    const row = await this.database.row(MAINTAIN, [retentionSeconds, keyWindowSeconds])
    return {
      nextDue: row.o_next_due as number | null,
      moved: row.o_moved as number,
      reclaimed: row.o_reclaimed as number,
      more: row.o_more as boolean,
    }
  }

  /** Outcomes in, claims out, one transaction. Throws IncarnationDead. */
  async exchange(incarnation: string, request: ExchangeRequest): Promise<ExchangeResult> {
    const claiming = request.limit > 0 && request.names.length > 0
    const row = await this.database.row(EXCHANGE, [
      incarnation,
      request.epoch,
      ...reportArguments(request.reports),
      int4s(request.queues),
      int4s(claiming ? request.names : []),
      int4s(claiming ? [request.names.length] : []),
      int4s(claiming ? [request.limit] : []),
      request.alone,
      request.idle,
      int4s(claiming ? [request.free] : []),
    ])
    const retokened = retokenedOf(row)
    const ids = row.t_ids as string[] | null
    let claims: Claim[] = []
    if (ids !== null) {
      // what was claimed singly comes last, each with a claim of its own
      const batched = retokened.size ? ids.filter((id) => !retokened.has(id)).length : ids.length
      const batch = row.t_claim as number
      claims = this.#claims(row, ids, (id, index) =>
        index < batched ? [batch, batched === 1 ? SINGLE : index] : [retokened.get(id) ?? 0, SINGLE],
      )
    }
    return {
      claims,
      refused: new Set(row.o_refused as string[]),
      retokened,
      suspectsWaiting: row.o_suspects as boolean,
      checkAgain: row.o_check_again as boolean,
      nextPassSeconds: row.o_next_pass as number | null,
    }
  }

  /**
   * What an incarnation holds according to the database, compared with what it believes to hold, after an answer was
   * lost. `tokens` has those that are still held; `claims` are new. `epoch`: one more than in the exchanges before.
   */
  async held(
    incarnation: string,
    epoch: number,
    known: readonly Claim[],
  ): Promise<{ tokens: Map<string, readonly [number, number]>; claims: Claim[] }> {
    const row = await this.database.row(HELD, [
      incarnation,
      epoch,
      uuids(known.map((claim) => claim.id)),
      int4s(known.map((claim) => claim.attempt)),
      int4s(known.map(() => 0)),
    ])
    const tokens = new Map<string, readonly [number, number]>()
    const ids = row.m_ids as string[] | null
    if (ids === null) return { tokens, claims: [] }
    const [claims, positions, isKnown] = [
      row.m_claims as number[],
      row.m_positions as number[],
      row.m_known as boolean[],
    ]
    const all = ids.map((_, index) => [claims[index] ?? 0, positions[index] ?? 0] as const)
    ids.forEach((id, index) => {
      const token = all[index]
      if (isKnown[index] && token) tokens.set(id, token)
    })
    const members = (row.t_members as number[] | null) ?? []
    const memberIds = members.map((member) => ids[member - 1] ?? "")
    return {
      tokens,
      claims: members.length ? this.#claims(row, memberIds, (_, index) => all[(members[index] ?? 0) - 1] ?? [0, 0]) : [],
    }
  }

  #claims(row: Row, ids: readonly string[], token: (id: string, index: number) => readonly [number, number]): Claim[] {
    const [attempts, names, inputs, timeouts] = [
      row.t_attempts as number[],
      row.t_names as number[],
      row.t_inputs as string[],
      row.t_timeouts as (number | null)[],
    ]
    const lost = row.t_lost as number[] | null
    const extra = new Map<number, number>()
    ;(row.t_extra as number[] | null)?.forEach((position, index) => extra.set(position - 1, index))
    const [parents, operations, keys, retry] = [
      row.x_parents as (string | null)[],
      row.x_operations as (number | null)[],
      row.x_keys as (string | null)[],
      row.x_retry as (string | null)[],
    ]
    return ids.map((id, index) => {
      const [claim, position] = token(id, index)
      const x = extra.get(index)
      const policy = x === undefined ? null : (retry[x] ?? null)
      return {
        claim,
        position,
        id,
        name: this.#names.get(names[index] ?? 0) ?? "",
        inputs: payloadText(inputs[index] ?? ""),
        attempt: attempts[index] ?? 1,
        lost: lost?.[index] ?? 0,
        timeout: timeouts[index] ?? 0,
        parentId: x === undefined ? null : (parents[x] ?? null),
        operation: x === undefined ? null : (operations[x] ?? null),
        key: x === undefined ? null : (keys[x] ?? null),
        retry: policy === null ? null : (JSON.parse(policy) as Partial<Policy>),
      }
    })
  }

  // --- clients ---

  async start(starts: readonly NewExecution[]): Promise<StartResult[]> {
    const row = await this.database.row(START, startArguments(starts))
    return startResults(row.o_ids as string[], row.o_statuses as number[])
  }

  async signal(id: string, name: string, json: string, sendId: string): Promise<void> {
    await this.database.rows(SIGNAL, [id, name, payload(json), sendId])
  }

  async cancel(id: string, force: boolean): Promise<void> {
    await this.database.rows(force ? TERMINATE : CANCEL, [id])
  }

  async retry(id: string, retryId: string): Promise<void> {
    await this.database.rows(RETRY, [id, retryId])
  }

  async startAgain(id: string, newId: string): Promise<void> {
    await this.database.rows(START_AGAIN, [id, newId])
  }

  /** Of those that exist: the outcome, or null while there is none. */
  async outcomes(ids: readonly string[]): Promise<Map<string, Outcome | null>> {
    const rows = await this.database.rows(OUTCOMES, [uuids(ids)])
    return new Map(
      rows.map((row) => {
        const id = row.id as string
        const status = row.status as Outcome["status"] | null
        return [id, status === null ? null : { id, status, payload: payloadText(row.payload as string) }]
      }),
    )
  }

  async get(id: string): Promise<Row | undefined> {
    return (await this.database.rows(GET, [id]))[0]
  }

  async list(values: unknown[]): Promise<Row[]> {
    return await this.database.rows(LIST, values)
  }

  async logs(id: string, after: number, level: number, newest: number | null): Promise<Row[]> {
    return await this.database.rows(LOGS, [id, after, level, newest])
  }
}

/** The arguments p_claims to p_batch_counts: sorted by claim, batches first. */
function reportArguments(reports: Report[]): unknown[] {
  if (reports.length === 0) return Array<null>(8).fill(null)
  const sorted = [...reports].sort(
    (a, b) =>
      Number(a.position === SINGLE) - Number(b.position === SINGLE) || a.claim - b.claim || a.position - b.position,
  )
  const batches = new Map<number, number>()
  for (const { claim, position } of sorted) {
    if (position === SINGLE) break
    batches.set(claim, (batches.get(claim) ?? 0) + 1)
  }
  return [
    int8s(sorted.map((report) => report.claim)),
    int2s(sorted.map((report) => report.position)),
    uuids(sorted.map((report) => report.id)),
    int2s(sorted.map((report) => report.action)),
    payloads(sorted.map((report) => report.payload)),
    float8s(sorted.map((report) => report.retryAfter)),
    int8s([...batches.keys()]),
    int4s([...batches.values()]),
  ]
}

function retokenedOf(row: Row): Map<string, number> {
  const ids = row.o_new_ids as string[] | null
  const claims = row.o_new_claims as number[] | null
  return new Map(ids?.map((id, index) => [id, claims?.[index] ?? 0]))
}

/** Each value as its position, from 1, in the distinct ones; null stays null. */
function distinct(values: readonly (string | null)[]): [(number | null)[], string[]] {
  const positions = new Map<string, number>()
  const indexes = values.map((value) => {
    if (value === null) return null
    const known = positions.get(value) ?? positions.size + 1
    positions.set(value, known)
    return known
  })
  return [indexes, [...positions.keys()]]
}

function orNull<T>(values: (T | null)[], write: (values: (T | null)[]) => Buffer): Buffer | null {
  return values.some((value) => value !== null) ? write(values) : null
}

/** The arguments of rhythm.start_many. */
export function startArguments(starts: readonly NewExecution[]): unknown[] {
  const [name, pairs] = distinct(starts.map((start) => `${start.kind}${start.name}`))
  const [queue, queues] = distinct(starts.map((start) => start.queue))
  const keyed = starts.some((start) => start.key !== null)
  const signalled = starts.some((start) => start.signal !== null)
  return [
    uuids(starts.map((start) => start.id)),
    payloads(starts.map((start) => start.inputs)),
    int4s(name),
    int2s(pairs.map((pair) => Number(pair[0]))),
    textArray(pairs.map((pair) => pair.slice(1))),
    orNull(queue, int4s),
    queues.length ? textArray(queues) : null,
    orNull(starts.map((start) => start.priority), int4s),
    starts.some((start) => start.availableAt !== null)
      ? starts.map((start) => start.availableAt?.toISOString() ?? null)
      : null,
    orNull(starts.map((start) => start.delaySeconds), float8s),
    keyed ? textArray(starts.map((start) => start.key)) : null,
    keyed ? int2s(starts.map((start) => start.keyPolicy)) : null,
    orNull(starts.map((start) => start.retries), int4s),
    orNull(starts.map((start) => start.retry), textArray),
    orNull(starts.map((start) => start.timeout), int8s),
    orNull(starts.map((start) => start.tags), textArray),
    null,
    signalled ? textArray(starts.map((start) => start.signal?.name ?? null)) : null,
    signalled ? payloads(starts.map((start) => start.signal?.payload ?? null)) : null,
    signalled ? uuids(starts.map((start) => start.signal?.sendId ?? null)) : null,
    orNull(starts.map((start) => start.limitKey), textArray),
  ]
}

function startResults(ids: readonly string[], statuses: readonly number[]): StartResult[] {
  return ids.map((id, index) => ({ id, status: START_STATUSES[(statuses[index] ?? 1) - 1] ?? "started" }))
}

// --- in a caller's own transaction ---------------------------------------------------------------------

/** A connection of the driver (`pg`): a Client, or one from a Pool, with the caller's transaction open on it. */
export interface Queryable {
  query: (text: string, values: unknown[]) => Promise<{ rows: unknown[] }>
}

/** Starts on the caller's connection; the answer is read as text, whatever type parsers are set there. */
export async function startOn(connection: Queryable, starts: readonly NewExecution[]): Promise<StartResult[]> {
  const text = `select json_build_array(o_ids, o_statuses)::text as answer from ${START_CALL}`
  const { rows } = await connection.query(text, startArguments(starts))
  const [ids, statuses] = JSON.parse(String((rows[0] as Row).answer)) as [string[], number[]]
  return startResults(ids, statuses)
}

/** Sends a signal on the caller's connection. */
export async function signalOn(
  connection: Queryable,
  id: string,
  name: string,
  json: string,
  sendId: string,
): Promise<void> {
  await connection.query(SIGNAL.text, [id, name, payload(json), sendId])
}
