"""The tools that the kit is held against run without side effects."""

import sys
from pathlib import Path

import pytest

from benchmarks import harness_overhead
from inas_deploy.models import artifact_for, resolve_model


def test_benchmark_app_leaves_nothing_in_the_home_folder(tmp_path, monkeypatch):
    if not Path(sys.executable).with_name("benchmark_app").is_file():
        pytest.skip("openvino's benchmark_app is not installed")
    artifact = artifact_for(resolve_model("csnet-x1"), ("onnx",))
    for name in ("CI", "TF_BUILD", "JENKINS_URL"):  # would turn telemetry off without the benchmark's doing
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert harness_overhead.benchmark_app(artifact, 1) > 0
    assert list(tmp_path.iterdir()) == []
