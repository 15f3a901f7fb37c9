"""The embedded server: shared, stopped by its last user, robust against kills, with root and without.

As root (CI, containers) every test runs twice: as root, and with the users of the server being an ordinary user.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rhythm.errors import DatabaseUnavailable
from rhythm.store import embedded
from rhythm.store.embedded import Account, EmbeddedServer, binaries_folder, process_start

IS_ROOT = os.geteuid() == 0
ORDINARY_USER = 54321 if not IS_ROOT else embedded.choose_account().user  # type: ignore[union-attr]  # never None for root
WHO = ["root", "ordinary"] if IS_ROOT else ["ordinary"]


@dataclass
class User:
    """A process that uses the server."""

    popen: subprocess.Popen[str]
    url: str

    def leave(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        assert self.popen.wait(30) == 0, self.popen.stderr and self.popen.stderr.read()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(30)


@dataclass
class Project:
    folder: Path
    system_root: Path
    user: int | None  #: what the users of the server run as; None: as we do
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def server(self) -> EmbeddedServer:
        return EmbeddedServer(self.folder / ".rhythm", notice=lambda line: None)

    @property
    def home(self) -> Path:
        return (self.folder / ".rhythm" / "postgres").resolve().parent

    def begin_user(self) -> subprocess.Popen[str]:
        account = Account("ordinary", self.user, self.user) if self.user is not None else None
        options = {
            "data_root": str(self.folder / ".rhythm"),
            "system_root": str(self.system_root),
            "user": self.user,
            "binaries": str(embedded._reachable_binaries(18, account or embedded.choose_account())),
        }
        script = Path(__file__).parent / "support" / "embedded_user.py"
        pipe = subprocess.PIPE
        popen = subprocess.Popen(
            [sys.executable, str(script), json.dumps(options)], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        self.processes.append(popen)
        return popen

    def use(self) -> User:
        return self.entered(self.begin_user())

    def entered(self, popen: subprocess.Popen[str]) -> User:
        assert popen.stdout is not None
        word, _, url = popen.stdout.readline().strip().partition(" ")
        assert word == "ready", popen.stderr and popen.stderr.read()
        return User(popen, url)

    def server_process(self) -> int:
        return int((self.home / "postgres" / "postmaster.pid").read_text().split()[0])


@pytest.fixture(params=WHO)
def project(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    top = Path(tempfile.mkdtemp(prefix="rhythm-project-"))  # not tmp_path: other users cannot enter that
    top.chmod(0o755)
    folder = top / "orders"
    folder.mkdir()
    user = ORDINARY_USER if IS_ROOT and request.param == "ordinary" else None
    if user is not None:
        os.chown(folder, user, user)
    monkeypatch.setattr(embedded, "SYSTEM_ROOT", top / "system")
    project = Project(folder, top / "system", user)
    yield project
    for process in project.processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
    project.server.stop(force=True)
    shutil.rmtree(top)


def query(url: str, sql: str) -> str:
    command = [str(binaries_folder() / "psql"), "-X", "-A", "-t", "-q", "-d", url, "-c", sql]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def modes(*paths: Path) -> list[tuple[int, int, int]]:
    return [(s.st_mode, s.st_uid, s.st_gid) for s in (path.stat() for path in paths)]


def test_starts_with_its_first_user_and_stops_with_its_last(project: Project) -> None:
    first = project.use()
    second = project.use()
    server_process = project.server_process()

    assert first.url == second.url
    assert query(first.url, "show server_version_num").startswith("18")
    first.leave()
    assert query(second.url, "select 1") == "1"
    second.leave()
    assert process_start(server_process) is None
    assert project.server.status().running is False


def test_data_survives_stops_and_is_durable(project: Project) -> None:
    user = project.use()
    query(user.url, "create table kept (n int); insert into kept values (7)")
    user.leave()

    user = project.use()

    assert query(user.url, "select n from kept") == "7"
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert query(user.url, f"show {setting}") == "on"
    assert query(user.url, "show max_connections") == "200"
    assert query(user.url, "show listen_addresses") == ""


def test_many_first_users_at_once_share_one_server(project: Project) -> None:
    users = [project.entered(popen) for popen in [project.begin_user() for _ in range(4)]]

    starts = {query(user.url, "select pg_postmaster_start_time()") for user in users}

    assert len(starts) == 1
    assert len(project.server.status().users) == 4


def test_a_killed_user_does_not_keep_the_server_running(project: Project) -> None:
    killed, other = project.use(), project.use()
    killed.kill()

    other.leave()

    assert project.server.status().running is False


def test_a_server_whose_only_user_was_killed_is_found_again(project: Project) -> None:
    killed = project.use()
    server_process = project.server_process()
    killed.kill()
    assert project.server.status().users == ()

    user = project.use()

    assert project.server_process() == server_process
    user.leave()
    assert process_start(server_process) is None


def test_a_user_number_taken_over_by_another_process_does_not_count(project: Project) -> None:
    user = project.use()
    state = project.home / "postgres.json"
    raw = json.loads(state.read_text())
    raw["users"].append([os.getpid(), "started at another time"])
    state.write_text(json.dumps(raw))

    user.leave()

    assert project.server.status().running is False


def test_a_killed_server_starts_again(project: Project) -> None:
    user = project.use()
    query(user.url, "create table kept (n int); insert into kept values (7)")
    os.kill(project.server_process(), signal.SIGKILL)

    again = project.use()

    assert query(again.url, "select n from kept") == "7"


def test_a_leftover_process_file_naming_a_foreign_process_does_not_matter(project: Project) -> None:
    user = project.use()
    pid_file = project.home / "postgres" / "postmaster.pid"
    content = pid_file.read_text()
    user.leave()
    pid_file.write_text(content.replace(content.split()[0], str(os.getpid()), 1))
    os.chown(pid_file, pid_file.parent.stat().st_uid, -1)

    user = project.use()

    assert query(user.url, "select 1") == "1"
    assert process_start(os.getpid()) is not None


def test_a_lost_socket_is_made_again(project: Project) -> None:
    user = project.use()
    socket = Path(user.url.partition("host=")[2])
    shutil.rmtree(socket)

    again = project.use()

    assert query(again.url, "select 1") == "1"


def test_creation_cut_short_leaves_nothing_half_done(project: Project) -> None:
    project.use().leave()
    (project.home / "postgres").rename(project.home / "postgres.new")
    (project.home / "postgres.new" / "PG_VERSION").unlink()

    user = project.use()

    assert query(user.url, "select 1") == "1"
    assert not (project.home / "postgres.new").exists()


def test_only_folders_of_our_own_get_modes_and_owners(project: Project) -> None:
    around = [Path("/tmp"), project.folder.parent, project.folder]
    before = modes(*around)

    user = project.use()

    assert modes(*around) == before
    data = project.home / "postgres"
    socket = Path(user.url.partition("host=")[2])
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket.stat().st_mode) == 0o700
    assert data.stat().st_uid == socket.stat().st_uid != 0
    assert Path(f"/proc/{project.server_process()}").stat().st_uid == data.stat().st_uid
    assert len(str(socket)) < 90
    assert (project.folder / ".rhythm" / ".gitignore").read_text() == "*\n"
    if project.user is None and IS_ROOT:
        assert project.home.parent == project.system_root
        assert project.home.stat().st_uid == 0
    else:
        assert project.home == project.folder / ".rhythm"


def test_pinned_server_runs_without_users_until_told_to_stop(project: Project) -> None:
    project.use().leave()  # the data belongs to the right user from here on
    url = project.server.start_pinned()
    project.use().leave()
    assert query(url, "select 1") == "1"

    status = project.server.stop()

    assert status.running is False


def test_stop_and_reset_leave_a_server_in_use_alone(project: Project) -> None:
    user = project.use()
    query(user.url, "create table kept (n int)")

    assert project.server.stop().users == (user.popen.pid,)
    assert project.server.reset().users == (user.popen.pid,)
    assert query(user.url, "select count(*) from kept") == "0"


def test_reset_forgets_everything(project: Project) -> None:
    user = project.use()
    query(user.url, "create table kept (n int)")
    user.leave()

    project.server.reset()

    assert query(project.use().url, "select to_regclass('kept') is null") == "t"


def test_a_forked_child_does_not_release_for_its_parent(project: Project) -> None:
    server = EmbeddedServer(project.folder / ".rhythm", notice=lambda line: None)
    project.use().leave()
    url = server.ensure_running()
    child = os.fork()
    if child == 0:
        server.release()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

    assert query(url, "select 1") == "1"
    server.release()
    assert server.status().running is False


def test_a_forked_child_that_uses_it_too_is_a_user_of_its_own(project: Project) -> None:
    server = EmbeddedServer(project.folder / ".rhythm", notice=lambda line: None)
    project.use().leave()
    server.ensure_running()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            own = EmbeddedServer(project.folder / ".rhythm", notice=lambda line: None)
            own.ensure_running()
            two = len(own.status().users)
            own.release()
            status = 0 if (two, len(own.status().users)) == (2, 1) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    server.release()
    assert server.status().running is False


def test_two_objects_of_one_process_share_one_registration(project: Project) -> None:
    project.use().leave()
    first, second = project.server, project.server
    url = first.ensure_running()
    assert second.ensure_running() == url

    first.release()
    first.release()

    assert query(url, "select 1") == "1"
    second.release()
    assert second.status().running is False


def test_the_start_is_said_in_one_line(project: Project) -> None:
    project.use().leave()
    lines: list[str] = []
    server = EmbeddedServer(project.folder / ".rhythm", notice=lines.append)
    server.ensure_running()
    server.ensure_running()
    server.release()

    assert lines == [
        f"Started the embedded PostgreSQL 18 in {project.folder / '.rhythm' / 'postgres'} "
        "(set RHYTHM_DATABASE_URL to use your own)."
    ]


def test_data_of_another_release_is_named(project: Project) -> None:
    project.use().leave()
    (project.home / "postgres" / "PG_VERSION").write_text("17\n")

    with pytest.raises(DatabaseUnavailable, match=r"made by PostgreSQL 17.*runs 18"):
        project.server.ensure_running()


def test_a_server_that_cannot_start_shows_the_end_of_its_log(project: Project) -> None:
    project.use().leave()
    with (project.home / "postgres" / "postgresql.conf").open("a") as file:
        file.write("max_connections = many\n")

    with pytest.raises(DatabaseUnavailable, match="max_connections"):
        project.server.ensure_running()
    assert project.server.status().running is False


if IS_ROOT:

    def test_data_of_temporary_projects_that_are_gone_is_removed(
        project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(project.folder.parent))
        kept, gone = project.folder.parent / "kept", project.folder.parent / "gone"
        for folder in (kept, gone):
            server = EmbeddedServer(folder / ".rhythm", notice=lambda line: None)
            server.ensure_running()
            server.release()
        shutil.rmtree(gone)

        server = project.server
        server._make_home()

        assert sorted(home.name.rpartition("-")[0] for home in project.system_root.iterdir()) == ["kept", "orders"]

    def _private_copy(folder: Path) -> Path:
        (folder / "private").mkdir(mode=0o700)
        package = binaries_folder().parent.parent
        for name in (package.name, f"{package.name}.libs"):
            ignored = shutil.ignore_patterns("include", "pginstall")
            shutil.copytree(package.parent / name, folder / "private" / name, symlinks=True, ignore=ignored)
        return folder / "private" / package.name / "pginstall18" / "bin"

    def test_binaries_in_roots_private_folders_are_copied(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path, project: Project
    ) -> None:
        binaries = _private_copy(tmp_path)
        before = modes(tmp_path, tmp_path / "private", binaries)
        monkeypatch.setattr(embedded, "binaries_folder", lambda version=18: binaries)
        server = EmbeddedServer(project.folder / ".rhythm", notice=lambda line: None)

        url = server.ensure_running()

        assert query(url, "select 1") == "1"
        server.release()
        assert modes(tmp_path, tmp_path / "private", binaries) == before
        assert len(list(project.system_root.glob("postgresql-18-*/**/bin/postgres"))) == 1

else:

    def test_data_of_another_user_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        project.use().leave()
        monkeypatch.setattr(os, "geteuid", lambda: 12345)

        with pytest.raises(DatabaseUnavailable, match="belongs to the user"):
            project.server.ensure_running()
