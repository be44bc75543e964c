"""Devices that can be harmed: a virtual board and a virtual phone, each behind a relay, and what is left on them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from benchmarks.faulty.clock import Clock
from benchmarks.faulty.mangle import Mangler
from targets.inventory import Device
from targets.virtual.board import start_board, stop_board
from targets.virtual.phone import VirtualPhone
from targets.virtual.phone_box import SMALL_DISK, SMALL_DISK_BYTES
from targets.virtual.phone_files import TOOL
from targets.virtual.relay import Relay

_HOST = "127.0.0.1"
_CACHED = re.compile(r"[0-9a-f]{64}\.[a-z0-9]{1,16}")


class Stand(ABC):
    """A device with everything that is needed to harm it.

    Attributes:
        transport: ``ssh`` or ``adb``.
        relay: What connections go through.
        device: The device as seen through the relay.
        small: The device with its work folder on a small disk; ``None`` where this host allows none.
        clock: Its wall clock.
        mangler: What its tool prints.
    """

    transport: str
    relay: Relay
    device: Device
    small: Device | None
    clock: Clock
    mangler: Mangler

    @property
    @abstractmethod
    def direct(self) -> Device:
        """The device without the relay."""

    @abstractmethod
    def host_folder(self, work_folder: str) -> Path:
        """A folder of the device as this host sees it."""

    @abstractmethod
    def processes(self) -> list[int]:
        """What runs on it for the kit."""

    @abstractmethod
    def tools(self) -> list[int]:
        """Of these, what is being timed with."""

    @abstractmethod
    def reboot(self) -> None:
        """End everything on it, and start it again."""

    @abstractmethod
    def revoke(self) -> None:
        """Let nobody in any more."""

    @abstractmethod
    def authorize(self) -> None:
        """Let us in again."""

    @abstractmethod
    def close(self) -> None:
        """Stop it."""

    @property
    def devices(self) -> list[Device]:
        """All ways to see it."""
        return [self.device, *([self.small] if self.small else [])]

    def cached(self) -> list[Path]:
        """The models, and the agent, that it keeps."""
        return sorted((self.host_folder(str(self.device.work_folder)) / "models").glob("*"))

    def forget_cached(self) -> None:
        """Remove them."""
        for file in self.cached():
            file.unlink(missing_ok=True)

    def fill(self, free_bytes: int, *, empty: bool = False) -> None:
        """Fill the small disk up to so many bytes, with or without the models on it."""
        if self.small is not None:
            models = self.host_folder(str(self.small.work_folder)) / "models"
            for model in models.glob("*") if empty else ():
                model.unlink(missing_ok=True)
            place = self.host_folder(str(self.small.work_folder)).parent / "ballast"
            with contextlib.suppress(OSError), place.open("wb") as file:  # full is full
                status = os.statvfs(place.parent)
                file.write(bytes(max(0, status.f_bavail * status.f_frsize - free_bytes)))

    def drain(self) -> None:
        """Make room on the small disk again."""
        if self.small is not None:
            (self.host_folder(str(self.small.work_folder)).parent / "ballast").unlink(missing_ok=True)

    def files(self) -> list[str]:
        """All that lies in the work folders but for cached files and the folders that hold them."""
        found = []
        for device in self.devices:
            work = self.host_folder(str(device.work_folder))
            for path in sorted(work.rglob("*")):
                inside = path.relative_to(work)
                kept = inside.parts[0] == "models" and (path.is_dir() or bool(_CACHED.fullmatch(path.name)))
                if not kept and str(inside) not in ("sessions", "models"):
                    found.append(str(inside))
        return found

    def heal(self) -> None:
        """Take all harm back."""
        self.relay.fault = None
        self.mangler.honest()
        self.clock.set(0)
        self.authorize()
        self.drain()


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def words_of(pid: int) -> list[str]:
    """Command line of a process of this host; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


