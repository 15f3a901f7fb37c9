/** The tasks of the conformance suite (see tests/conformance/README.md). */
import pg from "pg"
import { task, type TaskContext, TaskNotRetryable, TaskRetryAfter } from "rhythm-flow"
import { z } from "zod"

class CardDeclined extends Error {
  data = { code: 51 }
}
class ValueProblem extends Error {}

const queue = process.env.CONFORMANCE_QUEUE ?? "conformance"
const soon = { initial: "10ms" }

async function called(ctx: TaskContext): Promise<void> {
  const client = new pg.Client(process.env.CONFORMANCE_URL)
  await client.connect()
  await client.query("insert into conformance_calls values ($1, $2)", [ctx.executionId, ctx.attempt])
  await client.end()
}

function stopped(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const stop = () => {
      reject(signal.reason as Error)
    }
    if (signal.aborted) stop()
    else signal.addEventListener("abort", stop, { once: true })
  })
}

const seconds = (count: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, count * 1000))

task("echo", { queue }, ({ value }: { value: unknown }) => value)

task("context", { queue }, (_: object, ctx) => ({
  attempt: ctx.attempt,
  name: ctx.name,
  parent: ctx.parentId !== null,
  idempotencyKey: ctx.idempotencyKey,
}))

task("flaky", { queue, retries: 2, retry: soon }, async ({ fails }: { fails: number }, ctx) => {
  await Promise.resolve()
  if (ctx.attempt <= fails) throw new CardDeclined("declined")
  return ctx.attempt
})

task("picky", { queue, retries: 3, retry: { ...soon, noRetryOn: [ValueProblem] } }, ({ kind }: { kind: string }) => {
  if (kind === "CardDeclined") throw new CardDeclined("no")
  throw kind === "ValueProblem" ? new ValueProblem("no") : new TaskNotRetryable("no")
})

task("later", { queue, retries: 1, retry: { initial: "60s" } }, (_: object, ctx) => {
  if (ctx.attempt === 1) throw new TaskRetryAfter("not yet", 50)
  return ctx.attempt
})

task("bad", { queue, retries: 3, retry: soon }, ({ kind }: { kind: string }): unknown => {
  let deep: unknown[] = []
  for (let level = 0; level < 2000; level++) deep = [deep]
  const bad: Record<string, unknown> = {
    nan: Number.NaN,
    infinity: Number.POSITIVE_INFINITY,
    binary: Buffer.from([0]),
    deep,
    large: "x".repeat(2 << 20),
  }
  return bad[kind]
})

task(
  "strict",
  { queue, retries: 3, retry: soon, schema: z.strictObject({ count: z.int().min(1), label: z.string().optional() }) },
  ({ count, label }) => ({ count, label: label ?? null }),
)

task("hang", { queue }, async (_: object, ctx) => {
  await called(ctx)
  await stopped(ctx.signal)
})

task("steps", { queue }, async (_: object, ctx) => {
  ctx.progress({ done: 1, of: 3 })
  ctx.progress({ done: 2, of: 3 })
  await stopped(ctx.signal)
})

task("stubborn", { queue }, async (_: object, ctx) => {
  await called(ctx)
  await stopped(ctx.signal).catch(() => undefined)
  return "done"
})

task("limited", { queue, timeout: "200ms" }, async (_: object, ctx) => {
  await called(ctx)
  await stopped(ctx.signal)
})

task("slow", { queue }, async (inputs: { seconds: number }, ctx) => {
  await called(ctx)
  await seconds(inputs.seconds)
  return ctx.attempt
})

task("busy", { queue }, async (inputs: { seconds: number }, ctx) => {
  await called(ctx)
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, inputs.seconds * 1000)
  return ctx.attempt
})

task("poison", { queue }, async (_: object, ctx) => {
  await called(ctx)
  process.kill(process.pid, "SIGKILL")
})
