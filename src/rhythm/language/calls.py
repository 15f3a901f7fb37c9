"""Calls of tasks and workflows, compared with what tasks take and give, and which workflows there are.

    find_calls(file, …) -> Calls    the calls in a resolved tree, with what they are given as far as the source shows it
    Calls.compare(callees)          the diagnostics of those that do not fit, or cannot be compared

A name that a program declares itself is not the host's function: what counts is the resolver's binding. Nothing here
knows where schemas come from; they are handed in as ``Callees``.

What cannot be decided before the workflow runs (a name that is computed, inputs from elsewhere, ``task`` passed on as a
value) is reported with severity "unchecked", one for each call, so that silence means: compared, and it fits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rhythm.language import nodes
from rhythm.language.arguments import check as check_arguments
from rhythm.language.diagnostics import DIAGNOSTICS_MAX, Diagnostic, Report, closest, sort_diagnostics
from rhythm.language.literals import Known, read
from rhythm.language.outputs import Use, find_uses, properties
from rhythm.language.schemas import Misfit, Place, compare, join_path

NAMED_MAX: Final = 8  #: Names listed in one message.
SUGGESTIONS_MAX: Final = 20  #: Names of one file for which a similar one is looked for.
ARGUMENTS_MAX: Final = 3  #: That any of the functions looks at.
_STARTERS: Final = frozenset({"task", "child"})
_FUNCTIONS: Final = _STARTERS | {"signal", "sleep", "cancel"}


@dataclass(frozen=True, slots=True)
class Callees:
    """What can be called."""

    tasks: Mapping[str, Any] | None = None  #: JSON Schema of the inputs, by name. None: calls are not compared.
    workflows: Collection[str] | None = None  #: Names. None: names of children are not compared.
    #: JSON Schema of the outputs, by name of the task, with ``additionalProperties: false`` where that is so.
    outputs: Mapping[str, Any] | None = None
    others: Collection[str] = ()  #: Names of tasks that may be suggested besides those of ``tasks``.
    #: Whether ``tasks`` holds all there are: misfits are errors. Else they are warnings, and other names are unchecked.
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """One use of ``task``, ``child``, ``signal``, ``sleep`` or ``cancel``."""

    function: str
    start: int  #: of the callee
    end: int
    is_call: bool = True  #: False: the function itself is used as a value.
    arguments: tuple[Known, ...] = ()

    @property
    def name(self) -> Known | None:
        """Of the task or workflow; None: no argument."""
        return self.arguments[0] if self.arguments else None

    @property
    def inputs(self) -> Known | None:
        """Of a task or child; None: no argument."""
        return self.arguments[1] if len(self.arguments) > 1 else None


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of one file."""

    source: str
    filename: str
    calls: tuple[Call, ...]
    uses: tuple[Use, ...] = ()

    @property
    def child_names(self) -> set[str]:
        """The names of the workflows that are started, as far as the source shows them."""
        named = [call.name.value for call in self.calls if call.function == "child" and call.name is not None]
        return {name for name in named if isinstance(name, str)}

    @property
    def task_names(self) -> set[str]:
        """The names of the tasks that are called, as far as the source shows them."""
        named = [call.name.value for call in self.calls if call.function == "task" and call.name is not None]
        return {name for name in named if isinstance(name, str)}

    def compare(self, callees: Callees) -> list[Diagnostic]:
        """What does not fit, and what cannot be compared, in the order of the source."""
        comparison = _Comparison(callees, Report(self.source, self.filename))
        for call in self.calls:
            if call.function == "child" and callees.workflows is not None:
                comparison.child(call, callees.workflows)
            elif call.function == "task" and callees.tasks is not None:
                comparison.task(call, callees.tasks)
            if call.is_call:
                comparison.arguments(call)
        if callees.outputs is not None:
            comparison.uses(self.uses, callees.outputs)
        return sort_diagnostics(comparison.report.diagnostics)


def find_calls(file: nodes.File, source: str, filename: str) -> Calls:
    """Every use of ``task``, ``child`` and their siblings as the host's functions, in the order of the source."""
    found: list[Call] = []
    todo: list[nodes.Node] = [file]  # a stack, since trees grow deep
    while todo:
        node = todo.pop()
        if isinstance(node, nodes.CallExpression) and (function := _host(node.callee)):
            found.append(_call(function, node))
            todo.extend(reversed(node.arguments))
        elif function := _host(node):
            if function in _STARTERS:
                found.append(Call(function, node.start, node.end, is_call=False))
        else:
            todo.extend(reversed(nodes.children(node)))
    return Calls(source, filename, tuple(found), tuple(find_uses(file)))


# --- finding ----------------------------------------------------------------------------------------------------------


def _host(node: nodes.Node) -> str | None:
    if isinstance(node, nodes.Identifier) and node.binding is None and node.name in _FUNCTIONS:
        return node.name
    return None


def _call(function: str, node: nodes.CallExpression) -> Call:
    arguments: list[Known] = []
    for argument in node.arguments[:ARGUMENTS_MAX]:
        if isinstance(argument, nodes.SpreadElement):
            arguments += [Known(argument.start, argument.end)] * (ARGUMENTS_MAX - len(arguments))
            break
        arguments.append(read(argument))
    return Call(function, node.callee.start, node.callee.end, arguments=tuple(arguments))


# --- comparing --------------------------------------------------------------------------------------------------------


