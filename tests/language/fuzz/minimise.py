"""Makes a differing program smaller while it differs in the same way (delta debugging over lines, then brackets)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from tests.language.fuzz.compare import differs, node_outcomes, outcome_here

SECONDS_MAX: Final = 120.0  #: Then the smallest so far will do.
GROUP: Final = 12  #: Candidates in one Node process.
_OPEN: Final = {"(": ")", "[": "]", "{": "}"}


def minimise(source: str, way: str) -> str:
    """A smaller program that still differs, when run this way, as this one does."""
    kind = _kind(outcome_here(source, way))
    end = time.monotonic() + SECONDS_MAX
    while (found := _first(_shorter(source), way, kind, end)) is not None:
        source = found
    return source


def _first(candidates: Iterator[str], way: str, kind: str, end: float) -> str | None:
    """The first that differs and is a program in both worlds."""
    while (group := list(islice(candidates, GROUP))) and time.monotonic() < end:
        here = [outcome_here(source, way) for source in group]
        alike = [(source, outcome) for source, outcome in zip(group, here, strict=True) if _kind(outcome) == kind]
        if not alike:
            continue
        in_node = node_outcomes([source for source, _ in alike])
        for (source, outcome), node in zip(alike, in_node, strict=True):
            if differs(outcome, node) and not str(node.get("error", "")).startswith(("SyntaxError", "DeadlockError")):
                return source
    return None


def _kind(outcome: dict[str, Any]) -> str:
    """What must stay the same: a crash or refusal must not become another one."""
    (key, value), *_ = outcome.items()
    return re.sub(r"\d+|`.*?`", "", f"{key} {value}")[:60] if key in ("crashed", "refused") else key


def _shorter(source: str) -> Iterator[str]:
    return (candidate for candidate in _smaller(source) if len(candidate) < len(source))


def _smaller(source: str) -> Iterator[str]:
    lines = source.split("\n")
    size = max(1, len(lines) // 2)
    while size:
        for start in range(0, len(lines), size):
            if _is_balanced("\n".join(lines[start : start + size])):
                yield "\n".join(lines[:start] + lines[start + size :])
        size //= 2
    pairs = _pairs(source)
    # A whole bracket, what is in it, or what is around it.
    for start, end in sorted(pairs, key=lambda pair: pair[0] - pair[1]):
        inside = source[start + 1 : end]
        yield source[:start] + source[end + 1 :]
        if source[start] != "{":
            yield source[:start] + "(0)" + source[end + 1 :]
            yield source[:start] + inside + source[end + 1 :]
        else:
            yield source[:start] + "{}" + source[end + 1 :]
            line_start = source.rfind("\n", 0, start) + 1
            yield source[:line_start] + inside + source[end + 1 :]
        if inside:
            yield source[:start] + source[start] + source[end] + source[end + 1 :]
        for part in re.finditer(r",|;|&&|\|\|", inside):
            if _is_balanced(inside[: part.start()]):
                yield source[: start + 1] + inside[part.end() :] + source[end:]
                yield source[: start + 1] + inside[: part.start()] + source[end:]
    for statement in re.finditer(r"[^;{}\n]+;", source):
        if _is_balanced(statement[0]):
            yield source[: statement.start()] + source[statement.end() :]


def _pairs(source: str) -> list[tuple[int, int]]:
    found = []
    stack: list[int] = []
    for place, character in enumerate(source):
        if character in _OPEN:
            stack.append(place)
        elif stack and character == _OPEN[source[stack[-1]]]:
            found.append((stack.pop(), place))
    return found


def _is_balanced(text: str) -> bool:
    opened = sum(text.count(character) for character in _OPEN)
    return opened == sum(text.count(character) for character in _OPEN.values()) == len(_pairs(text))
