"""Syntax tree to the persisted IR.

What the IR fixes is decided here: order of evaluation, temporaries, cells, what is live at each await. An expression
stays an expression unless something in it needs statements (an await, a destructuring assignment, or more nesting than
the IR allows). Then it is taken apart: operands that come earlier are put into temporaries, so that nothing is ever
evaluated out of order.

    lower              programs and functions, parameters, scopes
    lower_statements   statements; finally and switch become try, block and if
    lower_patterns     destructuring
    lower_expressions  expressions, assignment
    lower_chains       members, calls, optional chains
    lower_base         slots, cells, captures, temporaries
    liveness           the ``live`` lists

Cells. A captured binding lives in a cell. If no closure over it can exist before its declaration has run (the resolver
says so by ``needs_tdz``), the declaration makes the cell (``bind``); otherwise the scope's entry does (``fresh``). Both
are statements inside the scope, so every round of a loop has cells of its own.
"""

from __future__ import annotations

from rhythm.language import nodes
from rhythm.language.diagnostics import LineMap
from rhythm.language.ir import VERSION, Function, Program
from rhythm.language.liveness import analyse
from rhythm.language.lower_statements import StatementLowering
from rhythm.language.nodes import FunctionInfo
from rhythm.language.recursion import recursion_room
from rhythm.language.resolver import Resolution


def lower(file: nodes.File, resolution: Resolution, source: str, name: str) -> Program:
    """The IR of a file that has no errors."""
    assert resolution.workflow is not None, "a file without a workflow has an error"
    with recursion_room():
        unit = _Unit(file, resolution.workflow, source)
        unit.module()
    return {
        "v": VERSION,
        "name": name,
        "functions": unit.functions,
        "module": 0,
        "globals": sorted(unit.globals),
    }


class _Unit:
    """What all functions of a program share."""

    def __init__(self, file: nodes.File, workflow: nodes.WorkflowDeclaration, source: str) -> None:
        self.file = file
        self.workflow = workflow
        self.source = source
        self.lines = LineMap(source)
        self.functions: list[Function] = []
        self.globals: set[str] = set()

    def module(self) -> None:
        info = self.file.info
        assert info is not None and self.file.scope is not None, "the file is resolved"
        lowering = FunctionLowering(self, info, None, self.file)
        lowering.enter(self.file.scope)
        for item in self.file.body:
            if not isinstance(item, nodes.WorkflowDeclaration | nodes.FunctionDeclaration):
                lowering.statement(item)
        lowering.emit("return", lowering.closure(self.workflow), lowering.position(self.workflow))
        lowering.finish()


class FunctionLowering(StatementLowering):
    """One function."""

    def __init__(self, unit: _Unit, info: FunctionInfo, parent: StatementLowering | None, node: nodes.Node) -> None:
        super().__init__(unit, info, parent, node)
        self.record = {
            "id": len(unit.functions),
            "name": info.name,
            "kind": "async" if info.is_async else "sync",
            "params": [],
            "rest": None,
            "slots": self.slots,
            "cells": [],
            "captures": self.captures,
            "labels": 0,
            "awaits": self.awaits,
            "body": self.out,
            "pos": list(self.unit.lines.position(node.start)),
        }
        unit.functions.append(self.record)

    def nested(self, node: nodes.FunctionNode | nodes.WorkflowDeclaration) -> int:
        """Lowers a function inside this one; its id."""
        info = node.info
        assert info is not None and node.scope is not None, "functions are resolved"
        inner = FunctionLowering(self.unit, info, self, node)
        inner.parameters(node.params, node.scope)
        body = node.body
        if isinstance(body, nodes.BlockStatement):
            assert body.scope is not None, "blocks are resolved"
            inner.enter(body.scope)
            inner.statements(body.body)
        else:
            inner.emit("return", inner.expression(body), inner.position(body))
        inner.finish()
        return int(inner.record["id"])

    def parameters(self, params: list[nodes.Pattern], scope: nodes.Scope) -> None:
        later: list[tuple[nodes.Pattern, int]] = []
        for param in params:
            is_rest = isinstance(param, nodes.RestElement)
            target = param.argument if isinstance(param, nodes.RestElement) else param
            binding = target.binding if isinstance(target, nodes.Identifier) else None
            if (
                isinstance(target, nodes.Identifier)
                and binding is not None
                and not binding.captured
                and not binding.needs_tdz
            ):
                slot = self.new_slot(target.name)
                self.slot_of[binding] = slot
            else:
                slot = self.new_slot(target.name if isinstance(target, nodes.Identifier) else "")
                later.append((target, slot))
            if is_rest:
                self.record["rest"] = slot
            else:
                self.record["params"].append(slot)
        self.enter(scope)
        for target, slot in later:
            self.declare_pattern(target, ["slot", slot], None)

    def finish(self) -> None:
        self.record["cells"] = sorted(self.cells)
        self.record["labels"] = self.label_count
        missing = analyse(self.record, self.unit.functions)
        plain = [slot for slot in missing if slot not in self.cells]
        fresh = [slot for slot in missing if slot in self.cells]
        entry = [["set", ["slot", slot], ["undefined"], 0] for slot in plain]
        if fresh:
            entry.append(["fresh", fresh])
        self.record["body"][:0] = entry
