"""What every runtime offers to a session."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from targets.profiles.timing import Pace
from targets.records import Artifact, OpProfile, Precision, RunSettings

Tensors = dict[str, NDArray[Any]]


class LoadedModel(Protocol):
    """A model that is compiled, allocated and fed; made in the measuring process."""

    actual: dict[str, str]

    def run(self) -> None:
        """Run one inference on the bound inputs; nothing but the runtime's own call."""

    def feed(self, tensors: Tensors) -> None:
        """Replace the bound inputs (same names, shapes and types)."""

    def outputs(self) -> list[NDArray[Any]]:
        """Outputs of the last inference, copied, in the artifact's order."""


class Runtime(Protocol):
    """A tool that executes artifacts.

    Attributes:
        name: Registry name.
        extra: Extra of this kit that installs it (``""`` for the base).
        formats: Artifact formats it loads as they are.
        precisions: Precisions it can be told to use on this host's kind.
    """

    name: str
    extra: str
    formats: tuple[str, ...]
    precisions: tuple[Precision, ...]

    def versions(self) -> dict[str, str]:
        """Versions of the packages that do the work.

        Raises:
            MissingExtra: If the runtime is not installed.
        """

    def load(self, artifact: Artifact, settings: RunSettings) -> LoadedModel:
        """Compile and allocate with every setting explicit, inputs filled with seeded values.

        Raises:
            InvalidModel: If the runtime refuses the artifact (the node named where it says so).
            UsageError: If a setting is not possible on this host.
        """

    def profile(
        self, artifact: Artifact, settings: RunSettings, *, seconds: float, pace: Pace | None = None
    ) -> OpProfile:
        """Measure per-op times, interleaved with unprofiled runs, joined to modules.

        Args:
            artifact: What to profile.
            settings: The same settings as the timed sessions.
            seconds: Time budget for the timed part.
            pace: A reference model that takes turns, where there is one.

        Raises:
            UnknownLayout: If the tool's output has a layout no parser knows.
        """


def seeded_inputs(artifact: Artifact, seed: int = 0) -> Tensors:
    """Inputs that are the same in every session.

    Args:
        artifact: Gives names, shapes and types.
        seed: Seed of the generator.

    Returns:
        One array an input: standard normal for floats, 0 to 9 for integers, False/True for bool.
    """
    generator = np.random.default_rng(seed)
    tensors: Tensors = {}
    for spec in artifact.inputs:
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            tensors[spec.name] = generator.standard_normal(spec.shape, dtype=np.float32).astype(dtype)
        elif dtype.kind == "b":
            tensors[spec.name] = generator.integers(0, 2, spec.shape).astype(dtype)
        else:
            tensors[spec.name] = generator.integers(0, 10, spec.shape).astype(dtype)
    return tensors
