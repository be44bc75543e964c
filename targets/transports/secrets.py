"""Take out of a conversation what says whose device it was: names, addresses, serial numbers, keys.

Each secret becomes the same placeholder wherever it stands, ``<user-1>`` for instance, so that the conversation still
fits together. A version such as ``10.3.0.26`` looks like an address: outside the private ranges only what stands where
addresses stand is taken for one. What a device prints decides what is searched here, so each pattern takes time in
proportion to the text, and what is unpacked is bounded.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import ipaddress
import platform
import re
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from targets.inventory import Device, split_address

PLACEHOLDER = re.compile(r"<(?:user|host|serial|address|mac|key|secret)-\d{1,4}>")
TOUCHING = re.compile(rf"(?:{PLACEHOLDER.pattern}){{2,}}")
"""Placeholders with nothing between them: nobody could tell afterwards where one ends."""

WORK_FOLDER = "/work-folder"
"""Stands for a work folder on this machine; absolute, as the programs on a device want it."""

MAX_UNPACKED = 64 * 2**20
"""Most bytes of compressed text that are unpacked and searched in one conversation."""

_PUBLIC = frozenset(
    {"admin", "android", "debian", "jetson", "nobody", "nvidia", "pi", "root", "runner", "shell", "ubuntu", "user"}
    # A host named after what it is tells nobody whose it is, and the name stands in what its tools print.
    | {"galaxy", "geforce", "intel", "linux", "nano", "nova", "orin", "tegra", "titan", "xavier"}
    | {"localhost", "127.0.0.1", "0.0.0.0", "::1"}
)
_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|COOKIE|API_?KEY|(?:^|_)(?:KEY|PAT|AUTH|PASS)(?:_|$|ID)|_PWD$",
    re.IGNORECASE,
)


class _Pattern(NamedTuple):
    """What one kind of secret looks like.

    Attributes:
        kind: First part of the placeholder.
        near: Lower-case words without one of which the pattern cannot be found; looking for them is much faster.
        pattern: The secret is the last group that took part, or all where there is none.
    """

    kind: str
    near: tuple[str, ...]
    pattern: re.Pattern[str]


# A value that goes on to the next blank, quote or comma; what was replaced in it already goes with it.
_VALUE = rf"((?:[^\s\"'<>&;,\\]|{PLACEHOLDER.pattern})+)"
_QUOTED = r"\\?\"([^\"\\\n]+)"
_COLON = r"\\?\"\s?:\s?"  # ends a JSON key, in JSON or in a text that JSON quotes
_PATTERNS = (
    _Pattern(
        "key",
        ("private key",),
        re.compile(
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:(?!-----)[\w+/=\s\\:,.-]){0,20000}"
            r"(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?",
            re.ASCII,
        ),
    ),
    _Pattern("secret", ("://",), re.compile(r"://([^/\s:@\"'<>]*:[^/\s\"']+)(?=@)")),
    _Pattern("secret", ("://",), re.compile(rf"://((?:{PLACEHOLDER.pattern}):[^/\s\"']+)(?=@)")),
    _Pattern(
        "secret",
        ("authorization", "bearer"),
        re.compile(
            rf"(?ai)authorization\\?[\"']?\s?[:=]\s?\\?[\"']?(?:(?:bearer|basic|digest|token)\s+)?{_VALUE}"
            r"|\bbearer\s+([\w.~+/=-]{8,})"
        ),
    ),
    _Pattern(
        "secret",
        ("token", "secret", "passw", "passphrase", "key"),
        re.compile(
            r"(?ai)(?:token|secret|passwo?r?d|passphrase|(?:api|access|auth)[_-]?key)"
            rf"(?:{_COLON}{_QUOTED}|={_QUOTED}|='([^'\n]+)|={_VALUE})"
            rf"|(?:secret|passwo?r?d|passphrase):[ \t]{{0,3}}{_VALUE}"
        ),
    ),
    _Pattern(
        "secret",
        ("gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_", "glpat-", "hf_", "akia", "xox"),
        re.compile(r"\b(?:gh[oprsu]_|github_pat_|glpat-|hf_|AKIA|xox[abp]-)[\w-]{10,}", re.ASCII),
    ),
    _Pattern("user", ("/home/", "/users/"), re.compile(r"/(?:home|Users)/([^/\s\"'<>:\\]+)")),
    _Pattern("serial", ("gpu-",), re.compile(r"GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")),
    _Pattern(
        "serial",
        ("serial", "imei"),
        re.compile(
            r"(?ai)(?:serialno|serial(?:[ _-]?(?:number|num|no))?|\bimei(?: ?\d)?)"
            rf"(?:{_COLON}\\?\"|\]: \[|[ \t]{{0,60}}[:=][ \t]{{0,8}})(?!(?:null|none|unknown)\b)([\w.:-]{{4,}})"
        ),
    ),
    _Pattern("mac", (":",), re.compile(r"(?<![0-9A-Fa-f:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:])")),
    # Digits alone would be a date and a time.
    _Pattern(
        "mac",
        ("-",),
        re.compile(r"(?<![0-9A-Za-z-])(?=[\d-]{0,16}[A-Fa-f])(?:[0-9A-Fa-f]{2}-){5}[0-9A-Fa-f]{2}(?![\w-])"),
    ),
    _Pattern(
        "address",
        ("192.168.", "169.254.", "172."),
        re.compile(r"(?<![\d.])(?:192\.168|169\.254|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d{1,3}){2}(?![\d.])"),
    ),
    _Pattern(
        "address",
        (".",),
        re.compile(
            r"(?:(?<=inet )|(?<=addr:)|(?<=from )|(?<=//)|(?<=@))\d{1,3}(?:\.\d{1,3}){3}(?![\d.])"
            r"|(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?=:\d{2,5}\b|/\d{1,2}\b)"
        ),
    ),
)
_KEY_END = re.compile(r"-----END [A-Z ]{0,40}PRIVATE KEY-----")
_KEY_TAIL = re.compile(r"[\w+/=\s\\]{0,20000}", re.ASCII)
_ADDRESS_6 = re.compile(
    r"(?<![\w:.])[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]{0,35}(?:(?:\.\d{1,3}){3})?(?!\w)", re.ASCII
)
# What a host can have: global, unique local, link or site local, multicast, and IPv4 in IPv6. The rest is a slice or
# a name in a program.
_NETWORKS_6 = tuple(
    ipaddress.IPv6Network(text)
    for text in ("2000::/3", "fc00::/7", "fe80::/9", "ff00::/8", "::ffff:0:0/96", "64:ff9b::/96")
)
_PACKED = re.compile(r"e[JNA][A-Za-z0-9+/]{62,}={0,2}")
_DEEPEST = 4  # a packed text in a packed text; the agent packs once


class Scrubber:
    """Replaces secrets by placeholders, the same one each time.

    Args:
        device: Its address, login, serial number and key are secrets, and so are this host's and user's names.
        work_folder: Its work folder, where its place is a secret; it becomes ``/work-folder``.

    Attributes:
        gave_up: Why not everything could be searched; what it hands out since then is empty.
    """

    def __init__(self, device: Device, work_folder: str = "") -> None:
        self.gave_up = ""
        self._folder = re.compile(rf"{re.escape(work_folder.rstrip('/')) or '(?!)'}(?![\w.-])")
        self._names: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}
        self._left = MAX_UNPACKED
        self._depth = 0
        self._kinds = _known_secrets(device)
        words = sorted(self._kinds, key=len, reverse=True)
        self._near = tuple(word.lower() for word in words)
        self._known = re.compile("|".join(_spelled(word, self._kinds[word]) for word in words) or r"(?!)")

    def text(self, text: str) -> str:
        """A text without its secrets."""
        text = self._folder.sub(WORK_FOLDER, text)
        lower = text.lower()
        if any(word in lower for word in self._near):
            text = self._known.sub(self._known_found, text)
        for kind, near, pattern in _PATTERNS:
            if any(word in lower for word in near):
                text = pattern.sub(partial(self._found, kind), text)
        if "private key" in lower:
            text = self._without_tails(text)
        if ":" in text:
            text = _ADDRESS_6.sub(self._address_6, text)
        if "><" in text:
            text = TOUCHING.sub(lambda found: self._placeholder("secret", found[0]), text)
        text = _PACKED.sub(lambda found: self._repacked(found[0]), text)
        return "" if self.gave_up else text

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

    def _known_found(self, found: re.Match[str]) -> str:
        word = found[0]
        return self._placeholder(self._kinds.get(word) or self._kinds[word.lower()], word)

    def _found(self, kind: str, found: re.Match[str]) -> str:
        begin, end = found.span(found.lastindex or 0)
        before, after = found.string[found.start() : begin], found.string[end : found.end()]
        return before + self._placeholder(kind, found.string[begin:end]) + after

    def _without_tails(self, text: str) -> str:
        """Also take out the second half of a private key whose middle was left out."""
        parts, at = [], 0
        for end in _KEY_END.finditer(text):
            before = text[max(at, end.start() - 20_000) : end.start()]
            tail = _KEY_TAIL.match(before[::-1])
            begin = end.start() - (tail.end() if tail else 0)
            parts += [text[at:begin], self._placeholder("key", text[begin : end.end()])]
            at = end.end()
        return "".join([*parts, text[at:]])

    def _address_6(self, found: re.Match[str]) -> str:
        whole = found[0]
        for text in (whole, whole.rstrip(":"), whole.rpartition(":")[0]):  # with a colon, or a port, after it
            try:
                address = ipaddress.IPv6Address(text)
            except ValueError:
                continue
            if any(address in network for network in _NETWORKS_6):
                return self._placeholder("address", text) + whole[len(text) :]
            return whole
        return whole

    def _placeholder(self, kind: str, value: str) -> str:
        if value in _PUBLIC or PLACEHOLDER.fullmatch(value):
            return value
        if (kind, value) not in self._names:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            if self._counts[kind] > 9999:
                self.gave_up = f"it holds more than 9999 texts that look like a {kind}"
            self._names[kind, value] = f"<{kind}-{self._counts[kind]}>"
        return self._names[kind, value]

    def _repacked(self, packed: str) -> str:
        """Compressed text inside a text (the agent's logs) may hold the same secrets."""
        if self.gave_up:
            return ""
        try:
            unpacking = zlib.decompressobj()
            plain = unpacking.decompress(base64.b64decode(packed, validate=True), self._left + 1)
        except (binascii.Error, zlib.error):
            return packed
        self._left -= len(plain)
        if self._left < 0 or self._depth >= _DEEPEST:
            self.gave_up = f"the device sent more than {MAX_UNPACKED // 2**20} MiB of compressed text, or nested it"
            return ""
        self._depth += 1
        clean = self.data(plain)
        self._depth -= 1
        if clean == plain:
            return packed
        # Cut short, it is of no use to anybody, and half of it cannot be packed as it was.
        return base64.b64encode(zlib.compress(clean)).decode() if unpacking.eof else self._placeholder("secret", packed)


def _spelled(word: str, kind: str) -> str:
    """A pattern of a known word: a full host name in any case, a login also before a digit or an underline."""
    text = f"(?i:{re.escape(word)})" if kind == "host" and "." in word else re.escape(word)
    if len(word) < 4:  # too likely to be a part of something else
        return rf"(?<![A-Za-z0-9_]){text}(?![A-Za-z0-9_])"
    return rf"(?<![A-Za-z0-9]){text}(?![A-Za-z{'' if kind == 'user' else '0-9'}])"


def _known_secrets(device: Device) -> dict[str, str]:
    """Words that are secrets wherever they stand, and what kind each is."""
    user, _, jump = (device.jump or "").rpartition("@")
    hosts = [host for host in (device.address[0], split_address(jump)[0], platform.node()) if host]
    kinds = {
        "host": (*hosts, *(host.lower() for host in hosts), *(label for host in hosts for label in _own_label(host))),
        "user": (device.user, user, _own_name(), Path.home().name),
        "serial": (device.serial,),
        "key": (device.key_file, device.known_hosts),
    }
    found = {word: kind for kind, words in kinds.items() for word in words if word}
    return {word: kind for word, kind in found.items() if len(word) > 2 and word not in _PUBLIC}


def _own_label(host: str) -> tuple[str, ...]:
    """The first part of a host name, which prompts show, as it is written and in lower case; none of an address."""
    label, dot, _ = host.partition(".")
    return (label, label.lower()) if dot and len(label) > 3 and not label.isdigit() else ()


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return ""
