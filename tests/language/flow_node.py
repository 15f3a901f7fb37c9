"""Flow programs through our own front end and through Node, with results as comparable text."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from types import FunctionType
from typing import Any

from rhythm.language import codegen
from rhythm.language.diagnostics import Diagnostic, Report
from rhythm.language.lower import lower
from rhythm.language.numbers import number_to_string
from rhythm.language.parser import parse
from rhythm.language.promises import REJECTED, Promise, Realm
from rhythm.language.resolver import resolve
from rhythm.language.values import (
    UNDEFINED,
    JSDate,
    JSError,
    JSMap,
    JSSet,
    NativeFunction,
    for_in_keys,
    set_current_realm,
)

SHOWN_DEPTH_MAX = 8  #: Containers inside each other that are shown; the script below knows it too.
NODE_SECONDS_MAX = 60  #: For one batch of programs.

#: Reads a JSON array of sources, writes a JSON array of results. Each source defines `workflow`.
NODE_SCRIPT = r"""
const escape = (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0")
const text = (s) => JSON.stringify(s).replace(/[\u0080-\uffff]/g, escape)
function show(v, depth = 0) {
  if (v === undefined) return "undefined"
  if (v === null) return "null"
  if (typeof v === "number") return Object.is(v, -0) ? "-0" : String(v)
  if (typeof v === "string") return text(v)
  if (typeof v === "boolean") return String(v)
  if (typeof v === "function") return "function"
  if (depth > 8) return "..."
  const deeper = (x) => show(x, depth + 1)
  if (Array.isArray(v)) return "[" + v.map(deeper).join(", ") + "]"
  if (v instanceof Error) return `${v.name}(${text(v.message)})`
  if (v instanceof Map) return "Map[" + [...v].map(([k, x]) => deeper(k) + ": " + deeper(x)).join(", ") + "]"
  if (v instanceof Set) return "Set[" + [...v].map(deeper).join(", ") + "]"
  if (v instanceof Date) return "Date " + v.getTime()
  if (v instanceof Promise) return "Promise"
  return "{" + Object.keys(v).map((k) => text(k) + ": " + deeper(v[k])).join(", ") + "}"
}
async function main() {
  process.on("unhandledRejection", () => {})
  const sources = JSON.parse(require("fs").readFileSync(0, "utf8"))
  const results = []
  for (const source of sources) {
    try {
      const workflow = new Function('"use strict";' + source + "\n;return workflow")()
      results.push(show(await workflow({}, { n: 5 })))
    } catch (error) {
      results.push("throws " + show(error))
    }
  }
  process.stdout.write(JSON.stringify(results))
}
main()
"""


class Refused(Exception):
    """The front end refused a program."""

    def __init__(self, diagnostics: list[Diagnostic]) -> None:
        super().__init__("; ".join(f"{item.line}:{item.column} {item.code} {item.message}" for item in diagnostics))


def compile_source(source: str, name: str = "test") -> dict[str, Any]:
    """The IR of a source."""
    filename = f"{name}.flow"
    parsed = parse(source, filename)
    report = Report(source, filename)
    resolution = resolve(parsed.program, report)
    errors = [item for item in [*parsed.diagnostics, *report.diagnostics] if item.severity == "error"]
    if errors:
        raise Refused(errors)
    return lower(parsed.program, resolution, source, name)


def start(source: str) -> tuple[codegen.Instance, Promise]:
    """Run a workflow until its job queue is empty."""
    program = codegen.load(compile_source(source))
    realm = Realm(now_ms=lambda: 1_700_000_000_000.0, random=lambda: 0.5)
    set_current_realm(realm)
    instance = program.instantiate(realm)
    promise = instance.run_module()({}, {"n": 5.0})
    realm.drain()
    return instance, promise


def run_here(source: str) -> str:
    """The result of a workflow as text; "throws ..." when its promise was rejected."""
    _, promise = start(source)
    if promise.state == REJECTED:
        return f"throws {show(promise.value)}"
    return show(promise.value) if promise.state else "pending"


def run_in_node(sources: list[str]) -> list[str]:
    """The results of all programs in one Node process."""
    node = shutil.which("node")
    assert node is not None, "the tests of the language need Node 20"
    done = subprocess.run(
        [node, "-e", NODE_SCRIPT],
        input=json.dumps(sources),
        capture_output=True,
        text=True,
        timeout=NODE_SECONDS_MAX,
        check=False,
        env={**os.environ, "TZ": "UTC"},
    )
    assert done.returncode == 0, done.stderr
    results: list[str] = json.loads(done.stdout)
    return results


def differences(sources: list[str]) -> list[tuple[int, str, str]]:
    """(index, result here, result in Node) of every program that differs, but for those that are refused on the way."""
    found = []
    for index, expected in enumerate(run_in_node(sources)):
        try:
            result = run_here(sources[index])
        except Exception as error:  # noqa: BLE001 - any failure is a finding
            result = f"{type(error).__name__}: {error}"
        if result != expected and not result.startswith("UnsupportedError"):
            found.append((index, result, expected))
    return found


def show(value: Any, depth: int = 0) -> str:
    """The same text as `show` of the script above."""
    kind = value.__class__
    if value is UNDEFINED:
        return "undefined"
    if value is None:
        return "null"
    if kind is float:
        return "-0" if value == 0.0 and str(value)[0] == "-" else number_to_string(value)
    if kind is str:
        return json.dumps(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is FunctionType or isinstance(value, NativeFunction):
        return "function"
    if depth > SHOWN_DEPTH_MAX:
        return "..."
    deeper = depth + 1
    if kind is list:
        return "[" + ", ".join(show(item, deeper) for item in value) + "]"
    if kind is JSError:
        return f"{value.props.get('name', value.kind)}({show(value.props.get('message', ''))})"
    if kind is JSMap:
        return "Map[" + ", ".join(f"{show(key, deeper)}: {show(item, deeper)}" for key, item in value.entries()) + "]"
    if kind is JSSet:
        return "Set[" + ", ".join(show(key, deeper) for key, _ in value.entries()) + "]"
    if kind is JSDate:
        return f"Date {show(value.ms)}"
    if kind is Promise:
        return "Promise"
    assert kind is dict, f"not a flow value: {value!r}"
    return "{" + ", ".join(f"{json.dumps(key)}: {show(value[key], deeper)}" for key in for_in_keys(value)) + "}"
