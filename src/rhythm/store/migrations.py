"""The schema: its text, its version, and how a database is brought up to date.

    sql/schema.sql, sql/functions/*.sql     version 1, applied as one step
    sql/migrations/NNNN_name.sql            every later step, expanding or contracting what is there
    sql/roles.sql                           the role for workers, run by hand by who may create roles

`migrate` runs in one transaction under a lock that ends with it, so that two processes may call it at once, also
through a pooler in transaction mode. What was applied is recorded in rhythm.migrations with a digest of its text.
Functions of the same version whose text has changed (a fix without a change of arguments) are put in place again.
A database that is newer than this release is left alone: SchemaMismatch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from rhythm.errors import SchemaMismatch

if TYPE_CHECKING:
    from rhythm.store.connection import Executor

#: In the order of application: a file may use only what stands before it.
FUNCTION_FILES = (
    "basics",
    "names",
    "executions",
    "deliveries",
    "outcomes",
    "workflows",
    "claims",
    "exchange",
    "steps",
    "cancel",
    "retry",
    "definitions",
    "workers",
    "maintenance",
    "views",
    "invariants",
    "settings",
)
_LOCK = 0x72687974686D  # "rhythm", the key of the advisory lock


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step of the schema."""

    version: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text, as hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """How the schema in a database relates to this release."""

    version: int  #: of the database; 0: there is none
    latest: int  #: of this release
    pending: tuple[str, ...]  #: names of the steps that `migrate` would apply
    changed: bool  #: whether functions differ from this release's although the version is the same


def _read(*path: str) -> str:
    return resources.files("rhythm.store").joinpath("sql", *path).read_text("utf-8")


@cache
def functions_sql() -> str:
    """All functions and views, as `create or replace` statements."""
    return "\n".join(_read("functions", f"{name}.sql") for name in FUNCTION_FILES)


@cache
def migrations() -> tuple[Migration, ...]:
    """All steps, in order."""
    steps = [Migration(1, "initial", _read("schema.sql") + "\n" + functions_sql())]
    folder = resources.files("rhythm.store").joinpath("sql", "migrations")
    if folder.is_dir():
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith(".sql"):
                number, _, name = entry.name.removesuffix(".sql").partition("_")
                steps.append(Migration(int(number), name, entry.read_text("utf-8")))
    assert [step.version for step in steps] == list(range(1, len(steps) + 1)), "steps are numbered without a gap"
    return tuple(steps)


def schema_sql() -> str:
    """The whole text that `migrate` applies to an empty database."""
    return "\n".join(f"-- {step.version}: {step.name}\n\n{step.sql}" for step in migrations())


def roles_sql() -> str:
    """The script that makes the least-privilege role for workers and clients."""
    return _read("roles.sql")


async def status(executor: Executor) -> SchemaStatus:
    """Compares the database with this release. Never changes anything."""
    applied = await _applied(executor)
    steps = migrations()
    return SchemaStatus(
        version=max(applied, default=0),
        latest=steps[-1].version,
        pending=tuple(step.name for step in steps if step.version not in applied),
        changed=any(applied.get(step.version, step.digest) != step.digest for step in steps),
    )


async def migrate(executor: Executor) -> list[str]:
    """Applies what is missing, inside the transaction that the caller has open. Returns the names of the steps.

    Raises SchemaMismatch when the database is newer than this release.
    """
    await executor.execute("select pg_advisory_xact_lock($1)", _LOCK)
    applied = await _applied(executor)
    steps = migrations()
    if max(applied, default=0) > steps[-1].version:
        raise SchemaMismatch(
            f"the schema in the database has version {max(applied)}, this release of Rhythm knows {steps[-1].version}: "
            f"use the release that migrated it, or a newer one"
        )
    done = []
    for step in steps:
        if step.version not in applied:
            await executor.execute(step.sql)
        elif applied[step.version] != step.digest and step is steps[-1]:
            await executor.execute(functions_sql())
        else:
            continue
        await executor.execute(
            "insert into rhythm.migrations (version, name, digest) values ($1, $2, $3) "
            "on conflict (version) do update set digest = excluded.digest, applied_at = clock_timestamp()",
            step.version,
            step.name,
            step.digest,
        )
        done.append(step.name)
    return done


async def _applied(executor: Executor) -> dict[int, str]:
    if await executor.fetchval("select to_regclass('rhythm.migrations')") is None:
        return {}
    rows = await executor.fetch("select version, digest from rhythm.migrations")
    return {row["version"]: row["digest"] for row in rows}
