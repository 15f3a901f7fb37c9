"""The documentation tells the truth: its snippets run, its files exist, the public names are listed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import rhythm
from rhythm.config import KEYS
from rhythm.testing import evaluate

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(page for place in (".", "docs", "benchmarks", "examples/*") for page in ROOT.glob(f"{place}/*.md"))
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
_EXPECT = re.compile(r"//\s*expect:\s*(.+)$", re.M)


class CardDeclined(Exception):
    pass


def echo(inputs: Any, /) -> Any:
    return inputs


def fail(message: str) -> None:
    raise CardDeclined(message)


def snippets(page: Path, language: str) -> list[str]:
    return [match[2] for match in _BLOCK.finditer(page.read_text()) if match[1] == language]


LANGUAGE = snippets(ROOT / "docs" / "language.md", "javascript")


@pytest.mark.parametrize("mode", ["never", "await"])
@pytest.mark.parametrize("number", range(len(LANGUAGE)))
def test_snippets_of_the_language_page_give_what_they_say(number: int, mode: Any) -> None:
    source = LANGUAGE[number]
    expected = _EXPECT.search(source)

    outcome = evaluate(source, tasks={"echo": echo, "fail": fail}, snapshot=mode)

    assert expected, "a snippet says what it gives"
    assert outcome.error is None
    assert outcome.result == json.loads(expected[1])


@pytest.mark.parametrize("source", snippets(ROOT / "docs" / "language.md", "python"))
def test_python_snippets_run(source: str) -> None:
    exec(compile(source, "docs/language.md", "exec"), {})  # noqa: S102  (our own documentation)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_shows_the_founding_example_as_it_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    orders = ROOT / "examples" / "orders"

    assert (orders / "workflows" / "processOrder.flow").read_text() in readme
    charge = (orders / "tasks.py").read_text().split("\n\n\n")[1]
    assert charge in readme


def test_every_public_name_is_importable_and_listed_once() -> None:
    assert rhythm.__all__ == sorted(rhythm._NAMES)
    for name in rhythm.__all__:
        assert getattr(rhythm, name).__doc__, f"rhythm.{name} has no docstring"


def test_every_configuration_key_is_documented() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()

    assert re.findall(r"^\| `(\w+)` \|", page, re.M) == list(KEYS)
