"""Torch modules to ONNX and TFLite files: static shapes, batch 1, numbers checked, no build-machine traces inside."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from search.onnx_exporters import OPSET, check_opset, to_onnx
from targets.errors import InvalidModel
from targets.extras import require, version_of
from targets.files import write_atomic

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-5
"""Largest difference to eager torch that an export may have, relative to the largest output (at least 1)."""
TFLITE_TOLERANCE = 1e-4
"""The same for TFLite, whose CPU kernels sum in another order."""
_NOISY_LOGGERS = ("torch.onnx", "torch.export", "torch._export", "onnxscript", "onnx_ir", "litert_torch", "jax", "absl")


def onnx_exporter(opset: int = OPSET) -> str:
    """Name and versions of the ONNX exporter, for records and cache keys."""
    return f"torch {version_of('torch')} onnxscript {version_of('onnxscript')} opset {opset}"


def tflite_exporter() -> str:
    """Name and versions of the TFLite exporter, for records and cache keys."""
    return f"litert-torch {version_of('litert-torch')} torch {version_of('torch')} nhwc-io"


def export_onnx(
    module: nn.Module,
    path: Path | str,
    shape: tuple[int, ...],
    *,
    input_name: str = "image",
    output_name: str = "output",
    opset: int = OPSET,
    seed: int = 0,
) -> Path:
    """Export a module with one input and one output to ONNX.

    Args:
        module: Module in eval mode.
        path: File to write; it appears only when it is complete and checked.
        shape: Input shape, batch first.
        input_name: Name of the graph's input.
        output_name: Name of the graph's output.
        opset: Operator set version, 11 to 22: what the device's runtime reads.
        seed: Seed of the input on which the numbers are compared.

    Returns:
        The path written.

    Raises:
        UsageError: If the opset is out of range.
        MissingExtra: If torch or onnxscript is not installed.
        InvalidModel: If the file does not give torch's numbers in ONNX Runtime.
    """
    check_opset(opset)
    torch = require("torch", "torch")
    import onnx

    example = torch.from_numpy(_example(shape, seed))
    module = module.eval()
    with quiet(), torch.no_grad():
        expected = module(example).numpy()
        model = to_onnx(module, example, input_name=input_name, output_name=output_name, opset=opset)
    onnx.checker.check_model(model, full_check=True)

    def check(file: Path) -> None:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {input_name: example.numpy()})
        _compare(found, expected, f"the ONNX export {path}", TOLERANCE)

    return _publish(path, model.SerializeToString(deterministic=True), check)


def export_tflite(module: nn.Module, path: Path | str, shape: tuple[int, ...], *, seed: int = 0) -> Path:
    """Export a module with one image-like input and output to TFLite with NHWC input and output.

    Args:
        module: Module in eval mode that takes (1, C, H, W) and returns (1, C', H', W').
        path: File to write; it appears only when it is complete and checked.
        shape: The module's own input shape (1, C, H, W); the file takes (1, H, W, C).
        seed: Seed of the input on which the numbers are compared.

    Returns:
        The path written.

    Raises:
        MissingExtra: If litert-torch is not installed.
        InvalidModel: If the file does not give torch's numbers in the TFLite interpreter.
    """
    torch = require("torch", "torch")
    from search.lean_prelu import lean_prelu  # torch is imported only where a file is made
    from search.lean_resize import lean_resize

    example = _example(shape, seed)
    module = module.eval()
    with quiet():
        litert_torch = require("litert_torch", "tflite-export")
        wrapped = litert_torch.to_channel_last_io(lean_prelu(module), args=[0], outputs=[0])
        nhwc = np.ascontiguousarray(example.transpose(0, 2, 3, 1))
        with torch.no_grad():
            expected = module(torch.from_numpy(example)).numpy().transpose(0, 2, 3, 1)
        with lean_resize():
            converted = litert_torch.convert(wrapped.eval(), (torch.from_numpy(nhwc),))
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / "model.tflite"
            converted.export(str(temporary))
            content = temporary.read_bytes()

    def check(file: Path) -> None:
        interpreter_module = require("ai_edge_litert.interpreter", "tflite")
        with quiet():
            interpreter = interpreter_module.Interpreter(model_path=str(file), num_threads=1)
            interpreter.allocate_tensors()
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], nhwc)
            interpreter.invoke()
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        _compare(found, expected, f"the TFLite export {path}", TFLITE_TOLERANCE)

    return _publish(path, content, check)


def _publish(path: Path | str, content: bytes, check: Callable[[Path], None]) -> Path:
    """Check a file under a temporary name, then let it appear whole."""
    path = Path(path)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / f"model{path.suffix}"
        trial.write_bytes(content)
        check(trial)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content)
    return path


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' progress lines, warnings and log lines away from the user's terminal."""
    before = {name: logging.getLogger(name).level for name in _NOISY_LOGGERS}
    sink = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(sink),
        _quiet_descriptor(),
    ):
        warnings.simplefilter("ignore")
        for name in before:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _quiet_descriptor() -> Iterator[None]:
    """Send what C++ code writes to descriptor 2 to nowhere."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _example(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _compare(found: NDArray[Any], expected: NDArray[Any], what: str, tolerance: float) -> None:
    limit = tolerance * max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
    if not difference <= limit:
        raise InvalidModel(
            f"{what} differs from torch by {difference:.3g} (shape {found.shape} against {expected.shape})",
            f"The limit is {limit:.1g}; report the model and the versions: torch {version_of('torch')}, "
            f"onnxscript {version_of('onnxscript')}, litert-torch {version_of('litert-torch')}.",
        )
