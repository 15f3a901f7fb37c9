// Rhythm's own tasks and client in Node.js.
import { execFileSync } from "node:child_process"
import * as peer from "./peer.mjs"

const { task, connect, Worker, streamSink } = await import(process.env.BENCH_ADAPTER)
const url = process.argv[2]
const mark = task("nodeMark", { queue: "bench" }, ({ i }) => {
  peer.mark(i)
})
const worker = () => new Worker({ url, queues: ["bench"], log: streamSink("warning", "text") })
let client

await peer.run({
  async prepare() {
    const command = [process.env.BENCH_PYTHON, "-m", "rhythm", "migrate", "--database-url", url]
    execFileSync(command[0], command.slice(1), { stdio: "ignore" })
    // A worker registers the tasks: before, starts of their names would wait for them.
    const registering = worker()
    const running = registering.run()
    client = await connect({ url })
    await (await client.start(mark, { i: 0 })).result({ timeout: "60s" })
    await registering.stop()
    await running
    await client.close()
  },
  async fill(kind, count) {
    client = await connect({ url })
    for (const part of peer.portions(count, 50_000))
      await client.startMany(part.map((i) => ({ name: mark, inputs: { i } })))
  },
  async start(index) {
    client ??= await connect({ url })
    await client.start(mark, { i: index })
  },
  async work() {
    await worker().run()
  },
})
