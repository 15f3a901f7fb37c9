"""The documentation tells the truth: its snippets run, its files exist, the public names are listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rhythm
from rhythm.config import KEYS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(page for place in (".", "docs", "benchmarks", "examples/*") for page in ROOT.glob(f"{place}/*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]+`", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_found_from_the_readme() -> None:
    linked = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text())

    assert {str(page.relative_to(ROOT)) for page in PAGES} - {"README.md"} <= set(linked)


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
