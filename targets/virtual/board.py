"""A virtual board: a real sshd on this machine's loopback, as an ``ssh`` device that runs real runtimes.

The server runs as whoever starts it, with its own configuration and fresh keys in one folder; nothing of the system's
own ssh server is read or changed. The board has a home folder of its own, so that nobody's shell start files play a
part.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from targets.errors import DeviceUnavailable, printable
from targets.files import write_atomic
from targets.inventory import Device
from targets.transports.ssh_link import wire_errors
from targets.virtual.folder import locked, make_private

_HOST = "127.0.0.1"
_START_S = 15.0
_STOP_S = 5.0
_POLL_S = 0.02
_ATTEMPTS = 3  # the free port may be taken between the look and the start
_PRIVILEGE_FOLDER = Path("/run/sshd")  # where an sshd started by root confines itself; Debian makes it at boot

# StrictModes would refuse a folder under /tmp; the folder itself is closed to all others instead.
_CONFIGURATION = """\
Port {port}
ListenAddress {host}
HostKey "{folder}/host_key"
AuthorizedKeysFile "{folder}/authorized_keys"
PidFile "{folder}/sshd.pid"
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
UseDNS no
PrintMotd no
MaxStartups 100
MaxSessions 100
AllowTcpForwarding yes
LogLevel VERBOSE
Subsystem sftp internal-sftp
SetEnv "HOME={folder}/home" "PYTHONUSERBASE={user_base}"
"""


class VirtualBoard:
    """A virtual board for as long as a ``with`` block lasts.

    Args:
        folder: A folder for its keys, its configuration and its work folder; made if needed.
        name: Name of the device.

    Attributes:
        device: The device as an inventory would describe it; there once the block is entered.
    """

    device: Device

    def __init__(self, folder: Path, name: str = "board") -> None:
        self._folder = folder
        self._name = name

    def __enter__(self) -> Self:
        self.device = start_board(self._folder, self._name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop_board(self._folder)


def start_board(folder: Path, name: str = "board") -> Device:
    """Start a virtual board that outlives this process, or find that it runs already.

    Args:
        folder: A folder for its keys, its configuration and its work folder; made if needed.
        name: Name of the device.

    Returns:
        The device as an inventory would describe it.

    Raises:
        DeviceUnavailable: If no sshd is installed, or it does not start (its complaint is quoted), or the folder is
            another user's.
    """
    folder = folder.expanduser().resolve()
    if not str(folder).isprintable() or set(str(folder)) & set('"%\\'):
        raise DeviceUnavailable(f"sshd cannot use the folder {printable(str(folder))}", "Name another folder.")
    sshd = _program("sshd", "/usr/sbin/sshd", "/usr/local/sbin/sshd")
    keygen = _program("ssh-keygen")
    wire_errors()  # names the extra that is missing before anything is started
    try:
        make_private(folder)
        with locked(folder):
            port = _started(folder, sshd, keygen)
    except OSError as error:
        raise DeviceUnavailable(
            f"cannot set up a board in {folder}: {error.strerror}", "Name another folder."
        ) from error
    return Device(
        name=name,
        tags=("board", "virtual"),
        transport="ssh",
        host=_HOST,
        port=port,
        user=getpass.getuser(),
        key_file=str(folder / "client_key"),
        known_hosts=str(folder / "known_hosts"),
        python=sys.executable,
        runtime="onnxruntime",
        work_folder=str(folder / "device"),
        stand_in="virtual",
    )


def stop_board(folder: Path) -> None:
    """Stop a board and all its connections; one that does not run is left as it is.

    Args:
        folder: As for :func:`start_board`.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        return
    with locked(folder):
        pid = _pid(folder)
        if pid is not None:
            _stop(folder, pid)


def _stop(folder: Path, pid: int) -> None:
    family = [pid, *_children(pid)]
    for member in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGTERM)
    end = time.monotonic() + _STOP_S
    while any(_lives(member) for member in family) and time.monotonic() < end:
        time.sleep(_POLL_S)
    for member in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)
    (folder / "sshd.pid").unlink(missing_ok=True)


