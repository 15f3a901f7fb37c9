// pg-boss: a job table with a status column; the loop of fetch and complete is its fastest way.
import { PgBoss } from "pg-boss"
import * as peer from "./peer.mjs"

const url = new URL(process.argv[2].replace("@/", "@local/"))
const connection = { host: url.searchParams.get("host"), database: url.pathname.slice(1), user: url.username }

async function boss(max) {
  const started = new PgBoss({ ...connection, max, supervise: false, schedule: false })
  started.on("error", (error) => console.error(error.message))
  await started.start()
  return started
}
let starter

await peer.run({
  async prepare() {
    await (await boss(2)).createQueue("q")
  },
  async fill(kind, count) {
    const filler = await boss(2)
    for (const part of peer.portions(count)) await filler.insert("q", part.map((i) => ({ data: { i } })))
  },
  async start(index) {
    starter ??= await boss(2)
    await starter.send("q", { i: index })
  },
  async work() {
    const worker = await boss(10)
    const { loops, batch, idle } = peer.settings
    const loop = async () => {
      for (;;) {
        const jobs = await worker.fetch("q", { batchSize: batch })
        if (!jobs?.length) {
          await peer.pause(idle)
          continue
        }
        for (const job of jobs) peer.mark(job.data.i)
        await worker.complete("q", jobs.map((job) => job.id))
      }
    }
    await Promise.all(Array.from({ length: loops }, loop))
  },
})
