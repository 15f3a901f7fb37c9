"""Reading workflow files from disk and compiling them for publication."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rhythm.errors import CompileError, InvalidInput
from rhythm.model import NAME_LENGTH_MAX, NewDefinition

if TYPE_CHECKING:
    from rhythm.engine import Definition
    from rhythm.language.diagnostics import Diagnostic
    from rhythm.store import Store

SOURCE_BYTES_MAX = 4 * 256 * 1024  #: bytes read of one file; the compiler's own limit is in characters
FILES_MAX = 10_000
CHILDREN_MAX = 200  #: names of child workflows that are looked up in the database; others count as known


@dataclass(frozen=True, slots=True)
class PublishedWorkflow:
    """What became of one published workflow."""

    name: str
    hash: str  #: of the definition new executions run from now on
    changed: bool  #: whether another one, or none, was current before
    #: diagnostics of severity "warning": the compiler's, and calls that do not fit what workers registered
    warnings: tuple[Any, ...]
    staying: int = 0  #: unfinished executions that stay on other definitions; counted only when it changed
    unchecked: tuple[Any, ...] = ()  #: calls of tasks that could not be compared with what workers registered

    @property
    def mistaken(self) -> tuple[Any, ...]:
        """Those of ``unchecked`` that name a task nobody has registered, while one of a similar name is."""
        return tuple(diagnostic for diagnostic in self.unchecked if diagnostic.code == "U104" and diagnostic.hint)


def find_workflow_files(paths: Iterable[str | Path]) -> list[Path]:
    """The ``.flow`` files named by paths: files as they are, folders with all below them, in a stable order.

    Raises InvalidInput for a path that does not exist or holds no workflow file.
    """
    found: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            inside = sorted(path.rglob("*.flow"))
            if not inside:
                raise InvalidInput(f"no .flow file in the folder {path}")
            found.extend(inside)
        elif path.is_file():
            found.append(path)
        else:
            raise InvalidInput(f"no such file or folder: {path}")
    if len(found) > FILES_MAX:
        raise InvalidInput(f"{len(found):,} workflow files at once, over the limit of {FILES_MAX:,}")
    return found


def read_source(path: Path) -> str:
    """A workflow file's text. Raises InvalidInput when it cannot be read or is not UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(SOURCE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None
    if len(data) > SOURCE_BYTES_MAX:
        raise InvalidInput(f"{path} is larger than a workflow may be ({SOURCE_BYTES_MAX:,} bytes)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text (byte {error.start})") from None


def read_definitions(paths: Iterable[str | Path]) -> list[Definition]:
    """Compiles every workflow file named by paths.

    Raises CompileError with the diagnostics of all files, and InvalidInput when two files have one name.
    """
    from rhythm.engine import compile_workflow

    definitions: list[Definition] = []
    problems: list[Any] = []
    names: dict[str, Path] = {}
    for path in find_workflow_files(paths):
        name = path.stem
        if name in names and names[name].resolve() != path.resolve():
            raise InvalidInput(f"two files would publish the workflow {name!r}: {names[name]} and {path}")
        names[name] = path
        try:
            definitions.append(compile_workflow(read_source(path), str(path), name))
        except CompileError as error:
            problems.extend(error.diagnostics)
    if problems:
        raise CompileError(problems)
    return definitions


async def publish_definitions(store: Store, definitions: Sequence[Definition]) -> list[PublishedWorkflow]:
    """Stores compiled definitions and makes each the current one of its name.

    Then their calls of tasks are compared with what workers have registered: a workflow may well be published before
    the tasks it needs, so what does not fit is a warning.
    """
    before = {}
    for definition in definitions:
        current = await store.current_definition(definition.name)
        before[definition.name] = current.hash if current else None
    await store.publish([NewDefinition(d.name, d.hash, d.ir_bytes, d.source, d.source_hash) for d in definitions])
    calls = await _compare_calls(store, definitions)
    published = []
    for definition in definitions:
        changed = before[definition.name] != definition.hash
        staying = await store.count_staying(definition.name, definition.hash) if changed else 0
        found = calls[definition.name]
        warnings = (*definition.warnings, *(d for d in found if d.severity == "warning"))
        unchecked = tuple(d for d in found if d.severity == "unchecked")
        published.append(PublishedWorkflow(definition.name, definition.hash, changed, warnings, staying, unchecked))
    return published


async def _known_workflows(store: Store, published: set[str], called: set[str]) -> set[str]:
    """Those of the called workflows that are among the published ones, or are in the database already."""
    known = published & called
    for name in sorted(called - published)[:CHILDREN_MAX]:
        if name.isprintable() and 1 <= len(name) <= NAME_LENGTH_MAX and await store.current_definition(name):
            known.add(name)
    return known | set(sorted(called - published)[CHILDREN_MAX:])


async def _compare_calls(store: Store, definitions: Sequence[Definition]) -> dict[str, list[Diagnostic]]:
    """What there is to say about the calls of tasks in each definition, by its name."""
    from rhythm.engine import read_calls
    from rhythm.language.calls import Callees

    calls = await asyncio.to_thread(lambda: {d.name: read_calls(d.source, d.filename) for d in definitions})
    called = set().union(*(c.task_names for c in calls.values()))
    schemas = await store.task_schemas(called)
    others = () if called <= schemas.keys() else await store.task_schemas(None)  # one of them may have been meant
    workflows = await _known_workflows(store, set(calls), set().union(*(c.child_names for c in calls.values())))
    callees = Callees(schemas, workflows, others=others, complete=False)
    return await asyncio.to_thread(lambda: {name: found.compare(callees) for name, found in calls.items()})
