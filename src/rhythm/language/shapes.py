"""What a workflow takes and gives, as far as its source shows, as JSON Schemas.

    find_shape(file, tasks, outputs) -> Shape(inputs, output)

``inputs`` is an object with the names that are read of the second parameter, when nothing else is done with it. One
that is only read where it may be missing (a default, ``??``, a test) is not required. Its type is what the task wants
that gets it directly, as ``{ orderId: inputs.orderId }``. ``output`` is what stands behind ``return``: literals,
awaited tasks whose output is known, and members of the inputs. A schema that says nothing, ``{}``, stands for what the
source does not show; None for a whole of which nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rhythm.language import nodes
from rhythm.language.literals import Known, property_name, read
from rhythm.language.outputs import find_targets, task_name
from rhythm.language.reachability import never_goes_past

Schema = Mapping[str, Any]

RETURNS_MAX: Final = 50  #: Different outputs of one workflow; with more of them nothing is known.
DEPTH_MAX: Final = 40  #: Levels of an output that are described.
_SIMPLE: Final = ("string", "number", "boolean", "null")
_FUNCTIONS: Final = (nodes.FunctionDeclaration, nodes.FunctionExpression, nodes.ArrowFunctionExpression)


@dataclass(frozen=True, slots=True)
class Shape:
    """JSON Schemas of a workflow's inputs and output; None: nothing is known."""

    inputs: Schema | None
    output: Schema | None


@dataclass(slots=True)
class _Input:
    schema: Schema = field(default_factory=dict)
    required: bool = True


def find_shape(file: nodes.File, tasks: Mapping[str, Schema], outputs: Mapping[str, Schema | None]) -> Shape:
    """The shape of a file's workflow. ``tasks``: schemas of inputs by name, ``outputs`` of outputs. Never raises."""
    workflow = next((s for s in file.body if isinstance(s, nodes.WorkflowDeclaration)), None)
    if workflow is None:
        return Shape(None, None)
    finder = _Finder(workflow, tasks, outputs)
    inputs = finder.inputs()
    return Shape(inputs, finder.output())


