"""Runtimes by name; the implementing file is imported only when its runtime is asked for.

A new runtime is one file that holds a :class:`targets.runtimes.base.Runtime` and one line below.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from functools import cache

from targets.errors import UsageError
from targets.extras import installed
from targets.runtimes.base import Runtime


@dataclass(frozen=True)
class Entry:
    """Where a runtime lives and what it needs.

    Attributes:
        module: Import path of the implementing file.
        class_name: Class in it, made without arguments.
        packages: Top-level packages of which one must be installed.
    """

    module: str
    class_name: str
    packages: tuple[str, ...]


RUNTIMES: dict[str, Entry] = {
    "onnxruntime": Entry("targets.runtimes.onnxruntime", "OnnxRuntime", ("onnxruntime",)),
    "openvino": Entry("targets.runtimes.openvino", "OpenVINORuntime", ("openvino",)),
    "tensorrt": Entry("targets.runtimes.tensorrt", "TensorRTRuntime", ("tensorrt",)),
    "tflite": Entry("targets.runtimes.tflite", "TFLiteRuntime", ("ai_edge_litert", "tflite_runtime")),
}


@cache
def get_runtime(name: str) -> Runtime:
    """The runtime of that name.

    Args:
        name: A key of :data:`RUNTIMES`.

    Raises:
        UsageError: If no runtime has that name; the line lists those that exist and those installed.
    """
    entry = _entry(name)
    runtime: Runtime = getattr(importlib.import_module(entry.module), entry.class_name)()
    return runtime


def _entry(name: str) -> Entry:
    entry = RUNTIMES.get(name)
    if entry is not None:
        return entry
    known = ", ".join(
        f"{key} ({'installed' if any(installed(p) for p in e.packages) else 'not installed'})"
        for key, e in RUNTIMES.items()
    )
    close = difflib.get_close_matches(name, RUNTIMES, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise UsageError(f"there is no runtime {name!r}", f"{hint}Known: {known}.")
