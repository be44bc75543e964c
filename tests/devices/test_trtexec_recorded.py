"""The whole TensorRT path without a GPU: a recorded conversation with trtexec becomes a measurement labelled so."""

import json
import os
import subprocess
import sys
from pathlib import Path

from targets.transports.conversation import read_conversation
from tests.devices.record_trtexec import BENCH, ENTRY, PLACE, write_model

ROOT = Path(__file__).resolve().parents[2]
AGAIN = "if the agent's wire has changed on purpose: python -m tests.devices.record_trtexec"


def bench(folder, *more):
    entry = f'[devices.board]\ntransport = "replay"\nrecording = "{folder / PLACE.name}"{ENTRY}'
    (folder / PLACE.name).write_bytes(PLACE.read_bytes())
    (folder / "devices.toml").write_text(entry)
    write_model(folder)
    command = [sys.executable, "-m", "inas_deploy", "bench", *BENCH, "--store", "replayed.sqlite", *more]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_a_recorded_conversation_is_a_whole_measurement(tmp_path):
    done = bench(tmp_path, "--json")
    assert done.returncode == 0, f"{done.stderr}\n{AGAIN}"
    (measured,) = json.loads(done.stdout)["measurements"]
    assert measured["variant"]["stand_in"] == "recorded"
    assert len(measured["sessions"]) == 3
    for session in measured["sessions"]:
        assert session["versions"]["tensorrt"] == "8.2.1"
        assert session["samples_ns"] and session["warmup_ns"]
        assert session["actual"]["statistic"] == "GPU compute time"
        assert session["device"]["gpu"] == "NVIDIA constructed"
    assert measured["profile"]["attributed_share"] > 0.95
    assert measured["profile"]["layout_share"] > 0
    assert measured["stats"]["p10_ms"] > 0


def test_another_version_than_the_recorded_one_is_refused(tmp_path):
    entry = ENTRY.replace('"8.2"', '"10.13"')
    (tmp_path / PLACE.name).write_bytes(PLACE.read_bytes())
    text = f'[devices.board]\ntransport = "replay"\nrecording = "{tmp_path / PLACE.name}"{entry}'
    (tmp_path / "devices.toml").write_text(text)
    write_model(tmp_path)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    command = [sys.executable, "-m", "inas_deploy", "bench", *BENCH, "--store", "replayed.sqlite"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 3
    assert "8.2.1" in done.stderr and "10.13" in done.stderr


def test_the_recording_says_what_it_is_and_names_nobody():
    header, steps = read_conversation(PLACE)
    assert header.stand_in == "virtual"
    assert header.tools == {"tensorrt": "8.2.1"}
    assert steps
    assert str(ROOT) not in PLACE.read_text(encoding="utf-8")
