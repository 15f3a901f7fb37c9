// The commands and marks of peer.py, for programs of Node.js.
import fs from "node:fs"

export const settings = JSON.parse(process.env.BENCH_SETTINGS ?? "{}")
export const now = () => Number(process.hrtime.bigint()) / 1e9
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

const FLUSH_MS = settings.flush_ms ?? 20
const WAIT_SECONDS = 60
const LOOK_MS = 0.5
const file = fs.openSync(process.env.BENCH_MARKS, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600)
const marks = new Map()

// Writing a file at every task would be a cost that no other peer has: marks are kept, and written as runs of indexes.
export function mark(index) {
  marks.set(index, now())
  if (FLUSH_MS === 0) flush()
  else if (marks.size === 1) setTimeout(flush, FLUSH_MS)
}

function flush() {
  const indexes = Float64Array.from(marks.keys()).sort()
  for (let first = 0, last; first < indexes.length; first = last + 1) {
    for (last = first; indexes[last + 1] === indexes[last] + 1; ) last++
    const times = Float64Array.from(indexes.subarray(first, last + 1), (index) => marks.get(index))
    fs.writeSync(file, times, 0, times.byteLength, indexes[first] * 8)
  }
  marks.clear()
}

// Looks as often as peer.py does: how deeply the processors sleep between two looks is part of what is measured, and a
// timer of Node.js takes a whole millisecond.
const nobody = new Int32Array(new SharedArrayBuffer(4))
async function look() {
  Atomics.wait(nobody, 0, 0, LOOK_MS)
  await new Promise(setImmediate)
}

async function untilMarked(index) {
  const time = new Float64Array(1)
  const deadline = now() + WAIT_SECONDS
  for (;;) {
    fs.readSync(file, time, 0, 8, index * 8)
    if (time[0]) return time[0]
    if (now() > deadline) throw new Error(`execution ${index} never ran`)
    await look()
  }
}

export function* portions(count, size = 1000) {
  for (let first = 0; first < count; first += size)
    yield Array.from({ length: Math.min(size, count - first) }, (_, i) => first + i)
}

// peer: {prepare(), fill(kind, count), start(index), startSteps(count), work()}
export async function run(peer) {
  const [, , , command, ...rest] = process.argv
  if (command === "work") return peer.work()
  let answer = null
  const began = now()
  if (command === "prepare") await peer.prepare()
  else if (command === "fill") {
    await peer.fill(rest[0], Number(rest[1]))
    answer = { per_s: Number(rest[1]) / (now() - began) }
  } else if (command === "steps") {
    await peer.startSteps(Number(rest[0]))
    answer = { ms_per_step: (((await untilMarked(0)) - began) * 1000) / Number(rest[0]) }
  } else {
    const ms = []
    for (let index = 0; index < Number(rest[0]); index++) {
      const start = now()
      await peer.start(index)
      ms.push(((await untilMarked(index)) - start) * 1000)
      await pause(10)
    }
    answer = { ms }
  }
  console.log(JSON.stringify(answer))
  process.exit(0)
}
