"""`rhythm bench` on a server of people's own."""

from __future__ import annotations

import uuid
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.support.commands import Rhythm

DATABASES = "select datname from pg_database where datname like 'rhythm_bench_%'"


async def test_figures_are_measured_in_databases_of_their_own_which_are_dropped(
    rhythm: Rhythm, postgres_url: str
) -> None:
    result = rhythm(
        *(
            "bench",
            "--json",
            "--only",
            "tasks,workflows,steps",
            "--tasks",
            "300",
            "--workflows",
            "10",
            "--steps",
            "100",
        ),
        *("--processes", "1", "--database-url", postgres_url),
        code=0,
    )
    connection = await asyncpg.connect(postgres_url)
    left = await connection.fetch(DATABASES)
    schema = await connection.fetchval("select to_regnamespace('rhythm')")
    await connection.close()

    figures = {line["figure"]: line for line in result.json_lines}
    assert {
        "bulk start/s (start_many)",
        "worker memory under load",
        "tasks/s, 1 process",
        "3-step workflows/s, 1 process",
        "ms per sequential step",
        "last tenth of the steps to the second",
    } == set(figures)
    assert all(line["median"] > 0 and [line["median"]] == line["values"] for line in figures.values())
    assert ("/s", "ms") == (figures["tasks/s, 1 process"]["unit"], figures["ms per sequential step"]["unit"])
    assert ([], None) == (left, schema)


def test_a_measure_that_is_none_is_refused_with_those_there_are(rhythm: Rhythm) -> None:
    assert "there is no measure 'speed'; there are tasks, starts," in rhythm("bench", "--only", "speed", code=2).err


async def test_a_role_that_may_not_create_databases_is_told_what_it_needs(rhythm: Rhythm, postgres_url: str) -> None:
    role = f"modest_{uuid.uuid4().hex[:8]}"
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"create role {role} login")
    parts = urlsplit(postgres_url)
    url = urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))
    result = rhythm("bench", "--only", "steps", "--database-url", url)
    await connection.execute(f"drop role {role}")
    await connection.close()

    assert 2 == result.code
    assert "createdb" in result.err
