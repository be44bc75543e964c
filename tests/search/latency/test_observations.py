import json
import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.latency.conditions import Conditions
from search.latency.drift import network_effects, smoothed_drift
from search.latency.joining import SourceModules, block_times
from search.latency.observations import (
    Observation,
    ObservationsFile,
    ObservationsHeader,
    read_observations,
    whole_networks,
)
from search.latency.tabulate import LEAST_US, table_of
from search.spaces.registry import find_space
from targets.errors import InvalidModel, UsageError
from targets.records import OpProfile, OpTime, RunSettings

SIZE = (64, 64)
SPACE = find_space("inas-tiny")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
CONDITIONS = Conditions(device="local", settings=RunSettings(runtime="onnxruntime"), space="inas-tiny", input_size=SIZE)
HEADER = ObservationsHeader(conditions=CONDITIONS, started_at=BEGIN)


def true_us(spec):
    return 3 + spec.macs / 2000 + spec.params / 300


def observation(arch, role="carrier", *, at_s=0.0, factor=1.0, unattributed_us=0.0):
    blocks = {spec.name: true_us(spec) * factor for spec in arch.blocks(SIZE)}
    return Observation(
        role=role,
        arch=json.loads(arch.to_json()),
        at=BEGIN + timedelta(seconds=at_s),
        total_us=sum(blocks.values()) + unattributed_us,
        device_s=2.0,
        blocks_us=blocks if role in ("carrier", "reference") else {},
        unattributed_us=unattributed_us,
    )


def archs(count, seed=0):
    draw = random.Random(seed)
    return [SPACE.sample(draw) for _ in range(count)]


