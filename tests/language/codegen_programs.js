// Bodies of workflows that code generation is most likely to get wrong. Each starts with its name.

//# operand before assignment
let x = 1; return [x + (x = 5), x, x++ + x, x + x++, (x = 2) + x * (x = 3)]

//# argument order
const log = []; const f = (n) => { log.push(n); return n }; const o = { m: (...a) => a }
o.m(f(1), f(2), ...[f(3), f(4)], f(5)); return log

//# receiver before arguments
const log = []; const get = () => { log.push('get'); return { m: () => log.push('call') } }
get().m(log.push('argument')); return log

//# callee tested after arguments
const log = []; const o = {}; try { o.missing(log.push(1)) } catch (e) { log.push(e.message) }
try { let f = 5; f(log.push(2)) } catch (e) { log.push(e.message) }
try { undefined.m(log.push(3)) } catch (e) { log.push(e.message) } return log

//# assignment targets
const log = []; const o = () => { log.push('o'); return {} }; const k = () => { log.push('k'); return 'x' }
const v = () => { log.push('v'); return 1 }; o()[k()] = v(); o()[k()] += v(); return log

//# reads around calls
const o = { a: 1, b: 2 }; const f = () => { o.a = 10; return 1 }
return [o.a + f() + o.a, o.b, [o.a, (o.a = 5, o.a), o.a], Math.max(o.a, f(), o.a)]

//# value of
const log = []; const o = { valueOf: () => { log.push('v'); p.x = 9; return 1 } }; const p = { x: 2, o }
const r = p.o * p.x + p.x; return [r, log, p.x]

//# compound reads first
let x = 1; const f = () => { x = 10; return 1 }; x += f(); return x

//# captured string building
let s = ''; const add = (t) => { s += t; return s.length }
for (let i = 0; i < 5; i++) { s += i; add('-'); s = s + add('x') } return s

//# a captured string appended to itself
let s = 'st'; const read = () => s; s += -s; s += s; s += s.length; s += [s].length; return read()

//# arithmetic
const xs = [0, -0, 1, -1, 2.5, NaN, Infinity, -Infinity, '3', '', null, undefined, true, [], [4], {}]
const out = []; for (const a of xs) for (const b of xs) out.push(a - b, a * b, a / b, a % b, a < b, a >= b)
return out

//# addition
const xs = [0, -0, 1.5, NaN, 'a', '', null, undefined, true, [1, 2], {}]
const out = []; for (const a of xs) for (const b of xs) out.push(a + b); return out

//# equality
const o = {}; const xs = [0, -0, 1, NaN, '', '0', '1', null, undefined, true, false, o, o, [], {}]
const out = []; for (const a of xs) for (const b of xs) out.push(a === b, a !== b, a == b, a != b); return out

//# equality with constants
const xs = [0, -0, 1, NaN, '', '0', null, undefined, true, false, {}, []]; return xs.map((x) => [x === 0,
x === 1, x === '', x === true, x === null, x === undefined, x == null, x != undefined, x == 1, 1 === x,
typeof x === 'number', typeof x === 'string', typeof x === 'object', typeof x === 'undefined',
'boolean' === typeof x, x !== x])

//# comparing a counter that changes
const r = [1, 2, 3]; let i = 0; const out = [i < (i = 9, r).length, i]; for (let k = 0; k < ((k += 2), r).length;) out.push(k)
return out

//# comparing an effect
const o = { x: 1 }; const r = [1]; let q, c = 0; const f = () => ++c
return [++o.x === q, r[0]++ !== q, q === ++o.x, (c += 1) === null, -f() === q, f() * 2 !== 'x', o, r, c]

//# truthiness
const xs = [0, -0, 1, NaN, '', '0', null, undefined, true, false, {}, [], () => 1]
return xs.map((x) => [!x, !!x, x ? 1 : 2, x && 1, x || 1, x ?? 1, (() => { if (x) return 1; return 0 })()])

//# bitwise
const xs = [0, 1, -1, 5.7, 2 ** 31, 2 ** 32 + 3, -(2 ** 31), NaN, Infinity, '7', null]
const out = []; for (const a of xs) { out.push(~a); for (const b of xs) out.push(a & b, a | b, a ^ b, a << b,
a >> b, a >>> b) } return out

