"""What commands and files on a phone share: errors told apart, and nothing left behind on the phone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from targets.errors import DeviceUnavailable, FailureKind, SessionFailed, UsageError, printable
from targets.inventory import Device
from targets.transports.adb_connection import AdbConnection, Refused, Unreachable
from targets.transports.adb_link import LinkFlooded, LinkLate, LinkLost
from targets.transports.adb_scripts import settle_script

WORK_FOLDER = "/data/local/tmp/inas-deploy"
SHORT_S = 30.0
"""Deadline of a script that only looks or tidies, seconds."""

_MAX_PATH_BYTES = 1000  # adbd takes 1024, of which a temporary name needs some


class AdbSession:
    """A connection to one phone, and the list of what may still lie or run there because of us.

    Args:
        device: From the inventory.

    Attributes:
        name: The device's.
        work_folder: On the phone.
        connection: The way there.

    Raises:
        DeviceUnavailable: If it cannot be reached, or has not accepted our key.
        MissingExtra: If adb-shell is not installed.
    """

    def __init__(self, device: Device) -> None:
        self.name = device.name
        self.work_folder = device.work_folder or WORK_FOLDER
        self.connection = AdbConnection(device)
        self._settle_s = max(device.connect_timeout_s, 5.0)
        self._tokens: set[str] = set()
        self._files: set[str] = set()
        self._open = True
        try:
            self.ready()
        except (LinkLost, LinkLate, LinkFlooded, Refused) as error:
            raise DeviceUnavailable(f"{self.name} was lost right after it answered: {error}", "Try again.") from error

    def ready(self) -> None:
        """Connect if need be, and then clear away what an earlier connection left.

        Raises:
            DeviceUnavailable: If the transport is closed or the phone cannot be reached.
            LinkLost: If it goes away (and as :meth:`AdbConnection.execute`).
        """
        if not self._open:
            raise DeviceUnavailable(f"the transport to {self.name} is closed", "Open the device again.")
        if not self.connection.is_open:
            self.connection.open()
            self._settle()

    def ask(self, script: str, timeout_s: float = SHORT_S) -> list[str]:
        """Run one of our own scripts and return the lines that it prints, stripped."""
        text = self.connection.execute(script, timeout_s).decode("utf-8", "replace")
        return [line.strip() for line in text.splitlines() if line.strip()] or [""]

    @contextlib.contextmanager
    def guarded(
        self, what: str, timeout_s: float, *, tokens: Sequence[str] = (), files: Sequence[str] = ()
    ) -> Iterator[None]:
        """Do something on the phone; whatever goes wrong is cleared away there and told as one of the kit's errors.

        Args:
            what: What is done, for the error.
            timeout_s: Its deadline, for the error.
            tokens: Runs that may be left on the phone.
            files: Files that may be left there.

        Raises:
            SessionFailed: With the class of the failure.
            DeviceUnavailable: If the transport is closed, or the phone no longer lets us in.
        """
        self._tokens.update(tokens)
        self._files.update(files)
        try:
            self.ready()
            yield
        except LinkLate as error:
            self.tidy()
            raise SessionFailed(
                f"{what} was stopped at its deadline of {timeout_s:g} s",
                FailureKind.TIMEOUT,
                "Give it more time or less to do.",
            ) from error
        except (LinkLost, Unreachable) as error:
            self.tidy()
            raise SessionFailed(
                f"{what} was lost with the device: {printable(str(error), 200)}",
                FailureKind.LOST_DEVICE,
                "Check the cable or the network.",
            ) from error
        except LinkFlooded as error:
            self.tidy()
            raise SessionFailed(f"{what} was stopped: the device sends without end", FailureKind.TOOL_ERROR) from error
        except Refused as error:
            self.tidy()
            raise SessionFailed(f"{what} was refused: {error}", FailureKind.TOOL_ERROR) from error
        self._tokens.difference_update(tokens)
        self._files.difference_update(files)

    def tidy(self) -> None:
        """Try to clear away what may be left; what cannot be cleared now is kept in mind for the next connection."""
        try:
            if self.connection.is_open:
                self._settle()
            else:
                self.ready()
        except (LinkLost, LinkLate, LinkFlooded, Refused, DeviceUnavailable):
            return  # the failure that led here is the one to tell

    def close(self) -> None:
        """Clear away what may be left and hang up; closing twice is harmless."""
        if self._open and (self._tokens or self._files):
            self.tidy()
        self._open = False
        self.connection.drop()

    def _settle(self) -> None:
        tokens, files = sorted(self._tokens), sorted(self._files)
        if self.ask(settle_script(self.work_folder, tokens, files), self._settle_s)[-1] == "settled":
            self._tokens.difference_update(tokens)
            self._files.difference_update(files)


def check_path(path: str) -> None:
    """Refuse a path on the phone that adb cannot name.

    Raises:
        UsageError: If it is relative, too long, ends in a slash, or holds a NUL character.
    """
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        size = _MAX_PATH_BYTES + 1
    if not path.startswith("/") or path.endswith("/") or "\0" in path or size > _MAX_PATH_BYTES:
        raise UsageError(
            f"{printable(path)!r} is no path of a file on a phone",
            f"Give an absolute one of at most {_MAX_PATH_BYTES} bytes of UTF-8.",
        )
