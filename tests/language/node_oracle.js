// Runs corpus programs under Node with the workflow globals, in the virtual time of rhythm.testing.evaluate:
// when no microtask is left, the pending operation with the smallest (due time, call order) settles.
// A program may bring the outcomes of its tasks as they were recorded, and the sources of its child workflows.
"use strict"
const programs = JSON.parse(require("node:fs").readFileSync(0, "utf8"))
const RealDate = Date

function host({ signals, outcomes, workflows }, begin) {
  let now = begin, number = 0, turn = 0
  const events = [], unread = [], waits = [], calls = []
  const at = (due, order, run) => { events.push({ due, order, run }); events.sort((a, b) => a.due - b.due || a.order - b.order) }
  const seconds = (d) => typeof d === "number" ? d : d instanceof RealDate ? d.getTime() - now : [...d.matchAll(/([\d.]+)\s*(ms|s|m|h|d)/g)]
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
  // Each operation: its promise settles at most once, and `stop` is what `cancel` and a passed deadline do to it.
  const operations = new WeakMap()
  function operation(begin) {
    const self = { order: ++number, turn, done: false, asked: false }
    const promise = new Promise((resolve, reject) => {
      self.resolve = (value) => { if (!self.done) { self.done = true; resolve(value) } }
      self.reject = (error) => { if (!self.done) { self.done = true; reject(error) } }
    })
    operations.set(promise, self)
    begin(self)
    return promise
  }
  const cancelled = (text, fields) => failure("CancelledError", `${text} was cancelled`, fields ?? { type: "cancelled" })
  const starter = (kind, field) => (name, inputs, options = {}) => operation((self) => {
    const call = [name, inputs === undefined ? {} : copy(inputs)], abandon = options.onCancel === "abandon"
    calls.push(call)
    const answer = answerOf(...call)
    const executionId = "01970000-0000-7000-8000-000000000000"
    const own = { [field]: name, executionId, retryable: false }
    self.due = now + ("delay" in answer ? seconds(answer.delay) : 1 + Math.max(0, seconds(options.delay ?? 0)))
    at(self.due, self.order, () => {
      if (self.stopped) return
      if (!("error" in answer)) return self.resolve(copy(answer.value) ?? null)
      const { name: error, message, ...fields } = typeof answer.error === "string"
        ? { name: "CardDeclined", message: answer.error, attempts: 1, type: "failed", retryable: true } : answer.error
      self.reject(failure(error, message, { ...fields, [field]: name, executionId }))
    })
    // One that takes longer confirms a millisecond later that it was stopped.
    const ask = (error) => {
      if (self.asked) return
      self.asked = true
      if (self.due > now + 1) { self.stopped = true; at(now + 1, self.order, () => self.reject(error)) }
    }
    self.stop = () => {
      if (options.cancellable === false) return false
      const started = self.turn !== turn
      if (!started) calls.splice(calls.indexOf(call), 1)
      const what = `${kind} ${name}`
      if (!started) self.reject(cancelled(what, { ...own, type: "cancelled", attempts: 0 }))
      else if (abandon) self.reject(cancelled(what, { ...own, type: "cancelled" }))
      else ask(cancelled(what, { attempts: 1, type: "cancelled", retryable: false, [field]: name, executionId }))
      return true
    }
    if (options.deadline !== undefined) at(now + Math.max(0, seconds(options.deadline)), self.order, () => {
      const late = (fields) =>
        failure("TimeoutError", `${kind} ${name} did not end within its deadline`, { ...own, type: "timeout", ...fields })
      if (abandon) self.reject(late({}))
      else if (!self.done) ask(late({ attempts: 1 }))
    })
  })
  const task = starter("task", "task"), pretend = starter("child", "workflow")
  const child = (name, inputs, options) => workflows?.[name] === undefined ? pretend(name, inputs, options) : operation((self) => {
    load(workflows[name])({ executionId: name, name, cancelled: false }, copy(inputs) ?? {}).then(
      (value) => at(now + 1, self.order, () => self.resolve(copy(value) ?? null)),
      (error) => at(now + 1, self.order, () => self.reject(failure(error.name, error.message, { ...error, workflow: name }))))
    self.stop = () => false
  })
  const sleep = (duration) => operation((self) => {
    const due = duration instanceof RealDate ? duration.getTime() : now + Math.max(0, seconds(duration))
    at(due, self.order, () => self.resolve(undefined))
    self.stop = () => { self.reject(cancelled("sleep")); return true }
  })
  const signal = (name, options) => operation((self) => {
    self.name = name
    waits.push(self)
    self.stop = () => { self.reject(cancelled(`signal ${name}`)); return true }
    if (options?.timeout !== undefined) at(now + Math.max(0, seconds(options.timeout)), self.order, () =>
      self.reject(failure("TimeoutError", `signal ${name} timed out`, { type: "timeout" })))
  })
  function cancel(promise) {
    if (!(promise instanceof Promise)) throw new TypeError("cancel needs a promise")
    const self = operations.get(promise)
    return self !== undefined && !self.done && self.stop()
  }
  class FakeDate extends RealDate {
    constructor(...args) { if (args.length === 0) super(now); else super(...args) }
    static now() { return Math.floor(now) }
    static [Symbol.hasInstance](value) { return value instanceof RealDate }  // clones are real ones
  }
  signals.forEach(([after, name, payload], index) => at(begin + seconds(after), index - 1e6, () => unread.push([name, payload])))
  const match = () => {
    for (const wait of waits) {
      if (wait.done) continue
      const index = unread.findIndex(([name]) => name === wait.name)
      if (index >= 0) { wait.resolve(unread.splice(index, 1)[0][1]); return true }
    }
    return false
  }
  const settle = async (promise) => {
    let over = false
    promise.then(() => { over = true }, () => { over = true })
    while (true) {
      await new Promise(setImmediate)
      turn++
      if (over) return
      if (match()) continue
      const event = events.shift()
      if (!event) return
      now = Math.max(now, event.due)
      event.run()
    }
  }
  // No function has a source text here: the one deliberate difference of clones.
  function clone(...given) {
    try {
      return structuredClone(...given)
    } catch (error) {
      if (error.name !== "DataCloneError" || error.message.startsWith("#<")) throw error
      throw new DOMException("function could not be cloned.", "DataCloneError")
    }
  }
  const quiet = { log() {}, info() {}, warn() {}, error() {}, debug() {} }
  const globals = { task, child, sleep, signal, cancel, Date: FakeDate, console: quiet, structuredClone: clone }
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

async function outcomeOf({ source, inputs }, load, settle) {
  try {
    const workflow = load(source)
    const promise = workflow({ executionId: "x", cancelled: false }, inputs ?? {})
    await settle(promise)
    const never = { error: "DeadlockError: the workflow waits for something that can never happen" }
    const value = await Promise.race([promise, new Promise((r) => setImmediate(r, never))])
    if (value === never) return never
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
