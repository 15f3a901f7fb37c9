"""The values of the flow language and what can be done with them: one door to the modules that hold them.

    values_types   classes of values, exceptions, tables of builtins, the running realm
    values_map     Map, Set, iterators
    numbers        number texts, ToInt32 and so on
    operators      coercions, arithmetic, comparison
    members        properties, calls, iteration
"""

from __future__ import annotations

from rhythm.language.members import (
    call,
    call_index,
    call_method,
    construct,
    delete_index,
    delete_member,
    for_in_keys,
    for_of_iterator,
    get_index,
    get_member,
    has_property,
    instance_of,
    iterate,
    object_rest,
    ordered_keys,
    own_keys,
    own_value,
    set_index,
    set_member,
    spread_into_list,
    spread_into_object,
    to_object_check,
)
from rhythm.language.numbers import number_to_string
from rhythm.language.operators import (
    add,
    describe,
    eq,
    is_object,
    same_value,
    same_value_zero,
    strict_eq,
    to_number,
    to_primitive,
    to_property_key,
    to_string,
    truthy,
    typeof,
)
from rhythm.language.values_map import JSIterator, JSMap, JSSet
from rhythm.language.values_types import (
    ARRAY_LENGTH_MAX,
    BUILTINS,
    DONE,
    METHODS,
    MISSING,
    STRING_LENGTH_MAX,
    TDZ,
    UNDEFINED,
    ActivationBudgetExceeded,
    Builtin,
    BuiltinMethod,
    DeadlockError,
    EmptySlots,
    FatalError,
    JSDate,
    JSError,
    JSThrow,
    LimitError,
    Marker,
    Namespace,
    NativeFunction,
    Undefined,
    UnsupportedError,
    Value,
    builtin_named,
    caught,
    current_realm,
    flow_stack,
    is_callable,
    set_current_realm,
    throw_range_error,
    throw_reference_error,
    throw_type_error,
)

__all__ = [
    "ActivationBudgetExceeded", "ARRAY_LENGTH_MAX", "BUILTINS", "DONE", "METHODS", "MISSING", "STRING_LENGTH_MAX", "TDZ", "UNDEFINED",
    "Builtin", "BuiltinMethod", "DeadlockError", "EmptySlots", "FatalError", "JSDate", "JSError", "JSIterator",
    "JSMap", "JSSet", "JSThrow", "LimitError", "Marker", "Namespace", "NativeFunction", "Undefined",
    "UnsupportedError", "Value",
    "add", "builtin_named", "call", "call_index", "call_method", "caught", "construct", "current_realm",
    "delete_index", "delete_member", "describe", "eq", "flow_stack", "for_in_keys", "for_of_iterator", "get_index",
    "get_member", "has_property", "instance_of", "is_callable", "is_object", "iterate", "number_to_string",
    "object_rest", "ordered_keys", "own_keys", "own_value", "same_value", "same_value_zero", "set_current_realm",
    "set_index", "set_member", "spread_into_list", "spread_into_object", "strict_eq", "throw_range_error",
    "throw_reference_error", "throw_type_error", "to_number", "to_object_check", "to_primitive", "to_property_key",
    "to_string", "truthy", "typeof",
]  # fmt: skip
