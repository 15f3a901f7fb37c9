#!/usr/bin/env node
/**
 * `rhythm-flow worker`: imports modules that make tasks, and runs a worker.
 *
 * SIGTERM and SIGINT drain; a second one hands everything back at once, a third ends the process on the spot. Exit codes:
 * 0 drained, 1 it ended by an error, 2 wrong usage, 3 the database is not reachable or not configured.
 */
import { createServer } from "node:http"
import { resolve } from "node:path"
import { pathToFileURL } from "node:url"
import { parseArgs } from "node:util"

import { logConfig, parseSetting } from "./config.js"
import { ConfigurationError, DatabaseUnavailable, InvalidInput, NotConfigured } from "./errors.js"
import { Logger, streamSink } from "./logging.js"
import { Worker } from "./worker/worker.js"

const GIVE_UP = 7_000 // ms between the second signal and the end of a process that does not hand back
const HELP = `Usage: rhythm-flow worker [OPTIONS] MODULE...

Runs a worker for the tasks that the modules make. SIGTERM lets it finish what it has in hand.

Example: npx rhythm-flow worker ./tasks.js -q orders

Options:
  -q, --queue NAME            Queue to serve; may be repeated. Default: "default" and every queue its tasks name.
  --concurrency N             Tasks at a time. Default: 100.
  --health-port PORT          Answer HTTP there: 200 while all is well, else 503 and the reason. Default: none.
  --heartbeat-timeout D       Not heard of for so long, it is dead. Default: 30s.
  --stall-timeout D           Stuck for so long, it gives up its work. Default: 60s.
  --drain-timeout D           Time for running tasks when it stops. Default: 30s.
  --poll-interval D           Longest time between two looks for work. Default: 1s.
  --payload-bytes-max BYTES   Largest output. Default: 1048576.
  --retention D               Finished executions are kept for so long. Default: for ever.
  --key-window D              An idempotency key is kept at least so long. Default: 30d.
  --pooler                    The URL leads through a pooler in transaction mode.
  --listen-url URL            Direct URL for wake-ups, beside a pooler. Default: none.
  --database-url URL          Default: RHYTHM_DATABASE_URL, else what "rhythm db url" says.
  --log-level LEVEL           debug, info, warning, error. Default: info.
  --log-format FORMAT         text, json. Default: text.
  --help

A duration is like 500ms, 30s, 5m; a number is seconds. Every option is also a variable RHYTHM_<NAME>.`

const OPTIONS = {
  queue: { type: "string", short: "q", multiple: true },
  concurrency: { type: "string" },
  "health-port": { type: "string" },
  "heartbeat-timeout": { type: "string" },
  "stall-timeout": { type: "string" },
  "drain-timeout": { type: "string" },
  "poll-interval": { type: "string" },
  "payload-bytes-max": { type: "string" },
  retention: { type: "string" },
  "key-window": { type: "string" },
  pooler: { type: "boolean" },
  "listen-url": { type: "string" },
  "database-url": { type: "string" },
  "log-level": { type: "string" },
  "log-format": { type: "string" },
  help: { type: "boolean" },
} as const

class Usage extends Error {}

async function main(args: string[]): Promise<number> {
  const { values, positionals } = parsed(args)
  if (values.help || args.length === 0) {
    process.stdout.write(`${HELP}\n`)
    return 0
  }
  const [command, ...modules] = positionals
  if (command !== "worker") throw new Usage(`no command ${JSON.stringify(command ?? "")}: the one there is, is worker`)
  if (modules.length === 0) throw new Usage("this worker would have nothing to run: name the module of your tasks")
  const { level, format } = logConfig(values["log-level"], values["log-format"])
  for (const module of modules) await imported(module)
  const setting = (text: string | undefined) => (text === undefined ? undefined : parseSetting(text))
  const number = (text: string | undefined) => (text === undefined ? undefined : Number(text))
  const log = streamSink(level, format)
  const worker = new Worker({
    url: values["database-url"],
    queues: values.queue,
    concurrency: number(values.concurrency),
    heartbeatTimeout: setting(values["heartbeat-timeout"]),
    stallTimeout: setting(values["stall-timeout"]),
    drainTimeout: setting(values["drain-timeout"]),
    pollInterval: setting(values["poll-interval"]),
    payloadBytesMax: number(values["payload-bytes-max"]),
    retention: setting(values.retention),
    keyWindow: setting(values["key-window"]),
    pooler: values.pooler,
    listenUrl: values["listen-url"],
    log,
  })
  stopOnSignals(worker)
  const port = values["health-port"] ?? (process.env.RHYTHM_HEALTH_PORT || undefined)
  if (port !== undefined) await serveHealth(port, worker, new Logger(log))
  await worker.run()
  return 0
}

function parsed(args: string[]) {
  try {
    return parseArgs({ args, options: OPTIONS, allowPositionals: true })
  } catch (error) {
    throw new Usage((error as Error).message)
  }
}

async function imported(module: string): Promise<void> {
  const path = /^[./]/.test(module) || /\.[cm]?[jt]s$/.test(module) ? pathToFileURL(resolve(module)).href : module
  try {
    await import(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ERR_MODULE_NOT_FOUND") throw new Usage((error as Error).message)
    throw error
  }
}

function stopOnSignals(worker: Worker): void {
  let asked = 0
  const stop = () => {
    asked += 1
    if (asked > 2) process.exit(143)
    if (asked === 2) setTimeout(() => process.exit(143), GIVE_UP).unref()
    void worker.stop({ letGo: asked === 2 })
  }
  process.on("SIGTERM", stop)
  process.on("SIGINT", stop)
}

async function serveHealth(port: string, worker: Worker, logger: Logger): Promise<void> {
  if (!/^[0-9]{1,5}$/.test(port) || Number(port) > 65_535) throw new Usage(`--health-port ${port} is not a port`)
  const server = createServer((_, response) => {
    const problem = worker.health()
    response.writeHead(problem === undefined ? 200 : 503, { "content-type": "text/plain" })
    response.end(`${problem ?? "ok"}\n`)
  })
  server.maxConnections = 32
  server.requestTimeout = 5_000
  await new Promise<void>((done, failed) => {
    server.once("error", (error) => failed(new Usage(`cannot listen on the health port ${port}: ${error.message}`)))
    server.listen(Number(port), done)
  })
  const address = server.address()
  logger.info("health", { port: typeof address === "object" ? address?.port : address })
}

main(process.argv.slice(2)).then(
  (code) => process.exit(code),
  (error: unknown) => {
    if (error instanceof Usage || error instanceof ConfigurationError || error instanceof InvalidInput) {
      process.stderr.write(`rhythm-flow: ${error.message}\n`)
      process.exit(2)
    }
    if (error instanceof NotConfigured || error instanceof DatabaseUnavailable) {
      process.stderr.write(`rhythm-flow: ${error.message}\n`)
      process.exit(3)
    }
    process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
    process.exit(1)
  },
)
