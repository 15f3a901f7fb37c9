import assert from "node:assert/strict"
import { test } from "node:test"

import {
  ConfigurationError,
  InvalidInput,
  Logger,
  streamSink,
  task,
  TaskAbandoned,
  TaskContext,
  TaskInputInvalid,
  TaskTimeout,
} from "rhythm-flow"
import * as v from "valibot"
import { z } from "zod"

import { logConfig, parseSetting, workerConfig } from "../src/config.js"
import { prepareSchema } from "../src/schema.js"
import { monotonic } from "../src/clock.js"
import { failurePayload } from "../src/worker/failures.js"
import { Held } from "../src/worker/held.js"
import { Lane } from "../src/worker/lane.js"

const held = (): Held =>
  new Held({
    claim: 1,
    position: 511,
    id: "i",
    name: "n",
    inputs: "{}",
    attempt: 1,
    lost: 0,
    timeout: 0,
    parentId: null,
    operation: null,
    key: null,
    retry: null,
  })

void test("a task is still its function", async () => {
  const double = task("double", { queue: "q", timeout: "1m" }, async ({ n }: { n: number }, ctx) => {
    await Promise.resolve()
    return n * 2 + ctx.attempt
  })

  assert.equal(double.name, "double")
  assert.equal(double.queue, "q")
  assert.equal(double.timeout, 60_000)
  assert.equal(await double({ n: 2 }), 5)
  assert.equal(await double({ n: 2 }, new TaskContext({ attempt: 3 })), 7)
  assert.throws(() => task("double", () => 1), ConfigurationError)
})

void test("what cannot be a task is refused where it is declared", () => {
  const nothing = (): null => null
  for (const name of ["", "a\0", "\ud800", "x".repeat(201)]) assert.throws(() => task(name, nothing), InvalidInput)
  for (const options of [{ retries: -1 }, { retries: 1.5 }, { priority: 200 }, { timeout: 0 }, { queue: "" }]) {
    assert.throws(() => task("never", options, nothing), InvalidInput)
  }
  assert.throws(() => task("never", {}, undefined as never), /the last argument is its function/)
})

void test("the context's signal is aborted with the reason, also when it is asked for late", () => {
  const context = new TaskContext({ name: "t", executionId: "id" })
  context.heartbeat()
  const reason = new TaskTimeout("late")
  context.abort(reason)
  context.abort(new Error("second"))

  assert.equal(context.signal.reason, reason)
  assert.throws(() => context.heartbeat(), (error: Error) => error instanceof TaskAbandoned && error.cause === reason)
  assert.equal(context.idempotencyKey, "id")
})

void test("schemas validate and describe: zod, valibot, JSON Schema", async () => {
  const zod = await prepareSchema("t", z.strictObject({ count: z.int().min(1), tags: z.array(z.string()).default([]) }), undefined)
  assert.deepEqual(zod.validate?.({ count: 1 }), { count: 1, tags: [] })
  assert.throws(() => zod.validate?.({ count: "1" }), (e: Error) => e instanceof TaskInputInvalid && e.message.includes("count: "))
  const described = zod.jsonSchema as { properties: Record<string, { type: string }>; required: string[] }
  assert.equal(described.properties.count?.type, "integer")
  assert.deepEqual(described.required, ["count"])

  const async = v.pipeAsync(v.object({ name: v.string() }), v.checkAsync(({ name }) => Promise.resolve(name !== "x"), "not x"))
  const valibot = await prepareSchema("t", async, { type: "object", required: ["name"] })
  assert.deepEqual(await valibot.validate?.({ name: "a" }), { name: "a" })
  await assert.rejects(async () => await valibot.validate?.({ name: "x" }), /not x/)
  assert.deepEqual(valibot.jsonSchema, { type: "object", required: ["name"] })

  const schema = { type: "object", properties: { a: { type: "string" } }, required: ["a"], additionalProperties: false }
  const plain = await prepareSchema("t", schema, undefined)
  assert.deepEqual(plain.validate?.({ a: "x" }), { a: "x" })
  assert.throws(() => plain.validate?.({ a: 1, b: 2 }), /a must be string/)
  assert.equal(plain.jsonSchema, schema)
  await assert.rejects(prepareSchema("t", { type: "nonsense" }, undefined), ConfigurationError)
  assert.deepEqual(await prepareSchema("t", undefined, undefined), { validate: undefined, jsonSchema: { type: "object" } })
})

