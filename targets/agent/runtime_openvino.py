"""OpenVINO on the device; every property's value comes from the host, which uses the same for its own sessions."""

import importlib
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Dict, List, Tuple

from targets.agent.model import check_inputs, seeded_inputs
from targets.agent.protocol import bad_model, bad_setting, missing, own_words
from targets.agent.state import Sampler
from targets.agent.timing import Bursts, timed

_DEVICE = "CPU"
_TELEMETRY = "openvino_telemetry"
_GRAPH_KEYS = {"layer_type": "layerType", "precision": "runtimePrecision", "originals": "originalLayersNames"}


def _module() -> Any:
    """The package without its telemetry, which would report over the network from the user's device."""
    if _TELEMETRY not in sys.modules:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        openvino = importlib.import_module("openvino")
    except ImportError as error:
        raise missing(
            f"openvino cannot be imported on the device: {own_words(error)}",
            "Install it there: python3 -m pip install openvino.",
        ) from error
    return openvino


class _Model:
    """One infer request on tensors of our own."""

    def __init__(self, openvino: Any, core: Any, model: Any, job: Dict[str, Any], counting: bool) -> None:
        import numpy as np

        config = dict(job["config"], PERF_COUNT="YES" if counting else "NO")
        try:
            self.compiled = core.compile_model(model, _DEVICE, config)
        except RuntimeError as error:
            raise _refused(error) from error
        found = {
            port.any_name: tuple(port.shape) if port.partial_shape.is_static else () for port in self.compiled.inputs
        }
        check_inputs(job["inputs"], found)
        self.request = self.compiled.create_infer_request()
        tensors, self.how = seeded_inputs(job["inputs"])
        self._kept = list(tensors.values())
        for name, array in tensors.items():
            self.request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        for index, port in enumerate(self.compiled.outputs):
            if port.partial_shape.is_dynamic:
                raise bad_model(f"output {index} has no static shape: {port.partial_shape}")
            array = np.empty(tuple(port.shape), port.element_type.to_dtype())
            self._kept.append(array)
            self.request.set_output_tensor(index, openvino.Tensor(array, shared_memory=True))

    def run(self) -> None:
        self.request.infer(share_outputs=True)


def _refused(error: RuntimeError) -> Any:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    dull = ("Exception from", "Check '", "FrontEnd API", "Model wasn't fully", "Summary:")
    told = [line.lstrip("- ") for line in lines if not line.startswith(dull)] or lines[-1:]
    return bad_model(
        f"openvino on the device refuses the model: {'; '.join(told)[:400]}",
        "Replace that operation, or use onnxruntime.",
    )


