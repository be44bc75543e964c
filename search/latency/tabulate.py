"""From a run's observations to a latency table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from search.latency.conditions import Conditions
from search.latency.drift import network_effects, relative_spread, smoothed_drift
from search.latency.observations import Observation
from search.latency.pace import at_one_speed, usual_reference_us
from search.latency.table import BlockKey, LatencyTable, Row, TableHeader
from search.spaces.block import BlockSpec
from targets.errors import UsageError

LEAST_US = 0.1
"""What a block counts at least: the profilers' clocks tell no less, and no block is free."""
_REPEATED = 3


def table_of(
    conditions: Conditions, observations: Sequence[Observation], *, made_at: datetime | None = None
) -> LatencyTable:
    """Put the blocks of all profiled networks together.

    Time that belongs to no block is shared out over the network's blocks by their time. Where a reference network took
    turns with each, all is told at one speed of the machine (:mod:`search.latency.pace`). Drift of the device and the
    state of single processes are taken off (:mod:`search.latency.drift`) before figures of one block are compared.

    Args:
        conditions: What the observations hold for.
        observations: Of one run, in any order; sessions without blocks are left out.
        made_at: Date of the table; now by default.

    Raises:
        UsageError: If no network was profiled.
    """
    profiled = sorted((one for one in at_one_speed(observations) if one.profiled), key=lambda one: one.at)
    if not profiled:
        raise UsageError("no network was profiled yet, so there is no table", "Measure longer (--minutes).")
    specs, networks, keys, latency_us = _flat(profiled, conditions.input_size)
    factors = _drift(profiled)
    latency_us = latency_us / factors[networks]
    effects = network_effects(networks, keys, latency_us)
    latency_us = latency_us / effects[networks]
    rows, spreads = [], []
    for number, values in _grouped(keys, latency_us).items():
        row = _row(specs[number], values)
        rows.append(row)
        if row.count >= _REPEATED and row.spread is not None:
            spreads.append(row.spread)
    header = TableHeader(
        conditions=conditions,
        made_at=made_at or datetime.now(UTC),
        source="profile",
        noise_floor=float(np.median(spreads)) if spreads else None,
        notes=_notes(profiled, factors, effects),
    )
    return LatencyTable.of(header, rows)


def keys_of(observation: Observation, input_size: tuple[int, int]) -> list[BlockKey]:
    """Keys of the blocks that an observation tells, each as often as the network has it."""
    return [spec.key for spec in observation.architecture.blocks(input_size) if spec.name in observation.blocks_us]


def _flat(
    profiled: Sequence[Observation], size: tuple[int, int]
) -> tuple[list[BlockSpec], np.ndarray, np.ndarray, np.ndarray]:
    """Every block of every network, a block that it has twice once (the mean).

    Returns:
        Blocks by number; per observation the network, the block's number and the latency.
    """
    numbers: dict[BlockKey, int] = {}
    specs: list[BlockSpec] = []
    networks, keys, latency_us = [], [], []
    for network, one in enumerate(profiled):
        told = sum(one.blocks_us.values())
        shared = 1 + one.unattributed_us / told if told > 0 else 1.0
        found: dict[BlockKey, list[float]] = defaultdict(list)
        for spec in one.architecture.blocks(size):
            if spec.name not in one.blocks_us:
                continue
            if spec.key not in numbers:
                numbers[spec.key] = len(specs)
                specs.append(spec._replace(name=""))
            found[spec.key].append(one.blocks_us[spec.name] * shared)
        for key, values in found.items():
            networks.append(network)
            keys.append(numbers[key])
            latency_us.append(max(LEAST_US, sum(values) / len(values)))
    return specs, np.array(networks, dtype=np.intp), np.array(keys, dtype=np.intp), np.array(latency_us)


def _drift(profiled: Sequence[Observation]) -> np.ndarray:
    begin = profiled[0].at
    at_s = np.array([(one.at - begin).total_seconds() for one in profiled])
    reference = np.array([one.role == "reference" for one in profiled])
    total_us = np.array([one.total_us for one in profiled])
    return smoothed_drift(at_s[reference], total_us[reference], at_s)


def _grouped(keys: np.ndarray, values: np.ndarray) -> dict[int, list[float]]:
    found: dict[int, list[float]] = defaultdict(list)
    for key, value in zip(keys.tolist(), values.tolist(), strict=True):
        found[key].append(value)
    return found


def _row(spec: BlockSpec, values: list[float]) -> Row:
    return Row(
        kind=spec.kind,
        inputs=spec.inputs,
        outputs=spec.outputs,
        settings=spec.settings,
        macs=spec.macs,
        params=spec.params,
        count=len(values),
        p10_us=float(np.percentile(values, 10)),
        p50_us=float(np.median(values)),
        spread=relative_spread(values),
    )


def _notes(profiled: Sequence[Observation], factors: np.ndarray, effects: np.ndarray) -> tuple[str, ...]:
    total = sum(one.total_us for one in profiled)
    lost = sum(one.unattributed_us for one in profiled) / total
    straddling = sum(one.straddling_us for one in profiled) / total
    references = sum(one.role == "reference" for one in profiled)
    reference_us = usual_reference_us(profiled)
    if reference_us is None:
        beside = f"beside {references} measurements of a reference network"
    else:
        beside = f"in turns with a reference network, at the speed at which that takes {reference_us / 1e3:.2f} ms"
    notes = [
        f"Blocks were measured inside {len(profiled) - references} whole networks, {beside}.",
        f"{lost:.1%} of the time belongs to no block, as layout changes between two do, and is shared out; "
        f"{straddling:.1%} is in operations that were fused over two blocks and counts for one of them.",
        f"Drift between {factors.min() - 1:+.1%} and {factors.max() - 1:+.1%} and process states between "
        f"{effects.min() - 1:+.1%} and {effects.max() - 1:+.1%} were taken off.",
    ]
    return tuple(notes)
