"""Sessions on the virtual phone: a real adbd that asks for a key, real LiteRT behind benchmark_model's interface."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from targets.drivers.phone import PhoneDriver
from targets.errors import DeviceUnavailable, FailureKind, SessionFailed
from targets.jobs import Job
from targets.opening import open_target
from targets.records import RunSettings
from targets.tflite_files import tflite_artifact
from targets.transports.registry import open_transport
from targets.virtual.phone_files import TOOL
from tests.targets.phone_output import summary

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
pytest.importorskip("adb_shell", reason="adb-shell is not installed")

TINY = Path(__file__).parents[1] / "targets" / "fixtures" / "tflite" / "tiny.tflite"


@pytest.fixture
def own(tmp_path):
    """A phone of one's own, whose files a test may change."""
    from targets.virtual.phone import VirtualPhone

    try:
        with VirtualPhone(tmp_path) as running:
            yield running
    except DeviceUnavailable as error:
        pytest.skip(str(error))


def job(task="time", **settings):
    return Job(
        task=task, artifact=tflite_artifact(TINY), settings=RunSettings(runtime="tflite", **settings), seconds=0.3
    )


def left(root):
    sessions = root / "data/local/tmp/inas-deploy/sessions"
    return list(sessions.iterdir()) if sessions.exists() else []


def test_time_and_profile_over_adb(own):
    with open_target(own.device) as target:
        record = target.run_session(job())
        profile = target.run_profile(job("profile"))
    assert record.summary.count >= 10
    assert record.device["model"] == "Virtual phone (inas-deploy)"
    assert {reading.phase for reading in record.readings} == {"before", "after"}
    assert record.readings[0].battery_percent == 85.0
    assert profile.placement == {"xnnpack": 19, "cpu fallback": 1}
    assert profile.attributed_share > 0.9
    assert left(own.root) == []


def test_sustained_mode_traces_the_temperature_while_the_tool_runs(own):
    with open_transport(own.device) as transport:
        driver = PhoneDriver(own.device, transport)
        driver.trace_s = 0.2
        zone = own.root / "sys/class/thermal/thermal_zone0/temp"
        original = driver._state

        def warming(*args):
            zone.write_text(f"{int(zone.read_text()) + 2000}\n")
            return original(*args)

        driver._state = warming
        record = driver.run_session(job(mode="sustained"))
        driver.close()
    trace = [reading.temperatures_c["cpu-0-virtual"] for reading in record.readings]
    assert len(trace) > 2
    assert trace == sorted(trace)
    assert trace[-1] > trace[0]


def test_a_session_waits_for_the_phone_to_cool(own):
    zone = own.root / "sys/class/thermal/thermal_zone0/temp"
    zone.write_text("60000\n")
    said = []

    def cooled(text):
        said.append(text)
        zone.write_text("35000\n")

    device = own.device.model_copy(update={"start_below_c": 40.0})
    with open_transport(device) as transport:
        driver = PhoneDriver(device, transport)
        driver.on_wait = cooled
        record = driver.run_session(job())
        driver.close()
    assert "60 °C, waiting for 40 °C" in said[0]
    assert record.readings[0].temperatures_c["cpu-0-virtual"] == 35.0


def test_refusals_name_what_is_wrong(own):
    with open_target(own.device) as target:
        (own.root / "sys/class/power_supply/battery/capacity").write_text("9\n")
        with pytest.raises(DeviceUnavailable, match="9 % charge"):
            target.run_session(job())
        (own.root / "sys/class/power_supply/battery/capacity").write_text("90\n")
        with pytest.raises(SessionFailed, match="NNAPI delegate was not applied"):
            target.run_session(job(accelerator="npu"))
    assert left(own.root) == []


def test_a_killed_tool_and_a_lost_one_give_no_figure(own):
    tool = own.root / TOOL
    tool.write_text("#!/bin/sh\n[ $1 = --help ] && exit 1\nkill -9 $$\n")
    with open_target(own.device) as target, pytest.raises(SessionFailed, match="killed") as caught:
        target.run_session(job())
    assert caught.value.kind is FailureKind.OUT_OF_MEMORY
    tool.unlink()
    with open_target(own.device) as target, pytest.raises(DeviceUnavailable, match="adb push benchmark_model"):
        target.run_session(job())


def test_a_cut_connection_is_one_retry_and_one_session(own):
    (own.root / "data/local/tmp/printed").write_text(summary())
    runs = own.root / "data/local/tmp/runs"
    # The first run is slow enough to be cut; the second answers at once.
    (own.root / TOOL).write_text(
        "#!/bin/sh\n[ $1 = --help ] && exit 1\ncd /data/local/tmp\n"
        "[ -f runs ] && { echo run >> runs; cat printed; exit 0; }\necho run > runs\nexec sleep 600\n"
    )

    def cut_when_it_runs():
        deadline = time.monotonic() + 60
        while not runs.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        own.cut()

    one = job().model_copy(update={"seconds": 1.0})
    cutter = threading.Thread(target=cut_when_it_runs)
    with open_target(own.device) as target:
        target.driver("tflite")
        cutter.start()
        record = target.run_session(one)
        cutter.join()
    assert (record.session_id, record.summary.count) == (one.session_id, 242)
    assert runs.read_text() == "run\nrun\n"
    assert left(own.root) == []
