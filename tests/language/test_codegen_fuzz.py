"""Random programs against Node, and what generated text may contain."""

from __future__ import annotations

import ast
import copy
import random
import re
from typing import Any

import pytest

from rhythm.language import codegen, codegen_contents, ir
from rhythm.language.codegen_contents import Contents
from tests.language import alias_fuzz
from tests.language.flow_node import compile_source
from tests.language.fuzz.generator import Writer

PROGRAMS = 40
MUTANTS = 300

NAMES = re.compile(r"(s|c|t|f|q|g|b|d)\d+|[mna]_\d+|h_\w+|U|FT|R|j|x|e|f|pc|frame|value|rejected|_|build")
ATTRIBUTES = {
    "__class__",
    "append",
    "await_id",
    "await_value",
    "cells",
    "get",
    "is_integer",
    "join",
    "promise",
    "reject_promise",
    "resolve_promise",
    "slots",
    "step",
}


def check_text(source: str) -> None:
    """Every name and attribute in generated text is one the generator uses."""
    assert source.isascii()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            assert NAMES.fullmatch(node.id), node.id
        elif isinstance(node, ast.Attribute):
            assert node.attr in ATTRIBUTES, node.attr
        elif isinstance(node, ast.arg):
            assert NAMES.fullmatch(node.arg), node.arg
        elif isinstance(node, ast.FunctionDef):
            assert NAMES.fullmatch(node.name), node.name
        else:
            assert not isinstance(node, ast.Import | ast.ImportFrom | ast.Lambda | ast.ClassDef | ast.Global), node


def test_random_programs_that_share_arrays_and_objects_as_in_node() -> None:
    assert alias_fuzz.compare(0, 2 * PROGRAMS) == []


@pytest.mark.parametrize("blind", ["_open_all", "_set_index", "_set_member", "_delete_member"])
def test_those_programs_notice_a_value_that_is_not_followed(blind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Contents, blind, lambda *_: None)
    for kind, visit in list(codegen_contents.VISITS.items()):
        if visit.__name__ == blind:
            monkeypatch.setitem(codegen_contents.VISITS, kind, lambda *_: None)

    assert any(alias_fuzz.compare(first, PROGRAMS) for first in range(0, 5 * PROGRAMS, PROGRAMS))


@pytest.mark.parametrize("seed", range(0, PROGRAMS, 4))
def test_generated_text_holds_only_known_names(seed: int) -> None:
    check_text(codegen.load(compile_source(Writer(seed).program())).source)


HOSTILE: list[Any] = [
    "__import__('os')",
    "s0.__globals__",
    "\x01\x02",
    "'''",
    -1,
    0,
    1,
    10**30,
    1.5,
    float("nan"),
    True,
    None,
    [],
    {},
    ["slot", 0],
    ["ready", "x"],
    ["capture", 0],
    ["closure", 1],
    "or",
    "slot",
]


def places(data: Any, out: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        out.append((data, key))
        places(value, out)
    return out


def test_a_mutated_ir_is_refused_or_harmless() -> None:
    original = compile_source(Writer(2).program())
    rng = random.Random(1)
    accepted = 0
    for _ in range(MUTANTS):
        mutant = copy.deepcopy(original)
        candidates = places(mutant, [])
        container, key = rng.choice(candidates)
        if rng.random() < 0.5:
            container[key] = copy.deepcopy(rng.choice(HOSTILE))
        else:
            other, where = rng.choice(candidates)
            container[key] = copy.deepcopy(other[where])
        try:
            ir.validate(mutant)
        except ir.IRError:
            continue
        accepted += 1
        check_text(codegen.load(mutant, "hash", validated=True).source)
    assert accepted > MUTANTS // 50
