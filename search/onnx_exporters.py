"""The two ONNX exporters of torch behind one call: the modern one for opset 18 to 22, the older one for 11 to 17.

Both leave every node saying which module made it, and nothing of the machine it was made on.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from targets.errors import UsageError
from targets.extras import require

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

OPSET = 20
"""Opset where the caller names none."""
OLDEST_OPSET, NEWEST_OPSET = 11, 22
"""Opset 10 has no align-corners resize; 23 and later turn attention into one node that TensorRT cannot build."""
FIRST_MODERN_OPSET = 18
KEPT_METADATA = ("pkg.torch.onnx.name_scopes",)
"""Node metadata that says which module a node came from; everything else (stack traces, paths) is dropped."""


def check_opset(opset: int) -> None:
    """Refuse an opset that no exporter writes.

    Raises:
        UsageError: Outside ``OLDEST_OPSET`` to ``NEWEST_OPSET``.
    """
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise UsageError(
            f"opset {opset} cannot be exported",
            f"Take {OLDEST_OPSET} to {NEWEST_OPSET}; {OPSET} is usual, a Jetson Nano's TensorRT 8.2 needs 13.",
        )


def to_onnx(
    module: nn.Module, example: torch.Tensor, *, input_name: str, output_name: str, opset: int
) -> onnx.ModelProto:
    """Translate a module with one input and one output.

    Args:
        module: Module in eval mode.
        example: Input that fixes the shapes.
        input_name: Name of the graph's input.
        output_name: Name of the graph's output.
        opset: Operator set version.

    Returns:
        The model with static shapes; equal modules give equal bytes.

    Raises:
        UsageError: If the opset is out of range.
        MissingExtra: If torch or onnxscript is not installed.
    """
    check_opset(opset)
    require("torch", "torch")
    require("onnxscript", "torch")
    names: dict[str, Any] = {"input_names": [input_name], "output_names": [output_name]}
    model = (_modern if opset >= FIRST_MODERN_OPSET else _older)(module, example, opset, names)
    _strip(model)
    return model


def _modern(module: nn.Module, example: torch.Tensor, opset: int, names: dict[str, Any]) -> onnx.ModelProto:
    import torch

    def export(what: Any, *arguments: Any) -> onnx.ModelProto:
        program: Any = torch.onnx.export(
            what, *arguments, opset_version=opset, dynamo=True, verbose=False, optimize=False, **names
        )
        return _plain(program.model)

    # Tracing the network a second time to decompose its operations takes half of the whole time and changes nothing
    # where ONNX has an equivalent of each; where it has not, the exporter says so.
    traced: Any = torch.export.export(module, (example,), strict=False)
    traced.run_decompositions = lambda *_, **__: traced
    try:
        return export(traced)
    except torch.onnx.OnnxExporterError:
        return export(module, (example,))


def _older(module: nn.Module, example: torch.Tensor, opset: int, names: dict[str, Any]) -> onnx.ModelProto:
    import onnx
    import onnx_ir
    import torch

    buffer: Any = io.BytesIO()  # taken, although its type is not among the declared ones
    torch.onnx.export(module, (example,), buffer, opset_version=opset, dynamo=False, **names)
    shaped = onnx.shape_inference.infer_shapes(onnx.load_from_string(buffer.getvalue()))
    model = _plain(onnx_ir.from_proto(shaped))
    # Sizes that were computed are constants by now; what was inferred before that has names for them.
    del model.graph.value_info[:]
    with torch.no_grad():
        shape = module(example).shape
    for size, dimension in zip(shape, model.graph.output[0].type.tensor_type.shape.dim, strict=True):
        dimension.dim_value = size
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    _name_by_module(model, {name for name, _ in module.named_modules()})
    return model


def _plain(graph: Any) -> onnx.ModelProto:
    """Inline functions, compute what is constant (shapes), fold batch norms, and drop what has no effect.

    The exporter's own optimisation does this too, but tries a hundred patterns on each node where two matter.
    """
    import onnx_ir.passes.common
    from onnxscript.optimizer import fold_constants_ir
    from onnxscript.rewriter import RewritePass
    from onnxscript.rewriter.rules.common import fuse_batchnorm_into_conv_rule, remove_optional_bias_from_conv_rule

    common: Any = onnx_ir.passes.common
    common.InlinePass()(graph)
    # Left alone by default, it would keep padding, and with it every size after that, from being constant.
    fold_constants_ir(graph, should_fold=lambda node: node.op_type == "ConstantOfShape" or None)
    for clean in (
        RewritePass([fuse_batchnorm_into_conv_rule, remove_optional_bias_from_conv_rule]),
        common.IdentityEliminationPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
    ):
        clean(graph)
    model: onnx.ModelProto = onnx_ir.to_proto(graph)
    return model


def _name_by_module(model: onnx.ModelProto, known: set[str]) -> None:
    """Rename nodes to ``/<module path>/<op>``: the older exporter repeats containers (``/stem/stem.0/Conv``)."""
    used: set[str] = set()
    for node in model.graph.node:
        path = ""
        for part in node.name.split("/")[1:-1]:
            path = _step(path, part, known)
        stem = "/".join(["", *filter(None, path.split(".")), node.op_type])
        name, number = stem, 0
        while name in used:
            number += 1
            name = f"{stem}_{number}"
        used.add(name)
        node.name = name


def _step(path: str, part: str, known: set[str]) -> str:
    """The module that a part of a node's name leads to from the module ``path``."""
    below = path
    while True:
        found = f"{below}.{part}" if below else part
        if found in known or not below:
            return found
        below = below.rpartition(".")[0]


def _strip(model: onnx.ModelProto) -> None:
    """Drop metadata that could carry paths of the build machine."""
    for owner in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        _keep(owner)
    for value in (*model.graph.input, *model.graph.output):
        _keep(value)
    for function in model.functions:
        for owner in (function, *function.node, *function.value_info):
            _keep(owner)
    for described in (model, model.graph, *model.graph.node):
        described.doc_string = ""


def _keep(owner: Any) -> None:
    kept = [(item.key, item.value) for item in owner.metadata_props if item.key in KEPT_METADATA]
    del owner.metadata_props[:]
    for key, value in kept:
        owner.metadata_props.add(key=key, value=value)