//# counters
const out = []; for (let i = 0; i < 3; i++) { const o = { i, [i]: i, s: `${i}` + i, n: -i, m: i * -1, h: i / 2 }
out.push(o, [i], i % 2, i - i, i === 1, i == '1', typeof i, -i, 1 / i, JSON.stringify(i), [7, 8, 9][i]) }
for (let i = 3; i-- > 0;) out.push([1, 2, 3][i], i); for (let i = -2; i < 2; i++) out.push([5, 6][i], 'ab'[i])
return out

//# counter arithmetic
const a = [1, 2, 3, 4]; let s = 0; for (let i = 0, j = a.length - 1; i < j; i++, j--) s += a[i] * a[j] + i * j - j
for (let i = 0; i < 10; i += 3) { s += a[i] ?? i; s += i % 4 } return s

//# number twins
function f(a, b) { let r = a * b + a - b; if (a < b) r += a % 3; return r }
return [f(1, 2), f(3, 1), f('2', 3), f(2), f(null, true), f([], 1), f(-1, 2)]

//# recursion
function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2) } return [fib(15), fib('9'), fib(inputs.n)]

//# increments
let s = '5'; const o = { n: '1', u: undefined }; const a = [1]; let r = [s++, s, ++s, s--, --s]
return [...r, o.n++, o.n, ++o.u, o.zzz++, a[0]++, ++a[0], a, -s, +'', -'', +[], +{}]

//# floor and abs
return [0.5, -0.5, -0, 0, 1e16, -1e16, NaN, Infinity, '2.7', null, undefined, [3.2]]
.map((x) => [Math.floor(x), Math.abs(x), Math.max(x, 1), Math.PI])

//# missing properties
const o = { a: { b: null } }; return [o.x, o.x?.y, o.a.b?.c, o.a?.['b'], o['a'].z, [].x, 'abc'.x, (5).x, o.x?.(),
o.toString === undefined, o.f?.(1), [1, 2].length, 'abc'.length, o.length, delete o.a, o]

//# property of nothing
const out = []; for (const f of [() => null.a, () => { const o = {}; return o.a.b }, () => { let u; u.x = 1 },
() => { let u; return u[0] }, () => { const o = { a: null }; return o.a.b.c }, () => { const a = []; return a[3].k }])
{ try { f() } catch (e) { out.push(e.name + ': ' + e.message) } } return out

//# index keys
const a = [10, 20, 30]; const o = { 1: 'one', x: 'ex', true: 't', null: 'n', undefined: 'u', 1.5: 'f' }
return [a[1], a['1'], a[1.5], a[-1], a[true], a[NaN], o[1], o['1'], o[true], o[null], o[undefined], o[1.5], a['length'],
'héllo'[1], 'abc'['length'], o[[1]], a[[2]]]

//# index writes
const a = [1, 2]; a[2] = 3; a['0'] = 9; const o = {}; for (let i = 0; i < 3; i++) { o[i] = i; a[i] += i; a[i]++ }
for (const k of ['x', 1, true]) o[k] = k; return [a, o, a[0] = 5, o.y = 6, (o.z ??= 7), (o.z ||= 8), (o.z &&= 9)]

//# object literals
const k = 'key', v = 1; const o = { k, [k]: v, [`${k}2`]: 2, 3: 'three', 'quoted key': 4, m() { return 5 }, ...{ k: 7,
z: 8 }, ...null, ...[9], ...'ab' }; return [o, o.m(), { ...o, k: 0 }.k, { a: 1, a: 2 }]

//# own functions
const o = { push: (x) => 'own ' + x, get: (k) => 'got ' + k, length: 7, map: 5 }; const out = [o.push(1), o.get('a'),
o.length]; try { o.map() } catch (e) { out.push(e.message) } return out

//# in and delete
const o = { a: 1, b: undefined }; return ['a' in o, 'b' in o, 'c' in o, 'toString' in o, 0 in [1], 1 in [1],
delete o.a, 'a' in o, delete o.nothing, o instanceof Object, [] instanceof Array, new Error() instanceof Error]

//# defaults and rest
const f = (a, b = a + 1, { c = 3, ...d } = {}, [e, , g = 'g'] = [1, 2], ...h) => [a, b, c, d, e, g, h]
return [f(1), f(1, undefined, { c: null, x: 1 }, 'xyz', 5, 6), f(...[1, 2, { d: 4 }])]

