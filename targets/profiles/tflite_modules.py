"""Module paths from the tensor names of a ``.tflite`` file that litert-torch wrote.

litert-torch (0.10.0) names a tensor after the modules on the call stack, each as ``package.Class_attribute``:
``net.Net/net.Stage_stage1/torch.nn.modules.conv.Conv2d_conv;2``. Several sources of a fused operator stand side by
side, parted by ``;;``. Only the last part of a module's own name is kept, so ``blocks.0`` reads ``0``: an ONNX
export of the same network tells the full paths.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from targets.errors import InvalidModel
from targets.extras import require
from targets.profiles.join import NAME_SCOPES, parse_name_scopes
from targets.tflite_files import TfliteFile, TfliteOp

_QUALIFIED = re.compile(r"[^\s/;]+\.[^\s/;.]+")
# Operators that hold the weights of a convolution or linear layer.
_WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"})
_WEIGHTED_CLASS = re.compile(r"Conv|Linear")

# One spelling of the attributes on a call stack, outermost first.
Stack = tuple[str, ...]


class ModuleNames:
    """Full module paths by the attributes on the call stack.

    Args:
        paths: Full paths by stack, for example ``{("0", "conv"): {"blocks.0.conv"}}``; empty where unknown.
    """

    def __init__(self, paths: dict[Stack, set[str]] | None = None) -> None:
        self._paths = paths or {}

    @classmethod
    def of_onnx(cls, path: Path) -> ModuleNames:
        """Read the paths from the ``name_scopes`` that ``torch.onnx.export`` writes with every node.

        Args:
            path: An ONNX file of the same network; weights in a second file are not read.

        Raises:
            InvalidModel: If it cannot be read as ONNX.
        """
        import onnx

        decode_error: type[Exception] = require("google.protobuf.message", "").DecodeError
        try:
            model = onnx.load(str(path), load_external_data=False)
        except (OSError, ValueError, decode_error) as error:
            raise InvalidModel(f"{path} cannot be read as ONNX: {error}", "Name an ONNX file, or none.") from error
        paths: dict[Stack, set[str]] = defaultdict(set)
        for node in model.graph.node:
            for entry in node.metadata_props:
                if entry.key == NAME_SCOPES:
                    scopes = _scopes(entry.value)
                    for depth in range(1, len(scopes) + 1):
                        stack = tuple(scope.rsplit(".", 1)[-1] for scope in scopes[:depth])
                        paths[stack].add(scopes[depth - 1])
        return cls(dict(paths))

    def __bool__(self) -> bool:
        return bool(self._paths)

    def resolve(self, stacks: list[Stack]) -> str | None:
        """Full path of a module.

        Args:
            stacks: Spellings of its call stack, the likeliest first.

        Returns:
            The path; without known paths the attributes joined by dots; ``None`` where two modules fit.
        """
        if not self._paths:
            return ".".join(stacks[0])
        # A wrapper around the network adds to the front, a folded layer is absent at the end.
        longest = max(len(stack) for stack in stacks)
        for dropped in range(longest + 1):
            for skipped in range(min(3, longest + 1 - dropped)):
                found = {
                    ".".join((path, *stack[len(stack) - dropped :])) if dropped else path
                    for stack in stacks
                    if len(stack) > skipped + dropped
                    for path in self._paths.get(stack[skipped : len(stack) - dropped], ())
                }
                if found:
                    return found.pop() if len(found) == 1 else None
        return "" if () in stacks else None


def _scopes(text: str) -> list[str]:
    """Module scopes of a node, outermost first, without the top module and without the node's own name."""
    return [scope for scope in (parse_name_scopes(text) or ())[:-1] if scope]


def module_of(op: TfliteOp, file: TfliteFile, names: ModuleNames) -> str | None:
    """Module that made an operator.

    Args:
        op: The operator.
        file: Its graph.
        names: Full paths, where they are known.

    Returns:
        The path, ``""`` for the top module, ``None`` where the names do not tell. The operator that writes a graph
        output carries the signature's name instead of a module's: it counts for the top module.
    """
    if not op.outputs:
        return None
    sources = [stacks for stacks in map(_stacks, _pieces(file.tensors[op.outputs[0]].name)) if stacks]
    if not sources:
        written_by_torch = any(_pieces(tensor.name) and _stacks(_pieces(tensor.name)[0]) for tensor in file.tensors)
        return "" if written_by_torch and op.outputs[0] in file.output_tensors else None
    weighted = [stacks for name, stacks in sources if _WEIGHTED_CLASS.search(name)]
    first = weighted[0] if op.op_type in _WEIGHTED and weighted else sources[0][1]
    return names.resolve(first)


def _pieces(name: str) -> list[str]:
    return [piece.strip(";") for piece in re.sub(r";\d*$", "", name).split(";;")]


def _stacks(piece: str) -> tuple[str, list[Stack]] | None:
    """Class of the innermost module, and the spellings of its call stack."""
    parts = piece.split("/")
    if not all(_QUALIFIED.fullmatch(part) for part in parts):
        return None
    if parts[0].startswith("litert_torch."):
        parts = parts[1:]  # the converter's own wrapper around the network
    spellings: list[Stack] = [()]
    for part in parts[1:]:
        words = part.rsplit(".", 1)[-1].lstrip("_").split("_")
        attributes = ["_".join(words[at:]) for at in range(1, len(words))] or [words[0]]
        # Class names seldom hold an underscore, so the longest attribute comes first.
        spellings = [(*stack, attribute) for attribute in attributes for stack in spellings][:32]
    return parts[-1].rsplit(".", 1)[-1] if parts else "", spellings
