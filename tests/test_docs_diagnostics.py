"""docs/diagnostics.md lists every code with an example that gives it, and the hint that comes with it.

``python -m tests.test_docs_diagnostics`` writes the tables anew from the examples below; the text around them stays.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from rhythm.engine import check_source
from rhythm.language.calls import Callees
from rhythm.language.diagnostics import CODES, Diagnostic

PAGE = Path(__file__).parent.parent / "docs" / "diagnostics.md"
BREAK = "↵"  #: a line break in an example
GROUPS = {
    "F1": "Syntax", "F2": "JavaScript that flows do not have", "F3": "Names", "F4": "The shape of a file",
    "F5": "Calls", "W1": "Warnings", "W2": "Warnings of calls", "U1": "What cannot be decided beforehand",
}  # fmt: skip
#: A body of a workflow, or a file, for each code.
EXAMPLES = {
    "F101": "return Math.max(1, 2",
    "F102": 'return "never closed',
    "F103": "return 007",
    "F104": 'return "\\u12"',
    "F105": "return “text”",
    "F106": "const f = () => { await sleep(1) }",
    "F107": "inputs?.a = 1",
    "F108": "outer: for (;;) { break outre }",
    "F109": "return (a, a) => a",
    "F110": "(501 parentheses inside each other)",
    "F111": "(a file of more than 256 KiB)",
    "F112": "const total",
    "F113": "return a ?? b && c",
    "F114": "return -2 ** 2",
    "F115": "const yield = 1",
    "F116": "return 1↵workflow() { }",
    "F117": 'throw↵new Error("no")',
    "F118": "const { ...rest, id } = inputs",
    "F119": "if (inputs.a) let b = 1",
    "F120": "switch (1) { default: default: }",
    "F121": "delete inputs",
    "F201": "var total = 1",
    "F202": "return this.total",
    "F203": "class Cart { }",
    "F204": "return { get total() { return 1 } }",
    "F205": "function* pages() { }",
    "F206": 'return "a-b".split(/-/)',
    "F207": "return 10n",
    "F208": "return String.raw`a`",
    "F209": "return [1, , 2]",
    "F210": 'import { tax } from "./tax"↵workflow() { }',
    "F211": "with (inputs) { }",
    "F212": "debugger",
    "F213": "function f() { return arguments.length }",
    "F214": "return Object.freeze({})",
    "F215": 'return fetch("https://shop.example")',
    "F216": "function Order() { }↵return new Order()",
    "F217": "for await (const a of inputs) { }",
    "F218": "return inputs.#secret",
    "F219": "return { __proto__: null }",
    "F220": "#!/usr/bin/env node↵workflow() { }",
    "F221": "const total: number = 0",
    "F222": "return <b>bold</b>",
    "F301": 'await taks("ship")',
    "F302": "const total = 0↵total += 1",
    "F303": "const a = 1↵const a = 2",
    "F305": "Math.random = () => 4",
    "F401": "function workflow() { }",
    "F402": "workflow() { }↵workflow() { }",
    "F403": "workflow(ctx, inputs, more) { }",
    "F404": 'console.log("starting")↵workflow() { }',
    "F405": 'const rate = await task("rate")↵workflow() { return rate }',
    "F406": 'await Timer.delay(5)',
    "F501": 'await task("chargeCrad", { orderId: "o-1", amount: 25 })',
    "F502": 'await task("chargeCard", { orderId: "o-1" })',
    "F503": 'await task("chargeCard", { orderId: "o-1", amuont: 25, amount: 25 })',
    "F504": 'await task("chargeCard", { orderId: 7, amount: 25 })',
    "F505": 'await task("chargeCard", { orderId: "o-1", amount: 25 }, { retires: 3 })',
    "F506": 'await sleep("5 minutes")',
    "W101": "const a = inputs.a↵[1, 2].map((n) => a + n)",
    "W102": 'if (task("isOpen")) return 1',
    "W103": 'const paid = task("charge")↵return paid.amount',
    "W104": "const total = 1",
    "W105": "return↵inputs.a + 1",
    "W106": "let a↵if (a = inputs.a) return a",
    "W107": 'return ctx.name === "a" && 1 === "1"',
    "W108": "switch (inputs.a) { case 1: return 1; case 1: return 2 }",
    "W109": "inputs.a = total↵let total = 1",
    "W110": "function f() { }↵function f() { return 1 }↵return f()",
    "W111": 'inputs.list.forEach(async (item) => { await task("ship", { item }) })',
    "W112": "return inputs.list.map((item) => { id: item.id })",
    "W113": 'await Promise.all(task("a"), task("b"))',
    "W201": 'await child("pakc")',
    "W202": 'return (await task("chargeCard", inputs)).txnid',
    "U101": "await task(inputs.name)",
    "U102": 'await task("chargeCard", inputs)',
    "U103": "const tools = { task }↵return tools",
    "U104": 'await task("later")',
    "U105": 'await task("chargeCard", { orderId: "o-1", amount: 25 }, inputs.options)',
}  # fmt: skip
CARD = {
    "type": "object", "properties": {"orderId": {"type": "string"}, "amount": {"type": "number"}},
    "required": ["orderId", "amount"], "additionalProperties": False,
}  # fmt: skip
RECEIPT = {"type": "object", "properties": {"txn_id": {}, "ok": {}}, "additionalProperties": False}
LONG = {"F110": "return " + "(" * 501 + "1" + ")" * 501, "F111": "return 1" + " " * (256 * 1024)}


@functools.cache
def diagnostic(code: str) -> Diagnostic:
    """What the example of a code is told about it."""
    text = LONG.get(code, EXAMPLES[code]).replace(BREAK, "\n")
    source = text if re.search(r"\bworkflow\b", text) else f"workflow(ctx, inputs) {{ {text}\n}}"
    tasks = {"chargeCard": CARD, **{name: {} for name in ("ship", "isOpen", "charge", "a", "b", "rate", "taks")}}
    callees = Callees(tasks, {"pack"}, outputs={"chargeCard": RECEIPT}, complete=code != "U104")
    (found, *_) = [d for d in check_source(source, "example.flow", callees) if d.code == code]
    return found


def tables() -> dict[str, str]:
    """The table of each group of codes."""
    written = {}
    for group, title in GROUPS.items():
        rows = ["| code | says | for example | hint |", "|---|---|---|---|"]
        for code in (code for code in CODES if code.startswith(group)):
            hint = diagnostic(code).hint or "–"
            example = (
                EXAMPLES[code]
                if code in LONG
                else f"`` {EXAMPLES[code]} ``"
                if "`" in EXAMPLES[code]
                else f"`{EXAMPLES[code]}`"
            )
            cells = [cell.replace("|", "\\|") for cell in (code, CODES[code], example, hint)]
            rows.append(f"| {' | '.join(cells)} |")
        written[title] = "\n".join(rows) + "\n"
    return written


def page() -> str:
    """The page with its tables written anew."""
    first, *sections = re.split(r"^## ", PAGE.read_text(), flags=re.M)
    written, parts = tables(), [first]
    for section in sections:
        title, _, text = section.partition("\n")
        prose = re.sub(r"^\|.*\n", "", text, flags=re.M).strip()
        parts.append("\n\n".join(part for part in (f"## {title}", prose, written[title]) if part))
    return parts[0] + "\n".join(parts[1:])


def test_every_code_has_an_example() -> None:
    assert list(EXAMPLES) == list(CODES)


def test_the_page_lists_every_code_as_it_is() -> None:
    assert page() == PAGE.read_text()
    assert re.findall(r"^\| ([FWU]\d\d\d) \|", PAGE.read_text(), re.M) == list(CODES)


def test_every_error_and_warning_of_the_page_has_a_hint() -> None:
    for code in CODES:
        found = diagnostic(code)
        severity = {"F": "error", "W": "warning", "U": "unchecked"}[code[0]]
        assert (found.severity, bool(found.hint)) == (severity, code[0] != "U"), code
        assert "\n" not in found.message
        assert not found.message.endswith(".")


if __name__ == "__main__":
    PAGE.write_text(page())
