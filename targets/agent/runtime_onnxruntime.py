"""ONNX Runtime on the device; every option's value comes from the host, which uses the same for its own sessions."""

import base64
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Type

from targets.agent.model import check_inputs, seeded_inputs
from targets.agent.protocol import Refused, bad_model, bad_setting, missing, own_words, packed_file
from targets.agent.state import Sampler
from targets.agent.timing import Bursts, timed

_CPU = "CPUExecutionProvider"
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}
_DTYPES.update({f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)})


def _module() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing(
            f"onnxruntime cannot be imported on the device: {own_words(error)}",
            "Install it there: python3 -m pip install onnxruntime (onnxruntime-gpu for its GPU).",
        ) from error
    return onnxruntime


def _refusals(ort: Any) -> Tuple[Type[BaseException], ...]:
    state = ort.capi.onnxruntime_pybind11_state
    found = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*tuple(found), RuntimeError, ValueError)


def _options(ort: Any, config: Dict[str, Any]) -> Any:
    options = ort.SessionOptions()
    try:
        for name, value in config["values"].items():
            setattr(options, name, value)
        for name, (kind, member) in config["enums"].items():
            setattr(options, name, getattr(getattr(ort, kind), member))
    except AttributeError as error:
        raise bad_setting(
            f"onnxruntime {ort.__version__} on the device cannot be told everything: {error}", "Install a newer one."
        ) from error
    for key, value in config["entries"].items():
        options.add_session_config_entry(key, value)
    return options


def _open(ort: Any, model: Any, options: Any, providers: List[Any]) -> Any:
    wanted = [provider if isinstance(provider, str) else (provider[0], provider[1]) for provider in providers]
    names = [provider if isinstance(provider, str) else provider[0] for provider in wanted]
    able = ort.get_available_providers()
    if names[0] not in able:
        raise missing(
            f"onnxruntime on the device has no {names[0]} (it has {', '.join(able)})",
            "Install onnxruntime-gpu there, or use the CPU.",
        )
    try:
        session = ort.InferenceSession(model, options, providers=wanted)
    except _refusals(ort) as error:
        raise bad_model(
            f"onnxruntime on the device refuses the model: {own_words(error)}",
            "Export the model again, or use another runtime.",
        ) from error
    if names[0] not in session.get_providers():  # a driver or library that does not load is only logged
        raise missing(
            f"onnxruntime on the device could not start {names[0]} and would run on the CPU",
            "Check the driver, CUDA and cuDNN versions there.",
        )
    return session


class _Bound:
    """A session with its inputs and outputs bound to arrays of our own."""

    def __init__(self, session: Any, specs: List[Dict[str, Any]]) -> None:
        import numpy as np

        check_inputs(specs, {value.name: tuple(value.shape) for value in session.get_inputs()})
        tensors, self.how = seeded_inputs(specs)
        self._session, self._kept = session, list(tensors.values())
        self._binding = session.io_binding()
        for name, array in tensors.items():
            self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for value in session.get_outputs():
            if value.type not in _DTYPES or not all(isinstance(extent, int) for extent in value.shape):
                raise bad_model(f"output {value.name!r} is a {value.type} {value.shape}, which cannot be preallocated")
            array = np.empty(value.shape, np.dtype(_DTYPES[value.type]))
            self._kept.append(array)
            self._binding.bind_output(value.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)


def _actual(session: Any) -> Dict[str, str]:
    options = session.get_session_options()
    values = list(session.get_inputs()) + list(session.get_outputs())
    return {
        "precision": "as stored in the model",
        "element_types": ",".join(sorted({_DTYPES.get(value.type, value.type) for value in values})),
        "provider": ",".join(session.get_providers()),
        "threads": str(options.intra_op_num_threads),
        "inter_op_threads": str(options.inter_op_num_threads),
        "streams": "1",
        "execution_mode": options.execution_mode.name,
        "graph_optimization": options.graph_optimization_level.name,
        "spinning": options.get_session_config_entry("session.intra_op.allow_spinning"),
        "denormals_as_zero": options.get_session_config_entry("session.set_denormal_as_zero"),
        "memory_arena": str(options.enable_cpu_mem_arena),
        "memory_pattern": str(options.enable_mem_pattern),
    }