def test_a_file_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "observations.jsonl"
    some = [observation(arch, at_s=i) for i, arch in enumerate(archs(3))]
    with ObservationsFile(path, HEADER) as file:
        for one in some:
            file.add(one)
    header, found = read_observations(path)
    assert header == HEADER
    assert list(found) == some
    assert found[0].architecture == archs(3)[0]


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(1, 3000))
def test_a_torn_file_loses_only_the_lines_that_were_cut(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("torn") / "observations.jsonl"
    some = [observation(arch, at_s=i) for i, arch in enumerate(archs(2))]
    with ObservationsFile(path, HEADER) as file:
        for one in some:
            file.add(one)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    kept = whole[:-cut].count(b"\n") - 1
    with ObservationsFile(path, HEADER) as file:
        assert file.observations == some[: max(0, kept)]
        file.add(some[0])
    assert list(read_observations(path)[1]) == [*some[: max(0, kept)], some[0]]


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "observations.jsonl"
    with ObservationsFile(path, HEADER) as file:
        file.add(observation(archs(1)[0]))
    path.write_bytes(path.read_bytes() + b'{"role": "carrier"}\n')
    with pytest.raises(InvalidModel, match="line 3"):
        read_observations(path)


def test_another_run_is_not_mixed_in(tmp_path):
    path = tmp_path / "observations.jsonl"
    ObservationsFile(path, HEADER).__exit__(None, None, None)
    other = CONDITIONS.model_copy(update={"input_size": (32, 32)})
    with pytest.raises(UsageError, match="input_size"):
        ObservationsFile(path, HEADER.model_copy(update={"conditions": other}))
    with pytest.raises(UsageError, match="seed"):
        ObservationsFile(path, HEADER.model_copy(update={"seed": 1}))


def test_sessions_of_one_network_are_put_together():
    first, second = archs(2)
    some = [observation(arch, "interval", factor=f) for arch, f in ((first, 1.0), (second, 1.0), (first, 1.1))]
    found = list(whole_networks(some, "interval"))
    assert [arch for arch, _ in found] == [first, second]
    assert [len(sessions) for _, sessions in found] == [2, 1]
    assert found[0][1][1] == pytest.approx(1.1 * found[0][1][0])


def op(name, us, module=None, nodes=(), kind="compute"):
    return OpTime(name=name, op_type="Conv", latency_us=us, share=0.1, source_nodes=nodes, module=module, kind=kind)


def profile(*ops):
    total = sum(one.latency_us for one in ops)
    return OpProfile(
        runtime="onnxruntime", ops=ops, runs=3, unprofiled_us=total, profiled_us=total, sum_us=total,
        residual_share=0, attributed_share=1, layout_share=0,
    )  # fmt: skip


def test_operations_go_to_the_longest_block_name_around_them():
    arch = archs(1)[0]
    blocks = arch.blocks(SIZE)
    nodes = {"relu_1": "stem.act", "conv_2": "stages.0.0.expand", "add_3": "elsewhere"}
    found = block_times(
        profile(
            op("a", 1.0, "stem.conv"),
            op("b", 2.0, "stages.0.0.depthwise.0"),
            op("c", 4.0, "stages", ("relu_1", "conv_2")),  # fused over two: the convolution's
            op("d", 8.0, "elsewhere", ("add_3",)),
            op("e", 16.0, "stages.0.0", ("conv_2",)),
        ),
        blocks,
        SourceModules(nodes),
    )
    assert found.blocks_us["stem"] == 1.0
    assert found.blocks_us["stages.0.0"] == 2.0 + 4.0 + 16.0
    assert found.unattributed_us == 8.0
    assert found.straddling_us == 4.0
    assert set(found.blocks_us) == {block.name for block in blocks}


def test_layout_changes_between_blocks_belong_to_none():
    blocks = archs(1)[0].blocks(SIZE)
    source = SourceModules(
        {"inner": "stages.0.0.expand", "last": "stages.0.0.project"},
        {"inner": frozenset({"stages.0.0.act"}), "last": frozenset({"stages.0.1.expand", "stages.0.0"})},
    )
    found = block_times(
        profile(
            op("a", 1.0, "stages.0.0.expand", ("inner",), "layout"),
            op("b", 2.0, "stages.0.0.project", ("last",), "layout"),
            op("c", 4.0, "stages.0.0.project", ("last",)),
            op("d", 8.0, "stages.0.0", (), "layout"),
        ),
        blocks,
        source,
    )
    assert found.blocks_us["stages.0.0"] == 1.0 + 4.0 + 8.0
    assert found.unattributed_us == 2.0


def test_a_table_holds_every_block_once_with_its_true_latency():
    some = [observation(arch, at_s=i) for i, arch in enumerate(archs(12))]
    table = table_of(CONDITIONS, some, made_at=BEGIN)
    wanted = {spec.key: true_us(spec) for one in some for spec in one.architecture.blocks(SIZE)}
    assert table.rows.keys() == wanted.keys()
    for key, row in table.rows.items():
        assert row.p50_us == pytest.approx(wanted[key])
    assert table.header.noise_floor == pytest.approx(0, abs=1e-9)
    assert min(row.p10_us for row in table.rows.values()) > LEAST_US


def test_unattributed_time_is_shared_out():
    arch = archs(1)[0]
    plain = observation(arch)
    lost = observation(arch, unattributed_us=0.1 * plain.total_us)
    table = table_of(CONDITIONS, [lost])
    sums = sum(table.latency_us(list(arch.blocks(SIZE))))
    assert sums == pytest.approx(lost.total_us)


def test_drift_and_slow_processes_are_taken_off():
    draw = np.random.default_rng(0)
    reference, *others = archs(60, seed=3)
    some = []
    for i, arch in enumerate(others):
        drift = 1 + 0.1 * np.sin(i / 10)
        if i % 4 == 0:
            some.append(observation(reference, "reference", at_s=10 * i - 1, factor=drift))
        some.append(observation(arch, at_s=10 * i, factor=drift * np.exp(draw.normal(0, 0.03))))
    table = table_of(CONDITIONS, some)
    errors = [np.log(row.p50_us / true_us(row.spec)) for row in table.rows.values()]
    uncorrected = [
        np.log(factor) for one in some for factor in [one.blocks_us["stem"] / true_us(one.architecture.blocks(SIZE)[0])]
    ]
    assert np.std(errors) < 0.25 * np.std(uncorrected)


def test_no_drift_is_seen_in_plain_noise():
    draw = np.random.default_rng(1)
    at_s = np.arange(30.0)
    factors = smoothed_drift(at_s, 1000 * np.exp(draw.normal(0, 0.02, 30)), at_s)
    assert np.abs(np.log(factors)).max() < 0.01


def test_a_network_that_shares_no_block_is_left_as_it_is():
    effects = network_effects(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3]), np.array([1.0, 2.0, 30.0, 40.0]))
    assert effects.tolist() == [1.0, 1.0]


def test_a_table_needs_a_profile():
    with pytest.raises(UsageError, match="no network was profiled"):
        table_of(CONDITIONS, [observation(archs(1)[0], "interval")])