class _Comparison:
    def __init__(self, callees: Callees, report: Report) -> None:
        self.complete = callees.complete
        self.others = callees.others
        self.report = report
        self.suggestions = SUGGESTIONS_MAX

    def task(self, call: Call, tasks: Mapping[str, Any]) -> None:
        name = self.name_of(call, "F501")
        if name is None:
            return
        assert call.name is not None, "it has a name"
        start, end = call.name.start, call.name.end
        if name in tasks:
            self.inputs(call, name, tasks[name])
        elif self.complete:
            hint = self.similar(name, tasks) or "declare it in Python with `@rhythm.task`, or name the module that does"
            self.report.error("F501", f"there is no task named `{_cut(name)}`", start, end, hint)
        else:
            text = f"no worker has registered a task named `{_cut(name)}`"
            self.unchecked("U104", text, start, end, self.similar(name, self.others))

    def child(self, call: Call, workflows: Collection[str]) -> None:
        name = self.name_of(call, "W201")
        if name is not None and name not in workflows:
            assert call.name is not None, "it has a name"
            text = f"there is no workflow named `{_cut(name)}` among these files"
            other = "give its file as well, unless it is published already"
            if not self.complete:
                text, other = f"{text}, nor is one published", "publish it before this one is started"
            hint = self.similar(name, workflows) or other
            self.report.warning("W201", text, call.name.start, call.name.end, hint)

    def arguments(self, call: Call) -> None:
        undecided = check_arguments(call.function, call.arguments, (call.start, call.end), self.misfit)
        named = [known.start for known in (call.name, call.inputs) if known is not None and call.function in _STARTERS]
        if undecided is not None and undecided.start not in named:  # a spread is said to be unknown once
            what = "options" if call.function in _STARTERS else "arguments"
            text = f"the {what} of this `{call.function}` cannot be compared before the workflow runs"
            self.unchecked("U105", text, undecided.start, undecided.end)

    def uses(self, uses: Sequence[Use], outputs: Mapping[str, Any]) -> None:
        for use in uses:
            names = properties(outputs.get(use.task))
            if names is not None and use.name not in names:
                hint = self.similar(use.name, names) or f"there is {_listed([f'`{name}`' for name in names])}"
                text = f"what `{_cut(use.task)}` gives has no `{_cut(use.name)}`, by its annotation in Python"
                self.report.warning("W202", text, use.start, use.end, hint)

    def name_of(self, call: Call, code: str) -> str | None:
        """The name that is called; None when it is reported that there is none, or that it is not known."""
        kind = "task" if call.function == "task" else "workflow"
        known = call.name
        if not call.is_call:
            text = f"`{call.function}` is used as a value: calls through it are not compared"
            self.unchecked("U103", text, call.start, call.end)
        elif known is not None and known.exact and isinstance(known.value, str):
            return known.value
        elif known is not None and known.kind in ("unknown", "string"):
            text = f"the name of the {kind} is known only when the workflow runs"
            self.unchecked("U101", text, known.start, known.end)
        else:
            start, end = (call.start, call.end) if known is None else (known.start, known.end)
            self.misfit(code, f"the name of a {kind} is a string", start, end, f'write `{call.function}("name", …)`')
        return None

    def inputs(self, call: Call, name: str, schema: Any) -> None:
        assert call.name is not None, "it has a name"
        known = call.inputs
        if known is None or known.kind in ("undefined", "null"):  # as {}
            known = Known(call.name.start, call.name.end, "object")
        verdict = compare(known, schema)
        for misfit in verdict.misfits:
            self.report_misfit(misfit, name)
        if verdict.undecided:
            first = verdict.undecided[0]
            what = _listed(list(dict.fromkeys(_shown(place) for place in verdict.undecided)))
            text = f"what `{name}` is given cannot be compared before the workflow runs: {what}"
            self.unchecked("U102", text, first.start, first.end)

    def report_misfit(self, misfit: Misfit, task: str) -> None:
        place = misfit.place
        if misfit.kind == "missing":
            names = [f"`{join_path(place.path, name)}`" for name in misfit.names]
            text = f"`{task}` needs the {'input' if len(names) == 1 else 'inputs'} {_listed(names)}"
            self.misfit("F502", text, place.start, place.end, "add it" if len(names) == 1 else "add them")
        elif misfit.kind == "unknown":
            others = [f"`{other}`" for other in misfit.names]
            hint = self.similar(misfit.text, misfit.names) or (
                f"there is {_listed(others)}" if others else "it takes none"
            )
            self.misfit("F503", f"`{task}` has no input `{_cut(place.path)}`", place.start, place.end, hint)
        else:
            what = f"`{_cut(place.path)}` of `{task}`" if place.path else f"what `{task}` is given"
            self.misfit("F504", f"{what} {misfit.text}", place.start, place.end, "see how the task is declared")

    def misfit(self, code: str, text: str, start: int, end: int, hint: str) -> None:
        if self.complete and not code.startswith("W"):
            self.report.error(code, text, start, end, hint)
        else:
            self.report.warning(code, text, start, end, hint)

    def unchecked(self, code: str, text: str, start: int, end: int, hint: str = "") -> None:
        if self.report.left["unchecked"] == 1:
            text = f"this call and later ones of the file are not compared: {DIAGNOSTICS_MAX} are listed at most"
        self.report.unchecked(code, text, start, end, hint)

    def similar(self, name: str, others: Collection[str]) -> str:
        self.suggestions -= 1
        found = closest(name, others) if self.suggestions >= 0 else None
        return f"did you mean `{found}`?" if found else ""


def _shown(place: Place) -> str:
    return f"`{_cut(place.path)}`" if place.path else "the inputs as a whole"


def _listed(words: Sequence[str]) -> str:
    if len(words) > NAMED_MAX:
        return f"{', '.join(words[:NAMED_MAX])} and {len(words) - NAMED_MAX} more"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _cut(name: str) -> str:
    return name if len(name) <= 100 else name[:99] + "…"
