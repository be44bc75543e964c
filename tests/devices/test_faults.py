"""Each fault once, on devices of their own, and what was found by injecting many: see benchmarks/faults.py."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.faulty.kinds import ALLOWED
from targets.drivers.phone import PhoneDriver
from targets.errors import FailureKind, SessionFailed
from targets.inventory import Device
from targets.phone.remote_run import RemoteRuns
from targets.transports.local import LocalTransport
from targets.virtual.relay import Fault, Relay
from tests.targets.agent_making import relayed, timing, tiny

ROOT = Path(__file__).resolve().parents[2]
SPLIT = {
    "ssh": ["cut connection", "full disk", "killed tool", "garbage output", "reboot", "auth revoked"],
    "adb": ["hang", "half file", "wrong checksum", "clock jump", "second user"],
}


def test_every_fault_has_its_place():
    assert sorted(SPLIT["ssh"] + SPLIT["adb"]) == sorted(ALLOWED)


@pytest.mark.parametrize("transport", ["ssh", "adb"])
def test_no_fault_breaks_the_claim(transport, tmp_path, request):
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    request.getfixturevalue({"ssh": "board", "adb": "phone"}[transport])  # skips where there can be none
    argv = [sys.executable, "-m", "benchmarks.faulty.lane", transport, "--folder", str(tmp_path), "--seed", "test"]
    done = subprocess.run([*argv, "--faults", ",".join(SPLIT[transport])], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    *told, last = [json.loads(line) for line in done.stdout.splitlines()]
    skipped = [line["skipped"] for line in told if "skipped" in line]
    for line in told:
        if "kind" in line:
            assert line["wrong"] == [] and line["left"] == [], line
            assert line["end"] in {"kept", "retried"} | ALLOWED[line["kind"]]
    assert last["audit"] == [] and last["sessions"] > len(told)
    if skipped:
        pytest.skip(f"this host cannot inject {', '.join(skipped)} (a full disk needs root, a clock jump a C compiler)")


def test_who_hangs_up_leaves_the_runs_of_others(tmp_path):
    device = Device(name="phone", work_folder=str(tmp_path / "work"))
    (tmp_path / "work").mkdir()
    one, other = RemoteRuns(LocalTransport(device)), RemoteRuns(LocalTransport(device))
    told = []
    argv = ["sh", "-c", f"echo begun > '{tmp_path}/begun'; sleep 1.5; echo figures"]
    running = threading.Thread(target=lambda: told.append(one.run("1" * 32, argv, limit_s=60)))
    running.start()
    while not (tmp_path / "begun").exists() and running.is_alive():
        time.sleep(0.02)
    left_behind = tmp_path / "work" / "sessions" / ("2" * 32)
    left_behind.mkdir()
    (left_behind / "pid").write_text("1\n")  # a number that is another process's now
    other.stop_all()
    assert not left_behind.exists()
    running.join(60)
    assert [answer.stdout for answer in told] == ["figures\n"]
    one.stop_all()
    assert list((tmp_path / "work" / "sessions").iterdir()) == []


def test_a_tool_killed_before_it_said_who_it_is_gives_no_session(tmp_path):
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\nkill -9 $$\n")
    tool.chmod(0o755)
    device = Device(name="phone", tool=str(tool), work_folder=str(tmp_path / "work"))
    with pytest.raises(SessionFailed, match="signal 9") as caught:
        PhoneDriver(device, LocalTransport(device)).versions()
    assert caught.value.kind is FailureKind.OUT_OF_MEMORY


@pytest.mark.parametrize("suffix", [".pyz", ".onnx"])
def test_a_cached_file_that_is_damaged_between_two_sessions_is_sent_again(tmp_path, suffix):
    driver, _ = relayed(tmp_path / "work", lambda done, job: done)
    job = timing(tiny(tmp_path))
    first = driver.run_session(job)
    (cached,) = (tmp_path / "work" / "models").glob(f"*{suffix}")
    whole = shutil.copyfile(cached, tmp_path / "whole").read_bytes()
    with cached.open("r+b") as file:
        file.truncate(len(whole) // 2)
    second = driver.run_session(job.model_copy(update={"session_id": "0" * 32}))
    assert second.actual == first.actual
    assert cached.read_bytes() == whole
    driver.close()


def test_a_fault_may_be_for_one_connection_only():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet():
            for _ in range(2):
                end, _ = server.accept()
                with end:
                    end.sendall(b"hello")

        greeter = threading.Thread(target=greet)
        greeter.start()
        fault = Fault("cut", after_bytes=2, direction="down", once=True)
        with Relay(("127.0.0.1", 0), ("127.0.0.1", server.getsockname()[1]), fault) as relay:
            heard = []
            for _ in range(2):
                with socket.create_connection(("127.0.0.1", relay.port), timeout=30) as end, end.makefile("rb") as file:
                    heard.append(file.read())
            assert heard == [b"he", b"hello"]
            assert (relay.harmed, relay.accepted, relay.passed["up"]) == (1, 2, 0)
        greeter.join(30)


def test_an_answer_that_nobody_can_fetch_any_more_goes_with_the_next_opening(tmp_path):
    left = tmp_path / "work" / "sessions" / ("1" * 32)
    left.mkdir(parents=True)
    (left / "answer.json").write_text("{}")
    driver, _ = relayed(tmp_path / "work", lambda done, job: done)
    driver.about()
    assert not left.exists()
    driver.close()
