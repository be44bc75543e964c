"""The one door to optional packages: imported where used, and missed with the extra's name."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from typing import Any

from targets.errors import MissingExtra

DISTRIBUTION = "inas-deploy"


def require(module: str, extra: str) -> Any:
    """Import an optional module.

    Args:
        module: Import path, for example ``"openvino"``.
        extra: The extra of this kit that installs it.

    Returns:
        The imported module (untyped: optional packages need not be there for the type checker).

    Raises:
        MissingExtra: If the module, or something it imports, is not installed.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # the second: a native library that does not load
        raise MissingExtra(
            f"{module!r} cannot be imported ({error})",
            f"Install it with: pip install '{DISTRIBUTION}[{extra}]'",
        ) from error


def installed(module: str) -> bool:
    """Whether a top-level module is there, without importing it."""
    return importlib.util.find_spec(module) is not None


def version_of(distribution: str) -> str | None:
    """Version of an installed distribution, or ``None`` where it is absent."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
