"""Bytes of every kind through the front end, the IR and the snapshots: never anything but their own errors, never long.

    python -m tests.language.fuzz.frontend --seconds 600 [--folder where inputs are kept]

Three targets, chosen by the first byte of an input: a source (decoded, then parsed, resolved, lowered, validated and
loaded), an IR, and a snapshot of one program. atheris guides them by the coverage of `rhythm.language`; it begins with
the programs of the corpus, and changes sources by tokens as well as by bytes. Before that come SHAPES: sources as
large as the language allows that repeat one thing, which must take time in proportion to their size.
"""

from __future__ import annotations

import argparse
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

from rhythm.engine import compile_workflow, load_program
from rhythm.errors import CompileError, SnapshotError

SOURCE: Final = 0
IR: Final = 1
SNAPSHOT: Final = 2
INPUT_BYTES_MAX: Final = 4096
#: CPU seconds that an input may take, and more for every thousand characters; a loaded machine takes no more of them.
SECONDS: Final = 1.0
SECONDS_PER_THOUSAND: Final = 0.08

PROGRAM: Final = """workflow(ctx, inputs) {
const undo = [], seen = new Map([["a", new Set([1])]]), when = new Date(0)
const all = Promise.all([1, 2].map(async (v) => { await sleep(v); undo.push(() => v); return { v, seen } }))
try { await all } catch (e) { undo.push(() => e) } finally { await sleep(1) }
return [undo.length, when, await new Promise((resolve) => { undo.push(resolve); sleep(1).then(resolve) })]
}"""


def one_input(data: bytes) -> None:
    """Runs one input. Raises whatever should not have been raised, and AssertionError when it took too long."""
    began = time.process_time()
    target = data[0] % 3 if data else SOURCE
    _TARGETS[target](data[1:])
    took = time.process_time() - began
    assert took < SECONDS + len(data) / 1000 * SECONDS_PER_THOUSAND, f"{len(data)} bytes took {took:.1f} s"


def one_source(data: bytes) -> None:
    """Compiles a source; a refusal is an answer."""
    compile_and_load(data.decode("utf-8", "replace"))


def compile_and_load(source: str) -> None:
    """Compiles a source as a worker would meet it, and makes it ready to run."""
    try:
        definition = compile_workflow(source, "fuzz.flow", "fuzz")
    except CompileError:
        return
    load_program(definition.ir_bytes, definition.hash)


def one_ir(data: bytes) -> None:
    """Reads an IR and makes code of it."""
    from rhythm.language import codegen, ir

    try:
        program = ir.from_bytes(data)
    except ir.IRError:
        return
    codegen.load(program, "fuzz", validated=True)


def one_snapshot(data: bytes) -> None:
    """Reads a snapshot of PROGRAM."""
    from rhythm.language import snapshot
    from rhythm.language.promises import Realm
    from rhythm.language.values import set_current_realm

    definition = compile_workflow(PROGRAM, "fuzz.flow", "fuzz")
    program = load_program(definition.ir_bytes, definition.hash)
    realm = Realm(now_ms=lambda: 0.0, random=lambda: 0.5)
    set_current_realm(realm)
    try:
        snapshot.decode(program, data, realm)
    except SnapshotError:
        return


_TARGETS: Final[tuple[Callable[[bytes], None], ...]] = (one_source, one_ir, one_snapshot)


# Sources that repeat one thing --------------------------------------------------------------------


