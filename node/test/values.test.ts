import assert from "node:assert/strict"
import { test } from "node:test"

import { parseMilliseconds, parseSeconds } from "../src/durations.js"
import { InvalidDuration, InvalidInput, PayloadTooLarge } from "../src/errors.js"
import { newId, parseId } from "../src/ids.js"
import { decode, encode } from "../src/payloads.js"
import { isRetryable, policyOf } from "../src/retry.js"
import { int8s, payload, payloadText, textArray, TYPES, uuids } from "../src/wire.js"

void test("durations: a number is milliseconds, text has a unit", () => {
  assert.equal(parseMilliseconds(250), 250)
  assert.equal(parseMilliseconds("1h30m"), 5_400_000)
  assert.equal(parseMilliseconds(" 1.5 s "), 1500)
  assert.equal(parseSeconds("500ms"), 0.5)
  for (const wrong of ["30", "", "1y", "-1s", "1s,", "٣s", "s".repeat(100)]) {
    assert.throws(() => parseMilliseconds(wrong), InvalidDuration, wrong)
  }
  for (const wrong of [-1, Number.NaN, Number.POSITIVE_INFINITY, 4e11, true as unknown as number, null as unknown as number]) {
    assert.throws(() => parseMilliseconds(wrong), InvalidDuration)
  }
})

void test("ids are of version 7, in order, and parsed strictly", () => {
  const ids = Array.from({ length: 20_000 }, newId)

  assert.deepEqual(ids, [...ids].sort())
  assert.equal(new Set(ids).size, ids.length)
  for (const id of ids.slice(0, 100)) assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  assert.equal(parseId(ids[0]?.toUpperCase()), ids[0])
  for (const wrong of ["", "x", `${ids[0]}\n`, 7, undefined]) assert.throws(() => parseId(wrong), InvalidInput)
})

void test("payloads are ASCII and come back as they were", () => {
  for (const value of ["é𝄞\ud800\0\u007f", { "\udfff": [1, null, true, -0.5, 1e300] }, [], {}, null, "", 0]) {
    const text = encode(value, "value")

    assert.match(text, /^[\x20-\x7e]*$/)
    assert.deepEqual(decode(text, "value"), value)
  }
  assert.equal(encode({ a: undefined, at: new Date(0) }, "value"), '{"at":"1970-01-01T00:00:00.000Z"}')
  assert.equal(encode(undefined, "value"), "null")
  assert.equal(encode(JSON.parse('{"__proto__":{"a":1}}'), "value"), '{"__proto__":{"a":1}}')
})

void test("what JSON cannot hold is refused with its path", () => {
  const cycle: Record<string, unknown> = {}
  cycle.self = cycle
  const cases: [unknown, string][] = [
    [{ a: [1, Number.NaN] }, "$.a[1] is NaN"],
    [{ a: 1n }, "$.a is a bigint"],
    [[() => 1], "$[0] is a function"],
    [[Symbol("s")], "$[0] is a symbol"],
    [{ m: new Map() }, "$.m is a Map"],
    [{ b: new Uint8Array(1) }, "$.b is a Uint8Array"],
    [[undefined], "$[0] is undefined"],
    [{ p: Promise.resolve(1) }, "$.p is a Promise"],
    [{ e: new Error("x") }, "$.e is an Error"],
    [cycle, "$.self contains itself"],
  ]
  for (const [value, path] of cases) {
    assert.throws(() => encode(value, "value"), (error: Error) => error instanceof InvalidInput && error.message.includes(path))
  }
  const shared = { a: 1 }
  assert.equal(encode([shared, shared], "value"), '[{"a":1},{"a":1}]')
})

void test("payloads have limits of size, count and depth", () => {
  let deep: unknown[] = []
  for (let level = 0; level < 999; level++) deep = [deep]

  assert.equal(encode(deep, "value").length, 2000)
  assert.throws(() => encode([deep], "value"), /nested deeper than 1000/)
  assert.throws(() => encode("x".repeat(99), "value", 100), PayloadTooLarge)
  assert.throws(() => encode(new Array(1000).fill(0), "value", 100), PayloadTooLarge)
  assert.equal(encode("x".repeat(98), "value", 100).length, 100)
})

void test("whole numbers that no double holds are refused with their path, never rounded", () => {
  assert.deepEqual(decode('{"a":["9007199254740993",9007199254740992,1e21,1.00000000000000001]}', "v"), {
    a: ["9007199254740993", 9007199254740992, 1e21, 1],
  })
  assert.throws(() => decode('{"x":1,"k\\"ey":[{"a":"\\\\","id":-9007199254740993}]}', "v"), /\$\.k"ey\[0\]\.id is -9007199254740993/)
  assert.throws(() => decode("123456789012345678901234567890", "v"), InvalidInput)
  assert.equal(decode("100000000000000000000", "v"), 1e20)
})

void test("retry policies go by classes, their bases and names", () => {
  class Base extends Error {}
  class Declined extends Base {}
  const policy = policyOf({ noRetryOn: [Base], retryOn: ["Error"] })

  assert.equal(isRetryable(new Declined("x"), policy, null), false)
  assert.equal(isRetryable(new Error("x"), policy, null), true)
  assert.equal(isRetryable(new Declined("x"), policy, { no_retry_on: [] }), true)
  assert.equal(isRetryable(new Declined("x"), policy, { no_retry_on: [], retry_on: ["TypeError"] }), false)
  assert.equal(isRetryable("text", policyOf(), null), true)
  assert.deepEqual(policyOf(), { initial: 1, factor: 2, max: 300, jitter: 0.2, retry_on: [], no_retry_on: [] })
  for (const wrong of [{ factor: 0.5 }, { jitter: 2 }, { initial: -1 }]) assert.throws(() => policyOf(wrong), InvalidInput)
})

void test("arrays on the wire", () => {
  const id = "01a218a1-9c81-7000-b80c-18eb3410b18c"

  assert.equal(
    int8s([1, null, -2, Number.MAX_SAFE_INTEGER]).toString("hex"),
    [
      "00000001" + "00000001" + "00000014" + "00000004" + "00000001",
      "00000008" + "0000000000000001",
      "ffffffff",
      "00000008" + "fffffffffffffffe",
      "00000008" + "001fffffffffffff",
    ].join(""),
  )
  assert.equal(textArray(["é"]).subarray(20).toString("hex"), "00000002c3a9")
  assert.equal(uuids([id]).subarray(24).toString("hex"), id.replaceAll("-", ""))
  assert.equal(uuids([]).toString("hex"), "000000000000000000000b86")
  assert.equal(payloadText(payload('{"a":1}').toString("hex")), '{"a":1}')
  assert.throws(() => payloadText("02ff"), /form 02/)
  assert.deepEqual(TYPES.getTypeParser(2951)(`{${id},NULL}`), [id, null])
  assert.deepEqual(TYPES.getTypeParser(1016)("{1,-2,NULL}"), [1, -2, null])
  assert.deepEqual(TYPES.getTypeParser(1001)('{"\\\\x017b7d",NULL}'), ["017b7d", null])
  assert.deepEqual(TYPES.getTypeParser(1009)('{"a,\\"b",NULL,"NULL"}'), ['a,"b', null, "NULL"])
  assert.deepEqual(TYPES.getTypeParser(1007)("{}"), [])
})
