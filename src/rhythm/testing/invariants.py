"""Counts breaches of the invariants in a database: what must hold at every moment, faults or not.

    python -m rhythm.testing.invariants [--database-url URL]

prints the number of breaches on standard output and each breach on standard error. Exit codes: 0 none, 1 some, 3 the
database cannot be reached or holds no schema. Without a URL the one of RHYTHM_DATABASE_URL, else of the configuration.

What is checked is the SQL function rhythm.find_breaches(): every execution in exactly one place (I1, I3), every
child's outcome delivered once (I2), nothing left of fenced owners (I4), signals (I5), timers (I6).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import uuid
from collections.abc import Sequence

from rhythm.config import database_url
from rhythm.errors import RhythmError
from rhythm.store import Store

Breach = tuple[str, uuid.UUID | None, str]


async def find_breaches(url: str) -> Sequence[Breach]:
    """(invariant, execution, what is wrong) of each breach. Raises DatabaseUnavailable, SchemaMismatch."""
    async with await Store.connect(url, pool_max=1, application_name="rhythm invariants") as store:
        return await store.breaches()


def describe(breach: Breach) -> str:
    """One line for people."""
    invariant, execution_id, problem = breach
    return f"{invariant} {'' if execution_id is None else f'execution {execution_id} '}{problem}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rhythm.testing.invariants", description="Counts breaches.")
    parser.add_argument("--database-url", help="postgresql://...")
    options = parser.parse_args(arguments)
    try:
        breaches = asyncio.run(find_breaches(database_url(options.database_url)))
    except RhythmError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a program
        return 3
    for breach in breaches:
        print(describe(breach), file=sys.stderr)  # noqa: T201 - a program
    print(len(breaches))  # noqa: T201 - a program
    return 1 if breaches else 0


if __name__ == "__main__":
    raise SystemExit(main())
