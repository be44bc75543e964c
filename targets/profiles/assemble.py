"""What the profiles of all runtimes have in common: the estimator and the finished record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from targets.records import OpProfile, OpTime

RESIDUAL_LIMIT = 0.05


def fastest_tenth(values: Sequence[float]) -> list[int]:
    """Positions of the fastest tenth, at least three where there are as many.

    The mean over these runs is additive over operations, unlike a quantile, and load of other
    processes, which only ever lengthens a run, stays outside it.

    Args:
        values: One total a run, any unit.
    """
    return [int(i) for i in np.argsort(np.asarray(values), kind="stable")[: max(3, len(values) // 10)]]


def warnings(residual: float, total_us: float) -> list[str]:
    """What a reader of a profile must be warned of, one sentence each.

    Args:
        residual: Signed share by which the operations miss the unprofiled time.
        total_us: Time seen in all operations.
    """
    if total_us <= 0:
        return ["Every operation is too short for the profiler's clock of whole microseconds, so none has a share."]
    if abs(residual) > RESIDUAL_LIMIT:
        return [
            f"The operations sum to {residual:+.1%} against the unprofiled time, beyond {RESIDUAL_LIMIT:.0%}: read the "
            "shares with care, and profile again on an idle host or with a larger model."
        ]
    return []


@dataclass(frozen=True)
class Joined:
    """What a runtime's operation executes.

    Attributes:
        source_nodes: Names of nodes of the source model.
        module: Module path; ``None`` where no rule joined it.
        kind: ``layout`` for a reorder or transpose the runtime put in.
        guessed: Whether no name led to the module and it is the one that lies around the operation.
    """

    source_nodes: tuple[str, ...] = ()
    module: str | None = None
    kind: Literal["compute", "layout"] = "compute"
    guessed: bool = False


@dataclass(frozen=True)
class Row:
    """One executed operation before rescaling.

    Attributes:
        name: The runtime's name.
        op_type: The runtime's type.
        kernel: Implementation, where told.
        corrected_us: Time with the cost of profiling taken off; may be slightly negative for tiny ops.
        joined: What it executes.
    """

    name: str
    op_type: str
    kernel: str
    corrected_us: float
    joined: Joined


def finished(
    runtime: str,
    rows: Sequence[Row],
    *,
    runs: int,
    unprofiled_us: float,
    profiled_us: float,
    notes: Sequence[str],
    reference_us: float | None = None,
) -> OpProfile:
    """Rescale op times to the unprofiled total and add up the shares.

    Args:
        runtime: Runtime name.
        rows: Operations in execution order; where none has a positive time, all shares are 0.
        runs: Profiled inferences behind each figure.
        unprofiled_us: Inference without profiling.
        profiled_us: Inference with profiling.
        notes: What a reader must know.
        reference_us: p10 of the reference model that took turns, where one did.
    """
    sum_us = sum(row.corrected_us for row in rows)
    times = [max(0.0, row.corrected_us) for row in rows]
    total = sum(times)
    unit = 1 / total if total > 0 else 0.0
    ops = tuple(
        OpTime(
            name=row.name,
            op_type=row.op_type,
            kernel=row.kernel,
            latency_us=time * unit * unprofiled_us,
            share=time * unit,
            source_nodes=row.joined.source_nodes,
            module=row.joined.module,
            kind=row.joined.kind,
        )
        for row, time in zip(rows, times, strict=True)
    )
    residual = (sum_us - unprofiled_us) / unprofiled_us
    guessed = sum(op.share for op, row in zip(ops, rows, strict=True) if row.joined.guessed)
    return OpProfile(
        runtime=runtime,
        ops=ops,
        runs=runs,
        unprofiled_us=unprofiled_us,
        profiled_us=profiled_us,
        reference_us=reference_us,
        sum_us=sum_us,
        residual_share=residual,
        attributed_share=min(1.0, sum(op.share for op in ops if op.module is not None)),
        layout_share=min(1.0, sum(op.share for op in ops if op.kind == "layout")),
        notes=(*notes, *_guess_note(guessed), *warnings(residual, total)),
    )


def _guess_note(share: float) -> list[str]:
    if share <= 0:
        return []
    return [f"{share:.1%} of the time is in operations that no name joins: they count for the module around them."]
