// graphile-worker: LISTEN/NOTIFY queue; finished jobs are deleted, results are not kept.
import { Logger, makeWorkerUtils, run as runWorker, runMigrations } from "graphile-worker"
import pg from "pg"
import * as peer from "./peer.mjs"

const url = process.argv[2]
const logger = new Logger(() => () => {})
const pool = () => new pg.Pool({ connectionString: url, max: 4 })
let utils

await peer.run({
  async prepare() {
    await runMigrations({ connectionString: url, logger })
  },
  async fill(kind, count) {
    const connections = pool()
    for (const part of peer.portions(count))
      await connections.query(
        `select count(*) from graphile_worker.add_jobs((select array_agg(row('noop', json_build_object('i', i), null, now(),
         25, null, null, null)::graphile_worker.job_spec) from generate_series($1::int, $2::int) i))`,
        [part[0], part.at(-1)],
      )
  },
  async start(index) {
    utils ??= await makeWorkerUtils({ pgPool: pool(), logger })
    await utils.addJob("noop", { i: index })
  },
  async work() {
    const { jobs, local, delay } = peer.settings
    await runWorker({
      preset: {
        worker: {
          connectionString: url,
          logger,
          maxPoolSize: 10,
          pollInterval: 2000,
          schema: "graphile_worker",
          concurrentJobs: jobs,
          localQueue: { size: local },
          completeJobBatchDelay: delay,
          failJobBatchDelay: delay,
        },
      },
      taskList: { noop: async (inputs) => peer.mark(inputs.i) },
    })
  },
})
