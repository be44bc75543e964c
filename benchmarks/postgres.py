"""A PostgreSQL server of one's own in a temporary folder, for tests and claims about a lab's database."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from targets.errors import KitError, UsageError

_USER, _PASSWORD, _DATABASE = "lab", "not-a-secret:/@", "postgres"
_QUOTED = "not-a-secret%3A%2F%40"


def find_binaries() -> Path | None:
    """Folder of ``initdb`` and ``pg_ctl``: the newest of Debian's, or that on the PATH; ``None`` without any."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = packaged[-1:] or [Path(place) for place in [shutil.which("initdb")] if place]
    return found[0].parent if found else None


class PostgresServer:
    """A server on loopback that asks for a password; a context manager that ends it and removes its folder.

    PostgreSQL refuses to run as root, so root runs it as ``nobody``.

    Attributes:
        url: As a user would give it to ``--store``.
        password: The part of it that no message may hold.

    Raises:
        UsageError: If PostgreSQL is not installed.
        KitError: If it does not start.
    """

    def __init__(self) -> None:
        binaries = find_binaries()
        if binaries is None:
            raise UsageError("no PostgreSQL server is installed", "Install the system package postgresql.")
        self._binaries = binaries
        self._as_user: dict[str, Any] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="lab-"))
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
            self._as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self.password = _PASSWORD
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"postgresql://{_USER}:{_QUOTED}@127.0.0.1:{self._port}/{_DATABASE}"
        self._make()

    def _make(self) -> None:
        secret = self._folder / "secret"
        secret.write_text(_PASSWORD)
        secret.chmod(0o644)  # for the server's user; the folder is closed to others
        login = ["-U", _USER, "--pwfile", str(secret), "-A", "scram-sha-256"]
        self._call("initdb", "-D", str(self._folder / "data"), "-E", "UTF8", "--locale=C", "--no-sync", *login)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        # Without fsync a crash of the server still loses nothing; a crash of the host, which nobody plays here, would.
        options = f"-h 127.0.0.1 -p {self._port} -k {self._folder} -c fsync=off -c full_page_writes=off"
        self._control("start", "-w", "-l", str(self._folder / "log"), "-o", options)

    def stop(self) -> None:
        """End it at once, as a crash would: no client is waited for."""
        self._control("stop", "-m", "immediate")

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement as the server's owner; rows of a query, else nothing."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _control(self, *arguments: str) -> None:
        self._call("pg_ctl", "-D", str(self._folder / "data"), *arguments)

    def _call(self, program: str, *arguments: str) -> None:
        # Into a file: the server would keep a pipe open for as long as it runs.
        with tempfile.TemporaryFile() as said:
            command = [str(self._binaries / program), *arguments]
            env = {**os.environ, "LC_ALL": "C"}
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": subprocess.STDOUT}
            done = subprocess.run(command, cwd=self._folder, env=env, timeout=120, **streams, **self._as_user)
            if done.returncode != 0:
                said.seek(0)
                raise KitError(f"{program} failed: {said.read()[-500:].decode(errors='replace')!r}")

    def close(self) -> None:
        """End it and remove its folder."""
        if (self._folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