//# closures in loops
const fs = []; for (let i = 0; i < 3; i++) { fs.push(() => i++) } for (const x of [7, 8]) fs.push(() => x)
for (const k in { p: 1, q: 2 }) fs.push(() => k); let j = 0; while (j < 2) { const c = j++; fs.push(() => c) }
return [fs.map((f) => f()), fs.map((f) => f())]

//# loop variable copied
const fs = []; for (let i = 0, n = 3; i < n; fs.push(() => i), i++) { if (i === 1) continue; fs.push(() => (i += 10)) }
return fs.map((f) => f())

//# counter object
function make() { let n = 0; return { inc: () => ++n, get: () => n, reset() { n = 0 } } }
const a = make(), b = make(); a.inc(); a.inc(); b.inc(); const r = [a.get(), b.get()]; a.reset(); return [...r, a.get()]

//# named function expression
const fact = function self(n) { return n <= 1 ? 1 : n * self(n - 1) }; const g = fact; return [g(5), typeof self]

//# hoisting
const r = [a(), typeof b]; function a() { return b() } function b() { return 'b' }
{ function c() { return 'inner' } r.push(c()) } return r

//# mutual recursion
const even = (n) => (n === 0 ? true : odd(n - 1)); const odd = (n) => (n === 0 ? false : even(n - 1))
return [even(10), odd(7), even(7)]

//# dead zone
const out = []; for (const f of [() => { const g = () => y; g(); const y = 1 },
() => { const g = () => typeof z; g(); let z }, () => { const g = () => { w = 1 }; g(); let w },
() => { const f = (a = (() => b)(), b) => a; f() }, () => { for (let i = 0; i < 2; i++) { if (i) g(); var2(); let v = i
function g() { return v } function var2() { if (i) return v } } }, () => { let t; t = t ?? 1; return t }])
{ try { f(); out.push('ran') } catch (e) { out.push(e.name + ': ' + e.message) } } return out

//# deep recursion
let depth = 0; function down() { depth++; down() } try { down() } catch (e) { return [e instanceof RangeError,
e.message, depth > 500] }

//# spread
return [Math.max(...[1, 5, 3]), [...'a😀b'], [...new Set([1, 1, 2])], [...new Map([[1, 2]])], [...[], 0]]

//# labels
const out = []; outer: for (let i = 0; i < 4; i++) { for (let j = 0; j < 4; j++) { if (j === 2) continue outer
if (i === 2) break outer; out.push(i * 10 + j) } } block: { out.push('in'); if (out.length) break block; out.push('no') }
a: for (const x of [1, 2]) b: for (const y of [1, 2]) { if (y === 1) continue b; if (x === 1) continue a; out.push(x, y) }
return out

//# switch
const f = (x) => { const out = []; switch (x) { case 1: out.push(1); case 2: out.push(2); break; default: out.push('d')
case 'a': out.push('a'); break; case 3: { const y = 3; out.push(y) } } return out }
return [1, 2, 3, 'a', '1', null, NaN].map(f)

//# switch in loop
const out = []; for (let i = 0; i < 6; i++) { switch (i) { case 1: continue; case 3: break; case 4: out.push('four')
default: out.push(i); if (i === 5) return out } out.push('after') }

//# do while
const out = []; let i = 0; do { i++; if (i === 2) continue; if (i === 5) break; out.push(i) } while (i < 10)
do out.push('once'); while (false) return out

//# for in
const o = { b: 1, 2: 2, a: 3, 1: 4 }; const out = []; for (const k in o) { if (k === 'b') delete o.a; out.push(k) }
for (const i in ['x', 'y']) out.push(i); for (const c in 'hi') out.push(c); for (const n in null) out.push(n)
return out

//# live arrays
const a = [1, 2, 3]; const out = []; for (const x of a) { out.push(x); if (a.length < 6) a.push(x * 10) }
const m = new Map([[1, 1]]); for (const [k] of m) { if (k < 4) m.set(k + 1, 0); out.push(k) } return out

//# update jumps
const out = []; for (let i = 0, j = 10; i < j; i++, j -= 2) { try { if (i === 1) continue; out.push(i) } finally
{ out.push('f') } } for (let i = 0; ; i++) { if (i % 2) continue; if (i > 6) break; out.push(i) } return out

