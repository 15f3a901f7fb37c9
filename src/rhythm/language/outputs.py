"""Where the source reads a property of what a task has given.

    find_uses(file) -> list[Use]          only those that are certain to read the output as the task gave it
    properties(schema) -> names | None    of an output; None: it may have others

Certain is ``(await task("name", …)).property``, a pattern that takes it apart, and a variable that holds it, is never
assigned again, and is used for nothing but reading its properties: whoever else has the object may change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rhythm.language import nodes
from rhythm.language.literals import read

BRANCHES_MAX: Final = 50  #: Alternatives and references of one schema that are looked at.
#: What every object has.
_INHERITED: Final = frozenset(
    "constructor hasOwnProperty isPrototypeOf propertyIsEnumerable toLocaleString toString valueOf __proto__ "
    "__defineGetter__ __defineSetter__ __lookupGetter__ __lookupSetter__".split()
)


@dataclass(frozen=True, slots=True)
class Use:
    """One property that is read of the output of a task, and its span."""

    task: str
    name: str
    start: int
    end: int


@dataclass(slots=True)
class _Holder:
    """A variable that holds an output."""

    task: str
    uses: list[Use] = field(default_factory=list)
    references: int = 0  #: all that were seen
    reads: int = 0  #: of them, reads of a property


def find_uses(file: nodes.File) -> list[Use]:
    """Every use of the output of a task that is certain to be one, in no order."""
    holders: dict[nodes.Binding, _Holder] = {}
    uses: list[Use] = []
    todo: list[nodes.Node] = [file]  # a stack, since trees grow deep
    seen: list[nodes.Node] = []
    while todo:
        node = todo.pop()
        seen.append(node)
        todo.extend(nodes.children(node))
        if isinstance(node, nodes.VariableDeclarator) and (task := _awaited_task(node.init)) is not None:
            if isinstance(node.id, nodes.Identifier) and node.id.binding is not None and not node.id.binding.assigned:
                holders[node.id.binding] = _Holder(task)
            elif isinstance(node.id, nodes.ObjectPattern):
                uses += _taken_apart(task, node.id)
    targets = find_targets(seen)
    for node in seen:
        if isinstance(node, nodes.Identifier) and node.binding in holders and node is not node.binding.declaration:
            holders[node.binding].references += 1
        if not isinstance(node, nodes.MemberExpression):
            continue
        holder = holders.get(node.object.binding) if _is_bound(node.object) else None  # type: ignore[attr-defined]
        task = holder.task if holder is not None else _awaited_task(node.object)
        if task is None or id(node) in targets:
            continue
        if holder is not None:
            holder.reads += 1
        if not node.computed and isinstance(node.property, nodes.Identifier):
            use = Use(task, node.property.name, node.property.start, node.property.end)
            (uses if holder is None else holder.uses).append(use)
    for holder in holders.values():
        if holder.references == holder.reads:
            uses += holder.uses
    return [use for use in uses if use.name not in _INHERITED]


def _is_bound(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Identifier) and node.binding is not None


def _awaited_task(node: nodes.Node | None) -> str | None:
    """The name in ``await task("name", …)``."""
    if not isinstance(node, nodes.AwaitExpression) or not isinstance(node.argument, nodes.CallExpression):
        return None
    return task_name(node.argument)


def task_name(call: nodes.CallExpression) -> str | None:
    """The name in ``task("name", …)``; None when another function is called, or the name is not known."""
    if not isinstance(call.callee, nodes.Identifier) or call.callee.binding is not None or call.callee.name != "task":
        return None
    if not call.arguments or isinstance(call.arguments[0], nodes.SpreadElement):
        return None
    name = read(call.arguments[0]).value
    return name if isinstance(name, str) else None


def _taken_apart(task: str, pattern: nodes.ObjectPattern) -> list[Use]:
    found = []
    for item in pattern.properties:
        if isinstance(item, nodes.RestElement) or item.computed or isinstance(item.value, nodes.AssignmentPattern):
            continue  # with a default it may well be missing
        if isinstance(item.key, nodes.Identifier):
            found.append(Use(task, item.key.name, item.key.start, item.key.end))
    return found


def find_targets(seen: list[nodes.Node]) -> set[int]:
    """The ids of members that are written, deleted or called among these nodes: methods may change their object."""
    targets = set()
    for node in seen:
        if isinstance(node, nodes.AssignmentExpression):
            targets.add(id(node.left))
        elif isinstance(node, nodes.UpdateExpression) or (
            isinstance(node, nodes.UnaryExpression) and node.operator == "delete"
        ):
            targets.add(id(node.argument))
        elif isinstance(node, nodes.CallExpression):
            targets.add(id(node.callee))
        elif isinstance(node, nodes.ArrayPattern):
            targets.update(id(element) for element in node.elements)
        elif isinstance(node, nodes.AssignmentProperty):
            targets.add(id(node.value))
        elif isinstance(node, nodes.AssignmentPattern | nodes.ForOfStatement | nodes.ForInStatement):
            targets.add(id(node.left))
        elif isinstance(node, nodes.RestElement):
            targets.add(id(node.argument))
    return targets


def properties(schema: Any) -> list[str] | None:
    """The names of the properties that an output may have; None when it may have others, or is no plain object."""
    names: list[str] = []
    todo = [schema]
    for _ in range(BRANCHES_MAX):
        if not todo:
            return list(dict.fromkeys(names)) or None
        part = todo.pop()
        if not isinstance(part, Mapping):
            return None
        reference = part.get("$ref")
        branches = part.get("anyOf") or part.get("oneOf")
        if isinstance(reference, str):
            definitions = schema.get("$defs")
            found = definitions.get(reference.rpartition("/")[2]) if isinstance(definitions, Mapping) else None
            todo.append(found)
        elif isinstance(branches, list):
            todo += branches
        elif part.get("type") == "object" and part.get("additionalProperties") is False:
            names += [name for name in part.get("properties", {}) if isinstance(name, str)]
        elif part.get("type") != "null":
            return None
    return None
