"""Try out what is installed: every package is imported, every runtime runs a model, each in a fresh process."""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from inas_deploy.doctor_checks import Check
from targets.errors import KitError, SessionFailed
from targets.extras import DISTRIBUTION, version_of
from targets.files import sha256_of
from targets.records import Artifact, RunSettings, TensorSpec
from targets.session import run_inference
from targets.transports.local import LocalTransport

IMPORT_TIMEOUT_S = 90.0
_PROBE_INPUT = np.array([[-1.0, 2.0]], dtype=np.float32)


@dataclass(frozen=True)
class _Package:
    """A package some extra brings.

    Attributes:
        extra: The extra's name.
        distribution: Name on the package index.
        code: Python that imports it and does a first piece of work.
        used: Whether this version of the kit does anything with it.
    """

    extra: str
    distribution: str
    code: str
    used: bool = True


_RUNTIMES = (
    ("onnxruntime", "", ("onnxruntime",)),
    ("openvino", "openvino", ("openvino",)),
    ("tflite", "tflite", ("ai-edge-litert", "tflite-runtime")),
)
_PACKAGES = (
    _Package("torch", "torch", "import torch; assert torch.ones(2).add(1).sum().item() == 4.0"),
    _Package("torch", "onnxscript", "import onnxscript"),
    _Package("tflite-export", "litert-torch", "import litert_torch"),
    _Package("report", "jinja2", "import jinja2; assert jinja2.Template('{{ 1 + 1 }}').render() == '2'"),
    _Package("report", "matplotlib", "import matplotlib; matplotlib.use('Agg'); import matplotlib.pyplot"),
    _Package("predictor", "safetensors", "import safetensors.torch"),
    _Package("predictor", "scipy", "import scipy.optimize, scipy.stats"),
    _Package("ssh", "paramiko", "import paramiko"),
    _Package("adb", "adb-shell", "import adb_shell.adb_device"),
    _Package("tensorrt", "tensorrt-rtx", "import tensorrt_rtx"),
    _Package("lab", "psycopg", "import psycopg"),
    _Package("ray", "ray", "import ray", used=False),
)


def software_checks() -> Iterator[Check]:
    """Python, the runtimes, and the packages of every extra."""
    python = (
        f"{platform.python_implementation()} {platform.python_version()}, {DISTRIBUTION} {version_of(DISTRIBUTION)}"
    )
    yield Check(area="installed", name="python", status="ok", detail=python)
    for runtime, extra, distributions in _RUNTIMES:
        yield _runtime(runtime, extra, distributions)
    for package in _PACKAGES:
        yield _package(package)


def _install(extra: str) -> str:
    return f"pip install '{DISTRIBUTION}[{extra}]'" if extra else f"pip install --force-reinstall {DISTRIBUTION}"


def _runtime(name: str, extra: str, distributions: tuple[str, ...]) -> Check:
    label = f"runtime {name}"
    found = [f"{d} {version}" for d in distributions if (version := version_of(d)) is not None]
    if not found:
        return Check(area="installed", name=label, status="missing", detail="not installed", fix=_install(extra))
    with tempfile.TemporaryDirectory(prefix="inas-doctor-") as folder, LocalTransport() as here:
        try:
            artifact = probe_artifact(name, Path(folder))
            output = run_inference(here, artifact, RunSettings(runtime=name), _PROBE_INPUT)
        except KitError as error:
            detail = f"{found[0]} does not run a one-node model: {error.what}"
            return Check(area="installed", name=label, status="warn", detail=detail, fix=error.fix or _install(extra))
    if not np.array_equal(output, np.maximum(_PROBE_INPUT, 0)):
        detail = f"{found[0]} gives {output.tolist()} for Relu of {_PROBE_INPUT.tolist()}"
        return Check(area="installed", name=label, status="warn", detail=detail, fix=_install(extra))
    return Check(area="installed", name=label, status="ok", detail=f"{found[0]}, ran a one-node model")


def probe_artifact(runtime: str, folder: Path) -> Artifact:
    """Write a model that is one Relu of a 1x2 float tensor.

    Args:
        runtime: Registry name; the file is in its own format.
        folder: Where to write it.
    """
    if runtime == "tflite":
        path = folder / "probe.tflite"
        with as_file(files("inas_deploy") / "data" / "probe.tflite") as shipped:
            path.write_bytes(shipped.read_bytes())
    else:
        path = folder / "probe.onnx"
        values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
        graph = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"], name="relu")], "probe", values[:1], values[1:]
        )
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
        path.write_bytes(model.SerializeToString())
    digest = sha256_of(path)
    return Artifact(
        path=str(path),
        format="tflite" if runtime == "tflite" else "onnx",
        sha256=digest,
        source_sha256=digest,
        inputs=(TensorSpec(name="x", shape=(1, 2)),),
    )


def _package(package: _Package) -> Check:
    name = f"{package.distribution} (extra {package.extra})"
    version = version_of(package.distribution)
    if version is None:
        detail = "not installed" if package.used else "not installed; no part of this version uses it"
        fix = _install(package.extra) if package.used else ""
        return Check(area="installed", name=name, status="missing", detail=detail, fix=fix)
    with LocalTransport() as here:
        try:
            done = here.run([sys.executable, "-P", "-c", package.code], timeout_s=IMPORT_TIMEOUT_S)
        except SessionFailed as error:
            return Check(
                area="installed",
                name=name,
                status="warn",
                detail=f"{version}: {error.what}",
                fix=_install(package.extra),
            )
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"status {done.returncode}"]
        detail = f"{version} cannot be used: {lines[-1][:200]}"
        return Check(area="installed", name=name, status="warn", detail=detail, fix=_install(package.extra))
    works = f"{version}, works" if package.used else f"{version}, works; no part of this version uses it"
    return Check(area="installed", name=name, status="ok", detail=works)