def board_is_running(folder: Path) -> bool:
    """Whether the board of a folder runs.

    Args:
        folder: As for :func:`start_board`.
    """
    return _pid(folder.expanduser().resolve()) is not None


def _program(name: str, *places: str) -> str:
    found = shutil.which(name) or next((place for place in places if os.access(place, os.X_OK)), None)
    if found is None:
        raise DeviceUnavailable(
            f"a virtual board needs {name}, which is not installed", "Run: sudo apt-get install openssh-server"
        )
    return found


def _started(folder: Path, sshd: str, keygen: str) -> int:
    """Have the folder's server run; its port."""
    (folder / "home").mkdir(mode=0o700, exist_ok=True)
    for name in ("host_key", "client_key"):
        if not (folder / name).exists():
            _make_key(folder, name, keygen)
    shutil.copyfile(folder / "client_key.pub", folder / "authorized_keys")
    (folder / "authorized_keys").chmod(0o600)
    if not board_is_running(folder):
        _start(folder, sshd)
    port = int((folder / "port").read_text())
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    write_atomic(folder / "known_hosts", f"[{_HOST}]:{port} {host_key}\n".encode())
    return port


def _make_key(folder: Path, name: str, keygen: str) -> None:
    """Make a pair elsewhere and move it into place, the private key last: where that is, both are whole."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        argv = [keygen, "-q", "-t", "ed25519", "-N", "", "-C", f"inas-deploy virtual board {name}"]
        argv += ["-f", str(Path(place) / name)]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DeviceUnavailable(f"ssh-keygen fails: {printable(done.stderr.strip(), 200)}", "Name another folder.")
        for file in (f"{name}.pub", name):
            (Path(place) / file).replace(folder / file)


def _start(folder: Path, sshd: str) -> None:
    if os.geteuid() == 0:
        _PRIVILEGE_FOLDER.mkdir(mode=0o755, exist_ok=True)
    for _ in range(_ATTEMPTS):
        port = _free_port()
        text = _CONFIGURATION.format(port=port, host=_HOST, folder=folder, user_base=site.getuserbase())
        (folder / "sshd_config").write_text(text)
        (folder / "port").write_text(f"{port}\n")
        (folder / "sshd.pid").unlink(missing_ok=True)
        argv = [sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
        with (folder / "sshd.log").open("wb") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        with contextlib.ExitStack() as undo:  # on Ctrl-C, too
            undo.callback(process.wait)
            undo.callback(process.kill)
            if _answers(folder, process, port):
                undo.pop_all()
                return
    lines = (folder / "sshd.log").read_text(errors="replace").strip().splitlines() or ["no word about why"]
    raise DeviceUnavailable(f"sshd does not start: {printable(lines[-1], 200)}", f"Its log is {folder / 'sshd.log'}.")


def _answers(folder: Path, process: subprocess.Popen[bytes], port: int) -> bool:
    end = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < end:
        if (folder / "sshd.pid").exists():
            with contextlib.suppress(OSError), socket.create_connection((_HOST, port), timeout=1):
                return True
        time.sleep(_POLL_S)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _pid(folder: Path) -> int | None:
    """The server's process, if the one of that number is this board's sshd and not a later one."""
    try:
        pid = int((folder / "sshd.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline")
        if command.exists() or Path("/proc/self").exists():
            return pid if str(folder / "sshd_config").encode() in command.read_bytes() else None
        os.kill(pid, 0)  # a system without /proc
    except (OSError, ValueError):
        return None
    return pid


def _children(pid: int) -> list[int]:
    """The processes that serve connections, and theirs, but not the sessions' own commands: these end by themselves."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            head, _, rest = entry.read_text(errors="replace").rpartition(")")
            name, parent = head.partition("(")[2], int(rest.split()[1])
            if parent == pid and name.startswith("sshd"):
                found += [int(entry.parent.name), *_children(int(entry.parent.name))]
    return found


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"