//# comma and conditional chains
const f = (x) => x < 1 ? 'a' : x < 2 ? 'b' : x < 3 ? 'c' : 'd'; let y; return [(y = 1, y + 1), [0, 1, 2, 3].map(f)]

//# swaps
let [a, b] = [1, 2]; [a, b] = [b, a]; const o = {}; ({ x: o.p, ...o.q } = { x: 1, y: 2 }); return [a, b, o]

//# destructuring errors
const out = []; for (const f of [() => { const { a } = null }, () => { const [x] = undefined }, () => { const five = 5; const [x] = five },
({ a }) => a.b, () => { let z; const { y } = z }])
{ try { f({}) } catch (e) { out.push(e.name + ': ' + e.message) } } return out

//# throw anything
const out = []; for (const v of [1, 'x', null, undefined, { a: 1 }, [1], new TypeError('t', { cause: 'c' })])
{ try { throw v } catch (e) { out.push(e) } } try { throw 1 } catch { out.push('no binding') } return out

//# nested catch
const out = []; try { try { throw 1 } catch (e) { out.push(e); throw 2 } finally { out.push('f') } }
catch (e) { out.push(e); try { null.x } catch (inner) { out.push(inner.message) } out.push(e) } return out

//# catch closures
const fs = []; for (const x of [1, 2]) { try { throw x } catch (e) { fs.push(() => e) } } return fs.map((f) => f())

//# microtasks
const log = []; const a = async (n) => { log.push(n + 1); await null; log.push(n + 2); return n }
const p = a('a'); const q = a('b').then((v) => log.push('then ' + v)); log.push('sync'); await p; log.push('p'); await q
return log

//# await everywhere
const v = async (x) => x; const o = { n: 1, f: async (...a) => a }; let t = 1
return [await v(1) + await v(2), t + (t = await v(5)) + t, (await v(o)).n, await o.f(await v(1), ...(await v([2, 3]))),
(await v(0)) || (await v('or')), (await v(null)) ?? (await v('nullish')), await v(true) ? await v('y') : await v('n'),
`${await v('a')}-${await v('b')}`, { [await v('k')]: await v('v'), ...(await v({ z: 1 })) }, [...(await v([1]))],
-(await v(3)), typeof (await v('s')), (await v(1), await v(2)), o.n += await v(4), o?.n, o[await v('n')], await v(1) < await v(2)]

//# await in loops
const v = async (x) => x; const out = []; for (let i = 0; i < (await v(3)); i += await v(1)) { if (await v(i === 1)) continue
out.push(await v(i)) } for (const x of await v([5, 6, 7])) { out.push(await v(x)); if (await v(x > 5)) break }
for (const k in await v({ a: 1, b: 2 })) out.push(await v(k)); let n = 0; while (await v(n < 2)) { n++; await null }
do { n += await v(2) } while (n < (await v(5))); out.push(n)
outer: for (const x of [1, 2]) { for (const y of [1, 2]) { await null; if (y === 2) continue outer; out.push(x * 10 + y) } }
switch (await v(2)) { case await v(1): out.push('no'); case await v(2): out.push('two'); default: out.push(await v('d')) }
return out

//# closures across awaits
const fs = []; for (let i = 0; i < 3; i++) { fs.push(() => i); await null; i += 0 } const out = fs.map((f) => f())
let c = 0; const inc = () => ++c; await null; inc(); await null; inc(); return [...out, c]

//# counters across awaits
const a = [1, 2, 3]; let s = 0; const out = []; for (let i = 0; i < a.length; i++) { s += a[i]; await null; out.push(i, a[i],
{ i }) } return [s, out]

//# rejections
const fail = async (m) => { await null; throw new Error(m) }; const out = []; try { await fail('a') } catch (e)
{ out.push(e.message) } finally { out.push(await 'f') } const r = async () => { try { return await fail('b') } catch (e)
{ return 'r' + e.message } finally { out.push('rf') } }; out.push(await r()); out.push(await fail('c').catch((e) => e.message))
const s = async () => { try { return fail('d') } catch { return 'no' } }; try { await s() } catch (e) { out.push(e.message) }
return out

//# early throw in async
const f = async (x = null.y) => x; const p = f(); try { await p } catch (e) { return e.message }

