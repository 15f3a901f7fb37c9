"""The syntax tree of the flow language.

    parser     builds these nodes; names and shapes are ESTree's, with the differences listed here
    resolver   fills in the fields below the line "resolver" of each node, and changes nothing else
    lowering   reads both

Every node knows its span: `start` and `end` are offsets into the source text, end exclusive. Parentheses belong to
no node: in `(a)(b)` the callee's span is the `a` alone.

Differences from ESTree, all of them to make impossible trees unwritable:
- `File` is the root; its body holds declarations and the `WorkflowDeclaration`.
- A function's body is `BlockStatement` (arrows: or an expression). `params` are patterns; a rest parameter is a
  `RestElement` in last place.
- `Literal.value` is a `str` of UTF-16 code units (an astral character is two surrogates), `float`, `bool` or None
  (null). Numbers are always `float`.
- A property key that is not computed is an `Identifier` (use its `name`) or a `Literal` whose value is a string:
  numeric keys are already spelled as JavaScript spells them (`0x10` is "16").
- Patterns of assignments and of declarations are the same classes; only in assignments may a target be a
  `MemberExpression`.
- `TemplateLiteral.quasis` are plain strings (cooked), one more than `expressions`.
- An optional chain is wrapped in `ChainExpression` where short-circuiting ends, as in ESTree.
- What could not be parsed is an `ErrorNode`. A tree that has one also has an error diagnostic.

Depth: expressions nest at most EXPRESSION_NESTING_MAX deep and statements STATEMENT_NESTING_MAX, except that these
grow without limit on one side and must be walked with a loop:
- left operands (`left` of BinaryExpression and LogicalExpression, `callee`, `object`, `expression` of
  ChainExpression inside such a chain),
- `alternate` of IfStatement (`else if` ladders).
Everything else may recurse inside `with recursion_room():`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from typing import Literal as OneOf

EXPRESSION_NESTING_MAX = 500  #: Parentheses, brackets, calls, operators inside one another.
STATEMENT_NESTING_MAX = 64  #: Blocks, loops, functions inside one another.


# ---------------------------------------------------------------------------------------------------------------------
# What the resolver finds out about names


BindingKind = OneOf["let", "const", "function", "param", "catch", "function-name"]
ScopeKind = OneOf["file", "function-name", "params", "body", "block", "for", "switch", "catch"]


@dataclass(slots=True, eq=False)
class Binding:
    """What a name means: one declaration of one variable."""

    name: str
    kind: BindingKind
    scope: Scope
    function: FunctionInfo  #: Whose activation holds it; the file's own for top-level names.
    declaration: Identifier  #: The first declaring occurrence.
    captured: bool = False  #: A nested function refers to it: it needs a cell.
    assigned: bool = False  #: Assigned somewhere besides its declaration.
    needs_tdz: bool = False  #: Some reference must check for initialisation: it starts with the TDZ mark.
    loop_fresh: bool = False  #: Declared inside a loop of its function: a captured one needs a new cell per round.
    reads: int = 0  #: References that use the value.
    initialised_at: int = -1  #: Evaluation-order number from which it is initialised. -1: never seen.
    initialiser: Expression | None = None  #: `const f = <this>`, when the declared target is the plain name.
    awaited: bool = False  #: Declared with the outcome of an await, whole or taken apart.


@dataclass(slots=True, eq=False)
class Scope:
    """One region of names. `bindings` is in declaration order."""

    kind: ScopeKind
    parent: Scope | None
    function: FunctionInfo
    bindings: dict[str, Binding] = field(default_factory=dict)
    loop_fresh: bool = False  #: Entered again in each round of a loop of its function.
    copied_per_round: bool = False  #: Head of `for (let ...;;)`: captured bindings are copied into new cells per round.
    functions: list[FunctionDeclaration] = field(default_factory=list)  #: To hoist at entry, in source order.

    @property
    def captured(self) -> list[Binding]:
        """The bindings that need cells."""
        return [binding for binding in self.bindings.values() if binding.captured]


@dataclass(slots=True, eq=False)
class FunctionInfo:
    """What the resolver knows about one function (or the file, which runs as a sync function)."""

    node: FunctionNode | WorkflowDeclaration | File
    parent: FunctionInfo | None
    name: str  #: For stack traces: its own, or that of the variable or property it is assigned to, or "".
    is_async: bool
    captures: list[Binding] = field(default_factory=list)  #: Outer variables used here or further in, first use first.
    bindings: list[Binding] = field(default_factory=list)  #: All of its own, in declaration order.
    contains_await: bool = False  #: Directly, not in nested functions.


# ---------------------------------------------------------------------------------------------------------------------
# Base classes


@dataclass(slots=True, eq=False)
class Node:
    start: int
    end: int


@dataclass(slots=True, eq=False)
class Expression(Node):
    pass


@dataclass(slots=True, eq=False)
class Pattern(Node):
    pass


@dataclass(slots=True, eq=False)
class Statement(Node):
    pass


@dataclass(slots=True, eq=False)
class ErrorNode(Expression, Pattern, Statement):
    """A stretch of source that could not be parsed."""

    names: frozenset[str] = frozenset()  #: Names seen in it, which may have been meant as declarations.


# ---------------------------------------------------------------------------------------------------------------------
# Expressions


@dataclass(slots=True, eq=False)
class Identifier(Expression, Pattern):
    name: str
    # resolver
    binding: Binding | None = None  #: None: a builtin (or a property name or label, which are no references).
    tdz: bool = False  #: The variable may not be initialised yet at this reference: check.


@dataclass(slots=True, eq=False)
class Literal(Expression):
    value: str | float | bool | None


@dataclass(slots=True, eq=False)
class TemplateLiteral(Expression):
    quasis: list[str]
    expressions: list[Expression]


@dataclass(slots=True, eq=False)
class SpreadElement(Node):
    argument: Expression


@dataclass(slots=True, eq=False)
class ArrayExpression(Expression):
    elements: list[Expression | SpreadElement]


@dataclass(slots=True, eq=False)
class Property(Node):
    key: Expression  #: Identifier or string Literal unless computed.
    value: Expression
    computed: bool = False
    shorthand: bool = False
    method: bool = False


@dataclass(slots=True, eq=False)
class ObjectExpression(Expression):
    properties: list[Property | SpreadElement]


@dataclass(slots=True, eq=False)
class FunctionExpression(Expression):
    id: Identifier | None
    params: list[Pattern]
    body: BlockStatement
    is_async: bool
    # resolver
    name_scope: Scope | None = None  #: Holds the function's own name, when it has one.
    scope: Scope | None = None  #: Parameters; the body block has its own scope.
    info: FunctionInfo | None = None


@dataclass(slots=True, eq=False)
class ArrowFunctionExpression(Expression):
    params: list[Pattern]
    body: BlockStatement | Expression
    is_async: bool
    # resolver
    scope: Scope | None = None
    info: FunctionInfo | None = None


@dataclass(slots=True, eq=False)
class UnaryExpression(Expression):
    operator: str  #: - + ! ~ typeof void delete
    argument: Expression


@dataclass(slots=True, eq=False)
class UpdateExpression(Expression):
    operator: str  #: ++ --
    prefix: bool
    argument: Expression  #: Identifier or MemberExpression.


@dataclass(slots=True, eq=False)
class BinaryExpression(Expression):
    operator: str  #: Everything with two evaluated operands, including `in` and `instanceof`.
    left: Expression
    right: Expression


@dataclass(slots=True, eq=False)
class LogicalExpression(Expression):
    operator: str  #: && || ??
    left: Expression
    right: Expression


@dataclass(slots=True, eq=False)
class AssignmentExpression(Expression):
    operator: str  #: = += -= ... &&= ||= ??=
    left: Pattern  #: A destructuring pattern only with `=`.
    right: Expression


@dataclass(slots=True, eq=False)
class ConditionalExpression(Expression):
    test: Expression
    consequent: Expression
    alternate: Expression


@dataclass(slots=True, eq=False)
class MemberExpression(Expression, Pattern):
    object: Expression
    property: Expression  #: Identifier unless computed.
    computed: bool
    optional: bool = False  #: `?.` stands directly before the property.


@dataclass(slots=True, eq=False)
class CallExpression(Expression):
    callee: Expression
    arguments: list[Expression | SpreadElement]
    optional: bool = False  #: `?.` stands directly before the parenthesis.


@dataclass(slots=True, eq=False)
class ChainExpression(Expression):
    """Where a missing value of the optional chain inside ends up as undefined."""

    expression: Expression  #: MemberExpression or CallExpression.


@dataclass(slots=True, eq=False)
class NewExpression(Expression):
    callee: Expression
    arguments: list[Expression | SpreadElement]


@dataclass(slots=True, eq=False)
class SequenceExpression(Expression):
    expressions: list[Expression]


@dataclass(slots=True, eq=False)
class AwaitExpression(Expression):
    argument: Expression


# ---------------------------------------------------------------------------------------------------------------------
# Patterns (besides Identifier and MemberExpression)


@dataclass(slots=True, eq=False)
class AssignmentPattern(Pattern):
    """A target with a default."""

    left: Pattern
    right: Expression


@dataclass(slots=True, eq=False)
class RestElement(Pattern):
    argument: Pattern


@dataclass(slots=True, eq=False)
class ArrayPattern(Pattern):
    elements: list[Pattern | None]  #: None skips one value; a RestElement only in last place.


@dataclass(slots=True, eq=False)
class AssignmentProperty(Node):
    key: Expression  #: Identifier or string Literal unless computed.
    value: Pattern
    computed: bool = False
    shorthand: bool = False


@dataclass(slots=True, eq=False)
class ObjectPattern(Pattern):
    properties: list[AssignmentProperty | RestElement]  #: A RestElement only in last place.


# ---------------------------------------------------------------------------------------------------------------------
# Statements


@dataclass(slots=True, eq=False)
class BlockStatement(Statement):
    body: list[Statement]
    # resolver
    scope: Scope | None = None


@dataclass(slots=True, eq=False)
class EmptyStatement(Statement):
    pass


@dataclass(slots=True, eq=False)
class ExpressionStatement(Statement):
    expression: Expression


@dataclass(slots=True, eq=False)
class VariableDeclarator(Node):
    id: Pattern
    init: Expression | None  #: None only for a plain `let x` and in the heads of for-of and for-in.


@dataclass(slots=True, eq=False)
class VariableDeclaration(Statement):
    kind: OneOf["let", "const"]
    declarations: list[VariableDeclarator]


@dataclass(slots=True, eq=False)
class FunctionDeclaration(Statement):
    id: Identifier
    params: list[Pattern]
    body: BlockStatement
    is_async: bool
    # resolver
    scope: Scope | None = None
    info: FunctionInfo | None = None


@dataclass(slots=True, eq=False)
class ReturnStatement(Statement):
    argument: Expression | None


@dataclass(slots=True, eq=False)
class IfStatement(Statement):
    test: Expression
    consequent: Statement
    alternate: Statement | None


@dataclass(slots=True, eq=False)
class ForStatement(Statement):
    init: VariableDeclaration | Expression | None
    test: Expression | None
    update: Expression | None
    body: Statement
    # resolver
    scope: Scope | None = None  #: The head's own declarations.


@dataclass(slots=True, eq=False)
class ForInStatement(Statement):
    left: VariableDeclaration | Pattern
    right: Expression
    body: Statement
    # resolver
    scope: Scope | None = None
    head_scope: Scope | None = None  #: The declared names as the right side sees them: never initialised.


@dataclass(slots=True, eq=False)
class ForOfStatement(Statement):
    left: VariableDeclaration | Pattern
    right: Expression
    body: Statement
    # resolver
    scope: Scope | None = None
    head_scope: Scope | None = None  #: The declared names as the right side sees them: never initialised.


@dataclass(slots=True, eq=False)
class WhileStatement(Statement):
    test: Expression
    body: Statement


@dataclass(slots=True, eq=False)
class DoWhileStatement(Statement):
    body: Statement
    test: Expression


@dataclass(slots=True, eq=False)
class BreakStatement(Statement):
    label: Identifier | None


@dataclass(slots=True, eq=False)
class ContinueStatement(Statement):
    label: Identifier | None


@dataclass(slots=True, eq=False)
class ThrowStatement(Statement):
    argument: Expression


@dataclass(slots=True, eq=False)
class CatchClause(Node):
    param: Pattern | None
    body: BlockStatement
    # resolver
    scope: Scope | None = None  #: The parameter; the body block has its own scope.


@dataclass(slots=True, eq=False)
class TryStatement(Statement):
    block: BlockStatement
    handler: CatchClause | None
    finalizer: BlockStatement | None


@dataclass(slots=True, eq=False)
class SwitchCase(Node):
    test: Expression | None  #: None: `default`.
    consequent: list[Statement]


@dataclass(slots=True, eq=False)
class SwitchStatement(Statement):
    discriminant: Expression
    cases: list[SwitchCase]
    # resolver
    scope: Scope | None = None  #: One for all cases.


@dataclass(slots=True, eq=False)
class LabeledStatement(Statement):
    label: Identifier
    body: Statement


@dataclass(slots=True, eq=False)
class WorkflowDeclaration(Statement):
    """`workflow(ctx, inputs) {...}` or `async function workflow(ctx, inputs) {...}`: async, and not a name."""

    params: list[Pattern]
    body: BlockStatement
    # resolver
    scope: Scope | None = None
    info: FunctionInfo | None = None


@dataclass(slots=True, eq=False)
class File(Node):
    body: list[Statement]
    # resolver
    scope: Scope | None = None
    info: FunctionInfo | None = None


FunctionNode = FunctionDeclaration | FunctionExpression | ArrowFunctionExpression


def pattern_names(patterns: Sequence[Node | None]) -> Iterator[Identifier]:
    """The names that binding patterns declare, in source order."""
    rest: list[Node | None] = list(reversed(patterns))
    while rest:
        item = rest.pop()
        if isinstance(item, Identifier):
            yield item
        elif isinstance(item, AssignmentPattern):
            rest.append(item.left)
        elif isinstance(item, RestElement):
            rest.append(item.argument)
        elif isinstance(item, ArrayPattern):
            rest.extend(reversed(item.elements))
        elif isinstance(item, ObjectPattern):
            rest.extend(reversed(item.properties))
        elif isinstance(item, AssignmentProperty):
            rest.append(item.value)


def patterns_within(pattern: Pattern) -> Iterator[ArrayPattern | ObjectPattern]:
    """A pattern and the patterns inside it."""
    rest: list[Node | None] = [pattern]
    while rest:
        item = rest.pop()
        if isinstance(item, AssignmentPattern):
            rest.append(item.left)
        elif isinstance(item, RestElement):
            rest.append(item.argument)
        elif isinstance(item, AssignmentProperty):
            rest.append(item.value)
        elif isinstance(item, ArrayPattern):
            yield item
            rest.extend(item.elements)
        elif isinstance(item, ObjectPattern):
            yield item
            rest.extend(item.properties)


# --- walking ----------------------------------------------------------------------------------------------------------

#: Fields that hold names which are no references (besides keys that are not computed).
_NO_REFERENCES: Final = frozenset({"label", "id"})
_fields: dict[type[Node], tuple[str, ...]] = {}


def children(node: Node) -> list[Node]:
    """The nodes directly inside one, in the order of the source, without names that are no references."""
    kind = type(node)
    if kind not in _fields:
        _fields[kind] = tuple(field.name for field in dataclasses.fields(kind))
    found: list[Node] = []
    for name in _fields[kind]:
        value = getattr(node, name)
        if isinstance(value, list):
            found += [item for item in value if isinstance(item, Node)]
        elif isinstance(value, Node) and not _is_plain_name(node, name, value):
            found.append(value)
    return found


def _is_plain_name(node: Node, field: str, value: Node) -> bool:
    if isinstance(node, Property | AssignmentProperty) and field == "key":
        return not node.computed
    if isinstance(node, MemberExpression) and field == "property":
        return not node.computed
    return field in _NO_REFERENCES and isinstance(value, Identifier)
