/**
 * The worker: runs the tasks of this process until it is stopped.
 *
 * It lives in incarnations: one that was declared dead, or was cut off from the database, ends, and the next one begins
 * with nothing. Workflows are advanced by Python workers.
 */
import { hostname } from "node:os"
import { isDeepStrictEqual } from "node:util"

import { resolveUrl, type WorkerConfig, workerConfig, type WorkerOptions } from "../config.js"
import { Backoff, Database, maskUrl } from "../database.js"
import { ConfigurationError, DatabaseUnavailable, IncarnationDead } from "../errors.js"
import { newId } from "../ids.js"
import { Logger, type Sink, streamSink } from "../logging.js"
import { FAILED, Protocol, type Registration } from "../protocol.js"
import { policyOf } from "../retry.js"
import { prepareSchema } from "../schema.js"
import { type AnyTask, registeredTasks } from "../task.js"
import { monotonic, pause, Signal } from "../clock.js"
import { Exchange, IN_FLIGHT_MAX, type Work } from "./exchange.js"
import { Heartbeat } from "./heartbeat.js"
import type { Ended, Held } from "./held.js"
import { Lane } from "./lane.js"
import { Maintenance } from "./maintenance.js"
import { type Prepared, Runner } from "./runner.js"
import { Wakeups } from "./wakeups.js"

const VERSION = "0.1.0"
const LAST_EXCHANGE = 4_000 // ms for the last reports of an incarnation that ends
const UNREGISTER = 2_000 // ms for saying goodbye
const SETTLED = 60_000 // an incarnation that lived for so long was well
const HEALTHY = 2_000 // ms: how much later than planned things may happen in a healthy worker
const CHECK = 10 // ms between looks at what a drain waits for

/** Options of a worker inside an application. */
export interface WorkerInit extends WorkerOptions {
  /** Tasks to run. Default: all that this process has made. */
  tasks?: Iterable<AnyTask> | undefined
  /** Takes what it logs. Default: lines of level "info" on standard error. */
  log?: Sink | undefined
}

/** A worker inside an application: `await new Worker({ queues: ["orders"] }).run()`. */
export class Worker {
  readonly #config: WorkerConfig
  readonly #url: string | undefined
  readonly #tasks: AnyTask[]
  readonly #logger: Logger
  readonly #drain = new Signal()
  readonly #letGo = new Signal()
  #running: Promise<void> | undefined
  #living: Incarnation | undefined
  #ended = false

  /** Throws ConfigurationError for options that cannot be used, and when there is nothing to run. */
  constructor(init: WorkerInit = {}) {
    this.#config = workerConfig(init)
    this.#url = init.url
    this.#tasks = [...(init.tasks ?? registeredTasks().values())]
    this.#logger = new Logger(init.log ?? streamSink("info", "text"))
    if (this.#tasks.length === 0) {
      throw new ConfigurationError("this worker would have nothing to run: no task has been made with task(…)")
    }
  }

  /** Runs until `stop()` has drained it. Throws NotConfigured, SchemaMismatch, or DatabaseUnavailable at the start. */
  run(): Promise<void> {
    this.#running ??= this.#run().finally(() => (this.#ended = true))
    return this.#running
  }

  /** Drains: what has begun may end within the drain timeout, the rest goes back. `letGo`: all of it, at once. */
  async stop({ letGo = false }: { letGo?: boolean } = {}): Promise<void> {
    this.#drain.set()
    if (letGo) this.#letGo.set()
    await this.#running?.catch(() => undefined)
  }

