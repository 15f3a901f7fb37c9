"""The Makefile on machines where something is missing: it says what, and the exact command that helps."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = ("bash", "sh", "make", "sed", "touch", "rm", "echo", "env")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with our Makefile, and beside it all there is on the machine: bin/."""
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    project = tmp_path / "project"
    project.mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(Path(__file__).parent.parent / name, project)
    return tmp_path


def program(machine: Path, name: str, script: str) -> None:
    path = machine / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def make(machine: Path, target: str) -> tuple[int, str]:
    result = subprocess.run(
        [str(machine / "bin" / "make"), target],
        cwd=machine / "project",
        env={"PATH": str(machine / "bin"), "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
    )
    return result.returncode, result.stdout + result.stderr


def test_no_python(machine: Path) -> None:
    program(machine, "apt-get", "exit 1")

    code, text = make(machine, "run")

    assert code != 0
    assert "Rhythm needs Python 3.11 or newer" in text
    assert "sudo apt-get install python3 python3-venv" in text


def test_an_old_python(machine: Path) -> None:
    program(machine, "python3", "exit 1")  # what the version check says
    program(machine, "brew", "exit 1")

    code, text = make(machine, "run")

    assert code != 0
    assert "brew install python@3.12" in text


def test_python_without_venv(machine: Path) -> None:
    program(machine, "apt-get", "exit 1")
    program(machine, "python3.12", 'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.12;; esac')

    code, text = make(machine, "run")

    assert code != 0
    assert "sudo apt-get install python3.12-venv" in text


@pytest.mark.parametrize("version", [None, "v18.20.4"])
def test_the_tests_need_node(machine: Path, version: str | None) -> None:
    program(machine, "apt-get", "exit 1")
    if version is not None:
        program(machine, "node", f'case "$1" in -p) echo 18;; *) echo {version};; esac')

    code, text = make(machine, "test")

    assert code != 0
    assert "Node.js 20 or newer" in text
    assert f"(found: {version or 'none'})" in text
    assert "setup_20.x" in text


def test_the_tests_need_npm(machine: Path) -> None:
    program(machine, "apt-get", "exit 1")
    program(machine, "node", 'case "$1" in -p) echo 20;; *) echo v20.0.0;; esac')

    code, text = make(machine, "test")

    assert code != 0
    assert "sudo apt-get install npm" in text
