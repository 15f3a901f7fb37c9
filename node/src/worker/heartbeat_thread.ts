/** The thread of `heartbeat`: whatever goes wrong in here is said, and the next beat tries again. */
import { parentPort, workerData } from "node:worker_threads"

import { Backoff, Database } from "../database.js"
import { IncarnationDead } from "../errors.js"
import { Protocol } from "../protocol.js"
import { monotonic, pause } from "../clock.js"
import { CONFIRMED_AT, type Message, type ThreadData, TURNED_AT } from "./heartbeat.js"

const { url, pooler, incarnation, interval, stallTimeout, shared } = workerData as ThreadData
const times = new BigInt64Array(shared)
const say = (message: Message): void => parentPort?.postMessage(message)
const applicationName = "rhythm heartbeat"
const database = new Database(url, { poolMax: 1, pooler, applicationName, timeout: Math.max(interval, 1000) })
const protocol = new Protocol(database)
const backoff = new Backoff(interval)
const notes = new Map<string, string>() // progress by execution
parentPort?.on("message", ([id, progress]: [string, string]) => notes.set(id, progress))
let beaten = false
let stalled = false

async function tellProgress(): Promise<void> {
  if (notes.size === 0) return
  const told = new Map(notes)
  await protocol.noteProgress(incarnation, told)
  for (const [id, progress] of told) if (notes.get(id) === progress) notes.delete(id)
}

async function beat(): Promise<number> {
  const behind = monotonic() - Number(Atomics.load(times, TURNED_AT))
  if (behind > stallTimeout) {
    if (!stalled) {
      const text = `the exchange has not turned for ${Math.round(behind / 1000)} s: this worker stops its heartbeat`
      say({ kind: "log", level: "error", text })
      // nobody may read that while the event loop stands still
      process.stderr.write(`rhythm worker ${incarnation}: ${text}\n`)
    }
    stalled = true
    return interval
  }
  stalled = false
  const sentAt = BigInt(Math.floor(monotonic()))
  try {
    const ids = await protocol.heartbeat(incarnation)
    Atomics.store(times, CONFIRMED_AT, sentAt)
    backoff.reset()
    if (!beaten) say({ kind: "first" })
    beaten = true
    if (ids.length > 0) say({ kind: "cancel", ids })
    await tellProgress()
  } catch (error) {
    if (error instanceof IncarnationDead) {
      say({ kind: "dead" })
      return -1
    }
    say({ kind: "log", level: "warning", text: `heartbeat failed: ${error instanceof Error ? error.message : String(error)}` })
    return Math.min(backoff.next(), interval)
  }
  return interval
}

for (let wait = await beat(); wait >= 0; wait = await beat()) await pause(wait)
await database.close()
