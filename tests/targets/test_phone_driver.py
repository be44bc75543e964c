"""The phone driver around the stand-in for benchmark_model, and around tools that fail, lie or die."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from targets.drivers.phone import PhoneDriver
from targets.errors import DeviceUnavailable, FailureKind, InvalidModel, SessionFailed, UsageError
from targets.inventory import Device
from targets.jobs import Job
from targets.phone.flags import pace_of, taskset_prefix, tool_flags
from targets.records import RunSettings
from targets.tflite_files import tflite_artifact
from targets.transports.local import LocalTransport
from targets.virtual.phone_files import TOOL, write_phone_files
from tests.targets.phone_output import summary

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

TINY = Path(__file__).parent / "fixtures" / "tflite" / "tiny.tflite"


class Phone:
    """A folder that stands for a phone, on this host's own transport."""

    def __init__(self, folder, tool=None):
        self.folder, self.root = folder, folder / "root"
        write_phone_files(self.root, sys.executable)
        if tool is not None:
            (self.root / TOOL).write_text(f"#!/bin/sh\n{tool}\n")
            (self.root / TOOL).chmod(0o755)
        self.device = Device(name="phone", tool=str(self.root / TOOL), work_folder=str(folder / "work"))
        (folder / "work").mkdir(exist_ok=True)
        self.transport = LocalTransport(self.device)
        self.driver = PhoneDriver(self.device, self.transport)
        self.driver.root, self.driver.trace_s = str(self.root), 0.3

    def job(self, task="time", seconds=0.2, artifact=None, **settings):
        chosen = RunSettings(runtime="tflite", **settings)
        return Job(task=task, artifact=artifact or tflite_artifact(TINY), settings=chosen, seconds=seconds)

    def left(self):
        sessions = self.folder / "work" / "sessions"
        return sorted(sessions.iterdir()) if sessions.exists() else []


@pytest.fixture
def phone(tmp_path):
    phone = Phone(tmp_path)
    yield phone
    phone.driver.close()
    assert phone.left() == []


def printing(tmp_path, text, *, code=0, then=""):
    """A phone whose tool answers --help and prints a file."""
    (tmp_path / "printed").write_text(text)
    return Phone(tmp_path, f"[ $1 = --help ] && exit 1\ncat '{tmp_path}/printed'\n{then}\nexit {code}")


def test_a_session_is_whole(phone):
    job = phone.job()
    record = phone.driver.run_session(job)
    assert record.session_id == job.session_id
    assert record.summary.count >= 10
    assert record.summary.min_ms <= record.summary.p50_ms <= record.summary.max_ms
    assert [reading.phase for reading in record.readings] == ["before", "after"]
    assert record.actual["delegated_ops"] == "19 of 20 in 2 partitions"
    assert "STAND-IN" in record.versions["tflite"]
    assert record.started_at < record.finished_at
    assert phone.left() == []


@pytest.mark.parametrize("layout", ["new", "old"])
def test_a_profile_is_joined_to_modules(phone, layout, monkeypatch):
    monkeypatch.setenv("BENCHMARK_MODEL_LAYOUT", layout)
    profile = phone.driver.run_profile(phone.job("profile"))
    assert profile.placement == {"xnnpack": 19, "cpu fallback": 1}
    assert profile.attributed_share > 0.9
    assert {"stem.conv", "pool", "head"} <= {op.module for op in profile.ops}
    assert [op.op_type for op in profile.ops if op.kernel == "builtin"] == ["PADV2"]


def test_builtin_kernels(phone):
    record = phone.driver.run_session(phone.job(options={"delegate": "none"}))
    assert record.actual["delegate"] == "none"


def test_a_sustained_run_has_a_temperature_trace(phone):
    record = phone.driver.run_session(phone.job(seconds=1.5, mode="sustained"))
    during = [reading for reading in record.readings if reading.phase == "during"]
    assert during
    assert all(reading.temperatures_c["cpu-0-virtual"] == 36.0 for reading in during)


def test_an_accelerator_that_is_not_there_gives_no_figure(phone):
    with pytest.raises(SessionFailed, match="GPU delegate was not applied") as caught:
        phone.driver.run_session(phone.job(accelerator="gpu"))
    # The stand-in knows the flag: it is the phone that has no GPU.
    assert "acceleration is unsupported" in str(caught.value)


