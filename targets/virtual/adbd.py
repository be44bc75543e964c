"""Debian's own adbd: fetched into a private folder, never installed, with authentication switched on.

Debian's package starts a daemon for everybody on all interfaces when it is installed, so the packages are only
downloaded (through the host's apt, which checks their signatures) and unpacked. Debian's build lets anyone in; one byte
of the binary, the initial value of ``auth_required``, is set so that it asks for a key as a phone does.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from targets.errors import DeviceUnavailable, printable
from targets.files import sha256_of
from targets.virtual.folder import locked

SUITE = "trixie"
VERSION = "34.0.5-12"
BINARY_SHA256 = "12e6493107d4c51ccc595efde96acae75838584bd1cf4d451a50e679f1498d1a"
PATCHED_SHA256 = "4c53f4266f15c72e78cb37794bda5ff98c3adcad07c99bdf7ab15b216cc12263"
BINARY = "usr/lib/android-sdk/platform-tools/adbd"
LOADER = "usr/lib64/ld-linux-x86-64.so.2"
LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/android")
CACHE_VARIABLE = "INAS_ADBD_CACHE"
MIRROR_VARIABLE = "INAS_DEBIAN_MIRROR"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_AUTH_OFF = bytes.fromhex("488d0573ef0200c60000")  # lea rax, auth_required; mov byte [rax], 0
_FETCH_TIMEOUT_S = 300.0


def adbd_tree() -> Path:
    """Folder that holds adbd, its libraries and its loader, fetched on first use.

    Returns:
        The unpacked tree; :data:`BINARY`, :data:`LOADER` and :data:`LIBRARIES` are paths in it.

    Raises:
        DeviceUnavailable: If this host cannot fetch or run it; the line says what is needed.
    """
    cache = _cache_folder()
    tree = cache / f"adbd-{VERSION}"
    if _is_whole(tree):
        return tree
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise DeviceUnavailable(
            f"the virtual phone runs on x86-64 Linux, not on {platform.system()} {platform.machine()}",
            "Use a real phone, or a Linux host.",
        )
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise DeviceUnavailable(
                f"the virtual phone's adbd comes from Debian's packages, and there is no {tool} here",
                f"Use a Debian or Ubuntu host, or point {CACHE_VARIABLE} at a cache filled on one.",
            )
    _make(cache)
    with locked(cache):
        if not _is_whole(tree):
            _fetch(tree)
    return tree


def _cache_folder() -> Path:
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "inas-deploy" / "adbd"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeviceUnavailable(
            f"cannot make the cache folder {folder}: {error.strerror}", f"Set {CACHE_VARIABLE} to a folder of yours."
        ) from error


def _is_whole(tree: Path) -> bool:
    """Whether a fetch ended here: the tree is renamed into place as the last step."""
    binary = tree / BINARY
    return binary.is_file() and sha256_of(binary) == PATCHED_SHA256


def _patched(binary: bytes) -> bytes:
    return binary.replace(_AUTH_OFF, _AUTH_OFF[:-1] + b"\x01")


def _fetch(tree: Path) -> None:
    """Download, unpack and patch into a folder beside the tree, then rename it."""
    site, keyring = _debian_site()
    with tempfile.TemporaryDirectory(dir=tree.parent, prefix="fetch-") as text:
        folder = Path(text)
        for name in ("state/lists/partial", "cache/archives/partial", "tree"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(f"deb [signed-by={keyring}] {site} {SUITE} main\n", encoding="utf-8")
        _run(["apt-get", "-qq", *_private(folder), "update"])
        _run(
            ["apt-get", "-qq", *_private(folder), "-y", "--no-install-recommends", "--download-only", "install", "adbd"]
        )
        for package in sorted((folder / "cache" / "archives").glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(folder / "tree")])
        _switch_authentication_on(folder / "tree" / BINARY)
        shutil.rmtree(tree, ignore_errors=True)
        (folder / "tree").rename(tree)


def _private(folder: Path) -> list[str]:
    """Options that keep apt inside one folder: nothing of the host's own state is read, locked or changed."""
    options = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Debug::NoLocking": "1",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "",  # apt's own user may not enter a folder of ours
        "APT::Architecture": "amd64",
    }
    return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]


def _debian_site() -> tuple[str, Path]:
    """Mirror and keyring: the host's own Debian mirror, or the one that the user names."""
    if not KEYRING.is_file():
        raise DeviceUnavailable(
            f"Debian's signing keys are not here ({KEYRING})", "Install them: apt-get install debian-archive-keyring."
        )
    site = os.environ.get(MIRROR_VARIABLE, "")
    if not site:
        text = _run(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(COMPONENT)|$(SITE)"])
        rows = [line.split("|") for line in text.splitlines()]
        sites = [
            row[2] for row in rows if len(row) == 3 and row[1] == "main" and row[2].rstrip("/").endswith("/debian")
        ]
        site = sites[0] if sites else ""
    if not re.fullmatch(r"(https?|file|mirror)://?[^\s\[\]]+", site):
        raise DeviceUnavailable(
            "no Debian mirror is known here: apt's sources name none", f"Set {MIRROR_VARIABLE} to its address."
        )
    return site, KEYRING


def _run(command: list[str]) -> str:
    env = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=env, timeout=_FETCH_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceUnavailable(f"{command[0]} did not fetch adbd: {error}", "Try again with a network.") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
        last = printable(lines[-1], 200) if lines else f"exit {done.returncode}"
        raise DeviceUnavailable(f"{command[0]} could not fetch adbd: {last}", "A Debian mirror must be reachable.")
    return done.stdout


def _switch_authentication_on(path: Path) -> None:
    binary = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(binary).hexdigest() != BINARY_SHA256 or binary.count(_AUTH_OFF) != 1:
        raise DeviceUnavailable(
            f"Debian {SUITE} now has another adbd than {VERSION}, in which nobody looked for the switch",
            "Update inas-deploy.",
        )
    path.write_bytes(_patched(binary))
