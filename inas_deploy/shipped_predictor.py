"""The latency predictor that ships with the kit, so that predictions and searches can be tried without any device.

It was fitted to a profile of ``inas`` at 224x224 on ONNX Runtime, 1 thread, on a virtual machine with two cores: the
virtual reference CPU. It is labelled as a stand-in in all it says, and is no statement about any other machine.
``python -m benchmarks.reference_predictor --folder RUN`` makes it from a profile run.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

REFERENCE_CPU = "reference-cpu"
"""What it is called in place of a file."""
_FILE = "reference-cpu-inas-224.safetensors"


def shipped_predictor() -> Path:
    """Where the file of the virtual reference CPU's predictor lies."""
    return Path(str(files("inas_deploy"))) / "data" / _FILE


def predictor_path(name: str) -> Path:
    """The file that a person means by a path or by ``reference-cpu``.

    Args:
        name: What was given.
    """
    return shipped_predictor() if name == REFERENCE_CPU else Path(name)
