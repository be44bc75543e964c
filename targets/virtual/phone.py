"""A virtual phone: a real adbd that asks for a key, in namespaces of its own, with real LiteRT behind its tools.

It needs Linux on x86-64, the programs ``unshare`` and ``chroot``, and user namespaces; no root and no installed adbd.
Its root folder shows the host's system and Python read-only; what a phone would hold is its own and can be looked at
and changed from outside.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import targets
from targets.errors import DeviceUnavailable, UsageError, printable
from targets.inventory import Device
from targets.transports.adb_keys import ensure_key
from targets.virtual import adbd
from targets.virtual.folder import locked, make_private
from targets.virtual.phone_files import write_phone_files

_SCANNED_BY_ADB = range(5555, 5586)
_START_S = 60.0
_STOP_S = 10.0
_ANSWER_S = 30.0


class VirtualPhone:
    """A phone that lives as long as this object; a context manager.

    Args:
        folder: Where its key, its root folder and its logs lie; made if it is not there.
        name: Name of :attr:`device`.

    Attributes:
        device: Its inventory entry.
        root: Host path of the phone's root folder.
    """

    def __init__(self, folder: Path, name: str = "virtual-phone") -> None:
        self._folder = folder.absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self._name = name
        self.root = self._folder / "root"
        self.device = Device(name=name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            DeviceUnavailable: If this host cannot run it (the line says what is needed), or one runs there already.
        """
        with _alone(self._folder):
            if phone_is_running(self._folder):
                raise DeviceUnavailable(f"a phone runs in {self._folder} already", "Stop it, or name another folder.")
            self._process, self.device = _start(self._folder, self._name, detached=False)

    def stop(self) -> None:
        """End every process of it; stopping twice is harmless."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def reboot(self) -> None:
        """End adbd and all that runs on the phone, drop all connections, and come back."""
        self._ask("reboot")

    def cut(self) -> None:
        """Drop all live connections."""
        self._ask("cut")

    def authorize(self, public_key: Path) -> None:
        """Let the holder of a key in, from the next connection on.

        Args:
            public_key: The ``.pub`` file.
        """
        allowed = self._allowed()
        allowed.write_bytes(allowed.read_bytes() + public_key.read_bytes().strip() + b"\n")

    def revoke(self) -> None:
        """Let nobody in, from the next connection on."""
        self._allowed().write_bytes(b"")

    def _allowed(self) -> Path:
        return self.root / "data" / "misc" / "adb" / "adb_keys"

    def _ask(self, command: str) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise DeviceUnavailable("the virtual phone is not running", "Start it first.")
        process.stdin.write(f"{command}\n".encode())
        process.stdin.flush()
        _answer(process, self._folder, _ANSWER_S)


def start_phone(folder: Path, name: str = "virtual-phone") -> Device:
    """Start a virtual phone that outlives this process.

    Args:
        folder: Where its files lie; the same folder stops it.
        name: Name of the device.

    Returns:
        Its inventory entry; that of the one that runs there already, if one does.

    Raises:
        DeviceUnavailable: If this host cannot run it.
    """
    folder = folder.absolute()
    with _alone(folder):
        if phone_is_running(folder):
            return Device.model_validate_json((folder / "device.json").read_text(encoding="utf-8"))
        process, device = _start(folder, name, detached=True)
    process.returncode = 0  # it is meant to outlive us: no warning about a child that still runs
    return device


def stop_phone(folder: Path) -> None:
    """Stop what :func:`start_phone` started; stopping twice is harmless."""
    folder = folder.absolute()
    if not folder.is_dir():
        return
    with locked(folder):
        pid = _running_pid(folder)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)  # unshare ignores the milder ones; the kernel then ends all inside
            deadline = time.monotonic() + _STOP_S
            while _running_pid(folder) is not None and time.monotonic() < deadline:
                time.sleep(0.02)
        (folder / "phone.pid").unlink(missing_ok=True)


def phone_is_running(folder: Path) -> bool:
    """Whether a phone started from this folder is up."""
    return _running_pid(folder.absolute()) is not None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The folder, made and private, with nobody else starting or stopping a phone there."""
    with contextlib.ExitStack() as held:
        try:
            make_private(folder)
            held.enter_context(locked(folder))
        except OSError as error:
            raise UsageError(f"cannot make a phone in {folder}: {error.strerror}", "Name a folder of yours.") from error
        yield