void test("failures say what there is to say, whatever was thrown", () => {
  class Declined extends Error {
    data = { code: 51 }
  }
  const read = (error: unknown): Record<string, unknown> =>
    JSON.parse(failurePayload(error, { attempts: 2, retryable: true })) as Record<string, unknown>
  const failure = read(new Declined("no", { cause: new TypeError("deeper", { cause: "deepest" }) }))

  assert.equal(failure.name, "Declined")
  assert.deepEqual(failure.data, { code: 51 })
  assert.equal(failure.attempts, 2)
  assert.deepEqual(failure.cause, {
    name: "TypeError",
    message: "deeper",
    cause: { name: "Error", message: "it threw deepest" },
  })
  assert.match(String(failure.traceback), /tasks\.test\.js/)
  assert.equal(read({ reason: 1 }).message, 'it threw {"reason":1}')
  assert.deepEqual(read({ reason: 1 }).data, { reason: 1 })
  assert.equal(read(undefined).message, "it threw undefined")
  assert.equal(read(Object.assign(new Error("x"), { data: 1n })).data_omitted, "its data is not JSON of at most 262144 bytes")
  const hostile = new Proxy(new Error("x"), {
    get() {
      throw new Error("trap")
    },
  })
  assert.equal(typeof read(hostile).message, "string")
  assert.ok(String(read(new Error("m".repeat(1 << 20))).message).length < 20_000)
})

void test("a lane claims ahead what will begin soon", () => {
  const lane = new Lane(2)
  assert.equal(lane.room(), 2)
  assert.equal(lane.free(), 2)
  lane.took(0.01)
  assert.equal(lane.room(), 1002)
  lane.took(100_000)
  const [first, second] = [held(), held()]
  lane.began(first, monotonic())
  lane.began(second, monotonic())
  assert.equal(lane.hasRoom, false)
  assert.equal(lane.room(), 0)
  assert.equal(lane.free(), 0)
  lane.overdue(first, monotonic())
  assert.equal(lane.hasRoom, true)
  lane.ended(first, monotonic())
  lane.ended(second, monotonic())
  assert.equal(lane.underWay.size, 0)
})

void test("what does not heed its signal takes no place, up to a limit", () => {
  const lane = new Lane(1)
  const [first, second] = [held(), held()]
  lane.began(first, monotonic())
  lane.overdue(first, monotonic())
  assert.equal(lane.hasRoom, true)
  lane.began(second, monotonic())
  lane.overdue(second, monotonic())
  assert.equal(lane.hasRoom, false)
  lane.ended(first, monotonic())
  lane.ended(second, monotonic())
  assert.equal(lane.hasRoom, true)
})

void test("settings: options are milliseconds, variables seconds, and mistakes name where they stand", () => {
  const before = { ...process.env }
  try {
    process.env.RHYTHM_HEARTBEAT_TIMEOUT = "2"
    process.env.RHYTHM_QUEUES = "a, b"
    const config = workerConfig({ pollInterval: 500 })
    assert.equal(config.heartbeatTimeout, 2000)
    assert.equal(config.pollInterval, 500)
    assert.deepEqual(config.queues, ["a", "b"])
    assert.equal(config.concurrency, 100)
    assert.equal(config.retention, undefined)
    process.env.RHYTHM_DRAIN_TIMEOUT = "soon"
    assert.throws(() => workerConfig({}), /RHYTHM_DRAIN_TIMEOUT: "soon" is not a duration/)
    delete process.env.RHYTHM_DRAIN_TIMEOUT
    process.env.RHYTHM_POOLER = "maybe"
    assert.throws(() => workerConfig({}), /RHYTHM_POOLER/)
    delete process.env.RHYTHM_POOLER
    assert.throws(() => workerConfig({ concurrency: 0 }), /concurrency: 0 is not a whole number from 1 to 10000/)
    assert.throws(() => workerConfig({ heartbeatTimeout: "10ms" }), /shorter than 1000 ms/)
  } finally {
    process.env = before
  }
  assert.equal(parseSetting("30"), 30_000)
  assert.equal(parseSetting("30ms"), 30)
  assert.throws(() => logConfig("loud"), ConfigurationError)
})

void test("log lines are one line each", () => {
  const lines: string[] = []
  new Logger(streamSink("info", "text", (line) => lines.push(line))).with({ execution_id: "e" }).info("a\nb\u001b[1m", { x: 1 })
  new Logger(streamSink("warning", "text", (line) => lines.push(line))).info("not shown")
  new Logger(streamSink("debug", "json", (line) => lines.push(line))).debug("shown", { x: 1 })

  assert.match(lines[0] ?? "", /INFO {4}rhythm execution_id=e x=1 a\\nb\\u001b\[1m\n$/)
  assert.equal((JSON.parse(lines[1] ?? "") as { message: string }).message, "shown")
  assert.equal(lines.length, 2)
})
