"""The kinds of value a flow program can hold, and the exceptions that carry them through Python.

    undefined -> UNDEFINED        number  -> float, never int       array  -> list (no holes)
    null      -> None             string  -> str of UTF-16 units    object -> dict (string keys)
    boolean   -> True, False      function -> types.FunctionType, or a NativeFunction (builtins)

Everything else an object can be is a slotted class of this module or of values_map.py; the promise
is defined by promises.py and joins through the tables at the end (METHODS, OBJECT_TAGS). Nothing here
knows an operator, a builtin or the engine. Classes hold plain data, so that a snapshot can take them
apart and put them together again.

Two families of exceptions: JSThrow carries a value that flow code may catch; FatalError never is caught
by flow code and ends the activation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import FunctionType, TracebackType
from typing import Any, Final, NoReturn, Protocol, TypeAlias, cast

#: Any value of the flow language; the kinds are told apart by ``__class__``.
Value: TypeAlias = Any

STRING_LENGTH_MAX: Final = 2**26  #: UTF-16 units in one string; more is a LimitError.
ARRAY_LENGTH_MAX: Final = 2**24  #: Elements in one array or collection; more is a LimitError.
NODE_STRING_LENGTH_MAX: Final = 0x1FFFFFE8  #: Above this Node itself throws RangeError.
NODE_ARRAY_LENGTH_MAX: Final = 2**32 - 1  #: Above this Node itself throws RangeError.


class Undefined:
    """The type of UNDEFINED, JavaScript's ``undefined``. There is one instance."""

    __slots__ = ()
    _instance: Undefined | None = None

    def __new__(cls) -> Undefined:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "undefined"

    def __copy__(self) -> Undefined:
        return self

    def __deepcopy__(self, memo: object) -> Undefined:
        return self

    def __reduce__(self) -> str:
        return "UNDEFINED"


class Marker:
    """A named singleton of the run time that is never a flow value (TDZ, DONE, MISSING)."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


UNDEFINED: Final = Undefined()
TDZ: Final = Marker("TDZ")  #: Content of a cell or slot whose declaration has not run yet.
DONE: Final = Marker("DONE")  #: What JSIterator.step() returns at its end.
MISSING: Final = Marker("MISSING")  #: "No such property", told apart from undefined.


# Exceptions --------------------------------------------------------------------------------------


class JSThrow(Exception):
    """A value thrown by flow code or by a builtin; flow code can catch it."""

    def __init__(self, value: Value) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        value = self.value
        if value.__class__ is JSError:
            return f"{value.kind}: {value.props.get('message', '')}"
        return f"flow code threw {value!r}"


class FatalError(Exception):
    """Ends the activation; flow code cannot catch it.

    ``message`` says what happened; ``places`` is filled in by the engine: lines of a stack, "" when none are known.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.places = ""


class UnsupportedError(FatalError):
    """The program used something of JavaScript that the flow language does not have."""


class LimitError(FatalError):
    """The program exceeded a limit of the flow language."""


class ActivationBudgetExceeded(LimitError):
    """The program ran for too long without waiting for anything; raised from outside, by the watchdog."""

    def __init__(self, message: str = "the workflow ran too long without an await that waits") -> None:
        super().__init__(message)


class ActivationMemoryExceeded(ActivationBudgetExceeded):
    """The program took too much memory; raised from outside, by the watchdog."""

    def __init__(self, message: str = "the workflow took more memory than an activation may") -> None:
        super().__init__(message)


class DeadlockError(FatalError):
    """The workflow waits for something that can never happen."""


# Functions ---------------------------------------------------------------------------------------


class NativeFunction:
    """Base of every callable value that is not a flow function: ``call(*args)`` runs it.

    ``call`` is an attribute and not ``__call__``, so that calls stay inside the Python interpreter loop
    and use no C stack.
    """

    __slots__ = ("call",)
    call: Callable[..., Value]


class Builtin(NativeFunction):
    """A builtin function or constructor; a process-wide constant, found by ``name`` in BUILTINS."""

    __slots__ = ("name", "construct", "members", "is_instance", "needs_owner")

    def __init__(
        self,
        name: str,
        call: Callable[..., Value],
        *,
        construct: Callable[..., Value] | None = None,
        members: dict[str, Value] | None = None,
        is_instance: Callable[[Value], bool] | None = None,
        needs_owner: bool = False,
    ) -> None:
        self.name = name  #: Full name: "Math.max", "Array".
        self.call = call
        self.construct = construct  #: For ``new``; None when it is not a constructor.
        self.members = members if members is not None else {}  #: Static members by short name.
        self.is_instance = is_instance  #: For ``instanceof``; None when it has no instances.
        self.needs_owner = needs_owner  #: A static that only works as ``Owner.name(…)``, like ``Promise.resolve``.
        assert name not in BUILTINS, f"builtin {name} is defined twice"
        BUILTINS[name] = self

    def __repr__(self) -> str:
        return f"<builtin {self.name}>"


