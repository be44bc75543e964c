"""Module paths from the tensor names of a ``.tflite`` file that litert-torch wrote.

litert-torch (0.10.0) names a tensor after the modules on the call stack, each as ``package.Class_attribute``:
``net.Net/net.Stage_stage1/torch.nn.modules.conv.Conv2d_conv;2``. Several sources of a fused operator stand side by
side, parted by ``;;``. Only the last part of a module's own name is kept, so ``blocks.0`` reads ``0``.
"""

from __future__ import annotations

import re

from targets.tflite_files import TfliteFile, TfliteOp

_QUALIFIED = re.compile(r"[^\s/;]+\.[^\s/;.]+")
# Operators that hold the weights of a convolution or linear layer.
_WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"})
_WEIGHTED_CLASS = re.compile(r"Conv|Linear")


def module_of(op: TfliteOp, file: TfliteFile) -> str | None:
    """Module that made an operator.

    Args:
        op: The operator.
        file: Its graph.

    Returns:
        The path, ``""`` for the top module, ``None`` where the names do not tell. The operator that writes a graph
        output carries the signature's name instead of a module's: it counts for the top module.
    """
    if not op.outputs:
        return None
    sources = [found for found in map(_call_stack, _pieces(file.tensors[op.outputs[0]].name)) if found]
    if not sources:
        written_by_torch = any(_pieces(tensor.name) and _call_stack(_pieces(tensor.name)[0]) for tensor in file.tensors)
        return "" if written_by_torch and op.outputs[0] in file.output_tensors else None
    weighted = [path for name, path in sources if _WEIGHTED_CLASS.search(name)]
    return ".".join(weighted[0] if op.op_type in _WEIGHTED and weighted else sources[0][1])


def _pieces(name: str) -> list[str]:
    return [piece.strip(";") for piece in re.sub(r";\d*$", "", name).split(";;")]


def _call_stack(piece: str) -> tuple[str, list[str]] | None:
    """Class of the innermost module, and the attributes on its call stack, outermost first."""
    parts = piece.split("/")
    if not all(_QUALIFIED.fullmatch(part) for part in parts):
        return None
    if parts[0].startswith("litert_torch."):
        parts = parts[1:]  # the converter's own wrapper around the network
    # Class names seldom hold an underscore, so all behind the first is the attribute.
    names = [part.rsplit(".", 1)[-1].lstrip("_") for part in parts[1:]]
    attributes = [name.partition("_")[2] or name for name in names]
    return parts[-1].rsplit(".", 1)[-1] if parts else "", attributes
