"""The builtins: what a program finds without declaring it. ``GLOBALS`` maps the names to the values.

One file per namespace; importing this package registers all methods (``values_types.METHODS``) and names
(``values_types.BUILTINS``), under which snapshots store them.
"""

from __future__ import annotations

from math import inf, nan
from typing import Final

from rhythm.language.builtins.object import OBJECT  # first: every other class inherits its methods

from rhythm.language.builtins.array import ARRAY  # isort: skip
from rhythm.language.builtins.console import CONSOLE  # isort: skip
from rhythm.language.builtins.date import DATE  # isort: skip
from rhythm.language.builtins.error import ERRORS  # isort: skip
from rhythm.language.builtins.host import HOST_GLOBALS  # isort: skip
from rhythm.language.builtins.iterators import MAP, SET  # isort: skip
from rhythm.language.builtins.json import JSON  # isort: skip
from rhythm.language.builtins.math import MATH  # isort: skip
from rhythm.language.builtins.number import BOOLEAN, IS_FINITE, IS_NAN, NUMBER, PARSE_FLOAT, PARSE_INT  # isort: skip
from rhythm.language.builtins.promise import PROMISE  # isort: skip
from rhythm.language.builtins.string import STRING  # isort: skip
from rhythm.language.builtins.structured_clone import STRUCTURED_CLONE  # isort: skip
from rhythm.language.builtins.uri import URI_FUNCTIONS  # isort: skip
from rhythm.language.values_types import BUILTINS, UNDEFINED, Value  # isort: skip

GLOBALS: Final[dict[str, Value]] = {
    "Array": ARRAY,
    "Boolean": BOOLEAN,
    "Date": DATE,
    "JSON": JSON,
    "Map": MAP,
    "Math": MATH,
    "Number": NUMBER,
    "Object": OBJECT,
    "Promise": PROMISE,
    "Set": SET,
    "String": STRING,
    "console": CONSOLE,
    "isFinite": IS_FINITE,
    "isNaN": IS_NAN,
    "parseFloat": PARSE_FLOAT,
    "parseInt": PARSE_INT,
    "structuredClone": STRUCTURED_CLONE,
    "NaN": nan,
    "Infinity": inf,
    "undefined": UNDEFINED,
    **ERRORS,
    **HOST_GLOBALS,
    **URI_FUNCTIONS,
}

__all__ = ["BUILTINS", "GLOBALS"]