//# all and race
const v = async (x, n) => { for (let i = 0; i < n; i++) await null; return x }
return [await Promise.all([v(1, 3), v(2, 1), 3]), await Promise.race([v('slow', 5), v('fast', 1)]),
await Promise.allSettled([v(1, 0), Promise.reject(2)]), await Promise.any([Promise.reject(1), v('any', 2)])]

//# thenables
const t = { then: (r) => r('thenable') }; const out = [await t]; const f = async () => t; out.push(await f())
const log = []; const p = (async () => { await t; log.push('t') })(); await null; log.push(1); await null; log.push(2)
await null; log.push(3); await p; return [out, log]

//# promise constructor
let resolve; const p = new Promise((r) => { resolve = r }); const out = []; const w = (async () => out.push(await p))()
out.push('before'); resolve('value'); resolve('again'); await w; return out

//# async map
const items = [1, 2, 3]; const out = await Promise.all(items.map(async (x, i) => { await null; return x * 10 + i }))
const pool = []; let active = 0, most = 0; const run = async () => { while (items.length) { const x = items.shift()
active++; most = Math.max(most, active); await null; active--; pool.push(x) } }; await Promise.all([run(), run()])
return [out, pool, most]

//# async recursion
const walk = async (n) => { if (n === 0) return 'end'; await null; const r = await walk(n - 1); return n + r }
return walk(4)

//# divisible
const xs = [0, -0, 1, 3, 6, -3, 5e-324, 0.5, 7.5, 2 ** 53, 2 ** 53 - 1, 1e300, NaN, Infinity, '6', null, [], {}]
const out = []; for (const x of xs) out.push(x % 3 === 0, x % 3 !== 0, x % 1 === 0, x % 2 === -0, x % 7.5 === 0)
for (let i = 0; i < 9; i++) { out.push(i % 3 === 0, [i][i % 1]) } return out

//# loop bound read once
const o = { n: 3, m: { n: 2 } }; let k = 0, out = []
for (let i = 0; i < o.n; i++) k += i
for (let i = 0; i < o.m.n; i++) { if (i === 0) o.n = 9; k += i }
for (let i = 0; i < o.n; i++) { if (k < 100) o.n = 4; k += i }
for (let i = 0; o.n > i; i++) { if (i === 2) continue; k += i }
for (let i = 9; i >= o.m.n; i--) { k++; if (k > 30) break }
return [k, o]

//# loop bound that is no number
const log = []; const o = { n: { valueOf() { log.push('v'); o.count++; return o.count > 2 ? 0 : 5 } }, count: 0, s: '3' }
let k = 0; for (let i = 0; i < o.n; i++) k++
for (let i = 0; i < o.s; i++) k++
for (let i = 0; i < o.missing; i++) k++
try { for (let i = 0; i < o.missing.n; i++) k++ } catch (e) { log.push(e.message) }
return [k, log]

//# loop bound changed by a function
const o = { n: 5 }; const shrink = () => { o.n -= 1 }; const quiet = (x) => x * 2; let k = 0
for (let i = 0; i < o.n; i++) { shrink(); k += 10 }
for (let i = 0; i < o.n; i++) { k += quiet(i) }
const p = { n: 4, valueOf() { p.n = 1; return 1 } }
for (let i = 0; i < p.n; i++) { k += p * 1 }
let q = { n: 3 }; for (let i = 0; i < q.n; i++) { q = { n: 1 }; k++ }
const r = { n: 3 }; for (let i = 0; i < r.n; i++) { r['n'] = 2; k++ }
const s = { n: 3 }; for (let i = 0; i < s.n; i++) { delete s.n; k++ }
return k

//# callbacks without temporaries
const k = 3; const a = [1, 2, '3', null, { valueOf: () => 7 }]; const seen = []
const r = [a.map((x) => x * k), a.filter((x) => x > 1), a.map((x, i) => i), [1, 2, 3].map((x) => x - k)]
const grow = [1, 2]; r.push(grow.map((x) => grow.push(x)), grow)
try { a.map((x) => x.y.z) } catch (e) { seen.push(e.message) } return [r, seen]

