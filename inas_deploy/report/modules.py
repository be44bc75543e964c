"""Per-op times added up by module: compute, layout changes, and what no rule could place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from targets.records import OpProfile, OpTime

TOP_MODULE = "(top module)"
UNATTRIBUTED = "unattributed"
_SEPARATOR = re.compile(r"[./]")


@dataclass(frozen=True)
class ModuleTime:
    """Time of one inference spent in one module.

    Attributes:
        module: Module path, cut to the depth asked for; ``None`` for the ops that no rule joined.
        compute_us: Time in the module's own operations.
        layout_us: Time in reorders and transposes that the runtime put in itself.
        share: Both over the profile's sum, 0 to 1.
        ops: The operations, in execution order.
    """

    module: str | None
    compute_us: float
    layout_us: float
    share: float
    ops: tuple[OpTime, ...]

    @property
    def total_us(self) -> float:
        """Compute and layout together."""
        return self.compute_us + self.layout_us

    @property
    def name(self) -> str:
        """What a table prints for the module."""
        return UNATTRIBUTED if self.module is None else self.module or TOP_MODULE


@dataclass(frozen=True)
class GroupTime:
    """Time of one inference spent in operations that share an implementation.

    Attributes:
        op_type: The runtime's operation type.
        kernel: Implementation chosen; empty where the runtime does not tell.
        count: Number of operations.
        latency_us: Their time.
        share: Their time over the profile's sum, 0 to 1.
    """

    op_type: str
    kernel: str
    count: int
    latency_us: float
    share: float


def cut(module: str, depth: int) -> str:
    """Keep the first ``depth`` components of a dotted or slashed module path."""
    for position, separator in enumerate(_SEPARATOR.finditer(module.lstrip("/")), start=1):
        if position == depth:
            return module.lstrip("/")[: separator.start()]
    return module.lstrip("/")


def by_module(profile: OpProfile, depth: int) -> list[ModuleTime]:
    """Add up op times by module.

    Args:
        profile: Per-op times.
        depth: Components of the module path to keep, at least 1.

    Returns:
        One entry a module in the order of first execution; the unattributed entry last, where there is one.
    """
    groups: dict[str | None, list[OpTime]] = {}
    for op in profile.ops:
        groups.setdefault(None if op.module is None else cut(op.module, depth), []).append(op)
    unplaced = groups.pop(None, [])
    ordered: list[tuple[str | None, list[OpTime]]] = [*groups.items()]
    if unplaced:
        ordered.append((None, unplaced))
    return [_module_time(module, ops, profile) for module, ops in ordered]


def readable_depth(profile: OpProfile, rows: int = 24) -> int:
    """Greatest depth, from 1, that adds detail and still gives at most ``rows`` modules (1 where none does)."""
    deepest = max((len(_SEPARATOR.split(op.module)) for op in profile.ops if op.module), default=1)
    fitting = [depth for depth in range(1, min(deepest, 12) + 1) if len(by_module(profile, depth)) <= rows]
    return max(fitting, default=1)


def by_kernel(profile: OpProfile) -> list[GroupTime]:
    """Add up op times by operation type and implementation, slowest first."""
    groups: dict[tuple[str, str], list[OpTime]] = {}
    for op in profile.ops:
        groups.setdefault((op.op_type, op.kernel), []).append(op)
    total = _total_us(profile.ops)
    found = []
    for (op_type, kernel), ops in groups.items():
        latency_us = _total_us(ops)
        found.append(GroupTime(op_type, kernel, len(ops), latency_us, latency_us / total if total else 0.0))
    return sorted(found, key=lambda group: (-group.latency_us, group.op_type, group.kernel))


def slowest(profile: OpProfile, top: int) -> list[OpTime]:
    """The ``top`` operations that take longest, slowest first."""
    return sorted(profile.ops, key=lambda op: -op.latency_us)[:top]


def _module_time(module: str | None, ops: list[OpTime], profile: OpProfile) -> ModuleTime:
    layout_us = _total_us(op for op in ops if op.kind == "layout")
    compute_us = _total_us(op for op in ops if op.kind == "compute")
    total = _total_us(profile.ops)
    return ModuleTime(module, compute_us, layout_us, (layout_us + compute_us) / total if total else 0.0, tuple(ops))


def _total_us(ops: Iterable[OpTime]) -> float:
    return sum(op.latency_us for op in ops)
