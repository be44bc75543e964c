"""The agent as one file: a zip of its few modules that Python runs as it is, from 3.6 on."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

import targets.agent

_WHEN = (1980, 1, 1, 0, 0, 0)  # the same bytes, and so the same hash, wherever it is packed
_MAIN = b'"""Starts the agent."""\nfrom targets.agent.inas_agent import main\n\nmain()\n'


@cache
def agent_bytes() -> bytes:
    """The packed agent: a zip with ``__main__.py`` and the modules of :mod:`targets.agent` under their own names."""
    folder = Path(targets.agent.__file__).resolve().parent
    files = {"__main__.py": _MAIN, "targets/__init__.py": (folder.parent / "__init__.py").read_bytes()}
    files |= {f"targets/agent/{path.name}": path.read_bytes() for path in folder.glob("*.py")}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:  # compressed, it would need zlib to start
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _WHEN), data)
    return packed.getvalue()


def write_agent(folder: Path) -> tuple[Path, str]:
    """Write the packed agent into a folder.

    Returns:
        The file and its SHA-256.
    """
    path = folder / "inas_agent.pyz"
    path.write_bytes(agent_bytes())
    return path, hashlib.sha256(agent_bytes()).hexdigest()
