"""Promise: constructor, statics and methods over the machinery of ``promises``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rhythm.language.builtins.support import callback, unsupported
from rhythm.language.members import iterate
from rhythm.language.operators import describe
from rhythm.language.promises import (
    Combinator,
    ElementReaction,
    Promise,
    Realm,
    resolving_functions,
)
from rhythm.language.values_types import (
    OBJECT_TAGS,
    UNDEFINED,
    Builtin,
    JSThrow,
    Value,
    caught,
    current_realm,
    is_callable,
    register_methods,
    throw_type_error,
)


def _then(promise: Promise, on_fulfilled: Value = UNDEFINED, on_rejected: Value = UNDEFINED, *_: Value) -> Promise:
    return promise.realm.then(promise, on_fulfilled, on_rejected)


def _catch(promise: Promise, on_rejected: Value = UNDEFINED, *_: Value) -> Promise:
    return promise.realm.then(promise, UNDEFINED, on_rejected)


def _finally(promise: Promise, on_finally: Value = UNDEFINED, *_: Value) -> Promise:
    return promise.realm.finally_(promise, on_finally)


register_methods(Promise, "Promise", {"then": _then, "catch": _catch, "finally": _finally})
OBJECT_TAGS[Promise] = "Promise"


def _new(executor: Value = UNDEFINED, *_: Value) -> Promise:
    if not is_callable(executor):
        throw_type_error(f"Promise resolver {describe(executor)} is not a function")
    promise = Promise(current_realm())
    resolve, reject = resolving_functions(promise)
    try:
        callback(executor)(resolve, reject)
    except (JSThrow, RecursionError) as error:
        reject.call(caught(error))
    return promise


def _resolve(value: Value = UNDEFINED, *_: Value) -> Promise:
    realm: Realm = current_realm()
    return realm.to_promise(value)


def _reject(reason: Value = UNDEFINED, *_: Value) -> Promise:
    realm: Realm = current_realm()
    promise = Promise(realm)
    realm.reject_promise(promise, reason)
    return promise


def _combine(kind: str, values: Value) -> Promise:
    realm: Realm = current_realm()
    promise = Promise(realm)
    record = Combinator(kind, promise)
    try:
        for index, value in enumerate(iterate(values, None)):
            if kind != "race":
                record.values.append(UNDEFINED)
                record.remaining += 1
            # The standard calls the element's own `then`; its derived promise is observed by nobody.
            element = realm.to_promise(value)
            element.add_reaction(ElementReaction(record, index))
    except (JSThrow, RecursionError) as error:
        if not record.done:
            record.done = True
            realm.reject_promise(promise, caught(error))
        return promise
    if kind != "race":
        record.element_done()
    return promise


def _combinator(kind: str) -> Callable[..., Promise]:
    return lambda values=UNDEFINED, *_: _combine(kind, values)


def _not_new(*_: Value) -> Value:
    throw_type_error("Promise constructor cannot be invoked without 'new'")


COMBINATORS: Final = ("all", "allSettled", "any", "race")
_LATER = "is not available in flows"
PROMISE = Builtin(
    "Promise",
    _not_new,
    construct=_new,
    is_instance=lambda value: value.__class__ is Promise,
    members={
        "resolve": Builtin("Promise.resolve", _resolve, needs_owner=True),
        "reject": Builtin("Promise.reject", _reject, needs_owner=True),
        **{kind: Builtin(f"Promise.{kind}", _combinator(kind), needs_owner=True) for kind in COMBINATORS},
        "withResolvers": Builtin(
            "Promise.withResolvers", unsupported(f"Promise.withResolvers {_LATER}; use new Promise")
        ),
    },
)