  /** What keeps this worker from its work, in words; undefined: nothing. */
  health(): string | undefined {
    if (this.#ended) return "ended"
    return this.#living === undefined ? "not registered with the database yet" : this.#living.health()
  }

  async #run(): Promise<void> {
    const prepared = new Map<string, Prepared>()
    const registrations: Registration[] = []
    for (const task of this.#tasks) {
      const { validate, jsonSchema } = await prepareSchema(task.name, task.schema, task.jsonSchema)
      prepared.set(task.name, { task, validate })
      registrations.push({
        name: task.name,
        queue: task.queue,
        retries: task.retries,
        retry: isDeepStrictEqual(task.policy, policyOf()) ? null : task.policy, // nothing to carry along with every claim
        timeout: task.timeout,
        priority: task.priority,
        inputSchema: jsonSchema,
      })
    }
    const url = await resolveUrl(this.#url)
    const { pooler } = this.#config
    const database = new Database(url, { poolMax: IN_FLIGHT_MAX + 2, pooler, applicationName: "rhythm worker" })
    try {
      await this.#live(new Protocol(database), url, prepared, registrations)
    } finally {
      await Promise.race([database.close(), pause(UNREGISTER)]) // it may hang on a network that is gone
    }
  }

  async #live(protocol: Protocol, url: string, tasks: Map<string, Prepared>, registrations: Registration[]): Promise<void> {
    const backoff = new Backoff()
    const queues = this.#config.queues.length
      ? [...this.#config.queues]
      : [...new Set(["default", ...registrations.map((registration) => registration.queue)])]
    let first = true
    while (!this.#drain.isSet) {
      const incarnation = newId()
      const began = monotonic()
      const about = { host: hostname(), pid: process.pid, version: `node-${VERSION}`, heartbeatTimeout: this.#config.heartbeatTimeout }
      let registered
      try {
        registered = await protocol.register(incarnation, about, queues, registrations)
      } catch (error) {
        if (first || !(error instanceof DatabaseUnavailable)) throw error
        this.#logger.warning(`registering failed: ${error.message}`)
        await Promise.race([this.#drain.promise, pause(backoff.next())])
        continue
      }
      first = false
      for (const name of registered.conflicts) {
        this.#logger.warning("another live worker has registered it differently; the newest counts", { task: name })
      }
      const living = new Incarnation(protocol, url, incarnation, registered, tasks, this.#config, this.#logger)
      this.#living = living
      this.#logger.info("worker ready", { incarnation, database: maskUrl(url), queues: queues.join(","), tasks: tasks.size })
      try {
        await living.run(this.#drain, this.#letGo)
      } catch (error) {
        if (!(error instanceof IncarnationDead)) throw error
        this.#logger.error(error.message, { incarnation })
        if (monotonic() - began > SETTLED) backoff.reset()
        await Promise.race([this.#drain.promise, pause(backoff.next())])
      } finally {
        this.#living = undefined
        const goodbye = protocol.unregister(incarnation).catch(() => undefined)
        await Promise.race([goodbye, pause(UNREGISTER)])
        this.#logger.info("worker gone", { incarnation })
      }
    }
  }
}

/** A registered incarnation; `run` is its life. */
class Incarnation implements Work {
  readonly #exchange: Exchange
  readonly #runner: Runner
  readonly #lane: Lane
  readonly #heartbeat: Heartbeat
  readonly #maintenance: Maintenance
  readonly #wakeups: Wakeups | undefined
  #over = false

  constructor(
    protocol: Protocol,
    url: string,
    incarnation: string,
    registered: { queues: number[]; names: number[] },
    private readonly tasks: ReadonlyMap<string, Prepared>,
    private readonly config: WorkerConfig,
    private readonly logger: Logger,
  ) {
    this.#lane = new Lane(config.concurrency)
    const { queues, names } = registered
    const exchange = new Exchange(protocol, incarnation, this.#lane, this, queues, names, config.pollInterval, logger)
    this.#exchange = exchange
    this.#runner = new Runner(
      tasks,
      this.#lane,
      config.payloadBytesMax,
      logger,
      (ended) => {
        exchange.report(ended)
        if (this.#lane.waiting.length === 0) exchange.room()
      },
      (held) => exchange.handBack(held),
      (id, progress) => this.#heartbeat.note(id, progress),
    )
    const about = { url, pooler: config.pooler, incarnation }
    this.#heartbeat = exchange.heartbeat = new Heartbeat(about, config.heartbeatTimeout, config.stallTimeout, logger, {
      first: () => exchange.hint(),
      dead: () => exchange.end("this worker was declared dead; what it held has been taken over"),
      cancel: (ids) => this.#cancel(ids),
    })
    this.#maintenance = new Maintenance(protocol, config, () => exchange.hint(), logger)
    const listenUrl = config.listenUrl ?? (config.pooler ? undefined : url)
    this.#wakeups =
      listenUrl === undefined ? undefined : new Wakeups(listenUrl, incarnation, () => exchange.hint(), logger)
  }

  /** Runs until it is to drain, and everything has been seen to. Throws IncarnationDead when over before. */
  async run(drain: Signal, letGo: Signal): Promise<void> {
    let failure: unknown
    const exchanging = this.#exchange
      .run(() => this.#over)
      .catch((error: unknown) => {
        failure = error
        this.#over = true
      })
    try {
      await Promise.race([drain.promise, exchanging])
      if (failure === undefined) await this.#drain(letGo)
    } finally {
      this.#over = true
      this.#exchange.wake()
      await exchanging
      this.#runner.letGo()
      await Promise.all([this.#maintenance.close(), this.#wakeups?.close(), this.#heartbeat.close()])
    }
    if (failure !== undefined) throw failure as Error
  }

  async #drain(letGo: Signal): Promise<void> {
    const exchange = this.#exchange
    this.logger.info(`draining, ${exchange.held.size} executions in hand`)
    exchange.claiming = false
    exchange.handBack(this.#runner.takeWaiting())
    const until = monotonic() + this.config.drainTimeout
    const goOn = () => !exchange.isIdle && !exchange.windingUp && !this.#over && !letGo.isSet
    while (goOn() && monotonic() < until) await pause(CHECK)
    if (!exchange.isIdle && !this.#over) this.#giveBack(true)
    const last = monotonic() + LAST_EXCHANGE
    while (!exchange.isSettled && !this.#over && monotonic() < last) await pause(CHECK)
  }

  /** Stops everything and hands back, uncharged, what has not begun; with `begun` also what has. */
  #giveBack(begun: boolean): void {
    const exchange = this.#exchange
    exchange.claiming = false
    exchange.dropArrived() // among what is held and has not begun
    const settled = new Set([...exchange.reports.map((ended) => ended.held), ...exchange.handBacks])
    const back = [...exchange.held.values()].filter((held) => !settled.has(held) && (begun || !held.begun))
    this.logger.warning(`letting go of ${exchange.held.size} executions, handing back ${back.length}`)
    this.#runner.letGo()
    exchange.handBack(back)
  }

  accept(held: Held[]): void {
    this.#runner.begin(held)
  }

  confirmed({ held, action, retryAfter }: Ended): void {
    if (action !== FAILED) return
    // it may be tried again, and then so soon: maintenance is not to be late
    const own = { ...this.tasks.get(held.claim.name)?.task.policy, ...held.claim.retry }
    const wait = Math.min((own.initial ?? 1) * (own.factor ?? 2) ** (held.claim.attempt - 1), own.max ?? 300)
    this.#maintenance.dueIn((retryAfter ?? wait * (1 - (own.jitter ?? 0.2))) * 1000)
  }

  cutOff(): void {
    void this.#heartbeat.close() // the database may bury this incarnation: that ends it, whatever else happens
    this.#giveBack(false)
  }

  #cancel(ids: readonly string[]): void {
    for (const id of ids) {
      const held = this.#exchange.held.get(id)
      if (held !== undefined && !held.cancelAsked) this.#runner.cancel(held)
    }
  }

  health(): string | undefined {
    const exchange = this.#exchange
    const now = monotonic()
    const stood = now - exchange.turnedAt
    if (stood > 2 * this.config.pollInterval + HEALTHY) return `the exchange has not turned for ${Math.round(stood / 1000)} s`
    if (exchange.unanswered) return "the database does not answer"
    const silent = now - Math.max(exchange.answeredAt, this.#heartbeat.confirmedAt)
    if (silent > 2 * this.config.pollInterval + HEALTHY + 1.5 * this.#heartbeat.interval) {
      return `the database has not answered for ${Math.round(silent / 1000)} s`
    }
    return undefined
  }
}
