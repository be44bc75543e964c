"""Errors that end as one clear line: what is wrong, where, and what to do."""

from __future__ import annotations

from enum import StrEnum


class FailureKind(StrEnum):
    """Why a session failed; only ``LOST_DEVICE`` and ``TIMEOUT`` are worth another try."""

    LOST_DEVICE = "lost_device"
    TIMEOUT = "timeout"
    BAD_ARTIFACT = "bad_artifact"
    TOOL_ERROR = "tool_error"
    OUT_OF_MEMORY = "out_of_memory"

    @property
    def retryable(self) -> bool:
        """Whether trying again can help."""
        return self in {FailureKind.LOST_DEVICE, FailureKind.TIMEOUT}


class KitError(Exception):
    """Base of every error the kit raises on purpose.

    Args:
        what: What is wrong, naming the value and the place (file, line, key).
        fix: What to do about it, as an imperative sentence.
    """

    exit_code = 2

    def __init__(self, what: str, fix: str = "") -> None:
        self.what = what
        self.fix = fix
        super().__init__(what, fix)

    def __str__(self) -> str:
        text = self.what if not self.fix else f"{self.what.rstrip('.')}. {self.fix}"
        return " ".join(text.split())


class UsageError(KitError):
    """The request itself is wrong: an unknown name, a bad option, an unreadable file."""


class InvalidModel(KitError):
    """A model file cannot be used: truncated, unsafe, dynamic, or holding an op nobody knows."""


class MissingExtra(KitError):
    """An optional package is not installed; the message names the extra that brings it."""


class UnknownLayout(KitError):
    """A tool printed something no parser knows; the offending text is quoted."""


class MissingProfile(KitError):
    """A measurement is whole and its per-op profile could not be taken."""


class StoreError(KitError):
    """A result store cannot be read or written."""


class DeviceUnavailable(KitError):
    """A device exists in the inventory and cannot be used now."""

    exit_code = 3


class SessionFailed(KitError):
    """One session ended without a result.

    Args:
        what: What went wrong, with the tool's last line.
        kind: The class of failure, which decides whether a retry makes sense.
        fix: What to do about it.
    """

    exit_code = 3

    def __init__(self, what: str, kind: FailureKind, fix: str = "") -> None:
        super().__init__(what, fix)
        self.kind = kind


def printable(text: str | bytes, longest: int = 120) -> str:
    """A name out of an untrusted file, made safe to print: escaped and cut to one short line.

    Args:
        text: The name; bytes are what protobuf hands over where the file's text is not UTF-8.
        longest: Characters kept.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    start = text[:longest]
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in start)
    return escaped if len(escaped) <= longest and start == text else f"{escaped[:longest]}..."
