"""TensorRT as a runtime: what it takes. It runs on NVIDIA devices only, through ``trtexec`` and the agent."""

from __future__ import annotations

from targets.errors import UsageError
from targets.extras import require
from targets.profiles.timing import Pace
from targets.records import Artifact, OpProfile, Precision, RunSettings
from targets.runtimes.base import LoadedModel

_WHY = "TensorRT is timed by trtexec on the device, not inside this process"
_FIX = "Name a device whose runtime is tensorrt (--target); to check a model without one: inas-deploy check --model X."


class TensorRTRuntime:
    """TensorRT on an NVIDIA GPU."""

    name: str = "tensorrt"
    extra: str = "tensorrt"
    formats: tuple[str, ...] = ("onnx",)
    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.FP16, Precision.INT8)

    def versions(self) -> dict[str, str]:
        """Version of the Python package, where there is one; a device's own comes from its agent.

        Raises:
            MissingExtra: If it is not installed.
        """
        return {"tensorrt": str(require("tensorrt", self.extra).__version__)}

    def load(self, artifact: Artifact, settings: RunSettings) -> LoadedModel:
        """Refuse: see :meth:`targets.runtimes.base.Runtime.load`.

        Raises:
            UsageError: Always; the line says how it is done.
        """
        raise UsageError(_WHY, _FIX)

    def profile(
        self, artifact: Artifact, settings: RunSettings, *, seconds: float, pace: Pace | None = None
    ) -> OpProfile:
        """Refuse, as :meth:`load`."""
        raise UsageError(_WHY, _FIX)