def _running_pid(folder: Path) -> int | None:
    """Its process, if that is still the one we started and not another under a number used again."""
    try:
        saved = json.loads((folder / "phone.pid").read_text(encoding="utf-8"))
        pid, started = int(saved["pid"]), int(saved["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if _start_ticks(pid) == started else None


def _start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks after boot; ``None`` where it does not run (proc(5), field 22)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _start(folder: Path, name: str, *, detached: bool) -> tuple[subprocess.Popen[bytes], Device]:
    for tool in ("unshare", "chroot"):
        if shutil.which(tool, path=_search_path()) is None:
            raise DeviceUnavailable(f"the virtual phone needs the program {tool}", "Install util-linux and coreutils.")
    tree = adbd.adbd_tree()
    root = folder / "root"
    try:
        for place in ("data/misc/adb", "data/local/tmp"):
            (root / place).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make a phone in {folder}: {error.strerror}", "Name a folder of yours.") from error
    key = ensure_key(folder / "adbkey")
    allowed = root / "data" / "misc" / "adb" / "adb_keys"
    if not allowed.exists():
        allowed.write_bytes(key.with_name("adbkey.pub").read_bytes().strip() + b"\n")
    write_phone_files(root, sys.executable)
    with _listener() as listener:
        port: int = listener.getsockname()[1]
        command = [*_namespaces(), *_box_command(root, tree, listener.fileno()), *(["--detached"] if detached else [])]
        with (folder / "phone.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=[listener.fileno()],
                start_new_session=True,
                env={**os.environ, "PATH": _search_path(), "PYTHONPATH": str(_package_parent())},
                cwd="/",
            )
    device = _device(name, port, key)
    with contextlib.ExitStack() as undo:
        undo.callback(_end, process)
        _note(folder, process, device)  # before it is ready: it can be found and stopped, whatever becomes of us
        _answer(process, folder, _START_S)
        undo.pop_all()
    if detached and process.stdout is not None:
        process.stdout.close()
    return process, device


def _note(folder: Path, process: subprocess.Popen[bytes], device: Device) -> None:
    (folder / "device.json").write_text(device.model_dump_json(exclude_none=True), encoding="utf-8")
    started = {"pid": process.pid, "started": _start_ticks(process.pid)}
    (folder / "phone.pid").write_text(json.dumps(started), encoding="utf-8")


def _device(name: str, port: int, key: Path) -> Device:
    return Device(
        name=name,
        tags=("android", "virtual"),
        transport="adb",
        host="127.0.0.1",
        port=port,
        key_file=str(key),
        runtime="tflite",
        tool="/data/local/tmp/benchmark_model",
        stand_in="virtual",
    )


def _search_path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _package_parent() -> Path:
    return Path(targets.__file__).resolve().parent.parent


def _namespaces() -> list[str]:
    kinds = ["--user", "--map-root-user", "--mount", "--net", "--pid", "--ipc"]
    return ["unshare", *kinds, "--fork", "--kill-child"]


def _box_command(root: Path, tree: Path, listen_fd: int) -> list[str]:
    command = [sys.executable, "-m", "targets.virtual.phone_box", str(root), str(tree), "--listen-fd", str(listen_fd)]
    command += ["--loader", adbd.LOADER, "--libraries", ":".join(adbd.LIBRARIES), "--binary", adbd.BINARY]
    command += ["--python-path", str(_package_parent())]
    for place in _shared_folders():
        command += ["--share", str(place)]
    return command


def _shared_folders() -> list[Path]:
    """What Python on the phone needs of this host: its own prefixes and this package."""
    wanted = {Path(sys.prefix), Path(sys.base_prefix), Path(targets.__file__).resolve().parent}
    usr = Path("/usr")  # is there already
    chosen: list[Path] = []
    for place in sorted(wanted):
        if place != usr and usr not in place.parents and not any(above in place.parents for above in chosen):
            chosen.append(place)
    return chosen


def _listener() -> socket.socket:
    """A socket on a free port that the adb server does not take for an emulator's."""
    while True:
        listener = socket.create_server(("127.0.0.1", 0))
        if listener.getsockname()[1] not in _SCANNED_BY_ADB:
            return listener
        listener.close()


def _answer(process: subprocess.Popen[bytes], folder: Path, timeout_s: float) -> None:
    """Wait for one line from inside; anything but good news is an error."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], timeout_s)
    line = process.stdout.readline().decode("utf-8", "replace").strip() if ready else ""
    if line and not line.startswith("failed"):
        return
    log = folder / "phone.log"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    last = next((text for text in reversed(lines) if text.strip()), "")
    reason = printable(line.removeprefix("failed ") or last or "it says nothing", 200)
    raise DeviceUnavailable(
        f"the virtual phone did not start: {reason}",
        "It needs user namespaces (kernel.unprivileged_userns_clone=1; in a container, the right to unshare and to "
        "mount) and Linux 5.12 or newer.",
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ending ``unshare`` ends process 1 of the phone, and the kernel then ends all others."""
    process.kill()
    process.wait(_STOP_S)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
