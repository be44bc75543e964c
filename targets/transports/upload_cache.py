"""Models on a device under the names of their contents: each is sent once."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from targets.errors import FailureKind, SessionFailed, UsageError, printable
from targets.transports.base import Transport

MAX_CACHE_BYTES = 8 * 2**30
_SHORT_S = 60.0
_SUFFIX = re.compile(r"\.[a-z0-9]{1,16}")

# Every use marks the file as used now; then the oldest go while all together are larger than the bound ($2, in KiB).
_TIDY = """
cd -- "$1" && touch -c -- "$3" || exit 1
used=$(du -sk . | cut -f1)
for name in $(ls -tr); do
  [ "$used" -gt "$2" ] || break
  [ "$name" = "$3" ] && continue
  size=$(du -sk -- "$name" | cut -f1)
  rm -f -- "$name" && used=$((used - size))
done
"""


def cached_upload(transport: Transport, local: Path, sha256: str, *, max_cache_bytes: int = MAX_CACHE_BYTES) -> str:
    """Put a file on a device, unless its like is there already.

    Its name there is made of its hash alone, so that nothing in the name it has here can do harm. What was not used
    for longest goes when the folder grows too large.

    Args:
        transport: An open way to the device.
        local: The file.
        sha256: Hash of its content, hexadecimal.
        max_cache_bytes: Bound on all files kept so.

    Returns:
        Its path on the device, ``WORK_FOLDER/models/SHA256.SUFFIX``.

    Raises:
        UsageError: If that is no hash, or the file cannot be read.
        SessionFailed: If it cannot be written there, or is not what its hash says.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise UsageError(f"'{printable(sha256)}' is no SHA-256", "Give 64 hexadecimal digits.")
    suffix = local.suffix.lower()
    folder = posixpath.join(transport.work_folder, "models")
    remote = posixpath.join(folder, sha256 + (suffix if _SUFFIX.fullmatch(suffix) else ""))
    if transport.checksum(remote) != sha256:
        made = transport.run(["mkdir", "-p", "--", folder], timeout_s=_SHORT_S)
        if made.returncode != 0:
            raise SessionFailed(
                f"cannot make {printable(folder)} on the device: {printable(made.stderr.strip())}",
                FailureKind.TOOL_ERROR,
                "Free some space there or name another work_folder.",
            )
        transport.push(local, remote)
        if transport.checksum(remote) != sha256:
            transport.remove(remote)
            raise SessionFailed(
                f"{printable(local.name)} changed while it was sent", FailureKind.TOOL_ERROR, "Let it be written first."
            )
    argv = ["sh", "-c", _TIDY, "sh", folder, str(max_cache_bytes // 1024), posixpath.basename(remote)]
    transport.run(argv, timeout_s=_SHORT_S)  # a device without these tools keeps what it has
    return remote
