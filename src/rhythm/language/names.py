"""Names that mean something without a declaration, and names that JavaScript has and flows do not, with what to write
instead. The values behind GLOBAL_NAMES are in ``builtins``; a test proves that the two agree.
"""

from __future__ import annotations

from typing import Final

#: Functions that make the engine do something; not callable before the workflow runs.
HOST_FUNCTIONS: Final = frozenset({"task", "sleep", "signal", "child", "cancel"})
#: Of these, the ones that give a promise.
PROMISE_FUNCTIONS: Final = frozenset({"task", "sleep", "signal", "child"})
#: Of these, the ones whose first argument is a name.
NAMED_FUNCTIONS: Final = frozenset({"task", "signal", "child"})
#: Of the statics of Promise, the ones that give a promise; of a promise's methods, the same.
PROMISE_STATICS: Final = frozenset({"all", "allSettled", "any", "race", "resolve", "reject"})
PROMISE_METHODS: Final = frozenset({"then", "catch", "finally"})
ERROR_KINDS: Final = frozenset(
    "Error TypeError RangeError SyntaxError ReferenceError EvalError URIError AggregateError".split()
)
CONSTRUCTORS: Final = ERROR_KINDS | {"Map", "Set", "Date", "Promise"}
GLOBAL_NAMES: Final = (
    HOST_FUNCTIONS
    | CONSTRUCTORS
    | frozenset(
        "Math JSON Object Array String Number Boolean parseInt parseFloat isNaN isFinite NaN Infinity undefined "
        "encodeURI encodeURIComponent decodeURI decodeURIComponent structuredClone console".split()
    )
)

