"""A small predictor of inas-tiny, fitted once a process to computed block latencies, and the truth it was made from."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from functools import cache

from search.latency.block_predictor import BlockPredictor
from search.latency.conditions import Conditions
from search.latency.distinct import distinct_blocks
from search.latency.table import LatencyTable, Row, TableHeader
from search.spaces.registry import find_space
from targets.records import RunSettings

SPACE, SIZE = find_space("inas-tiny"), (64, 64)
CONDITIONS = Conditions(
    device="local", settings=RunSettings(runtime="onnxruntime"), space="inas-tiny", input_size=SIZE, hardware="bench"
)


def block_us(spec):
    elements = sum(math.prod(shape) for shape in (*spec.inputs, *spec.outputs))
    return 2 + spec.macs / 5e4 + elements / 2e4


def network_ms(arch, rng=None, *, noise=0.005, slope=1.1, intercept_us=30):
    """A whole network's latency: a line over its blocks, with noise."""
    us = intercept_us + slope * sum(map(block_us, arch.blocks(SIZE)))
    return us / 1e3 * math.exp(rng.gauss(0, noise) if rng else 0)


@cache
def table():
    rows = [
        Row(
            kind=spec.kind,
            inputs=spec.inputs,
            outputs=spec.outputs,
            settings=spec.settings,
            macs=spec.macs,
            params=spec.params,
            count=1,
            p10_us=block_us(spec),
            p50_us=block_us(spec),
        )
        for spec in distinct_blocks(SPACE, SIZE).blocks.values()
    ]
    header = TableHeader(conditions=CONDITIONS, made_at=datetime(2026, 1, 1, tzinfo=UTC), source="profile")
    return LatencyTable.of(header, rows)


@cache
def blocks():
    return BlockPredictor.fit(table(), members=2, epochs=3)


def drawn(count, seed):
    rng = random.Random(seed)
    return [SPACE.sample(rng) for _ in range(count)]
