"""The documentation tells the truth: its snippets run, its files exist, the public names are listed."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import rhythm
from rhythm.cli.application import application
from rhythm.config import KEYS
from rhythm.engine import check_source

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(page for place in (".", "docs", "benchmarks", "examples/*") for page in ROOT.glob(f"{place}/*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]+`", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block in this language."""
    return [(page.name, text) for page in PAGES for kind, text in _BLOCK.findall(page.read_text()) if kind == language]


#: Pages whose snippets are run, refused ones among them, by tests of their own.
ELSEWHERE = {"language.md", "checking.md"}


@pytest.mark.parametrize(("page", "source"), [b for b in blocks("javascript") if b[0] not in ELSEWHERE])
def test_workflows_on_every_page_compile(page: str, source: str) -> None:
    whole = source if re.search(r"\bworkflow\s*\(", source) else f"workflow(ctx, inputs) {{\n{source}\n}}"

    assert [d for d in check_source(whole, page) if d.severity == "error"] == []


@pytest.mark.parametrize(("page", "source"), blocks("python"))
def test_python_on_every_page_compiles(page: str, source: str) -> None:
    compile(source, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def commands() -> list[tuple[str, list[str]]]:
    """(page, words) of every `rhythm` command in a block of shell commands."""
    lines = [(page, line) for page, text in blocks("sh") for line in re.sub(r"\\\n\s*", " ", text).splitlines()]
    found = []
    for page, line in lines:
        for part in re.split(r"&&|(?<=\s)&$|;", line):
            words = shlex.split(part, comments=True)
            if words[:1] == ["rhythm"]:
                found.append((page, words[1:]))
    return found


@pytest.mark.parametrize(("page", "words"), commands(), ids=lambda value: value if isinstance(value, str) else value[0])
def test_commands_on_every_page_exist_with_their_options(page: str, words: list[str]) -> None:
    command: Any = typer.main.get_command(application)
    while (inner := getattr(command, "commands", {}).get(words[0])) is not None:
        command, words = inner, words[1:]
        if not words:
            break
    known = {"--help"} | {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }

    assert not hasattr(command, "commands") or not words or words[0].startswith("-"), f"there is no {words[0]}"
    assert [word for word in words if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known] == []


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