class _Finder:
    def __init__(
        self, workflow: nodes.WorkflowDeclaration, tasks: Mapping[str, Schema], outputs: Mapping[str, Schema | None]
    ) -> None:
        self.workflow = workflow
        self.tasks = tasks
        self.outputs = outputs
        self.parents: dict[int, nodes.Node] = {}
        self.references: dict[int, list[nodes.Identifier]] = {}
        self.returns: list[nodes.ReturnStatement] = []
        self.found: dict[str, _Input] = {}
        self.parameter: nodes.Binding | None = None
        seen: list[nodes.Node] = []
        todo: list[tuple[nodes.Node, bool]] = [(workflow, True)]  # a stack, since trees grow deep
        while todo:
            node, own = todo.pop()
            seen.append(node)
            if isinstance(node, nodes.Identifier) and node.binding is not None:
                self.references.setdefault(id(node.binding), []).append(node)
            if isinstance(node, nodes.ReturnStatement) and own:
                self.returns.append(node)
            own = own and not isinstance(node, _FUNCTIONS)
            for child in nodes.children(node):
                self.parents[id(child)] = node
                todo.append((child, own))
        self.targets = find_targets(seen)

    def _references(self, binding: nodes.Binding) -> list[nodes.Identifier]:
        """Every use of a variable, in the order of the source; its declaration too."""
        return sorted(self.references.get(id(binding), []), key=lambda use: use.start)

    # --- inputs ---

    def inputs(self) -> Schema | None:
        parameters = self.workflow.params
        if len(parameters) < 2:
            return {"type": "object", "properties": {}}
        pattern = parameters[1]
        if isinstance(pattern, nodes.AssignmentPattern):
            pattern = pattern.left
        if isinstance(pattern, nodes.ObjectPattern):
            if not self._taken_apart(pattern):
                return None
        elif not isinstance(pattern, nodes.Identifier) or pattern.binding is None or pattern.binding.assigned:
            return None
        else:
            self.parameter = pattern.binding
            uses = [use for use in self._references(pattern.binding) if use is not pattern]
            kept = [self._use(use) for use in uses]  # all of them: each takes note of what is read
            if not all(kept):
                return None
        return {
            "type": "object",
            "properties": {name: one.schema for name, one in self.found.items()},
            "required": [name for name, one in self.found.items() if one.required],
        }

    def _use(self, use: nodes.Identifier) -> bool:
        """Takes note of one use of the parameter. Returns whether it is only read there, by a name."""
        above = self.parents[id(use)]
        if isinstance(above, nodes.MemberExpression) and above.object is use:
            if above.computed or not isinstance(above.property, nodes.Identifier) or id(above) in self.targets:
                return False
            self._note(above.property.name, above, maybe_missing=above.optional)
            return True
        if isinstance(above, nodes.VariableDeclarator) and above.init is use:
            return isinstance(above.id, nodes.ObjectPattern) and self._taken_apart(above.id)
        return False

    def _taken_apart(self, pattern: nodes.ObjectPattern) -> bool:
        for item in pattern.properties:
            if isinstance(item, nodes.RestElement) or item.computed or not isinstance(item.key, nodes.Identifier):
                return False
            value = item.value
            self._note(item.key.name, None, maybe_missing=isinstance(value, nodes.AssignmentPattern))
            if isinstance(value, nodes.Identifier) and value.binding is not None and not value.binding.assigned:
                for use in self._references(value.binding):
                    if use is not value:
                        self._note(item.key.name, use, maybe_missing=False)
        return True

    def _note(self, name: str, use: nodes.Expression | None, *, maybe_missing: bool) -> None:
        one = self.found.setdefault(name, _Input())
        if maybe_missing or (use is not None and self._is_tested(use)):
            one.required = False
        if use is not None and not one.schema:
            one.schema = self._wanted(use) or {}

    def _is_tested(self, use: nodes.Expression) -> bool:
        """Whether it is read where the workflow asks if it is there."""
        above = self.parents[id(use)]
        match above:
            case nodes.LogicalExpression():
                return above.left is use
            case nodes.IfStatement() | nodes.ConditionalExpression():
                return above.test is use
            case nodes.UnaryExpression():
                return above.operator in ("!", "typeof")
            case nodes.MemberExpression():
                return above.object is use and above.optional
            case nodes.BinaryExpression():
                other = above.right if above.left is use else above.left
                return above.operator in ("===", "!==", "==", "!=") and read(other).kind in ("undefined", "null")
        return False

    def _wanted(self, use: nodes.Expression) -> Schema | None:
        """What the task wants whose inputs get this value directly."""
        item = self.parents[id(use)]
        if not isinstance(item, nodes.Property) or item.value is not use or item.computed:
            return None
        given = self.parents[id(item)]
        call = self.parents[id(given)]
        if not isinstance(call, nodes.CallExpression) or len(call.arguments) < 2 or call.arguments[1] is not given:
            return None
        task = task_name(call)
        schema = self.tasks.get(task) if task is not None else None
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        if not isinstance(properties, Mapping) or schema is None or not isinstance(item.key, nodes.Identifier):
            return None
        return _with_definitions(properties.get(item.key.name), schema)

    # --- output ---

    def output(self) -> Schema | None:
        if len(self.returns) > RETURNS_MAX:
            return None
        found: list[Schema] = []
        for statement in sorted(self.returns, key=lambda one: one.start):
            schema = {"type": "null"} if statement.argument is None else self._schema(statement.argument, 0)
            if not schema:
                return None
            if schema not in found:
                found.append(schema)
        if not never_goes_past(self.workflow.body) and {"type": "null"} not in found:
            found.append({"type": "null"})
        return found[0] if len(found) == 1 else {"anyOf": found}

    def _schema(self, node: nodes.Node, depth: int) -> Schema:
        if depth > DEPTH_MAX:
            return {}
        if isinstance(node, nodes.ObjectExpression):
            return self._object(node, depth)
        if isinstance(node, nodes.ArrayExpression) and not any(
            isinstance(e, nodes.SpreadElement) for e in node.elements
        ):
            items = [self._schema(element, depth + 1) for element in node.elements]
            return {"type": "array", "prefixItems": items, "items": False} if items else {"type": "array"}
        if isinstance(node, nodes.ConditionalExpression):
            both = [self._schema(node.consequent, depth + 1), self._schema(node.alternate, depth + 1)]
            return {} if not all(both) else both[0] if both[0] == both[1] else {"anyOf": both}
        if isinstance(node, nodes.AwaitExpression) and isinstance(node.argument, nodes.CallExpression):
            return self.outputs.get(task_name(node.argument) or "") or {}
        if isinstance(node, nodes.Identifier) and (value := self._constant(node)) is not None:
            return self._schema(value, depth + 1)
        if isinstance(node, nodes.MemberExpression):
            return self._member(node)
        return _of_known(read(node))

    def _member(self, node: nodes.MemberExpression) -> Schema:
        if (
            node.computed
            or not isinstance(node.property, nodes.Identifier)
            or not isinstance(node.object, nodes.Identifier)
        ):
            return {}
        name, of = node.property.name, node.object.binding
        if of is None:
            return {}
        if of is self.parameter:
            one = self.found.get(name)
            return one.schema if one is not None and one.required else {}
        value = self._constant(node.object)
        if not isinstance(value, nodes.AwaitExpression):
            return {}
        whole = self._schema(value, 1)
        properties = whole.get("properties")
        if not isinstance(properties, Mapping) or name not in whole.get("required", ()):
            return {}
        return _with_definitions(properties.get(name), whole) or {}

    def _constant(self, name: nodes.Identifier) -> nodes.Expression | None:
        """What a variable holds that is never assigned again, where nobody can change what it holds."""
        binding = name.binding
        if binding is None or binding.assigned or binding.initialiser is None:
            return None
        for use in self._references(binding):
            above = self.parents[id(use)]
            if isinstance(above, nodes.MemberExpression):
                kept = above.object is use and id(above) not in self.targets
            else:
                kept = isinstance(above, nodes.ReturnStatement | nodes.Property | nodes.VariableDeclarator)
            if not kept:
                return None
        return binding.initialiser

    def _object(self, node: nodes.ObjectExpression, depth: int) -> Schema:
        properties: dict[str, Schema] = {}
        for item in node.properties:
            key = None if isinstance(item, nodes.SpreadElement) else property_name(item)
            if isinstance(item, nodes.SpreadElement) or key is None or key == "toJSON" or item.method:
                return {}  # what is spread, or named by an expression, may bring a toJSON
            properties[key] = self._schema(item.value, depth + 1)
        # what may be undefined is left out of JSON
        required = [name for name, schema in properties.items() if schema]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _with_definitions(schema: Any, whole: Schema) -> Schema | None:
    """A part of a schema, with what its references lead to."""
    if not isinstance(schema, Mapping):
        return None
    kept = {key: whole[key] for key in ("$defs", "definitions") if key in whole}
    return {**schema, **kept}


def _of_known(known: Known) -> Schema:
    return {"type": known.kind} if known.kind in _SIMPLE else {}
