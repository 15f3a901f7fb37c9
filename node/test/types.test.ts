/** What the compiler must say; there is nothing to run but that the file compiles. */
import type { Client, Execution } from "rhythm-flow"
import { task } from "rhythm-flow"
import { z } from "zod"

declare module "rhythm-flow" {
  interface Workflows {
    typedWorkflow: { inputs: { orderId: string; amount: number }; output: { txn: string } }
    untypedWorkflow: { inputs: object; output: unknown }
  }
}

type Equal<A, B> = [A, B] extends [B, A] ? true : false
/** Compiles where the type is the one of the value. */
const is = <A>() => ({ of: <B>(value: B, same: Equal<A, B>): B => (same ? value : value) })

const charge = task("typesCharge", { queue: "q" }, async (inputs: { id: string }, ctx) => {
  is<AbortSignal>().of(ctx.signal, true)
  await Promise.resolve()
  return { ok: inputs.id.length > 0 }
})
const coerced = task("typesCoerced", { schema: z.object({ n: z.string().transform(Number) }) }, ({ n }) => {
  is<number>().of(n, true)
  return n
})
const plain = task("typesPlain", () => 1)

export async function compiles(client: Client): Promise<void> {
  const charged = await client.start(charge, { id: "x" }, { key: "k", timeout: "5s" })
  is<Execution<{ ok: boolean }>>().of(charged, true)
  // @ts-expect-error a wrong type
  await client.start(charge, { id: 1 })
  // @ts-expect-error nothing given
  await client.start(charge)
  // @ts-expect-error no such option
  await client.start(charge, { id: "x" }, { keys: "k" })
  const number = await client.start(coerced, { n: "5" })
  is<Execution<number>>().of(number, true)
  // @ts-expect-error callers give text
  await client.start(coerced, { n: 5 })
  await client.start(plain)
  const known = await client.start("typedWorkflow", { orderId: "o", amount: 1 })
  is<{ txn: string }>().of(await known.result(), true)
  // @ts-expect-error a misspelt input
  await client.start("typedWorkflow", { orderID: "o", amount: 1 })
  await client.start("untypedWorkflow", { anything: 1 })
  const unknown = await client.start("somethingElse", { anything: 1 })
  is<Execution>().of(unknown, true)
}
