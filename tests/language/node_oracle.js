// Runs corpus programs under Node with the workflow globals, in the virtual time of rhythm.testing.evaluate:
// when no microtask is left, the pending operation with the smallest (due time, call order) settles.
"use strict"
const programs = JSON.parse(require("node:fs").readFileSync(0, "utf8"))
const RealDate = Date

function host(signals, begin) {
  let now = begin, number = 0
  const events = [], unread = [], waits = []
  const at = (due, order, run) => { events.push({ due, order, run }); events.sort((a, b) => a.due - b.due || a.order - b.order) }
  const seconds = (d) => typeof d === "number" ? d : [...d.matchAll(/([\d.]+)(ms|s|m|h|d)/g)]
    .reduce((sum, [, n, unit]) => sum + n * { ms: 1, s: 1000, m: 60000, h: 3600000, d: 86400000 }[unit], 0)
  const copy = (value) => value === undefined ? undefined : JSON.parse(JSON.stringify(value))
  const failure = (name, message, fields) => {
    const error = new Error(message)
    Object.defineProperty(error, "name", { value: name, configurable: true, writable: true })
    return Object.assign(error, fields)
  }
  const tasks = {
    echo: (inputs) => ({ value: inputs }),
    fail: ({ message }) => ({ error: message }),
    later: ({ value, delay }) => ({ value, delay }),
    laterFail: ({ message, delay }) => ({ error: message, delay }),
  }
  function task(name, inputs) {
    const order = ++number, given = copy(inputs) ?? {}
    const answer = tasks[name](given)
    return new Promise((resolve, reject) => at(now + (answer.delay ?? 1), order, () => {
      if ("error" in answer) reject(failure("CardDeclined", answer.error, { type: "failed", task: name }))
      else resolve(copy(answer.value) ?? null)
    }))
  }
  function sleep(duration) {
    const order = ++number
    const due = duration instanceof FakeDate ? duration.getTime() : now + Math.max(0, seconds(duration))
    return new Promise((resolve) => at(due, order, () => resolve(undefined)))
  }
  function signal(name, options) {
    const order = ++number
    return new Promise((resolve, reject) => {
      const wait = { name, resolve, done: false }
      waits.push(wait)
      if (options?.timeout !== undefined) at(now + seconds(options.timeout), order, () => {
        if (!wait.done) { wait.done = true; reject(failure("TimeoutError", `signal ${name} timed out`, { type: "timeout" })) }
      })
    })
  }
  class FakeDate extends RealDate {
    constructor(...args) { if (args.length === 0) super(now); else super(...args) }
    static now() { return Math.floor(now) }
  }
  signals.forEach(([after, name, payload], index) => at(begin + seconds(after), index - 1e6, () => unread.push([name, payload])))
  const match = () => {
    for (const wait of waits) {
      if (wait.done) continue
      const index = unread.findIndex(([name]) => name === wait.name)
      if (index >= 0) { wait.done = true; wait.resolve(unread.splice(index, 1)[0][1]); return true }
    }
    return false
  }
  const settle = async (promise) => {
    let over = false
    promise.then(() => { over = true }, () => { over = true })
    while (true) {
      await new Promise(setImmediate)
      if (over) return
      if (match()) continue
      const event = events.shift()
      if (!event) return
      now = Math.max(now, event.due)
      event.run()
    }
  }
  return { task, sleep, signal, settle, Date: FakeDate, console: { log() {}, info() {}, warn() {}, error() {}, debug() {} } }
}

async function run({ source, signals }) {
  const { settle, ...globals } = host(signals, 1.7e12)
  const text = `"use strict";${source.replace(/^workflow\s*\(/m, "async function workflow(")}\n;return workflow`
  try {
    const workflow = new Function(...Object.keys(globals), text)(...Object.values(globals))
    const promise = workflow({ executionId: "x", cancelled: false }, {})
    await settle(promise)
    const value = await Promise.race([promise, new Promise((r) => setImmediate(() => r({ "@": "pending" })))])
    return { value: JSON.stringify(value) ?? "null" }
  } catch (error) {
    if (error instanceof Error) return { error: `${error.name}: ${error.message}` }
    return { thrown: JSON.stringify(error) ?? "null" }
  }
}

async function main() {
  process.on("unhandledRejection", () => {})
  const results = []
  for (const program of programs) results.push(await run(program))
  process.stdout.write(JSON.stringify(results))
}
main()