_TIMER = "write `await sleep(ms)`"
_TASK = "do it in a task: `await task(name, inputs)`"
_NO_USE = "flows have no such thing; plain objects, arrays, Map and Set do"
#: JavaScript's globals that flows refuse -> hint.
OUT_NAMES: Final[dict[str, str]] = {
    **dict.fromkeys(["setTimeout", "setInterval", "setImmediate"], _TIMER),
    **dict.fromkeys(["clearTimeout", "clearInterval", "clearImmediate"], "write `cancel(promise)` of a `sleep`"),
    "queueMicrotask": "write `Promise.resolve().then(f)`",
    **dict.fromkeys(
        ["fetch", "Buffer", "URL", "URLSearchParams", "TextEncoder", "TextDecoder",
         "XMLHttpRequest", "WebSocket", "Headers", "Request", "Response", "FormData", "Blob", "window", "document",
         "atob", "btoa", "localStorage", "sessionStorage", "navigator", "alert", "prompt", "confirm", "AbortSignal",
         "Event", "EventTarget", "CustomEvent", "MessageChannel", "MessagePort", "MessageEvent", "BroadcastChannel",
         "ReadableStream", "WritableStream", "TransformStream", "CompressionStream", "DecompressionStream", "File",
         "WebAssembly"],
        _TASK,
    ),
    "process": "read the environment in a task, and give it to the workflow as an input",
    **dict.fromkeys(["require", "module", "exports"], "put the functions into this file; libraries are for tasks"),
    "crypto": "make ids and hashes in a task; `ctx.executionId` is unique as well",
    "performance": "write `Date.now()`",
    "AbortController": "write `cancel(promise)`",
    "global": "name what you need",
    **dict.fromkeys(
        ["Symbol", "Proxy", "Reflect", "WeakMap", "WeakSet", "WeakRef", "FinalizationRegistry", "Iterator",
         "ArrayBuffer", "SharedArrayBuffer",
         "Atomics", "DataView", "Int8Array", "Uint8Array", "Uint8ClampedArray", "Int16Array",
         "Uint16Array", "Int32Array", "Uint32Array", "Float32Array", "Float64Array", "BigInt64Array", "BigUint64Array"],
        _NO_USE,
    ),
    "RegExp": "regular expressions are not supported yet: use string methods or a task",
    "BigInt": "keep money in whole cents and ids in text",
    "Function": "write a function",
    "eval": "write a function",
    "globalThis": "name what you need",
    "Intl": "format for people in a task",
    "escape": "write `encodeURIComponent`",
    "unescape": "write `decodeURIComponent`",
    "DOMException": "write `new Error(message)`",
}  # fmt: skip
#: Names that other languages have -> hint.
FOREIGN_NAMES: Final[dict[str, str]] = {
    **dict.fromkeys(["None", "nil", "NULL", "Null"], "write `null`"),
    **dict.fromkeys(["True", "TRUE"], "write `true`"),
    **dict.fromkeys(["False", "FALSE"], "write `false`"),
    **dict.fromkeys(["print", "println", "puts", "printf"], "write `console.log(…)`"),
    **dict.fromkeys(["len", "count"], "write `list.length`, or `.size` of a Map or Set"),
    **dict.fromkeys(["string", "number", "boolean", "any", "unknown", "never", "object"],
                    "if this is a type, leave it out: TypeScript syntax is not supported"),
    **dict.fromkeys(["str", "repr"], "write `String(value)`"),
    **dict.fromkeys(["int", "float"], "write `Number(value)`"),
    "range": "write `for (let i = 0; i < n; i++) { … }`",
    "dict": "write `{ }`",
    "list": "write `[ ]`",
    "self": "use objects and closures",
    "input": "the workflow's inputs are its second parameter: `workflow(ctx, inputs) { … }`",
    **dict.fromkeys(["uuid", "uuidv4", "nanoid", "randomUUID"],
                    "make ids in a task; `ctx.executionId` is unique as well"),
    **dict.fromkeys(["delay", "wait", "pause", "timeout"], "write `await sleep(ms)`"),
    **dict.fromkeys(["activity", "step", "activities", "callActivity"], "write `await task(name, inputs)`"),
    **dict.fromkeys(["__dirname", "__filename"], "files are for tasks: `await task(name, inputs)`"),
    **dict.fromkeys(["$", "jQuery", "_", "axios", "moment", "dayjs", "lodash"],
                    "libraries are for tasks: `await task(name, inputs)`"),
}  # fmt: skip
#: Names of the earlier experimental Rhythm -> hint.
EARLIER: Final[dict[str, str]] = {
    "Task": "Task.run(...) is now task(...)",
    "Timer": 'Timer.delay(seconds) is now sleep: `sleep("30s")`, or milliseconds',
    "Signal": "Signal.next(...) is now signal(...)",
    "Workflow": "Workflow.run(...) is now child(...)",
    "Inputs": "inputs are the second parameter: `workflow(ctx, inputs) { … }`",
    "Context": "the context is the first parameter: `workflow(ctx, inputs) { … }`",
}
#: What Node's console has besides the five levels of the log.
CONSOLE_OUT: Final = tuple(
    "assert clear count countReset dir dirxml group groupCollapsed groupEnd profile profileEnd table time timeEnd "
    "timeLog timeStamp trace".split()
)
#: Properties of builtin objects that flows refuse -> hint. (object name, property)
OUT_STATICS: Final[dict[tuple[str, str], str]] = {
    **{("Object", name): "leave it out, or hand on a copy: `{ ...value }`" for name in (
        "freeze", "seal", "isFrozen", "isSealed", "preventExtensions", "isExtensible")},
    ("Object", "groupBy"): "group with a loop",
    **{("Object", name): "use plain objects" for name in (
        "create", "defineProperty", "defineProperties", "getPrototypeOf", "setPrototypeOf", "getOwnPropertyDescriptor",
        "getOwnPropertyDescriptors", "getOwnPropertyNames", "getOwnPropertySymbols")},
    ("Promise", "withResolvers"): "write `new Promise((resolve, reject) => { … })`",
    ("Promise", "try"): "call an async function",
    ("Map", "groupBy"): "group with a loop",
    ("Array", "fromAsync"): "write `await Promise.all(…)`",
    ("String", "raw"): "write an ordinary string",
    **{(kind, name): "errors have their stack already" for kind in sorted(ERROR_KINDS)
       for name in ("captureStackTrace", "prepareStackTrace", "stackTraceLimit")},
    **{("console", name): "write `console.log`, or `JSON.stringify(value, null, 2)` of what is shown"
       for name in CONSOLE_OUT},
}  # fmt: skip
#: Properties that are refused on anything -> hint.
OUT_MEMBERS: Final[dict[str, str]] = {
    "constructor": "compare with `instanceof`, or keep a field that says what it is",
    "prototype": "use objects and closures",
    "__proto__": "use plain objects",
    "__defineGetter__": "use plain objects",
    "__defineSetter__": "use plain objects",
    "__lookupGetter__": "use plain objects",
    "__lookupSetter__": "use plain objects",
    "localeCompare": "compare with < and >",
    "toLocaleString": "format for people in a task",
    "toLocaleDateString": "format for people in a task",
    "toLocaleTimeString": "format for people in a task",
    "toLocaleUpperCase": "write `toUpperCase`",
    "toLocaleLowerCase": "write `toLowerCase`",
    "matchAll": "regular expressions are not supported yet: use string methods or a task",
}
