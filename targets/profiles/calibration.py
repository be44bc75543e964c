"""What profiling itself costs a node, measured beside the model on the same host."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto, helper

CHAIN = 9
"""Nodes a branch of the long calibration model; the short one has 1."""


def chain_model(nodes_per_branch: int, sizes: Sequence[int]) -> bytes:
    """A model of independent chains of the cheapest operation, one branch for each tensor size.

    Two lengths give the cost of a node as a slope, free of what a call costs. The tensors have the
    sizes of the profiled model's own, so that the profiler meets caches as full as there.

    Args:
        nodes_per_branch: ``Add`` nodes in a chain.
        sizes: Number of float32 elements of each branch's tensors.

    Returns:
        The serialised ONNX model; its inputs are ``x0``, ``x1``, ... of shape ``[1, 1, 1, size]``.
    """
    nodes, inputs, outputs = [], [], []
    for branch, size in enumerate(sizes):
        shape = [1, 1, 1, size]
        value = f"x{branch}"
        inputs.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, shape))
        for position in range(nodes_per_branch):
            result = f"y{branch}_{position}"
            nodes.append(helper.make_node("Add", [value, value], [result], name=f"add{branch}_{position}"))
            value = result
        outputs.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, shape))
    graph = helper.make_graph(nodes, "calibration", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())
