// Runs corpus programs under Node with the workflow globals, in the virtual time of rhythm.testing.evaluate:
// when no microtask is left, the pending operation with the smallest (due time, call order) settles.
// A program may bring the outcomes of its tasks as they were recorded, and the sources of its child workflows.
"use strict"
const programs = JSON.parse(require("node:fs").readFileSync(0, "utf8"))
const RealDate = Date

function host({ signals, outcomes, workflows }, begin) {
  let now = begin, number = 0, turns = 0
  const events = [], unread = [], waits = [], calls = []
  const pending = new Map()                // promise of an operation -> how to cancel it
  const at = (due, order, run) => {
    const event = { due, order, run }
    events.push(event)
    events.sort((a, b) => a.due - b.due || a.order - b.order)
    return event
  }
  const drop = (event) => { const index = events.indexOf(event); if (index >= 0) events.splice(index, 1) }
  const seconds = (d) => typeof d === "number" ? d : [...d.matchAll(/([\d.]+)\s*(ms|s|m|h|d)/g)]
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
  const recorded = new Map()
  for (const { name, inputs, ...outcome } of outcomes ?? []) {
    const key = name + JSON.stringify(inputs)
    if (!recorded.has(key)) recorded.set(key, [])
    recorded.get(key).push(outcome)
  }
  function answerOf(name, given) {
    if (!outcomes) return tasks[name](given)
    const answer = recorded.get(name + JSON.stringify(given))?.shift()
    if (!answer) throw new Error(`${name} was not called with ${JSON.stringify(given)}`)
    return answer
  }
  const cancelled = (what, fields) => failure("CancelledError", `${what} was cancelled`, { type: "cancelled", ...fields })
  function cancellable(start, cancelIt) {
    let settle
    const promise = new Promise((resolve, reject) => { settle = { resolve, reject } })
    const over = () => pending.delete(promise)
    const event = start((value) => { over(); settle.resolve(value) }, (error) => { over(); settle.reject(error) })
    pending.set(promise, () => { over(); cancelIt(event, settle.reject) })
    return promise
  }
  function task(name, inputs) {
    const order = ++number, given = copy(inputs) ?? {}
    calls.push([name, given])
    const answer = answerOf(name, given), turn = turns
    return cancellable((resolve, reject) => at(now + (answer.delay ?? 1), order, () => {
      if (!("error" in answer)) return resolve(copy(answer.value) ?? null)
      const { name: kind, message, ...fields } = typeof answer.error === "string"
        ? { name: "CardDeclined", message: answer.error, type: "failed" } : answer.error
      reject(failure(kind, message, { ...fields, task: name }))
    }), (event, reject) => {
      if (turn === turns) { drop(event); calls.pop(); reject(cancelled(`task ${name}`, { task: name })) }
      else if (event.due > now + 1) {
        drop(event)
        at(now + 1, order, () => reject(failure("CancelledError", "the task was cancelled", { type: "cancelled", task: name })))
      }
    })
  }
  function child(name, inputs) {
    if (!workflows?.[name]) return task(name, inputs)
    const order = ++number
    const begun = load(workflows[name])({ executionId: name, name, cancelled: false }, copy(inputs) ?? {})
    return new Promise((resolve, reject) => begun.then(
      (value) => at(now + 1, order, () => resolve(copy(value) ?? null)),
      (error) => at(now + 1, order, () => reject(failure(error.name, error.message, { ...error, workflow: name }))),
    ))
  }
  function cancel(promise) {
    const cancelIt = pending.get(promise)
    if (cancelIt) cancelIt()
    return cancelIt !== undefined
  }
  function sleep(duration) {
    const order = ++number
    const due = duration instanceof FakeDate ? duration.getTime() : now + Math.max(0, seconds(duration))
    return cancellable((resolve) => at(due, order, () => resolve(undefined)), (event, reject) => {
      drop(event)
      reject(cancelled("sleep"))
    })
  }
  function signal(name, options) {
    const order = ++number
    return cancellable((resolve, reject) => {
      const wait = { name, resolve, done: false }
      waits.push(wait)
      if (options?.timeout !== undefined) at(now + seconds(options.timeout), order, () => {
        if (!wait.done) { wait.done = true; reject(failure("TimeoutError", `signal ${name} timed out`, { type: "timeout" })) }
      })
      return wait
    }, (wait, reject) => {
      wait.done = true
      reject(cancelled(`signal ${name}`))
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
      turns += 1
      if (over) return
      if (match()) continue
      const event = events.shift()
      if (!event) return
      now = Math.max(now, event.due)
      event.run()
    }
  }
  const quiet = { log() {}, info() {}, warn() {}, error() {}, debug() {} }
  const globals = { task, child, sleep, signal, cancel, Date: FakeDate, console: quiet }
  function load(source) {
    const text = `"use strict";${source.replace(/^workflow\s*\(/m, "async function workflow(")}\n;return workflow`
    return new Function(...Object.keys(globals), text)(...Object.values(globals))
  }
  return { load, settle, calls }
}

async function run(program) {
  const { load, settle, calls } = host(program, 1.7e12)
  return { ...await outcomeOf(program, load, settle), ...(program.outcomes ? { calls } : {}) }
}

async function outcomeOf({ source, inputs, ctx }, load, settle) {
  try {
    const workflow = load(source)
    const promise = workflow(ctx ?? { executionId: "x", cancelled: false }, inputs ?? {})
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
