"""Whether control can go past a statement, as far as the source shows without knowing any value.

A condition counts as always true only when it is a literal. Where nothing is known, control goes past.
"""

from __future__ import annotations

from typing import Final

from rhythm.language import nodes

#: Whether control never goes past a statement, and the labels of the breaks in it that leave it ("" without a label).
Flow = tuple[bool, frozenset[str]]
_PAST: Final[Flow] = (False, frozenset())
_NEVER_PAST: Final[Flow] = (True, frozenset())


def never_goes_past(statement: nodes.Statement) -> bool:
    """Whether what follows the statement can never be reached."""
    return _flow(statement)[0]


def _flow(node: nodes.Statement | None) -> Flow:
    if isinstance(node, nodes.ReturnStatement | nodes.ThrowStatement | nodes.ContinueStatement):
        return _NEVER_PAST
    if isinstance(node, nodes.BreakStatement):
        return True, frozenset([node.label.name if node.label else ""])
    if isinstance(node, nodes.BlockStatement):
        return _list(node.body)
    if isinstance(node, nodes.IfStatement):
        return _if(node)
    if isinstance(node, nodes.WhileStatement | nodes.DoWhileStatement | nodes.ForStatement):
        breaks = _flow(node.body)[1]
        return _always(node.test) and "" not in breaks, breaks - {""}
    if isinstance(node, nodes.ForOfStatement | nodes.ForInStatement):
        return False, _flow(node.body)[1] - {""}
    if isinstance(node, nodes.LabeledStatement):
        ends, breaks = _flow(node.body)
        return ends and node.label.name not in breaks, breaks - {node.label.name}
    if isinstance(node, nodes.SwitchStatement):
        return _switch(node)
    return _try(node) if isinstance(node, nodes.TryStatement) else _PAST


def _list(body: list[nodes.Statement]) -> Flow:
    breaks: frozenset[str] = frozenset()
    for item in body:
        ends, inner = _flow(item)
        breaks |= inner
        if ends:
            return True, breaks
    return False, breaks


def _if(node: nodes.IfStatement) -> Flow:
    ends, breaks = _flow(node.consequent)
    rest = node.alternate
    while isinstance(rest, nodes.IfStatement):  # a chain of any length costs no recursion
        arm_ends, arm_breaks = _flow(rest.consequent)
        ends, breaks = ends and arm_ends, breaks | arm_breaks
        rest = rest.alternate
    last_ends, last_breaks = _flow(rest)
    return ends and last_ends, breaks | last_breaks


def _switch(node: nodes.SwitchStatement) -> Flow:
    flows = [_list(case.consequent) for case in node.cases]
    breaks: frozenset[str] = frozenset().union(*(inner for _, inner in flows))
    has_default = any(case.test is None for case in node.cases)
    return has_default and flows[-1][0] and "" not in breaks, breaks - {""}


def _try(node: nodes.TryStatement) -> Flow:
    block, finalizer = _flow(node.block), _flow(node.finalizer)
    handler = _flow(node.handler.body) if node.handler else _NEVER_PAST
    return finalizer[0] or (block[0] and handler[0]), block[1] | handler[1] | finalizer[1]


def _always(test: nodes.Expression | None) -> bool:
    return test is None or (isinstance(test, nodes.Literal) and (test.value is True or test.value == 1.0))
