import random
import signal

import pytest

from search.latency.carrier_files import CarrierFiles, Exporter, format_for
from search.latency.joining import SourceModules, block_times
from search.latency.measuring import Measurer
from search.spaces.registry import find_space
from targets.errors import KitError, UsageError
from targets.inventory import Device
from targets.opening import open_target
from targets.records import RunSettings

SIZE = (32, 32)


def test_a_network_is_exported_in_another_process_and_measured_by_block(tmp_path):
    space = find_space("inas-tiny")
    arch = space.sample(random.Random(0))
    files = CarrierFiles(tmp_path / "models", SIZE, "onnx")
    device = Device(name="nano", transport="simulated", model="jetson-nano")
    settings = RunSettings(runtime="tensorrt", accelerator="gpu")
    with Exporter(files) as exporter, open_target(device) as target:
        exporter.ahead([arch])
        with exporter.paused():
            pass
        measurer = Measurer(target, settings, exporter)
        found = measurer.profile(arch, "carrier")
        session = measurer.session(arch, "interval")
        conditions = measurer.conditions(space)
        artifact = files.artifact(arch)
    assert found.blocks_us.keys() == {block.name for block in arch.blocks(SIZE)}
    assert min(found.blocks_us.values()) > 0
    assert found.unattributed_us == 0
    assert sum(found.blocks_us.values()) == pytest.approx(found.total_us)
    assert session.blocks_us == {}
    assert session.total_us == pytest.approx(found.total_us, rel=0.1)
    assert conditions.stand_in == "simulated"
    assert artifact.source_sha256 == arch.sha256()
    assert set(SourceModules.of(artifact).by_node.values()) >= {"stem.conv"}
    files.discard(arch)
    with pytest.raises(UsageError, match="no file"):
        files.artifact(arch)


def test_what_cannot_be_exported_says_why_and_a_killed_process_is_noticed(tmp_path):
    arch = find_space("inas-tiny").sample(random.Random(0))
    with Exporter(CarrierFiles(tmp_path / "models", (33, 32), "onnx")) as exporter:
        with pytest.raises(KitError, match="multiples of 32"):
            exporter.artifact(arch)
        exporter._processes[0].signal(signal.SIGKILL)
        with pytest.raises(KitError, match="ended"):
            exporter.artifact(arch)


def test_the_format_is_one_that_is_exported():
    assert format_for(("onnx",)) == "onnx"
    assert format_for(("tflite",)) == "tflite"
    with pytest.raises(UsageError, match="engine"):
        format_for(("engine",))


def test_files_of_other_sizes_and_opsets_have_other_names(tmp_path):
    arch = find_space("inas-tiny").smallest()
    names = {
        CarrierFiles(tmp_path, size, format, opset).path(arch).name
        for size, format, opset in (
            ((32, 32), "onnx", 13), ((32, 32), "onnx", 20), ((64, 32), "onnx", 13), ((32, 32), "tflite", 20)
        )
    }  # fmt: skip
    assert len(names) == 4


def test_blocks_without_operations_are_told_as_zero():
    arch = find_space("inas-tiny").smallest()
    from tests.search.latency.test_observations import op, profile

    found = block_times(profile(op("a", 1.0, "stem")), arch.blocks(SIZE), SourceModules())
    assert sum(found.blocks_us.values()) == 1.0
    assert found.blocks_us["head"] == 0.0
