"""The inside of a virtual phone: process 1 of its own namespaces, which mounts, starts adbd, and relays to it.

Started by :mod:`targets.virtual.phone` through ``unshare``; needs nothing but the standard library. The socket it
listens on was opened outside, so it lives in the host's network, while adbd, which listens on all interfaces, sees only
the phone's own loopback. Commands arrive as lines on standard input, each answered with one line on standard output.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

from targets.virtual.relay import Relay

SMALL_DISK = "/mnt/small"
SMALL_DISK_BYTES = 4 * 2**20

_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MOUNT_SETATTR, _AT_RECURSIVE, _AT_FDCWD, _ATTR_RDONLY = 442, 0x8000, -100, 1
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_CPU = Path("/sys/devices/system/cpu")
_CPU_FILES = ("online", "offline", "possible", "present", "kernel_max")
_START_S = 20.0
_BOOT_S = 0.3

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Set the phone up and serve until standard input ends or says ``stop``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("tree", type=Path, help="adbd and its libraries")
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--loader", required=True)
    parser.add_argument("--libraries", required=True)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--share", type=Path, action="append", default=[], help="host folder to show, read-only")
    parser.add_argument("--python-path", default="")
    parser.add_argument("--detached", action="store_true", help="outlive the starter: standard input may end")
    options = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # started by nohup, all on the phone would ignore hang-ups
    try:
        box = _Box(options)
        box.start()
    except OSError as error:
        _say(f"failed {error}")
        sys.exit(1)
    _say("ready")
    box.serve()


class _Box:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._root: Path = options.root
        self._adbd: subprocess.Popen[bytes] | None = None
        listener = socket.socket(fileno=options.listen_fd)
        self._port = listener.getsockname()[1]  # adbd also listens on vsock, which no namespace separates: no fixed one
        self._mount_all()
        _loopback_up()
        self._relay = Relay(listener, ("127.0.0.1", self._port))

    def start(self) -> None:
        """Start adbd and wait until it listens."""
        options = self._options
        python_path = [f"PYTHONPATH={options.python_path}"] if options.python_path else []
        libraries = ":".join(f"/adbd/{place}" for place in options.libraries.split(":"))
        command = ["chroot", str(self._root), "/usr/bin/env", "-i", "HOME=/data/local/tmp", "TMPDIR=/data/local/tmp"]
        command += ["PATH=/system/bin:/usr/bin:/bin", "ANDROID_DATA=/data", "ANDROID_ROOT=/system", "LANG=C.UTF-8"]
        command += [*python_path, f"ADBD_PORT={self._port}", f"/adbd/{options.loader}"]
        command += ["--library-path", libraries, f"/adbd/{options.binary}"]
        log = self._root.parent / "adbd.log"
        with log.open("ab") as file:
            self._adbd = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._adbd.poll() is not None:
                raise OSError(f"adbd ended with status {self._adbd.returncode}; see {log}")
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise OSError(f"adbd does not listen after {_START_S:g} s; see {log}")

    def serve(self) -> None:
        """Obey until told to stop, bury the orphans that process 1 inherits, and start adbd again if it dies."""
        woken, wake = os.pipe()
        for end in (woken, wake):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)  # no polling: it would disturb what is being timed
        sources, pending = [0, woken], b""
        while 0 in sources or self._options.detached:
            self._bury()
            for source in select.select(sources, [], [])[0]:
                chunk = os.read(source, 4096)
                if source == 0 and not chunk:
                    sources.remove(0)
                elif source == 0:
                    *lines, pending = (pending + chunk).split(b"\n")
                    for line in lines:
                        self._obey(line.decode("utf-8", "replace"))
        self._kill_all()

    def _obey(self, line: str) -> None:
        if line == "cut":
            _say(f"cut {self._relay.cut()}")
        elif line == "reboot":
            self._kill_all()
            self._relay.cut()
            time.sleep(_BOOT_S)
            self.start()
            _say("ready")
        elif line == "stop":
            self._kill_all()
            sys.exit(0)
        else:
            _say("unknown")

    def _kill_all(self) -> None:
        if os.getpid() != 1:  # never outside a namespace of our own, where -1 is everybody
            return
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            return
        while True:
            try:
                os.wait()
            except ChildProcessError:
                return

    def _bury(self) -> None:
        try:
            while True:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is None:
                    return
                if self._adbd is not None and found.si_pid == self._adbd.pid:
                    self._adbd.wait()
                    self.start()
                else:
                    os.waitpid(found.si_pid, 0)
        except ChildProcessError:
            return

    def _mount_all(self) -> None:
        _mount("none", Path("/"), "", _MS_REC | _MS_PRIVATE)
        for place in _SYSTEM:
            self._share(Path(place))
        for place in self._options.share:
            self._share(place)
        self._bind(self._options.tree, "adbd")
        for name in ("proc", "dev/pts", "dev/shm", "tmp", "data/misc/adb", "data/local/tmp", SMALL_DISK[1:]):
            (self._root / name).mkdir(parents=True, exist_ok=True)
        _mount("proc", self._root / "proc", "proc", 0)
        _mount("devpts", self._root / "dev" / "pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
        _mount("tmpfs", self._root / "dev" / "shm", "tmpfs", 0)
        _mount("tmpfs", self._root / SMALL_DISK[1:], "tmpfs", 0, f"size={SMALL_DISK_BYTES}")
        for name in _DEVICES:
            self._bind(Path("/dev") / name, f"dev/{name}", read_only=False)
        for name, target in {"ptmx": "pts/ptmx", "fd": "/proc/self/fd"}.items():
            link = self._root / "dev" / name
            if not link.is_symlink():
                link.symlink_to(target)
        self._bind_cpu()

    def _bind_cpu(self) -> None:
        """Show the real processor's layout: a runtime that finds none silently takes other kernels."""
        for name in _CPU_FILES:
            if (_CPU / name).is_file():
                self._bind(_CPU / name, str(_CPU / name)[1:])
        for core in sorted(_CPU.glob("cpu[0-9]*")):
            for name in ("topology", "cache"):
                if (core / name).is_dir():
                    self._bind(core / name, str(core / name)[1:])

    def _share(self, place: Path) -> None:
        """Show a host folder at its own path, or the link that stands there."""
        inside = self._root / str(place)[1:]
        if place.is_symlink():
            if not inside.is_symlink():
                inside.parent.mkdir(parents=True, exist_ok=True)
                inside.symlink_to(place.readlink())
        elif place.is_dir():
            self._bind(place, str(place)[1:])

    def _bind(self, source: Path, inside: str, *, read_only: bool = True) -> None:
        target = self._root / inside
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        _mount(str(source), target, "", _MS_BIND | (_MS_REC if stat.S_ISDIR(source.stat().st_mode) else 0))
        if read_only:
            _make_read_only(target)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _mount(source: str, target: Path, kind: str, flags: int, options: str = "") -> None:
    words = (source.encode(), str(target).encode(), kind.encode(), flags, options.encode())
    if _libc.mount(*words):
        raise OSError(ctypes.get_errno(), f"cannot mount {source} on {target}: {os.strerror(ctypes.get_errno())}")


def _make_read_only(target: Path) -> None:
    """``mount_setattr`` changes this one flag and keeps those that a user namespace may not drop."""
    wanted = (ctypes.c_uint64 * 4)(_ATTR_RDONLY, 0, 0, 0)
    path = str(target).encode()
    if _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path, _AT_RECURSIVE, wanted, ctypes.sizeof(wanted)):
        raise OSError(ctypes.get_errno(), f"cannot protect {target} (Linux 5.12 or newer is needed)")


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sH14x", b"lo", 1 | 64)  # IFF_UP and IFF_RUNNING
        fcntl.ioctl(probe, 0x8914, request)  # SIOCSIFFLAGS


if __name__ == "__main__":
    main()
