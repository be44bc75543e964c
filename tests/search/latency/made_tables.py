"""Tables of blocks with made-up latencies: work and traffic with stairs of 8 channels, and seeded noise."""

import random
from datetime import UTC, datetime

import numpy as np

from search.latency.conditions import Conditions
from search.latency.table import LatencyTable, Row, TableHeader
from search.spaces.registry import find_space
from targets.records import RunSettings

SIZES = {"inas-tiny": (64, 64), "rtseg-tiny": (64, 128)}
NOISE = 0.02


def made_latency_us(spec):
    elements = sum(-(-c // 8) * 8 * h * w for c, h, w in (*spec.inputs, *spec.outputs))
    return 5 + spec.macs / 2e3 + elements / 500


def made_table(space_id="inas-tiny", archs=30, seed=0):
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    space, size = find_space(space_id), SIZES[space_id]
    drawn = [space.smallest(), space.biggest(), *(space.sample(rng) for _ in range(archs))]
    specs = {spec.key: spec for arch in drawn for spec in space.blocks(arch, size)}
    rows = []
    for spec in specs.values():
        latency = made_latency_us(spec) * float(np.exp(NOISE * noise.normal()))
        shape = {"kind": spec.kind, "inputs": spec.inputs, "outputs": spec.outputs, "settings": spec.settings}
        rows.append(Row(**shape, macs=spec.macs, params=spec.params, count=1, p10_us=latency, p50_us=latency))
    settings = RunSettings(runtime="onnxruntime")
    conditions = Conditions(device="made-up", settings=settings, space=space_id, classes=space.classes, input_size=size)
    header = TableHeader(
        conditions=conditions, made_at=datetime(2026, 1, 1, tzinfo=UTC), source="made up", noise_floor=NOISE
    )
    return LatencyTable.of(header, rows)