def _read(job: Dict[str, Any], path: Path) -> Tuple[Any, Any, Any]:
    openvino = _module()
    core = openvino.Core()
    able = [str(item) for item in core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")]
    needed = job.get("capability")
    if needed and needed not in able:
        raise bad_setting(
            f"the device's processor cannot compute in {needed.lower()} with openvino (it has {', '.join(able)})",
            "Use precision fp32.",
        )
    try:
        return openvino, core, core.read_model(str(path))
    except RuntimeError as error:
        raise _refused(error) from error


def _text(value: Any) -> str:
    if hasattr(value, "to_string"):
        return str(value.to_string())
    if hasattr(value, "astype"):
        return str(value.astype(str))
    return ",".join(map(str, value)) if isinstance(value, list) else str(getattr(value, "name", value))


def _graph(compiled: Any) -> List[Dict[str, Any]]:
    rows = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        row: Dict[str, Any] = {key: _text(info[name]) for key, name in _GRAPH_KEYS.items() if name in info}
        row["name"] = node.get_friendly_name()
        row["inputs"] = [port.get_node().get_friendly_name() for port in node.input_values()]
        rows.append(row)
    return rows


def _source_rows(model: Any) -> List[Dict[str, Any]]:
    """The model as read: each node's name, type and the places of its readers."""
    nodes = model.get_ordered_ops()
    place = {node.get_friendly_name(): index for index, node in enumerate(nodes)}
    rows = []
    for node in nodes:
        readers = {
            port.get_node().get_friendly_name() for output in node.outputs() for port in output.get_target_inputs()
        }
        rows.append(
            {
                "name": node.get_friendly_name(),
                "type": node.get_type_name(),
                "readers": sorted(place[name] for name in readers if name in place),
            }
        )
    return rows


def _counters(request: Any) -> List[Dict[str, Any]]:
    return [
        {
            "name": info.node_name,
            "node_type": info.node_type,
            "kernel": info.exec_type,
            "status": info.status.name,
            "average_us": info.real_time // timedelta(microseconds=1),
        }
        for info in request.get_profiling_info()
    ]


def time_model(job: Dict[str, Any], path: Path, folder: Path, sampler: Sampler) -> Dict[str, Any]:
    """Load, warm up and time one model."""
    begin = time.perf_counter()
    openvino, core, source = _read(job, path)
    model = _Model(openvino, core, source, job, counting=False)
    load_ms = (time.perf_counter() - begin) * 1e3
    actual = {key: _text(model.compiled.get_property(name)) for key, name in job["shown"].items()}
    if actual.get("precision") != job["config"]["INFERENCE_PRECISION_HINT"]:
        raise bad_setting(
            f"openvino on the device was told {job['config']['INFERENCE_PRECISION_HINT']} and computes in "
            f"{actual.get('precision')}",
            "Use precision fp32.",
        )
    actual.update(device=str(core.get_property(_DEVICE, "FULL_DEVICE_NAME")), inputs=model.how)
    result = {
        "load_ms": load_ms,
        "actual": actual,
        "graph": _graph(model.compiled),
        "versions": {"openvino_build": str(openvino.get_version())},
    }  # type: Dict[str, Any]
    sampler.start()
    try:
        result.update(timed(model.run, job["seconds"], job["min_runs"]))
    except RuntimeError as error:
        raise bad_model(f"the model fails while it runs on openvino: {own_words(error)}") from error
    finally:
        sampler.stop()
    return result


def profile_model(job: Dict[str, Any], path: Path, folder: Path, sampler: Sampler) -> Dict[str, Any]:
    """Compile anew for every chunk, with and without counters, and run both in alternating bursts."""
    openvino, core, source = _read(job, path)
    result: Dict[str, Any] = {"source": _source_rows(source), "chunks": []}
    start, quiet = time.perf_counter(), False
    try:
        while not result["chunks"] or time.perf_counter() - start < job["seconds"] * (1 if quiet else job["patience"]):
            begin = time.perf_counter()
            plain = _Model(openvino, core, source, job, counting=False)
            counting = _Model(openvino, core, source, job, counting=True)
            if "graph" not in result:
                result["graph"] = _graph(counting.compiled)
            compile_s = time.perf_counter() - begin
            budget_s = max(compile_s, job["seconds"] / job["chunks"] - compile_s)
            chunk = _chunk(plain, counting, budget_s, job)
            quiet = quiet or all(
                len(chunk[key]["undisturbed"]) >= job["enough_undisturbed"] for key in ("plain", "profiled")
            )
            result["chunks"].append(chunk)
    except RuntimeError as error:
        raise bad_model(f"the model fails while it is profiled: {own_words(error)}") from error
    result["versions"] = {"openvino_build": str(openvino.get_version())}
    return result


def _chunk(plain: _Model, counting: _Model, budget_s: float, job: Dict[str, Any]) -> Dict[str, Any]:
    for _ in range(job["warmup_runs"]):
        plain.run()
        counting.run()
    before = _counters(counting.request)
    timed_runs = Bursts(plain.run), Bursts(counting.run)
    start = time.perf_counter()
    for runs in timed_runs:
        runs.burst(1)
    single_us = max(timed_runs[0].wall_us[0], 1.0)
    burst = max(1, min(10, int(job["burst_seconds"] * 1e6 / single_us)))
    enough_s = max(budget_s, job["enough_runs"] * 2 * single_us / 1e6)
    while len(timed_runs[1].wall_us) < job["fewest_runs"] or time.perf_counter() - start < min(
        enough_s, job["seconds"]
    ):
        for runs in timed_runs:
            runs.burst(burst)
    return {
        "before": before,
        "after": _counters(counting.request),
        "plain": timed_runs[0].told(),
        "profiled": timed_runs[1].told(),
    }
