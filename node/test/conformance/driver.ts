/** The client of the conformance suite: one JSON object per line in, one out (see tests/conformance/README.md). */
import { createInterface } from "node:readline"

import pg from "pg"
import { type Client, connect, ExecutionFailed, type ListOptions, RhythmError, type Start, type StartOptions } from "rhythm-flow"

interface Order {
  op: string
  id: string
  start: Start & { special?: string }
  starts: Start[]
  end: string
  options: ListOptions
  name: string
  payload: unknown
  timeout?: string
  force?: boolean
  from_start?: boolean
}

const url = process.env.CONFORMANCE_URL ?? ""

function inputsOf({ inputs, special }: Order["start"]): object | undefined {
  if (special === undefined) return inputs
  let deep: unknown[] = []
  for (let level = 0; level < 2000; level++) deep = [deep]
  const values: Record<string, unknown> = {
    nan: Number.NaN,
    binary: Buffer.from([0]),
    deep,
    large: "x".repeat(2 << 20),
  }
  return { value: values[special] }
}

async function inTransaction(client: Client, starts: Start[], end: string): Promise<string[]> {
  const connection = new pg.Client(url)
  await connection.connect()
  try {
    await connection.query("begin")
    const ids = await client.startMany(starts, { connection })
    await connection.query(end)
    return ids
  } finally {
    await connection.end()
  }
}

async function answer(client: Client, order: Order): Promise<unknown> {
  switch (order.op) {
    case "start": {
      const options: StartOptions & { special?: string } = order.start
      return (await client.start(order.start.name as string, inputsOf(order.start), options)).id
    }
    case "start_many":
      return await client.startMany(order.starts)
    case "transaction":
      return await inTransaction(client, order.starts, order.end)
    case "result":
      return await client.wait(order.id, { timeout: order.timeout })
    case "get":
      return (await client.get(order.id)).info
    case "list":
      return (await client.list(order.options)).map((execution) => execution.id)
    case "signal":
      await client.signal(order.id, order.name, order.payload)
      return null
    case "cancel":
      await client.cancel(order.id, { force: order.force ?? false })
      return null
    case "retry":
      return (await client.retry(order.id, { fromStart: order.from_start ?? false })).id
  }
  throw new TypeError(`no operation ${order.op}`)
}

const client = await connect({ url })
for await (const line of createInterface({ input: process.stdin })) {
  let said: unknown
  try {
    said = { value: (await answer(client, JSON.parse(line) as Order)) ?? null }
  } catch (error) {
    if (!(error instanceof RhythmError)) throw error
    const { name } = error
    said = {
      error: {
        name,
        code: (error as { code?: string }).code,
        failure: error instanceof ExecutionFailed ? error.failure : undefined,
      },
    }
  }
  process.stdout.write(`${JSON.stringify(said)}\n`)
}
await client.close()
