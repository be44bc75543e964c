"""One of the processes that fight for devices in :mod:`benchmarks.leases`: lease, measure under a witness, save."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from targets.errors import DeviceUnavailable
from targets.leases.base import LeaseBook
from targets.leases.database import DatabaseLeases
from targets.leases.files import FileLeases
from targets.records import RunSettings, SessionRecord
from targets.store import ResultStore

TURN_S = 0.05
WAIT_S = 600.0


def open_book(place: str, lease_s: float) -> LeaseBook:
    """Leases in a database for a URL, else in a folder."""
    if "://" in place:
        return DatabaseLeases(place, lease_s=lease_s)
    return FileLeases(Path(place), lease_s=lease_s)


def state_of(pid: int) -> str:
    """A process's state letter (``T`` where it is stopped); empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


@contextmanager
def witnessed(path: Path) -> Iterator[bool]:
    """Hold a lock that has nothing to do with the leases; false where another running process holds it.

    The lock of a process that was stopped is set aside: it lost its lease, and has to notice that when it goes on.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    alone = True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        alone = state_of(int(os.pread(handle, 20, 0).strip() or 0)) == "T"
        os.close(handle)
        path.unlink()
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        os.pwrite(handle, str(os.getpid()).encode().ljust(20), 0)
        yield alone
    finally:
        os.pwrite(handle, b" " * 20, 0)
        os.close(handle)


def session_of(index: int, started: float) -> SessionRecord:
    """A session that took what this turn took."""
    now = datetime.now(UTC)
    return SessionRecord(
        session_id=uuid.uuid4().hex,
        index=index,
        started_at=now,
        finished_at=now,
        samples_ns=(max(1, round((time.monotonic() - started) * 1e9)),),
        settings=RunSettings(runtime="onnxruntime"),
        actual={},
        versions={},
    )


def main() -> int:
    """Take turns until the file ``stop`` is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--book", "--store", "--run", "--number", "--lease-s", "--folder"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    folder, number = Path(options.folder), int(options.number)
    book = open_book(options.book, float(options.lease_s))
    with ResultStore(options.store) as store, (folder / f"{number}.log").open("a") as log:
        (folder / f"{number}.ready").touch()
        while not (folder / "go").exists():
            time.sleep(0.02)
        turn = 0
        while not (folder / "stop").exists():
            device = f"device-{(number + turn) % 2}"
            turn += 1
            asked = time.monotonic()
            said: dict[str, object] = {"device": device, "asked": asked, "pid": os.getpid()}
            with book.acquire(device, wait_s=WAIT_S) as lease:
                with witnessed(folder / f"{device}.witness") as alone:
                    started = time.monotonic()
                    time.sleep(TURN_S)
                    ended = time.monotonic()
                said |= {"token": lease.token, "start": started, "end": ended, "alone": alone}
                try:
                    lease.check()
                except DeviceUnavailable as error:
                    print(json.dumps({**said, "lost": str(error)}), file=log, flush=True)
                    continue
            session = session_of(number * 100_000 + turn, started)
            store.save_session(options.run, "variant", session)
            print(json.dumps({**said, "session": session.session_id}), file=log, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