//# a Map changed while it is visited
const m = new Map([['a', 1], [NaN, 2], [-0, 3], [true, 4], [1, 5]]); const seen = []
for (const [k, v] of m) { seen.push(k, v); if (seen.length < 40) { m.delete(k); m.set(k, v + 1) } if (seen.length === 20) m.clear() }
for (let i = 0; i < 90; i++) m.set(i, i); for (const [k] of m) { m.delete(k); m.delete(k + 1); seen.push(k) }
const it = new Map([[1, 2], [3, 4]]).entries(); it.next(); seen.push([...it], [...it], m.size, m.get(), m.has(undefined))
const s = new Set([1, 1, '1', null]); for (const x of s) { if (s.size < 9) s.add(s.size); seen.push(x) }
m.forEach((v, k) => { if (k > 1) m.clear(); seen.push(v) }); return [seen, [...s.add(NaN).add(NaN).values()], s.clear(), s.size]

//# elements as operands
const a = [1, 2]; const b = ['x']; const out = []; let sum = 0, text = ''
for (let i = 0; i < 4; i++) { sum += a[i]; out.push(a[i] * 2, a[i] < 2, 1 - a[i + 1], a[i] % 2, a[i] + a[i + 1], sum) }
for (let i = 0; i < 3; i++) { text += a[i]; out.push(a[i] + '', '' + a[i], a[i] + b[i], a[i] ?? 9, a[i] === undefined) }
for (let i = 0; i < 3; i++) { const t = i; out.push(i + a[i++] + i, -a[i], a[i] || t); i = t }
const c = [1]; c.push(undefined); for (let i = 0; i < 3; i++) out.push(c[i] + 1, c[i] * 1); return [out, text]

//# elements and properties that are followed
const made = [], named = { x: 1, y: 2 }; for (let i = 0; i < 3; i++) made.push({ x: i, y: i * 2 })
const other = made[1]; other.x = 'text'; const all = made.map((p) => p.x + 1), first = made.find((p) => p.y === 2)
const keep = (o) => { o.y = null; return o }; const kept = keep(named), lost = { ...named }; delete lost.x
made.sort((p, q) => q.y - p.y); const [one, , three, four] = made
const unknown = [kept]; unknown.forEach((o) => { o.z = 5 }); return [all, first, named.y + 1, kept.z * 2, lost.x, lost.y,
one.y + 1, three.x + 1, four === undefined, made.reduce((n, p) => n + p.y, 0), named.toString === undefined, made[7]]

//# ways out for arrays and objects that are followed
const out = []
{ const made = [{ x: 1 }]; for (const e of made) e.x = 's'; out.push(made[0].x + 1) }
{ const made = [{ x: 1 }]; const [e] = made; e.x = 's'; out.push(made[0].x + 1, made[0].x * 2) }
{ const a = [{ x: 1 }]; const get = () => a; const fs = [get]; fs[0]()[0].x = 's'; out.push(a[0].x + 1) }
{ const a = [1]; const o = { get: () => a }; o.get().push('s'); out.push(a[1] + 1) }
{ const p = { x: 1 }; const f = (q = p) => { q.x = 's' }; f(); out.push(p.x + 1) }
{ const p = { x: 1 }; try { throw p } catch (e) { e.x = 's' } out.push(p.x + 1) }
{ const a = [1, 2]; const it = a.values(); a.push('s'); let t = 0; for (const v of it) t = v + 1; out.push(t) }
{ const a = [{ x: 1 }]; const m = new Map(a.map((e) => [e.x, e])); m.get(1).x = 's'; out.push(a[0].x + 1) }
{ const a = [{ x: 1 }]; a.forEach((e) => { e.x = 's' }); for (const e of a.slice()) e.y = 's'; out.push(a[0].x + 1, a[0].y + 1) }
{ const a = [[1]]; for (const [v] of a) { a[0][0] = 's'; out.push(v + 1) } out.push(a[0][0] + 1) }
{ const o = { x: 1 }; const { x, ...r } = o; r.x = 's'; const q = { ...o, ...r }; out.push(q.x + 1, o.x + x) }
{ const a = [1]; const g = async (v) => { v.push('s'); return v }; const b = await g(a); b[0] = 't'; out.push(a[0] + 1, a[1] + 1) }
{ const a = [1]; const b = a.reduce((acc, v) => { acc.push('s'); return acc }, a); out.push(b[1] + 1, a[1] + 1) }
return out
