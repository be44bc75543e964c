"""Networks of any search space to ONNX and TFLite files, from Python or with ``python -m search.spaces.export``.

What is written is the reparameterized form. Its input ``image`` is RGB, normalised with the ImageNet mean and
deviation; its output has the input's size, so that what is timed is what is shipped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from search import export_torch
from search.onnx_exporters import OPSET, check_opset
from search.reparameterize import reparameterize
from search.seeded import STATISTICS_SIDE, check_seed, seed_weights
from search.spaces.arch import UNTRAINED_NOTE, Arch
from search.spaces.registry import arch_of_file, find_arch, space_of
from targets.errors import KitError, UsageError
from targets.extras import require
from targets.files import check_writable

if TYPE_CHECKING:
    from torch import nn

INPUT_NAME = "image"


def seeded_subnet(arch: Arch, input_size: tuple[int, int], *, seed: int = 0) -> nn.Module:
    """An architecture's network in training form, with seeded weights: for latency and parity only.

    Args:
        arch: The architecture.
        input_size: Height and width in pixels.
        seed: Seed of the weights.

    Returns:
        The network in eval mode.

    Raises:
        UsageError: If the network cannot take the input size, or it, the network or the seed is out of range.
        MissingExtra: If torch is not installed.
    """
    check_seed(seed)
    arch.check_request(input_size)
    require("torch", "torch")
    network = space_of(arch).build_subnet(arch, seed=seed)
    seed_weights(network, _statistics_side(arch, input_size), seed)
    return network


def _statistics_side(arch: Arch, input_size: tuple[int, int]) -> int:
    """A side that the network can take, ``STATISTICS_SIDE`` where that is possible, never above the input's."""
    largest = min(input_size)
    step = space_of(arch).multiple
    sides: list[int] = [min(STATISTICS_SIDE, largest), *range(step, largest, step)]
    for side in sides:
        try:
            arch.blocks((side, side))
        except UsageError:  # attention patches that do not divide it
            continue
        return side
    return largest


def export_arch(
    arch: Arch,
    path: Path | str,
    *,
    input_size: tuple[int, int] = (224, 224),
    format: Literal["onnx", "tflite"] = "onnx",
    opset: int = OPSET,
    seed: int = 0,
) -> Path:
    """Write an architecture's reparameterized network with seeded weights.

    Args:
        arch: The architecture.
        path: File to write.
        input_size: Height and width in pixels.
        format: Format of the file; TFLite has NHWC input and output.
        opset: Operator set version of an ONNX file, 11 to 22.
        seed: Seed of the weights and of the compared input.

    Returns:
        The path written.

    Raises:
        UsageError: If the network cannot take the input size, or it, the network, the opset or the seed is out of
            range.
        MissingExtra: If an exporter is not installed.
        InvalidModel: If the file does not give torch's numbers.
    """
    check_opset(opset)
    deployed = reparameterize(seeded_subnet(arch, input_size, seed=seed))
    return export_network(deployed, arch, path, input_size=input_size, format=format, opset=opset, seed=seed)


def export_network(
    network: nn.Module,
    arch: Arch,
    path: Path | str,
    *,
    input_size: tuple[int, int] = (224, 224),
    format: Literal["onnx", "tflite"] = "onnx",
    opset: int = OPSET,
    seed: int = 0,
) -> Path:
    """Write a network as it is, in any form and with the weights it has.

    Args:
        network: The network.
        arch: Its architecture, which says how the output is called.
        path: File to write.
        input_size: Height and width in pixels.
        format: Format of the file; TFLite has NHWC input and output.
        opset: Operator set version of an ONNX file, 11 to 22.
        seed: Seed of the input on which the numbers are compared.

    Returns:
        The path written.

    Raises:
        UsageError: If the network cannot take the input size, or it, the opset or the seed is out of range.
        MissingExtra: If an exporter is not installed.
        InvalidModel: If the file does not give torch's numbers.
    """
    check_seed(seed)
    arch.check_request(input_size)
    shape = (1, 3, *input_size)
    if format == "tflite":
        return export_torch.export_tflite(network, path, shape, seed=seed)
    names = {"input_name": INPUT_NAME, "output_name": space_of(arch).output_name}
    return export_torch.export_onnx(network, path, shape, opset=opset, seed=seed, **names)


def main(arguments: list[str] | None = None) -> int:
    """Export a named network; 0 on success, else the error's exit code."""
    parser = argparse.ArgumentParser(prog="python -m search.spaces.export", description=main.__doc__)
    parser.add_argument("--model", default="csnet-x1", help="name, such as inas:smallest, or .json file")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224), metavar=("H", "W"), help="input size")
    parser.add_argument("--opset", type=int, default=OPSET, help="ONNX operator set, 11 to 22")
    parser.add_argument("--out", type=Path, required=True, help="file to write: .onnx or .tflite")
    options = parser.parse_args(arguments)
    try:
        if options.out.suffix not in {".onnx", ".tflite"}:
            raise UsageError(f"cannot tell the format of {options.out}", "End the name in .onnx or .tflite.")
        check_writable(options.out)
        export_arch(
            arch_of_file(options.model) if options.model.endswith(".json") else find_arch(options.model),
            options.out,
            input_size=(options.size[0], options.size[1]),
            format="onnx" if options.out.suffix == ".onnx" else "tflite",
            opset=options.opset,
            seed=options.seed,
        )
    except KitError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("stopped; nothing was written\n")
        return 130
    sys.stdout.write(f"{options.out}: {options.out.stat().st_size:,} bytes; {UNTRAINED_NOTE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
