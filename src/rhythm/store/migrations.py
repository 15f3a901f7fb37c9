"""The schema: its text, its version, and how a database is brought up to date.

    sql/schema.sql                          step 1: the first tables
    sql/migrations/NNNN_name.sql            every later step: tables and columns, expanding or contracting what is there
    sql/functions/*.sql                     functions and views, put in place after the steps when their text changed
    sql/roles.sql                           the role for workers, made by hand by who may create roles

Steps are applied once, in order, and never change after a release: a test pins their digests. Functions have no
history. Where one changes its arguments or what it returns, the step that goes with it drops the old one (`create or
replace` cannot), and a test compares the catalog of a migrated database with that of a new one.

`migrate` runs in one transaction under a lock that ends with it, so that two processes may call it at once, also
through a pooler in transaction mode. What was applied is recorded in rhythm.migrations with a digest of its text, the
functions as version 0. A role rhythm_worker that is there already gets its rights to what is new.
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
    "logs",
    "progress",
    "marks",
    "claims",
    "gates",
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
    "grants",
)
_LOCK = 0x72687974686D  # "rhythm", the key of the advisory lock


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema; the functions are version 0."""

    version: int
    name: str
    sql: str

    @property
    def script(self) -> str:
        """The text, and the record that it was applied."""
        return f"""{self.sql}
insert into rhythm.migrations (version, name, digest) values ({self.version}, '{self.name}', '{self.digest}')
on conflict (version) do update set digest = excluded.digest, applied_at = clock_timestamp();
"""  # noqa: S608 - built of this package's own files

    @property
    def digest(self) -> str:
        """SHA-256 of the text, as hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """How the schema in a database relates to this release."""

    version: int  #: of the database; 0: there is none
    latest: int  #: of this release
    pending: tuple[str, ...]  #: names of what `migrate` would apply; "functions" for all functions and views


def _read(*path: str) -> str:
    return resources.files("rhythm.store").joinpath("sql", *path).read_text("utf-8")


@cache
def functions_sql() -> str:
    """All functions and views, as `create or replace` statements."""
    return "\n".join(_read("functions", f"{name}.sql") for name in FUNCTION_FILES)


@cache
def migrations() -> tuple[Migration, ...]:
    """The numbered steps, in order."""
    steps = [Migration(1, "initial", _read("schema.sql"))]
    folder = resources.files("rhythm.store").joinpath("sql", "migrations")
    if folder.is_dir():
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith(".sql"):
                number, _, name = entry.name.removesuffix(".sql").partition("_")
                steps.append(Migration(int(number), name, entry.read_text("utf-8")))
    assert [step.version for step in steps] == list(range(1, len(steps) + 1)), "steps are numbered without a gap"
    return tuple(steps)


@cache
def _functions() -> Migration:
    return Migration(0, "functions", functions_sql())


def schema_sql() -> str:
    """The whole text that `migrate` applies to an empty database, records included."""
    return "\n".join(f"-- {step.version}: {step.name}\n\n{step.script}" for step in (*migrations(), _functions()))


def roles_sql() -> str:
    """The script that makes the least-privilege role for workers and clients."""
    return _read("roles.sql") + "\n" + _read("functions", "grants.sql")


async def status(executor: Executor) -> SchemaStatus:
    """Compares the database with this release. Never changes anything."""
    applied = await _applied(executor)
    return SchemaStatus(
        version=max(applied, default=0),
        latest=migrations()[-1].version,
        pending=tuple(step.name for step in _pending(applied)),
    )


async def migrate(executor: Executor) -> list[str]:
    """Applies what is missing, inside the transaction that the caller has open. Returns the names of the steps.

    Raises SchemaMismatch when the database is newer than this release.
    """
    await executor.execute("select pg_advisory_xact_lock($1)", _LOCK)
    applied = await _applied(executor)
    latest = migrations()[-1].version
    if max(applied, default=0) > latest:
        raise SchemaMismatch(
            f"the schema in the database has version {max(applied)}, this release of Rhythm knows {latest}: "
            f"use the release that migrated it, or a newer one"
        )
    pending = _pending(applied)
    for step in pending:
        await executor.execute(step.script)
    return [step.name for step in pending]


def _pending(applied: dict[int, str]) -> list[Migration]:
    """What is not there yet, in the order of application: steps of tables once, functions whenever they differ."""
    steps = [step for step in migrations() if step.version not in applied]
    functions = _functions()
    return steps if applied.get(0) == functions.digest else [*steps, functions]


async def _applied(executor: Executor) -> dict[int, str]:
    if await executor.fetchval("select to_regclass('rhythm.migrations')") is None:
        return {}
    rows = await executor.fetch("select version, digest from rhythm.migrations")
    return {row["version"]: row["digest"] for row in rows}
