"""Keep what native libraries print to file descriptor 2 out of the way, and at hand for an error message."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

_STDERR = 2


class NativeOutput:
    """What was printed so far.

    Args:
        file: The file that descriptor 2 points to meanwhile.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def lines(self) -> list[str]:
        """Lines printed so far, in order, without the empty ones."""
        self._file.seek(0)
        return [line for line in self._file.read().decode("utf-8", "replace").splitlines() if line.strip()]

    def error_line(self) -> str:
        """Last line that a library marked as an error, or ``""``."""
        return next((line for line in reversed(self.lines()) if line.startswith("ERROR")), "")


@contextmanager
def captured_stderr() -> Iterator[NativeOutput]:
    """Send descriptor 2 to a file for a while.

    Native libraries write their notes there from C, past ``sys.stderr``. A crash inside the block still ends the
    process with its signal; only the text is lost with the file.

    Yields:
        The text, readable inside the block.
    """
    sys.stderr.flush()
    saved = os.dup(_STDERR)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), _STDERR)
            try:
                yield NativeOutput(file)
            finally:
                sys.stderr.flush()
                os.dup2(saved, _STDERR)
    finally:
        os.close(saved)
