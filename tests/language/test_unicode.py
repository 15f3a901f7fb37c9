"""Case mapping and normalisation piece by piece give what the whole gives, and never take long."""

from __future__ import annotations

import random
import time
import unicodedata

import pytest

from rhythm.language.builtins import unicode
from rhythm.language.units import join_surrogates, to_units
from rhythm.testing import evaluate

#: Marks that are reordered, that compose with what stands before (Hangul, Bengali, Tibetan), that decompose to many.
LETTERS = (
    "a b\u00e9\u0301\u0316\u0327\u1100\u1161\u11a8\uac00\ufdfa\u212b\u1e9b\u0323\u09c7\u09be\u0b47\u0b3e"
    "\u03a3\u03b1\u00df\u0130\U0001f600\U00010400\U0001d15e\ud800\u0f71\u0f72\u0f74\u1ea0"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pieces_give_what_the_whole_gives(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unicode, "NORMALIZED_CHARACTERS", size)
    monkeypatch.setattr(unicode, "PIECE_CHARACTERS", size)
    rng = random.Random(size)
    for _ in range(1000):
        units = to_units("".join(rng.choices(LETTERS, k=rng.randint(1, 14))))
        whole = join_surrogates(units)

        assert to_units(whole.upper()) == unicode.to_upper(units)
        assert to_units(whole.lower()) == unicode.to_lower(units)
        for form in unicode.FORMS:
            assert to_units(unicodedata.normalize(form, whole)) == unicode.normalize(form, units)


@pytest.mark.parametrize(
    "source",
    [
        'return "\\ufdfa".repeat(2 ** 23).normalize("NFKC").length',
        'return "\\u0301\\u0316".repeat(2 ** 20).normalize().length',
        'return "\u00df".repeat(2 ** 26).toUpperCase().length',
    ],
)
def test_a_long_text_ends_in_a_limit_in_time(source: str) -> None:
    begin = time.monotonic()
    outcome = evaluate(f"workflow() {{ {source} }}")

    assert outcome.error is not None
    assert "LimitError" == outcome.error.name
    assert time.monotonic() - begin < 10
