"""A subset of the ECSSD benchmark: torch, ONNX Runtime and OpenVINO with the authors' weights."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ecssd_accuracy as bench
from targets.errors import UsageError

ROOT = bench.data_root()
CHECKPOINT = ROOT / "weights" / "csnet" / "csnet-L-x1.pth.tar"


def test_resize_keeps_a_ramp_and_mirrors_the_edge():
    ramp = np.arange(8.0)[None].repeat(4, 0)
    assert np.allclose(bench.resize(ramp, (4, 4))[0], [0.5, 2.5, 4.5, 6.5])
    up = bench.resize(ramp, (4, 16))[0]
    assert np.allclose(up[1:-1], np.arange(14) * 0.5 + 0.25)
    assert np.allclose(up[[0, -1]], [0.25, 6.75])
    assert np.allclose(bench.resize(ramp, (4, 8)), ramp)


def test_missing_data_is_said(tmp_path):
    with pytest.raises(UsageError, match="INAS_DATA"):
        bench.ecssd_pairs(tmp_path)


def test_openvino_is_imported_without_telemetry(tmp_path):
    for name in ("openvino", "ai_edge_litert", "torch"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    code = (
        "import sys; from pathlib import Path; from benchmarks import ecssd_accuracy as bench\n"
        "bench.load_checkpoint = lambda path: sys.exit(0 if 'openvino' in sys.modules else 'not imported')\n"
        "bench.predictors(Path('none'), Path('none'))"
    )
    # In an automated job telemetry would be off in any case, and the test would show nothing.
    env = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL", "XDG_CACHE_HOME")}
    env |= {"HOME": str(tmp_path), "PYTHONPATH": str(Path(bench.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [path for path in tmp_path.rglob("*") if "intel" in path.name.lower()] == []


def test_problems_are_found():
    from training.metrics.csnet import SaliencyScore

    good = SaliencyScore(0.8925, 0.8, 0.0776, 100, 1000)
    worse = SaliencyScore(0.8880, 0.8, 0.0776, 100, 1000)
    assert list(bench.problems("csnet-L-x1", {"a": good, "b": good}, absolute=True)) == []
    assert len(list(bench.problems("csnet-L-x1", {"a": good, "b": worse}, absolute=True))) == 2


@pytest.mark.skipif(not CHECKPOINT.is_file(), reason=f"the authors' weights are not at {CHECKPOINT}")
def test_torch_and_onnxruntime_agree_on_real_images(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    onnxruntime = pytest.importorskip("onnxruntime")
    network = bench.load_checkpoint(CHECKPOINT)
    path = bench.export_onnx(bench.fold_csnet(network), tmp_path / "x1.onnx", (1, 3, *bench.SIZE))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def with_torch(image):
        with torch.inference_mode():
            return network(torch.from_numpy(image)).sigmoid()[0, 0].numpy()

    def with_ort(image):
        return session.run(None, {path_input: image})[0][0, 0]

    path_input = session.get_inputs()[0].name
    scores, worst = bench.evaluate({"torch": with_torch, "ort": with_ort}, bench.ecssd_pairs(ROOT, 12))
    assert worst["ort"] < 1e-4
    assert abs(scores["torch"].max_f - scores["ort"].max_f) < 1e-3
    assert scores["ort"].max_f > 0.85  # far above what an untrained or wrongly normalised network reaches
    assert scores["ort"].mae < 0.12