def test_a_session_that_ended_is_fetched_and_not_measured_again(tmp_path):
    phone = printing(tmp_path, summary(), then=f"echo run >> '{tmp_path}/runs'")

    class Lossy(LocalTransport):
        lost = 0

        def run(self, argv, **keys):
            done = super().run(argv, **keys)
            if "--graph=" in " ".join(argv) and self.lost == 0:
                self.lost += 1
                raise SessionFailed("the cable is out", FailureKind.LOST_DEVICE)
            return done

    driver = PhoneDriver(phone.device, Lossy(phone.device))
    driver.root = str(phone.root)
    record = driver.run_session(phone.job(seconds=1.0))
    assert record.summary.count == 242
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_phone_that_stays_lost_is_tried_once_more(tmp_path):
    calls = []

    class Gone(LocalTransport):
        def run(self, argv, **keys):
            calls.append(argv)
            raise SessionFailed("the cable is out", FailureKind.LOST_DEVICE)

    phone = Phone(tmp_path)
    with pytest.raises(SessionFailed, match="cable"):
        PhoneDriver(phone.device, Gone(phone.device)).run_session(phone.job())
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("tool", "kind", "words"),
    [
        ("[ $1 = --help ] && exit 1; kill -9 $$", FailureKind.OUT_OF_MEMORY, "killed"),
        ("[ $1 = --help ] && exit 1; kill -11 $$", FailureKind.TOOL_ERROR, "signal 11"),
        ("echo ERROR: no such thing; exit 1", FailureKind.TOOL_ERROR, "ended with 1: no such thing"),
        ("echo 'count=50 first=1'", FailureKind.TOOL_ERROR, "cannot be read"),
        ("head -c 100000 /dev/urandom", FailureKind.TOOL_ERROR, "cannot be read"),
        ("printf '\\033[2J\\007'", FailureKind.TOOL_ERROR, "cannot be read"),
        ("exit 0", FailureKind.TOOL_ERROR, "cannot be read"),
        ("[ $1 = --help ] && exit 1; yes", FailureKind.TOOL_ERROR, "signal 25"),
    ],
    ids=["killed", "crash", "refusal", "half a line", "noise", "escapes", "silence", "endless"],
)
def test_a_tool_that_fails_gives_a_class_and_no_figure(tmp_path, tool, kind, words):
    phone = Phone(tmp_path, tool)
    with pytest.raises(SessionFailed, match=words) as caught:
        phone.driver.run_session(phone.job())
    assert caught.value.kind is kind
    assert str(caught.value).isprintable()
    phone.driver.close()
    assert phone.left() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (summary(threads=4), "Num threads: 4 where 1 was asked for"),
        (summary().replace("Use xnnpack: [1]", "Use xnnpack: [0]"), "Use xnnpack: 0"),
        (summary(extra=["Unconsumed cmdline flags: --num_threads=1"]), "does not know --num_threads=1"),
        (summary(delegate=""), "does not say that it applied"),
    ],
    ids=["threads", "delegate", "unknown flag", "silent delegate"],
)
def test_a_tool_that_ignores_a_setting_gives_no_figure(tmp_path, text, words):
    phone = printing(tmp_path, text)
    with pytest.raises(SessionFailed, match=words):
        phone.driver.run_session(phone.job(seconds=1.0))


def test_an_older_tool_without_the_default_flags_is_fine(tmp_path):
    phone = printing(tmp_path, summary(extra=["Unconsumed cmdline flags: --xnnpack_force_fp16=false"]))
    assert phone.driver.run_session(phone.job(seconds=1.0)).summary.mean_ms == pytest.approx(4.15371)


def test_a_model_the_tool_refuses(tmp_path):
    phone = printing(tmp_path, "ERROR: Failed to load model /data/x.tflite\nERROR: Benchmarking failed.\n", code=1)
    with pytest.raises(InvalidModel, match="Failed to load model"):
        phone.driver.run_session(phone.job())


def test_a_missing_tool_says_how_to_get_it(tmp_path):
    phone = Phone(tmp_path)
    (phone.root / TOOL).unlink()
    with pytest.raises(DeviceUnavailable, match="adb push benchmark_model"):
        phone.driver.versions()


def test_a_low_battery_ends_it_before_the_tool_runs(phone):
    (phone.root / "sys/class/power_supply/battery/capacity").write_text("12\n")
    with pytest.raises(DeviceUnavailable, match="12 % charge"):
        phone.driver.run_session(phone.job())


def test_a_model_with_a_hostile_name_is_a_file_name(phone, tmp_path):
    model = tmp_path / "a; touch OWNED $(id).tflite"
    model.write_bytes(TINY.read_bytes())
    phone.driver.run_session(phone.job(artifact=tflite_artifact(model)))
    assert not Path("OWNED").exists()


def test_a_background_tool_ends_with_the_driver(tmp_path):
    marker = tmp_path / "pid"
    phone = Phone(tmp_path, f"[ $1 = --help ] && exit 1\necho $$ > '{marker}'\nexec sleep 600")
    phone.driver.trace_s = 0.01

    class Stop(Exception):
        pass

    def stop(*_):
        if marker.exists():
            raise Stop
        return original(*_)

    original = phone.driver._state
    phone.driver._state = stop
    with pytest.raises(Stop):
        phone.driver.run_session(phone.job(mode="sustained"))
    phone.driver.close()
    pid = int(marker.read_text())
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()
    assert phone.left() == []


def test_flags_say_everything():
    settings = RunSettings(runtime="tflite", threads=2)
    flags = tool_flags("m.tflite", settings, pace_of(1.0, 10))
    for flag in ("--num_threads=2", "--use_xnnpack=true", "--use_gpu=false", "--use_nnapi=false", "--allow_fp16=false"):
        assert flag in flags
    half = RunSettings(runtime="tflite", precision="fp16", accelerator="gpu", mode="sustained")
    flags = tool_flags("m.tflite", half, pace_of(60.0, 10))
    assert {"--gpu_precision_loss_allowed=true", "--gpu_inference_for_sustained_speed=true"} <= set(flags)
    npu = tool_flags("m.tflite", RunSettings(runtime="tflite", accelerator="npu"), pace_of(1.0, 10))
    assert {"--use_nnapi=true", "--nnapi_allow_fp16=false", "--disable_nnapi_cpu=true"} <= set(npu)


@pytest.mark.parametrize(
    "keys",
    [
        {"precision": "bf16"},
        {"precision": "fp16", "options": {"delegate": "none"}},
        {"accelerator": "gpu", "options": {"delegate": "none"}},
        {"options": {"delegate": "tpu"}},
        {"options": {"no": "such"}},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(keys):
    with pytest.raises(UsageError):
        tool_flags("m.tflite", RunSettings(runtime="tflite", **keys), pace_of(1.0, 10))


def test_taskset_takes_a_hexadecimal_mask():
    assert taskset_prefix((4, 5, 6, 7)) == ["taskset", "f0"]
    assert taskset_prefix(None) == []


def test_pinned_sessions_run(phone):
    cores = tuple(sorted(os.sched_getaffinity(0)))[:1]
    assert phone.driver.run_session(phone.job(pinned_cores=cores)).settings.pinned_cores == cores