class Board(Stand):
    """A real sshd.

    Args:
        folder: Where it lives.
        python: Its Python.
    """

    transport = "ssh"

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self._folder = folder / "board"
        self._board = start_board(self._folder)
        (extra := folder / "extra").mkdir()
        self.clock = Clock(extra)
        self.mangler = Mangler(extra, str(extra), python, self.clock.environment())
        self._board = self._board.model_copy(update={"python": self.mangler.tool})
        self.relay = Relay((_HOST, 0), self._dial)
        known = folder / "known_hosts"
        kind, key = (self._folder / "host_key.pub").read_text().split()[:2]
        known.write_text(f"[{_HOST}]:{self.relay.port} {kind} {key}\n")
        behind = {"port": self.relay.port, "known_hosts": str(known)}
        self.device = self._board.model_copy(update=behind)
        self._disk = folder / "disk"
        self.small = self._small_disk()

    def _port(self) -> int:
        return int((self._folder / "port").read_text())  # another one after each start

    @property
    def direct(self) -> Device:
        """See :attr:`Stand.direct`."""
        return self._board.model_copy(update={"port": self._port()})

    def _dial(self) -> socket.socket:
        return socket.create_connection((_HOST, self._port()), timeout=5)

    def _small_disk(self) -> Device | None:
        self._disk.mkdir()
        argv = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", str(self._disk)]
        if os.geteuid() != 0 or subprocess.run(argv, capture_output=True, check=False).returncode != 0:
            return None
        return self.device.model_copy(update={"work_folder": str(self._disk / "inas")})

    def host_folder(self, work_folder: str) -> Path:
        """The board shares this host's files."""
        return Path(work_folder)

    def processes(self) -> list[int]:
        """Whatever has the board's home."""
        mark = f"HOME={self._folder}/home".encode()
        return [pid for pid in _pids() if mark in _environment(pid).split(b"\0")]

    def tools(self) -> list[int]:
        """The agent and its guard."""
        return [pid for pid in self.processes() if any(word.endswith(".pyz") for word in words_of(pid)[1:2])]

    def reboot(self) -> None:
        """See :meth:`Stand.reboot`."""
        stop_board(self._folder)
        for _ in range(3):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.relay.cut()
        start_board(self._folder)

    def revoke(self) -> None:
        """See :meth:`Stand.revoke`."""
        (self._folder / "authorized_keys").write_bytes(b"")

    def authorize(self) -> None:
        """See :meth:`Stand.authorize`."""
        shutil.copyfile(self._folder / "client_key.pub", self._folder / "authorized_keys")

    def close(self) -> None:
        """See :meth:`Stand.close`."""
        self.relay.close()
        stop_board(self._folder)
        if self.small is not None:
            subprocess.run(["umount", "-l", str(self._disk)], check=False)


class Phone(Stand):
    """A real adbd.

    Args:
        folder: Where it lives.
    """

    transport = "adb"

    def __init__(self, folder: Path) -> None:
        self._phone = VirtualPhone(folder / "phone", "phone")
        self._phone.start()
        root, inside = self._phone.root, "/data/local/tmp/extra"
        (extra := root / inside[1:]).mkdir()
        self.clock = Clock(extra, inside)
        self.mangler = Mangler(extra, inside, f"/{TOOL}", self.clock.environment())
        date = root / "system" / "bin" / "date"
        date.write_text(f'#!/bin/sh\nexec env {self.clock.environment()} /bin/date "$@"\n')
        date.chmod(0o755)
        self.relay = Relay((_HOST, 0), (_HOST, self._phone.device.port or 0))
        work = {"work_folder": "/data/local/tmp/inas-deploy", "tool": self.mangler.tool}
        self._behind = self._phone.device.model_copy(update=work)
        self.device = self._behind.model_copy(update={"port": self.relay.port})
        self.small = self.device.model_copy(update={"work_folder": f"{SMALL_DISK}/inas"})
        assert self._phone._process is not None
        self._unshare = self._phone._process.pid

    @property
    def direct(self) -> Device:
        """See :attr:`Stand.direct`."""
        return self._behind

    def host_folder(self, work_folder: str) -> Path:
        """Below the phone's root; its small disk is mounted for the phone's own processes only."""
        if work_folder.startswith(SMALL_DISK):
            return Path(f"/proc/{self._first()}/root{self._phone.root}{work_folder}")
        return self._phone.root / work_folder[1:]

    def _first(self) -> int:
        """Process 1 of the phone, by its number here."""
        children = Path(f"/proc/{self._unshare}/task/{self._unshare}/children").read_text().split()
        return int(children[0])

    def _inside(self) -> list[int]:
        mine = Path(f"/proc/{self._unshare}/ns/pid_for_children").readlink()
        found = []
        for pid in _pids():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/ns/pid").readlink() == mine:
                    found.append(pid)
        return found

    def processes(self) -> list[int]:
        """Whatever runs on the phone, but for its first process and adbd."""
        own = {self._first()}
        return [p for p in self._inside() if p not in own and (w := words_of(p)) and not w[0].startswith("/adbd/")]

    def tools(self) -> list[int]:
        """The tool that is timed with."""
        return [pid for pid in self.processes() if "targets.virtual.benchmark_model" in words_of(pid)]

    def reboot(self) -> None:
        """See :meth:`Stand.reboot`."""
        self._phone.reboot()
        self.relay.cut()

    def revoke(self) -> None:
        """See :meth:`Stand.revoke`."""
        self._phone.revoke()

    def authorize(self) -> None:
        """See :meth:`Stand.authorize`."""
        self._phone.revoke()
        self._phone.authorize(Path(f"{self.device.key_file}.pub"))

    def close(self) -> None:
        """See :meth:`Stand.close`."""
        self.relay.close()
        self._phone.stop()


STANDS: dict[str, Callable[[Path], Stand]] = {"ssh": Board, "adb": Phone}


def settled(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether something comes to hold within so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
