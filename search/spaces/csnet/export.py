"""CSNet to ONNX and TFLite files, from Python or with ``python -m search.spaces.csnet.export``.

The graph is the folded form. Its input ``image`` is RGB, normalised with the ImageNet mean and deviation; its output
``saliency`` is the sigmoid map in 0 to 1 at the input's size, so that what is timed is what is shipped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search import export_torch
from search.spaces.csnet.arch import CSNetArch, check_input_size
from search.spaces.csnet.network import fold_csnet
from search.spaces.csnet.seeded import UNTRAINED_NOTE, seeded_csnet
from targets.errors import KitError, UsageError

if TYPE_CHECKING:
    from torch import nn

INPUT_NAME, OUTPUT_NAME = "image", "saliency"


def deployable(network: nn.Module | CSNetArch, seed: int = 0) -> nn.Module:
    """The folded form of a network, or of a seeded one where only an architecture is given.

    Args:
        network: A CSNet in training or folded form, or an architecture.
        seed: Seed of the weights where an architecture is given.
    """
    if isinstance(network, CSNetArch):
        return fold_csnet(seeded_csnet(network, seed))
    csnet: Any = network
    return network if csnet.folded else fold_csnet(network)


def export_onnx(
    network: nn.Module | CSNetArch, path: Path | str, *, input_size: tuple[int, int] = (224, 224), seed: int = 0
) -> Path:
    """Write a CSNet as ONNX: static shapes, batch 1, numbers checked against torch.

    Args:
        network: A CSNet in either form, or an architecture, which gets seeded weights.
        path: File to write.
        input_size: Height and width, multiples of 16.
        seed: Seed of the weights and of the compared input.

    Returns:
        The path written.

    Raises:
        UsageError: If the input size is not possible.
        MissingExtra: If torch is not installed.
        InvalidModel: If the file does not give torch's numbers.
    """
    check_input_size(input_size)
    module = deployable(network, seed)
    return export_torch.export_onnx(
        module, path, (1, 3, *input_size), input_name=INPUT_NAME, output_name=OUTPUT_NAME, seed=seed
    )


def export_tflite(
    network: nn.Module | CSNetArch, path: Path | str, *, input_size: tuple[int, int] = (224, 224), seed: int = 0
) -> Path:
    """Write a CSNet as TFLite with NHWC input and output; otherwise as ``export_onnx``.

    Raises:
        UsageError: If the input size is not possible.
        MissingExtra: If litert-torch is not installed.
        InvalidModel: If the file does not give torch's numbers.
    """
    check_input_size(input_size)
    return export_torch.export_tflite(deployable(network, seed), path, (1, 3, *input_size), seed=seed)


def main(arguments: list[str] | None = None) -> int:
    """Command line: export a named network; 0 on success, else the error's exit code."""
    from search.spaces.names import find_arch

    parser = argparse.ArgumentParser(prog="python -m search.spaces.csnet.export", description=main.__doc__)
    parser.add_argument("--model", default="csnet-x1", help="network name")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224), metavar=("H", "W"), help="input size")
    parser.add_argument("--out", type=Path, required=True, help="file to write: .onnx or .tflite")
    options = parser.parse_args(arguments)
    exporters = {".onnx": export_onnx, ".tflite": export_tflite}
    try:
        if options.out.suffix not in exporters:
            raise UsageError(f"cannot tell the format of {options.out}", "End the name in .onnx or .tflite.")
        arch = find_arch(options.model).arch
        height, width = options.size
        exporters[options.out.suffix](arch, options.out, input_size=(height, width), seed=options.seed)
    except KitError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{options.out}: {options.out.stat().st_size:,} bytes; {UNTRAINED_NOTE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
