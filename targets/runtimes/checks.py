"""Checks that every runtime makes before it loads: the file, its format, options, fed tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from targets.errors import InvalidModel, UsageError
from targets.records import Artifact, RunSettings
from targets.runtimes.base import Tensors


def check_artifact(artifact: Artifact, formats: Sequence[str], runtime: str) -> Path:
    """The artifact's file, after checking that it is one and of a format the runtime loads.

    Raises:
        InvalidModel: If there is no such file.
        UsageError: If the runtime does not load that format.
    """
    path = Path(artifact.path)
    if artifact.format not in formats:
        raise UsageError(f"{runtime} does not load {artifact.format} files ({path.name})", f"Give it {formats[0]}.")
    if not path.is_file():
        raise InvalidModel(f"{path}: no such file", "Check the path.")
    return path


def choose(settings: RunSettings, choices: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The runtime options with defaults filled in; each choice's first value is its default.

    Args:
        settings: Holds the options given.
        choices: Allowed values by option name.

    Raises:
        UsageError: If an option or a value is unknown.
    """
    for name, value in settings.options.items():
        if name not in choices:
            raise UsageError(f"{settings.runtime} has no option {name!r}", f"Known options: {', '.join(choices)}.")
        if value not in choices[name]:
            raise UsageError(
                f"{settings.runtime} option {name} cannot be {value!r}", f"Choose from {', '.join(choices[name])}."
            )
    return {name: settings.options.get(name, values[0]) for name, values in choices.items()}


def copy_into(bound: Tensors, tensors: Tensors) -> None:
    """Overwrite bound input arrays in place, so that the addresses the runtime holds stay valid.

    Raises:
        UsageError: If a name, shape or element type differs.
    """
    if tensors.keys() != bound.keys():
        raise UsageError(
            f"the model has inputs {sorted(bound)}, not {sorted(tensors)}", "Feed every input by its name."
        )
    for name, array in tensors.items():
        target = bound[name]
        if array.shape != target.shape or array.dtype != target.dtype:
            raise UsageError(
                f"input {name!r} takes {target.dtype} {target.shape}, not {array.dtype} {array.shape}",
                "Convert the tensor first.",
            )
        np.copyto(target, array)


def check_inputs(artifact: Artifact, found: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the inputs a record promises with those the runtime found in the file.

    Raises:
        InvalidModel: If they differ.
    """
    told = {spec.name: spec.shape for spec in artifact.inputs}
    if told != dict(found):
        raise InvalidModel(
            f"{Path(artifact.path).name} has inputs {dict(found)}, its record says {told}",
            "Describe the file again: it is not the one that was inspected.",
        )
