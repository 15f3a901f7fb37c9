// Restate: a server with a log of its own and a service that it calls. It has no queue to fill: callers await their
// calls, `inflight` at once, so one command starts all three and measures.
//
//     on_restate.mjs FOLDER measure TASKS WORKFLOWS STEPS LATENCIES
import * as restate from "@restatedev/restate-sdk"
import { spawn } from "node:child_process"
import fs from "node:fs"
import http from "node:http"
import { createRequire } from "node:module"
import * as peer from "./peer.mjs"

const [, , folder, command, ...sizes] = process.argv
const PORTS = { service: 19080, ingress: 18080, admin: 19070, node: 15122 }
const TRIES = 80
const agents = {}

const service = restate.service({
  name: "bench",
  handlers: {
    noop: async (context, index) => peer.mark(index),
    threeSteps: async (context, index) => {
      for (const name of ["a", "b", "c"]) await context.run(name, () => 1)
    },
    manySteps: async (context, count) => {
      for (let i = 0; i < count; i++) await context.run("s", () => 1)
    },
  },
})

if (command === "work") await restate.serve({ services: [service], port: PORTS.service })
else await measure(...sizes.map(Number))

async function measure(tasks, workflows, steps, latencies) {
  const children = [
    spawn(
      createRequire(import.meta.url)
        .resolve("@restatedev/restate-server-linux-x64/package.json")
        .replace("package.json", "bin/restate-server"),
      ["--no-logo", "--base-dir", folder, "--listen-mode", "tcp", "--bind-port", String(PORTS.node)],
      {
        stdio: "ignore",
        env: {
          ...process.env,
          RESTATE_INGRESS__BIND_ADDRESS: `127.0.0.1:${PORTS.ingress}`,
          RESTATE_ADMIN__BIND_ADDRESS: `127.0.0.1:${PORTS.admin}`,
          RESTATE_BIND_IP: "127.0.0.1",
          RESTATE_ADVERTISED_HOST: "127.0.0.1",
          RESTATE_DISABLE_TELEMETRY: "true",
          RESTATE_LOG_FILTER: "error",
        },
      },
    ),
    spawn(process.execPath, [process.argv[1], folder, "work"], { stdio: "ignore" }),
  ]
  process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")))
  for (let i = 1; ; i++) {
    try {
      await post(PORTS.admin, "/deployments", { uri: `http://127.0.0.1:${PORTS.service}`, force: true })
      break
    } catch (error) {
      if (i === TRIES) throw error
      await peer.pause(250)
    }
  }
  await peer.pause(1000)
  await rate("noop", tasks / 5)
  const answer = { tasks_per_s: await rate("noop", tasks), workflows_per_s: await rate("threeSteps", workflows) }
  const began = peer.now()
  await call("manySteps", steps)
  answer.ms_per_step = ((peer.now() - began) * 1000) / steps
  const file = fs.openSync(process.env.BENCH_MARKS, "r")
  const time = new Float64Array(1)
  const starts = []
  for (let i = 0; i < latencies; i++) {
    const index = 300_000 + i
    starts.push([index, peer.now()])
    await call("noop", index)
    await peer.pause(10)
  }
  await peer.pause(100)
  answer.ms = starts.map(([index, start]) => {
    fs.readSync(file, time, 0, 8, index * 8)
    return (time[0] - start) * 1000
  })
  console.log(JSON.stringify(answer))
  process.exit(0)
}

async function rate(handler, count) {
  let next = 0
  const began = peer.now()
  await Promise.all(
    Array.from({ length: peer.settings.inflight }, async () => {
      while (next < count) await call(handler, next++)
    }),
  )
  return count / (peer.now() - began)
}

function call(handler, value) {
  return post(PORTS.ingress, `/bench/${handler}`, value)
}

function post(port, path, value) {
  agents[port] ??= new http.Agent({ keepAlive: true, maxSockets: peer.settings.inflight })
  return new Promise((resolve, reject) => {
    const body = JSON.stringify(value)
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) }
    const request = http.request({ host: "127.0.0.1", port, path, method: "POST", agent: agents[port], headers }, (answer) => {
      let text = ""
      answer.on("data", (part) => (text += part))
      answer.on("end", () => (answer.statusCode < 300 ? resolve(text) : reject(new Error(`${answer.statusCode} ${text}`))))
    })
    request.on("error", reject)
    request.end(body)
  })
}
