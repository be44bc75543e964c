"""Floor 4: the kit a person uses: measure, report, convert and bundle."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_FLOORS = ("targets", "search", "training")


class ShadowedPackage(ImportError):
    """Another file or folder answers to the name of one of the kit's own packages."""


def place_of(package: str) -> Path | None:
    """File or folder Python would import for a name, without importing it."""
    try:
        spec = find_spec(package)
    except ValueError:  # something put a module without a spec into sys.modules
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve() if spec.origin else None


def _is_command() -> bool:
    """Whether a person typed ``python -m inas_deploy...`` or ``inas-deploy``: no traceback then."""
    program = sys.argv[0] if sys.argv else ""
    return program == "-m" or Path(program).stem == "inas-deploy"


def _check_siblings() -> None:
    for package in _FLOORS:
        place = place_of(package)
        if place == _ROOT / package:
            continue
        if place is None:
            text = (
                f"the package {package!r} that belongs beside {_ROOT / 'inas_deploy'} is missing; install the kit again"
            )
        else:
            text = (
                f"{place} shadows the kit's own package {package!r}; "
                "rename it, or start from another folder (python -m puts the current one first)"
            )
        if _is_command():
            sys.stderr.write(f"error: {text}\n")
            raise SystemExit(2)
        raise ShadowedPackage(text, name=package, path=None if place is None else str(place))


_check_siblings()
