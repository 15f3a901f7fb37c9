"""Configuration: precedence, files, mistakes, and which database results."""

from __future__ import annotations

from pathlib import Path

import pytest

from rhythm.config import KEYS, load, mask_passwords, resolve_database_url
from rhythm.errors import ConfigurationError, NotConfigured
from rhythm.model import QueueLimits

URL = "postgresql://app@db.example/orders"


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    (tmp_path / "rhythm.toml").write_text('heartbeat_timeout = "1m"\npoll_interval = "2s"\nprocesses = 2\n')
    environ = {"RHYTHM_POLL_INTERVAL": "3s", "RHYTHM_PROCESSES": "3"}

    config = load({"processes": 4, "log_level": None, "queues": []}, cwd=tmp_path, environ=environ)

    assert config.processes == 4
    assert config.poll_interval == 3.0
    assert config.heartbeat_timeout == 60.0
    assert config.log_level == "info"
    assert config.sources["processes"] == "--processes"
    assert config.sources["poll_interval"] == "RHYTHM_POLL_INTERVAL"
    assert config.sources["heartbeat_timeout"] == str(tmp_path / "rhythm.toml")


def test_nearest_file_upwards_makes_the_project(tmp_path: Path) -> None:
    deep = tmp_path / "project" / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "rhythm.toml").write_text("processes = 9\n")
    (tmp_path / "project" / "pyproject.toml").write_text("[tool.rhythm]\nprocesses = 2\n")
    (tmp_path / "project" / "a" / "pyproject.toml").write_text('[project]\nname = "not ours"\n')

    config = load(cwd=deep, environ={})

    assert config.processes == 2
    assert config.project == tmp_path / "project"


def test_rhythm_toml_wins_over_the_pyproject_beside_it(tmp_path: Path) -> None:
    (tmp_path / "rhythm.toml").write_text("processes = 3\n")
    (tmp_path / "pyproject.toml").write_text("[tool.rhythm]\nprocesses = 2\n")

    assert load(cwd=tmp_path, environ={}).processes == 3


def test_folders_count_from_the_file_or_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "rhythm.toml").write_text('workflows = ["flows"]\n')

    assert load(cwd=tmp_path / "sub", environ={}).workflows == (tmp_path / "flows",)
    assert load({"workflows": ["x"]}, cwd=tmp_path / "sub", environ={}).workflows == (tmp_path / "sub" / "x",)


def test_retention_is_a_table_in_a_file_and_a_duration_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / "rhythm.toml").write_text('[retention]\nfinished = "30d"\n')

    assert load(cwd=tmp_path, environ={}).retention == 30 * 86_400
    assert load(cwd=tmp_path, environ={"RHYTHM_RETENTION": "90d"}).retention == 90 * 86_400


def test_limits_of_queues_are_tables(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.rhythm.queue.mail]\nconcurrency = 5\nrate = "100/1m"\nkey_concurrency = 2\nkey_rate = "5/s"\n'
        '[tool.rhythm.queue."a queue"]\nrate = "1/90s"\n'
    )

    assert load(cwd=tmp_path, environ={}).queue == {
        "mail": QueueLimits(5, (100, 60.0), 2, (5, 1.0)),
        "a queue": QueueLimits(rate=(1, 90.0)),
    }


