"""TFLite on the device's CPU: ``ai-edge-litert``, or ``tflite-runtime`` where it has only that."""

import importlib
import time
from pathlib import Path
from typing import Any, Dict, Tuple

from targets.agent.model import seeded_inputs
from targets.agent.protocol import Refused, bad_model, missing, own_words
from targets.agent.state import Sampler
from targets.agent.timing import timed

_MODULES = ("ai_edge_litert", "tflite_runtime")


def _module() -> Tuple[str, Any]:
    for name in _MODULES:
        try:
            return name, importlib.import_module(name + ".interpreter")
        except ImportError:
            continue
    raise missing(
        "no TFLite interpreter can be imported on the device",
        "Install one there: python3 -m pip install ai-edge-litert (or tflite-runtime).",
    )


def time_model(job: Dict[str, Any], path: Path, folder: Path, sampler: Sampler) -> Dict[str, Any]:
    """Load, warm up and time one model."""
    import numpy as np

    begin = time.perf_counter()
    name, module = _module()
    kinds = module.OpResolverType
    resolver = kinds.AUTO if job["delegate"] == "xnnpack" else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = module.Interpreter(
            model_path=str(path), num_threads=job["threads"], experimental_op_resolver_type=resolver
        )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise bad_model(
            f"TFLite on the device refuses the model: {own_words(error)}",
            "Convert the model with a version that the device's runtime knows.",
        ) from error
    found = {int(each["index"]): tuple(int(extent) for extent in each["shape"]) for each in _details(interpreter)}
    told = {spec["index"]: tuple(spec["shape"]) for spec in job["inputs"]}
    if found != told:
        raise bad_model(f"the model has inputs {found}, its record says {told}", "Describe the file again.")
    tensors, how = seeded_inputs(job["inputs"])
    for spec in job["inputs"]:
        interpreter.set_tensor(spec["index"], np.ascontiguousarray(tensors[spec["name"]]))
    load_ms = (time.perf_counter() - begin) * 1e3
    listing = getattr(interpreter, "_get_ops_details", None)
    nodes = None
    if listing is not None:
        nodes = [
            {
                "index": int(node["index"]),
                "inputs": [int(tensor) for tensor in node["inputs"]],
                "outputs": [int(tensor) for tensor in node["outputs"]],
            }
            for node in listing()
        ]
    result: Dict[str, Any] = {"load_ms": load_ms, "nodes": nodes, "inputs": how, "module": name}
    sampler.start()
    try:
        result.update(timed(interpreter.invoke, job["seconds"], job["min_runs"]))
    except (ValueError, RuntimeError) as error:
        raise bad_model(f"the model fails while it runs on TFLite: {own_words(error)}") from error
    finally:
        sampler.stop()
    return result


def _details(interpreter: Any) -> Any:
    return interpreter.get_input_details()


def profile_model(job: Dict[str, Any], path: Path, folder: Path, sampler: Sampler) -> Dict[str, Any]:
    """Refuse: LiteRT's profiler is known for one version of its C library, on the host."""
    raise Refused("per-op times of tflite are not taken through the agent", error="MissingProfile")
