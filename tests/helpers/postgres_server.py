"""A real Postgres server on loopback, for as long as a test needs it."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_S = 30
PASSWORD = "secret-of-the-test"  # noqa: S105


def binaries() -> Path | None:
    """Return the folder of the newest server's programs, or None where none is installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    if folders:
        return folders[-1]
    found = shutil.which("initdb")
    return Path(found).parent if found else None


@contextmanager
def postgres() -> Iterator[str]:
    """Start a server with an empty database; yield its address, and remove everything after."""
    with restartable() as server:
        yield server.address


@contextmanager
def restartable() -> Iterator["Server"]:
    """Start a server with an empty database that can be stopped and started; remove everything after."""
    programs = binaries()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    user = _unprivileged()
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    as_user = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    password_file = folder / "password"
    password_file.write_text(PASSWORD)
    password_file.chmod(0o644)
    make = [programs / "initdb", "-D", folder / "db", "-U", "dagster", "-A", "scram-sha-256"]
    subprocess.run(
        [*map(str, make), f"--pwfile={password_file}"], check=True, capture_output=True, cwd=folder, **as_user
    )
    serve = [str(programs / "postgres"), "-D", str(folder / "db"), "-p", str(port), "-h", "127.0.0.1"]
    server = Server([*serve, "-k", str(folder), "-c", "fsync=off"], folder, port, as_user)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


class Server:
    """A server on loopback, by the command that serves it."""

    def __init__(self, command: list[str], folder: Path, port: int, as_user: dict[str, Any]) -> None:
        self.address = f"postgresql+psycopg2://dagster:{PASSWORD}@127.0.0.1:{port}/postgres"
        self._command, self._folder, self._port, self._as_user = command, folder, port, as_user
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it, and return once it answers."""
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            **self._as_user,
        )
        _wait(self._port, self._process)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it: SIGINT cuts its connections, SIGTERM waits until they are closed."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_S)


def _unprivileged() -> "pwd.struct_passwd | None":
    """Return whom to run the server as: Postgres refuses root."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None


def _wait(port: int, server: subprocess.Popen) -> None:
    import psycopg2

    for _ in range(10 * START_S):
        assert server.poll() is None, "The server ended."
        try:
            psycopg2.connect(
                host="127.0.0.1", port=port, user="dagster", password=PASSWORD, dbname="postgres"
            ).close()
        except psycopg2.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"Postgres did not answer within {START_S} s.")
