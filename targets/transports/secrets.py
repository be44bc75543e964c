"""Take out of a conversation what says whose device it was: names, addresses, serial numbers, keys.

Each secret becomes the same placeholder wherever it stands, ``<user-1>`` for instance, so that the conversation still
fits together. A version such as ``10.3.0.26`` looks like an address: outside the private ranges only what stands where
addresses stand is taken for one.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import platform
import re
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from targets.inventory import Device, split_address

PLACEHOLDER = re.compile(r"<(?:user|host|serial|address|mac|key|secret)-\d{1,4}>")

_PUBLIC = frozenset(
    {"admin", "android", "debian", "jetson", "nobody", "nvidia", "root", "shell", "ubuntu", "user"}
    | {"localhost", "127.0.0.1", "0.0.0.0", "::1"}
)
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY", re.IGNORECASE)
_PATTERNS = (
    ("key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)),
    ("secret", re.compile(r"(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)")),
    ("user", re.compile(r"(?<=/home/)[^/\s\"'<>:\\]+|(?<=/Users/)[^/\s\"'<>:\\]+")),
    ("serial", re.compile(r"GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")),
    (
        "serial",
        re.compile(r"(?:(?<=serialno\]: \[)|(?<=[Ss]erial: )|(?<=[Ss]erial Number: )|(?<=\"serial\": \"))[\w.:-]{4,}"),
    ),
    ("mac", re.compile(r"(?<![0-9A-Fa-f:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:])")),
    ("address", re.compile(r"(?<![\d.])(?:192\.168|169\.254|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d{1,3}){2}(?![\d.])")),
    (
        "address",
        re.compile(
            r"(?:(?<=inet )|(?<=addr:)|(?<=from )|(?<=//)|(?<=@))\d{1,3}(?:\.\d{1,3}){3}(?![\d.])"
            r"|(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?=:\d{2,5}\b|/\d{1,2}\b)"
        ),
    ),
    ("address", re.compile(r"(?<=inet6 )[0-9a-f:]{3,39}")),
)
_PACKED = re.compile(r"eJ[A-Za-z0-9+/]{62,}={0,2}|eN[A-Za-z0-9+/]{62,}={0,2}|eA[A-Za-z0-9+/]{62,}={0,2}")
_MOST_UNPACKED = 64 * 2**20


class Scrubber:
    """Replaces secrets by placeholders, the same one each time.

    Args:
        device: Its address, login, serial number and key are secrets, and so are this host's and user's names.
    """

    def __init__(self, device: Device) -> None:
        self._names: dict[tuple[str, str], str] = {}
        known = _known_secrets(device)
        words = sorted(known, key=len, reverse=True)
        self._kinds = known
        boundary = "|".join(re.escape(word) for word in words)
        self._known = re.compile(rf"(?<![A-Za-z0-9_])(?:{boundary})(?![A-Za-z0-9_])") if words else None

    def text(self, text: str) -> str:
        """A text without its secrets."""
        if self._known is not None:
            text = self._known.sub(lambda found: self._placeholder(self._kinds[found[0]], found[0]), text)
        for kind, pattern in _PATTERNS:
            text = pattern.sub(partial(self._found, kind), text)
        return _PACKED.sub(lambda found: self._repacked(found[0]), text)

    def data(self, data: bytes) -> bytes:
        """Bytes without their secrets; what is not text is searched all the same."""
        try:
            return self.text(data.decode("utf-8")).encode("utf-8")
        except UnicodeDecodeError:
            return self.text(data.decode("latin-1")).encode("latin-1")

    def env(self, env: Mapping[str, str]) -> dict[str, str]:
        """Variables without their secrets; one whose name says that it is a secret loses its value."""
        return {
            name: self._placeholder("secret", value) if _SECRET_NAME.search(name) else self.text(value)
            for name, value in env.items()
        }

    def _found(self, kind: str, found: re.Match[str]) -> str:
        return self._placeholder(kind, found[0])

    def _placeholder(self, kind: str, value: str) -> str:
        if value in _PUBLIC or PLACEHOLDER.fullmatch(value):
            return value
        count = sum(1 for other, _ in self._names if other == kind)
        return self._names.setdefault((kind, value), f"<{kind}-{count + 1}>")

    def _repacked(self, packed: str) -> str:
        """Compressed text inside a text (the agent's logs) may hold the same secrets."""
        try:
            unpacking = zlib.decompressobj()
            plain = unpacking.decompress(base64.b64decode(packed, validate=True), _MOST_UNPACKED)
        except (binascii.Error, zlib.error):
            return packed
        if unpacking.unconsumed_tail or not unpacking.eof:
            return packed
        clean = self.data(plain)
        return packed if clean == plain else base64.b64encode(zlib.compress(clean)).decode("ascii")


def _known_secrets(device: Device) -> dict[str, str]:
    """Words that are secrets wherever they stand, and what kind each is."""
    user, _, jump = (device.jump or "").rpartition("@")
    kinds = {
        "host": (device.address[0], split_address(jump)[0], platform.node()),
        "user": (device.user, user, _own_name(), Path.home().name),
        "serial": (device.serial,),
        "key": (device.key_file, device.known_hosts),
    }
    found = {word: kind for kind, words in kinds.items() for word in words if word}
    return {word: kind for word, kind in found.items() if len(word) > 2 and word not in _PUBLIC}


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return ""
