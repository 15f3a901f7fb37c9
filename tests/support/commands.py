"""Runs the real `rhythm` command and keeps what came out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import clean_environment

TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Result:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on standard output."""
        (value,) = self.json_lines
        return value

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Rhythm:
    """`rhythm` in a folder, with a database or without: `rhythm("list", "--json")`."""

    folder: Path
    env: Mapping[str, str]

    def __call__(
        self, *arguments: str, env: Mapping[str, str] | None = None, stdin: str = "", code: int | None = None
    ) -> Result:
        """Runs the command; with `code`, also asserts that it ends with this exit code."""
        completed = subprocess.run(
            [sys.executable, "-m", "rhythm", *arguments],
            cwd=self.folder,
            env=clean_environment({**self.env, **(env or {})}),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        result = Result(completed.returncode, completed.stdout, completed.stderr)
        if code is not None:
            assert result.code == code, f"rhythm {' '.join(arguments)} -> {result}"
        assert "Traceback" not in result.err or code is None, result.err
        return result

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path