def test_lists_and_flags_from_the_environment(tmp_path: Path) -> None:
    environ = {"RHYTHM_QUEUES": "orders, mail,orders", "RHYTHM_EMBEDDED": "No", "RHYTHM_POOLER": "1"}

    config = load(cwd=tmp_path, environ=environ)

    assert config.queues == ("orders", "mail")
    assert config.embedded is False
    assert config.pooler is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('databse_url = "postgresql://x/y"', "did you mean 'database_url'?"),
        ("zzz = 1", "the keys are app, concurrency, database_url"),
        ('heartbeat_timeout = "half a minute"', "heartbeat_timeout: 'half a minute' is not a duration"),
        ("heartbeat_timeout = 0.5", "shorter than 1 s"),
        ("processes = 0", "not a whole number from 1"),
        ("processes = true", "not a whole number from 1"),
        ('database_url = "mysql://x/y"', "is not a URL like postgresql://"),
        ('embedded = "perhaps"', "neither true nor false"),
        ('log_format = "xml"', "none of text, json"),
        ("queues = [1]", "not a list of names"),
        ("[queue.orders]\nconcurency = 3", "[queue.orders] has no limit 'concurency'; did you mean 'concurrency'?"),
        ("[queue.orders]\nconcurrency = 0", "[queue.orders] concurrency: 0 is not a whole number from 1 to 1000000"),
        ("[queue.orders]\nrate = 5", "[queue.orders] rate: 5 is not a rate; write for example '100/1m' or '5/s'"),
        ("[queue.orders]\nkey_rate = '5/2y'", "[queue.orders] key_rate: '5/2y' is not a rate: '2y' is not a period"),
        ("queue = 'orders'", "'orders' is no table: limits stand in a file, as [queue.NAME]; those to serve are"),
        ("[retention]\nfinnished = 3", "retention: 'finnished' is not a key of the table; its key is 'finished'"),
        ("[retention]\nfinished = '10s'", "retention: '10s' is shorter than 60 s"),
        ("[retention]", "write for example finished = '30d'"),
        ("health_port = 70000", "not a whole number from 0 to 65535"),
        ("processes =", "Cannot read"),
    ],
)
def test_mistakes_in_a_file_name_file_and_key(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "rhythm.toml").write_text(text)

    with pytest.raises(ConfigurationError) as caught:
        load(cwd=tmp_path, environ={})

    assert expected in str(caught.value)
    assert str(tmp_path / "rhythm.toml") in str(caught.value)


def test_a_misspelt_variable_is_an_error_and_a_strange_one_is_not_ours(tmp_path: Path) -> None:
    assert load(cwd=tmp_path, environ={"RHYTHM_AND_BLUES": "1", "RHYTHM_ENV": "test"}).database_url is None
    with pytest.raises(ConfigurationError, match=r"RHYTHM_DATABSE_URL.*did you mean RHYTHM_DATABASE_URL"):
        load(cwd=tmp_path, environ={"RHYTHM_DATABSE_URL": URL})


def test_a_wrong_url_is_shown_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({"database_url": "mysql://app:sesame@db/x"}, cwd=tmp_path, environ={})

    assert "sesame" not in str(caught.value)


def test_a_configured_url_is_used_as_it_is(tmp_path: Path) -> None:
    assert (
        resolve_database_url(load(cwd=tmp_path, environ={"RHYTHM_DATABASE_URL": URL, "RHYTHM_ENV": "production"}))
        == URL
    )


@pytest.mark.parametrize(
    ("file", "environ"),
    [
        (None, {}),
        (None, {"RHYTHM_DATABASE_URL": ""}),
        ("", {"RHYTHM_ENV": "production"}),
        ("embedded = true", {"RHYTHM_ENV": "Production"}),
        ("embedded = false", {}),
        ("", {"RHYTHM_EMBEDDED": "false"}),
    ],
)
def test_no_embedded_database_outside_projects_in_production_or_when_forbidden(
    tmp_path: Path, file: str | None, environ: dict[str, str]
) -> None:
    if file is not None:
        (tmp_path / "rhythm.toml").write_text(file)

    with pytest.raises(NotConfigured, match="RHYTHM_DATABASE_URL"):
        resolve_database_url(load(cwd=tmp_path, environ=environ))
    assert not (tmp_path / ".rhythm").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://app:sesame@db:5432/x", "postgresql://app:***@db:5432/x"),
        ("at postgresql://app:p@ss/w:rd@db/x: refused", "at postgresql://app:***@db/x: refused"),
        ("postgresql:///x?host=/tmp&password=sesame&user=u", "postgresql:///x?host=/tmp&password=***&user=u"),
        ("host=db password='se same' user=u", "host=db password=*** user=u"),
        ("postgresql://app@db/x", "postgresql://app@db/x"),
    ],
)
def test_passwords_are_masked(text: str, expected: str) -> None:
    assert mask_passwords(text) == expected


def test_every_key_can_be_set_by_its_variable(tmp_path: Path) -> None:
    samples = {
        "database_url": URL,
        "listen_url": URL,
        "log_level": "debug",
        "log_format": "json",
        "embedded": "true",
        "pooler": "true",
        "retention": "7d",
        "key_window": "7d",
    }
    keys = set(KEYS) - {"queue"}  # tables of a file
    environ = {f"RHYTHM_{key.upper()}": samples.get(key, "7") for key in keys}

    assert set(load(cwd=tmp_path, environ=environ).sources) == keys