def _repeat(unit: str, length: int, joiner: str = "") -> str:
    """`unit` again and again, `%` counted up, in about that many characters."""
    size = len(unit) + len(joiner) + 4 * unit.count("%")
    return joiner.join(unit.replace("%", str(number)) for number in range(length // size))


#: name -> (what comes before, what is repeated, between, after). Halves of what nests come from `both`.
_SHAPES: Final[dict[str, tuple[str, str, str, str]]] = {
    name: (before, unit, joiner, after)
    for name, before, unit, joiner, after in (
        ("open parentheses", "return ", "(", "", ""),
        ("open brackets", "return ", "[", "", ""),
        ("open blocks", "", "{", "", ""),
        ("open objects", "return ", "{a:", "", ""),
        ("open templates", "return ", "`${", "", ""),
        ("open tries", "", "try{", "", ""),
        ("open functions", "", "function f(){", "", ""),
        ("open switches", "", "switch(1){case 1:", "", ""),
        ("open classes", "", "class A{", "", ""),
        ("open patterns", "let ", "[", "", ""),
        ("open strings", "", "'a\n", "", ""),
        ("an open string", "return '", "a", "", ""),
        ("an open template", "return `", "a", "", ""),
        ("an open comment", "/*", "a", "", ""),
        ("closing brackets", "", "([)]", "", ""),
        ("closing braces", "", "}", "", ""),
        ("arrows", "return ", "a=>", "", "1"),
        ("arrows in parentheses", "return ", "(a=>", "", "1"),
        ("async arrows", "return ", "async(a)=>(", "", ""),
        ("a sum", "return ", "1", "+", ""),
        ("a sum of texts", "let a;return ", "'b'+a", "+", ""),
        ("commas", "return (", "1", ",", ")"),
        ("&&", "let a;return ", "a", "&&", ""),
        ("??", "let a;return ", "a", "??", ""),
        ("**", "return ", "2", "**", ""),
        ("conditions", "return ", "1?1:", "", "1"),
        ("not", "return ", "!", "", "1"),
        ("typeof", "return ", "typeof ", "", "1"),
        ("await of await", "return ", "await ", "", "1"),
        ("members", "let a;return a", ".b", "", ""),
        ("optional members", "let a;return a", "?.b", "", ""),
        ("calls", "let a;return a", "()", "", ""),
        ("new", "return ", "new ", "", ""),
        ("assignments", "let a;a", "=a", "", ""),
        ("pattern assignments", "let a;", "[a]=", "", "[]"),
        ("names", "", "let a%=1;", "", ""),
        ("the same name", "", "let a;", "", ""),
        ("undeclared names", "let a1;", "b%;", "", ""),
        ("assigned constants", "const a=1;", "a=2;", "", ""),
        ("functions", "", "function f%(){}", "", ""),
        ("closures", "", "(x%)=>x%;", "", ""),
        ("labels", "", "l%:", "", ";"),
        ("the same label", "", "l:", "", ";"),
        ("labelled loops", "", "l%:for(;;)break l%;", "", ""),
        ("cases", "switch(1){", "case %:", "", "}"),
        ("the same case", "switch(1){", "case 1:", "", "}"),
        ("parts of a template", "return `", "${1}", "", "`"),
        ("escapes", "return '", "\\u{41}", "", "'"),
        ("bad escapes", "return '", "\\u", "", "'"),
        ("bad characters", "", "#", "", ""),
        ("backslashes", "", "\\", "", ""),
        ("regular expressions", "", "/a/;", "", ""),
        ("comments", "", "/**/", "", ""),
        ("newlines", "", "\n", "", ""),
        ("a long name", "let ", "a", "", "=1"),
        ("a long name nobody declared", "let aaaa=1;return ", "a", "", ""),
        ("a long number", "return ", "1", "", ""),
        ("underscores", "return 1", "_1", "", ""),
        ("else if", "", "if(1){}else ", "", ";"),
        ("if in if", "", "if(1)", "", ";"),
        ("for in for", "", "for(;;)", "", ";"),
        ("do", "", "do ", "", ""),
        ("finally", "", "try{}finally{}", "", ""),
        ("elements", "return [", "1,", "", "]"),
        ("holes", "return [", ",", "", "]"),
        ("properties", "return {", "a%:1,", "", "}"),
        ("the same property", "return {", "a:1,", "", "}"),
        ("spreads", "return [", "...[],", "", "]"),
        ("names of a pattern", "let {", "a%,", "", "}={}"),
        ("awaits", "", "await 1;", "", ""),
        ("awaited names", "", "let a%=await 1;", "", ""),
        ("a sum of awaits", "return ", "await 1", "+", ""),
        ("elements with awaits", "return [", "...[],await 1,", "", "]"),
        ("conditions with awaits", "return ", "await 1?1:", "", "1"),
        ("awaits in try", "", "try{await 1}catch{}", "", ""),
        ("returns through awaits in finally", "", "try{if(1)return await 1}finally{await 2}", "", ""),
        ("awaits in loops", "", "for(;;){await 1;}", "", ""),
        ("loops", "let s=0;", "for(let i=0;i<1;i++)s+=i;", "", ""),
        ("what is refused", "", "var a;this;", "", ""),
        ("unreachable code", "", "return;", "", ""),
        ("calls of tasks", "", "task('a',{});", "", ""),
        ("lone surrogates", "return '", "\ud800", "", "'"),
        ("combining marks", "let a", "\u0301", "", ""),
    )
}  # fmt: skip


def shape(name: str, length: int) -> str:
    """The source of that shape, in about that many characters."""
    before, unit, joiner, after = _SHAPES[name]
    return f"workflow(){{{before}{_repeat(unit, length - 40, joiner)}{after}}}"


SHAPES: Final = tuple(_SHAPES)


def seconds_of_shape(name: str, length: int) -> float:
    """CPU seconds that the shape takes."""
    source = shape(name, length)
    began = time.process_time()
    compile_and_load(source)
    return time.process_time() - began


# Guided by coverage -------------------------------------------------------------------------------


def _write_seeds(folder: Path) -> None:
    from tests.language.fuzz.generator import Writer
    from tests.language.test_corpus import PROGRAMS

    for number, program in enumerate(PROGRAMS):
        (folder / f"source{number}").write_bytes(bytes([SOURCE]) + program.source.encode("utf-8", "replace"))
    for seed in range(20):
        definition = compile_workflow(Writer(seed).program(), "fuzz.flow", "fuzz")
        (folder / f"source-w{seed}").write_bytes(bytes([SOURCE]) + definition.source.encode("utf-8", "replace"))
    for number, program in enumerate(PROGRAMS[::20]):
        data = compile_workflow(program.source, "fuzz.flow", "fuzz").ir_bytes
        (folder / f"ir{number}").write_bytes(bytes([IR]) + data)
    for number, data in enumerate(_snapshots()):
        (folder / f"snapshot{number}").write_bytes(bytes([SNAPSHOT]) + data)


def _snapshots() -> list[bytes]:
    """What PROGRAM writes at its suspensions."""
    from unittest import mock

    from rhythm.language import snapshot
    from tests.language.recorded import run_here

    written: list[bytes] = []
    real = snapshot.encode

    def keep(*given: Any) -> bytes:
        data = real(*given)
        written.append(data)
        return data

    with mock.patch.object(snapshot, "encode", keep):
        run_here(PROGRAM, [], "await")
    return written


def _change(data: bytes, size_max: int, seed: int) -> bytes:
    """A changed input: sources mostly by tokens, everything else by bytes."""
    from tests.language.test_frontend_fuzz import mutate

    chance = random.Random(seed)
    if len(data) > 1 and data[0] % 3 == SOURCE and chance.random() < 0.7:
        text = mutate(data[1:].decode("utf-8", "replace"), chance)
        return (data[:1] + text.encode("utf-8", "replace"))[:size_max]
    changed = bytearray(data or b"\0")
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(changed))
        end = min(len(changed), start + chance.randint(1, 8))
        match chance.randrange(5):
            case 0:
                changed[start] ^= 1 << chance.randrange(8)
            case 1:
                changed[start:start] = chance.randbytes(chance.randint(1, 4))
            case 2:
                del changed[start:end]
                changed = changed or bytearray(1)
            case 3:
                changed[start:start] = changed[start:end]
            case _:
                changed[start:end] = bytes(chance.choice((0, 1, 0x7F, 0x80, 0xC1, 0xFF)) for _ in range(end - start))
    return bytes(changed[:size_max])


def _guided(arguments: list[str]) -> None:
    """In a process of its own: atheris ends the process."""
    import atheris  # fetched by `make fuzz-parser` only

    names = [name for name in sys.modules if name.startswith(("rhythm.language", "rhythm.engine"))]
    for name in names:
        for value in list(vars(sys.modules[name]).values()):
            if getattr(value, "__module__", None) == name and hasattr(value, "__code__"):
                atheris.instrument_func(value)
            elif isinstance(value, type) and value.__module__ == name:
                for method in vars(value).values():
                    if hasattr(method, "__code__"):
                        atheris.instrument_func(method)
    atheris.Setup([sys.argv[0], *arguments], one_input, custom_mutator=_change)
    atheris.Fuzz()


def main() -> int:
    """Shapes, then guided inputs for some time; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.language.fuzz.frontend")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--folder", type=Path, help="of inputs that found something new; default a temporary one")
    parser.add_argument("--guided", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.guided is not None:
        _guided([part.replace("~", "-", 1) for part in given.guided])
        return 0
    # In a process of its own: the guided one would inherit its peak of memory, which libFuzzer takes for a leak.
    with ProcessPoolExecutor(1) as other:
        for name in SHAPES:
            small = large = math.inf
            for _ in range(2):  # what else the machine does may be in the way once
                again = other.map(seconds_of_shape, [name, name], [60_000, 240_000])
                small, large = map(min, (small, large), again)
                slow = large > 8 * small + 1.0
                if not slow:
                    break
            print(f"{small:7.2f} {large:7.2f} s  {name}{'  GROWS FASTER THAN ITS SIZE' if slow else ''}", flush=True)
            if slow:
                return 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        _write_seeds(folder)
        options = [f"~max_total_time={given.seconds}", f"~max_len={INPUT_BYTES_MAX}", "~timeout=60", str(folder)]
        return subprocess.run(
            [sys.executable, "-m", "tests.language.fuzz.frontend", "--guided", *options], check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
