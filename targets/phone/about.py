"""What a phone says of itself, and where its ``benchmark_model`` lies."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from targets.errors import DeviceUnavailable, FailureKind, SessionFailed, printable
from targets.inventory import Device
from targets.transports.base import Transport

USUAL_PLACE = "/data/local/tmp/benchmark_model"
HOW_TO_GET = (
    "Download the official benchmark_model for its ABI, then: adb push benchmark_model /data/local/tmp/ && "
    "adb shell chmod +x /data/local/tmp/benchmark_model"
)

_TIMEOUT_S = 60.0
_FIND = r"""
for place in "$@"; do
  case $place in
    */*) ;;
    *) place=$(command -v "$place") || continue ;;
  esac
  if [ -f "$place" ] && [ -x "$place" ]; then printf '%s\n' "$place"; exit 0; fi
done
exit 1
"""
# No serial number, account or address is asked for.
_PROPERTIES = {
    "model": "ro.product.model",
    "manufacturer": "ro.product.manufacturer",
    "soc_manufacturer": "ro.soc.manufacturer",
    "soc": "ro.soc.model",
    "platform": "ro.board.platform",
    "hardware": "ro.hardware",
    "android": "ro.build.version.release",
    "sdk": "ro.build.version.sdk",
    "build": "ro.build.id",
    "security_patch": "ro.build.version.security_patch",
    "abi": "ro.product.cpu.abi",
}
_ABOUT = r"""
for name in "$@"; do printf '%s=%s\n' "$name" "$(getprop "$name" 2>/dev/null | head -n 1)"; done
printf 'kernel=%s\n' "$(uname -r)"
"""


@dataclass(frozen=True)
class Tool:
    """The tool on the phone.

    Attributes:
        path: Where it lies.
        sha256: Hash of it.
        banner: First line it prints where that is not the official tool's: a stand-in says so there.
    """

    path: str
    sha256: str
    banner: str

    def versions(self) -> dict[str, str]:
        """Versions as a record holds them. The official tool tells no version, so its hash is one."""
        return {"tflite": self.banner or f"benchmark_model {self.sha256[:16]}", "benchmark_model": self.sha256}


def find_tool(device: Device, transport: Transport) -> Tool:
    """Find ``benchmark_model``: where the inventory says, on the phone's PATH, or in its usual place.

    Args:
        device: From the inventory.
        transport: The way to it.

    Raises:
        DeviceUnavailable: If it is not there; the line says how to get it.
        SessionFailed: If the phone does not answer, or the tool is killed.
    """
    places = [device.tool] if device.tool else ["benchmark_model", USUAL_PLACE]
    done = transport.run(["sh", "-c", _FIND, "sh", *places], timeout_s=_TIMEOUT_S)
    path = done.stdout.decode("utf-8", "replace").strip()
    sha256 = transport.checksum(path) if done.returncode == 0 and path.isprintable() and path else None
    if sha256 is None:
        raise DeviceUnavailable(
            f"device {device.name!r} has no executable benchmark_model at {' or '.join(places)}", f"{HOW_TO_GET}."
        )
    shown = transport.run([path, "--help"], timeout_s=_TIMEOUT_S)
    if shown.returncode < 0:  # killed before it could say who it is
        raise SessionFailed(
            f"benchmark_model on {device.name} was ended by signal {-shown.returncode} when it was asked for its flags",
            FailureKind.OUT_OF_MEMORY if shown.returncode == -signal.SIGKILL else FailureKind.TOOL_ERROR,
            "Close other apps, or push the build for its ABI.",
        )
    text = (shown.stdout + b"\n" + shown.stderr).decode("utf-8", "replace")
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    official = re.fullmatch(r"(?:INFO: )?STARTING!", first) or "usage:" in first or not first
    return Tool(path, sha256, "" if official else printable(first, 100))


def about_phone(transport: Transport) -> dict[str, str]:
    """Model, SoC and software of a phone, as far as it tells them.

    Raises:
        SessionFailed: If it does not answer.
    """
    done = transport.run(["sh", "-c", _ABOUT, "sh", *_PROPERTIES.values()], timeout_s=_TIMEOUT_S)
    told: dict[str, str] = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition("=")
        told.setdefault(name, printable(value.strip(), 80))
    found = {key: told.get(name, "") for key, name in _PROPERTIES.items()} | {"kernel": told.get("kernel", "")}
    return {key: value for key, value in found.items() if value}