def time_model(job: Dict[str, Any], path: Path, folder: Path, sampler: Sampler) -> Dict[str, Any]:
    """Load, warm up and time one model."""
    begin = time.perf_counter()
    ort = _module()
    session = _open(ort, str(path), _options(ort, job["config"]), job["providers"])
    model = _Bound(session, job["inputs"])
    load_ms = (time.perf_counter() - begin) * 1e3
    result: Dict[str, Any] = {
        "load_ms": load_ms,
        "actual": _actual(session),
        "versions": {"onnxruntime": ort.__version__},
    }
    result["actual"]["inputs"] = model.how
    if job["providers"][0] != _CPU:
        result["placement_trace"] = _trace(ort, path, job, folder)
    sampler.start()
    try:
        result.update(timed(model.run, job["seconds"], job["min_runs"]))
    except _refusals(ort) as error:
        raise bad_model(f"the model fails while it runs on onnxruntime: {own_words(error)}") from error
    finally:
        sampler.stop()
    return result


def _trace(ort: Any, path: Path, job: Dict[str, Any], folder: Path) -> str:
    """One profiled inference of a second session, which tells where each operation runs."""
    session = _profiled(ort, str(path), job["config"], job["providers"], folder / "placement", None)
    _Bound(session, job["inputs"]).run()
    return packed_file(Path(session.end_profiling()))


def _profiled(
    ort: Any, model: Any, config: Dict[str, Any], providers: List[Any], prefix: Path, optimized: Optional[Path]
) -> Any:
    options = _options(ort, config)
    options.enable_profiling = True
    options.profile_file_prefix = str(prefix)
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
        # The graph is wanted, not its weights.
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.tmp")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "64")
    return _open(ort, model, options, providers)


class _Pair:
    """One model loaded twice, without and with profiling."""

    def __init__(self, ort: Any, part: Dict[str, Any], job: Dict[str, Any], path: Path, folder: Path) -> None:
        model = base64.b64decode(part["model"]) if part.get("model") else str(path)
        self._optimized = folder / (part["name"] + "-optimized.onnx")
        prefix, providers = folder / part["name"], job["providers"]
        self._session = _profiled(ort, model, part["config"], providers, prefix, self._optimized)
        plain = _Bound(_open(ort, model, _options(ort, part["config"]), providers), part["inputs"])
        profiled = _Bound(self._session, part["inputs"])
        for _ in range(job["warmup_runs"]):
            plain.run()
            profiled.run()
        self.plain, self.profiled = Bursts(plain.run), Bursts(profiled.run)

    def burst(self, runs: int) -> None:
        self.plain.burst(runs)
        self.profiled.burst(runs)

    @property
    def undisturbed(self) -> int:
        return min(len(self.plain.undisturbed), len(self.profiled.undisturbed))

    def told(self) -> Dict[str, Any]:
        found: Dict[str, Any] = {"plain": self.plain.told(), "profiled": self.profiled.told()}
        found["trace"] = packed_file(Path(self._session.end_profiling()))
        if self._optimized.is_file():
            try:
                found["optimized"] = packed_file(self._optimized)
            except Refused:  # names alone join most operations
                found["optimized"] = ""
        return found


def profile_model(job: Dict[str, Any], path: Path, folder: Path, sampler: Sampler) -> Dict[str, Any]:
    """Run the host's parts (the model, calibration models) in alternating bursts, with and without profiling."""
    ort = _module()
    try:
        pairs = [_Pair(ort, part, job, path, folder) for part in job["parts"]]
        start = time.perf_counter()
        pairs[0].burst(1)
        burst = max(1, min(10, int(job["burst_seconds"] * 1e6 / max(pairs[0].plain.wall_us[0], 1.0))))
        while len(pairs[0].profiled.wall_us) < job["most_runs"]:
            runs, elapsed_s = len(pairs[0].profiled.wall_us), time.perf_counter() - start
            patience = 1 if pairs[0].undisturbed >= job["enough_undisturbed"] else job["patience"]
            if runs >= job["fewest_runs"] and elapsed_s >= job["seconds"] * patience:
                break
            pairs[0].burst(burst)
            for pair in pairs[1:]:
                pair.burst(3)
        return {"pairs": [pair.told() for pair in pairs], "versions": {"onnxruntime": ort.__version__}}
    except _refusals(ort) as error:
        raise bad_model(f"the model fails while it is profiled: {own_words(error)}") from error