class BuiltinMethod(NativeFunction):
    """A builtin method read as a value (``x.push``, ``Promise.all`` without a call). It has lost its receiver: calling
    it is an UnsupportedError. One object per name, so that identity holds."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name  #: For instance "Array.push".
        self.call = self._refuse
        assert name not in METHOD_VALUES
        METHOD_VALUES[name] = self

    def _refuse(self, *_: Value) -> NoReturn:
        method = self.name.rpartition(".")[2]
        raise UnsupportedError(
            f"the builtin method {self.name} was taken as a value and called without its receiver; "
            f"call it as a method or wrap it in an arrow function: (x) => receiver.{method}(x)"
        )

    def __repr__(self) -> str:
        return f"<builtin method {self.name}>"


class Namespace:
    """A builtin object that only holds members: Math, JSON, console."""

    __slots__ = ("name", "members")

    def __init__(self, name: str, members: dict[str, Value]) -> None:
        self.name = name
        self.members = members
        assert name not in BUILTINS, f"builtin {name} is defined twice"
        BUILTINS[name] = self

    def __repr__(self) -> str:
        return f"<namespace {self.name}>"


#: Every Builtin and Namespace by its full name; how a snapshot finds them again.
BUILTINS: dict[str, Builtin | Namespace] = {}
#: Every BuiltinMethod by its name; filled on first use.
METHOD_VALUES: dict[str, BuiltinMethod] = {}


def builtin_named(name: str) -> Value:
    """The builtin of that name, for reading snapshots. Raises KeyError for an unknown name."""
    found = BUILTINS.get(name)
    if found is not None:
        return static_value(found)
    owner, _, method = name.partition(".")
    for tag_class, tag in METHOD_OWNERS.items():
        if tag == owner and method in METHODS[tag_class]:
            return method_value(tag_class, method)
    raise KeyError(name)


def method_value(receiver_class: type, name: str) -> BuiltinMethod:
    """The value of reading builtin method ``name`` of a receiver of that class without calling it."""
    owner = "Object" if name in OBJECT_PROTOTYPE_METHODS else METHOD_OWNERS[receiver_class]
    if owner == "Object" and METHODS[receiver_class][name] is not METHODS[dict].get(name):
        owner = METHOD_OWNERS[receiver_class]
    full_name = f"{owner}.{name}"
    return METHOD_VALUES.get(full_name) or BuiltinMethod(full_name)


def static_value(static: Value) -> Value:
    """The value of reading a static member of a builtin without calling it."""
    if static.__class__ is Builtin and static.needs_owner:
        return METHOD_VALUES.get(static.name) or BuiltinMethod(static.name)
    return static


def is_callable(value: Value) -> bool:
    """True for functions of every kind."""
    return value.__class__ is FunctionType or isinstance(value, NativeFunction)


# Objects with a class of their own ---------------------------------------------------------------


#: Own properties of errors that enumeration does not show, unless the program itself created them.
ERROR_HIDDEN: Final = frozenset({"stack", "message", "cause", "errors"})


class JSError:
    """An Error object. ``kind`` is its class; own properties, message and stack included, are in ``props``.

    ``hidden`` names the properties that are not enumerable if present. An inherited ``name`` is the kind.
    """

    __slots__ = ("kind", "props", "hidden")

    def __init__(
        self,
        kind: str,
        message: str | None = None,
        *,
        header: str | None = None,
        trace: TracebackType | None = None,  # where it comes from, when that is not where the program is now
    ) -> None:
        self.kind = kind
        self.hidden = ERROR_HIDDEN
        first_line = header if header is not None else (f"{kind}: {message}" if message else kind)
        props: dict[str, Value] = {"stack": flow_stack(first_line, trace)}
        if message is not None:
            props["message"] = message
        self.props = props

    @classmethod
    def restore(cls, kind: str, props: dict[str, Value], hidden: frozenset[str] = ERROR_HIDDEN) -> JSError:
        """An error with exactly these parts; captures no stack. For snapshots and payloads."""
        error = cls.__new__(cls)
        error.kind, error.props, error.hidden = kind, props, hidden
        return error

    def enumerable(self) -> dict[str, Value]:
        """The enumerable own properties, a new dict."""
        hidden = self.hidden
        return {key: value for key, value in self.props.items() if key not in hidden}

    def __repr__(self) -> str:
        return f"<{self.kind}: {self.props.get('message', '')!r}>"


class JSDate:
    """A Date: ``ms`` since 1970-01-01T00:00Z, a whole float, or NaN for an invalid date."""

    __slots__ = ("ms",)

    def __init__(self, ms: float) -> None:
        self.ms = ms

    def __repr__(self) -> str:
        return f"<Date {self.ms!r}>"


#: Why a value of Array(n) is refused.
HOLES: Final = "Array(n) must be filled at once: Array(n).fill(value) or Array.from(Array(n), f)"


class EmptySlots:
    """What ``Array(n)`` gives: n holes. Only ``fill``, ``keys``, ``join``, spreading, iterating and
    ``Array.from`` accept it, and they give a real array; anything else is an UnsupportedError."""

    __slots__ = ("length",)

    def __init__(self, length: int) -> None:
        self.length = length


# Throwing ----------------------------------------------------------------------------------------


def throw_type_error(message: str) -> NoReturn:
    """Throws a TypeError that flow code can catch."""
    raise JSThrow(JSError("TypeError", message))


def throw_range_error(message: str) -> NoReturn:
    """Throws a RangeError that flow code can catch."""
    raise JSThrow(JSError("RangeError", message))


def throw_reference_error(message: str) -> NoReturn:
    """Throws a ReferenceError that flow code can catch."""
    raise JSThrow(JSError("ReferenceError", message))


def caught(exception: BaseException) -> Value:
    """The flow value of an exception that flow code catches: a JSThrow or a RecursionError."""
    if isinstance(exception, JSThrow):
        return exception.value
    assert isinstance(exception, RecursionError), "generated code catches nothing else"
    return JSError("RangeError", "Maximum call stack size exceeded", trace=exception.__traceback__)


# The running activation --------------------------------------------------------------------------


class RealmView(Protocol):
    """What builtins may ask of the execution they run in. promises.Realm implements it."""

    def now_ms(self) -> float: ...

    def random(self) -> float: ...

    def log(self, level: str, text: str) -> None: ...

    def stack(self, trace: TracebackType | None = None) -> str:
        """Flow locations of the running functions, or of a traceback, one indented line each, "" for none."""
        ...


_active = threading.local()


def set_current_realm(realm: RealmView | None) -> None:
    """Names the realm of this thread; the engine calls it around an activation."""
    _active.realm = realm
    _active.joining = set()


def current_realm() -> Any:
    """The realm of the activation on this thread. An assertion fails when there is none."""
    realm = getattr(_active, "realm", None)
    assert realm is not None, "a builtin that needs a realm ran outside an activation"
    return realm


def running_realm() -> Any:
    """The realm of the activation on this thread, or None."""
    return getattr(_active, "realm", None)


def joining_arrays() -> set[int]:
    """Ids of the arrays that join() is at work on, on this thread; every activation begins with none."""
    found: set[int] = _active.__dict__.setdefault("joining", set())
    return found


def flow_stack(first_line: str, trace: TracebackType | None = None) -> str:
    """Text for ``error.stack``: the first line and the flow locations, if an activation runs."""
    realm = cast("RealmView | None", getattr(_active, "realm", None))
    locations = realm.stack(trace) if realm is not None else ""
    return f"{first_line}\n{locations}" if locations else first_line


# Tables that later modules fill ------------------------------------------------------------------

Method: TypeAlias = Callable[..., Value]

#: Builtin methods by receiver class, then name; called as method(receiver, *args).
METHODS: dict[type, dict[str, Method]] = {}
#: Owner part of method names, by receiver class: {list: "Array"}.
METHOD_OWNERS: dict[type, str] = {}
#: X of "[object X]", by class.
OBJECT_TAGS: dict[type, str] = {}

#: The methods of Object.prototype that every object has.
OBJECT_PROTOTYPE_METHODS: Final = frozenset(
    {"hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString", "toString", "valueOf"}
)
#: All names Object.prototype answers to; the others are refused when read.
OBJECT_PROTOTYPE_NAMES: Final = OBJECT_PROTOTYPE_METHODS | {
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "__proto__",
    "constructor",
}


def register_methods(receiver_class: type, owner: str, methods: dict[str, Method], *, tag: str | None = None) -> None:
    """Makes ``methods`` the builtin methods of values of that class.

    ``owner`` names them ("Array" gives "Array.push"); ``tag`` is X of "[object X]", default ``owner``.
    Methods of Object.prototype that ``methods`` does not override come along.
    """
    assert receiver_class not in METHODS
    METHODS[receiver_class] = {**METHODS.get(dict, {}), **methods}
    METHOD_OWNERS[receiver_class] = owner
    OBJECT_TAGS[receiver_class] = tag if tag is not None else owner
