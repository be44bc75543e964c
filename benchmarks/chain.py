"""Plain convolution chains as ONNX: work in exact proportion to their length, made without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, SIZE = 32, 24


def write_chain(path: Path, blocks: int, *, seed: int = 0, opset: int = 18) -> None:
    """Write a chain of equal 3x3 convolutions with ReLU.

    A chain of 22 blocks does exactly 10 % more work than one of 20: the way a slowdown is planted.

    Args:
        path: Where to.
        blocks: Number of convolutions.
        seed: Seed of the weights.
        opset: Operator set of the file.
    """
    draw = np.random.default_rng(seed)
    nodes, weights = [], []
    for index in range(blocks):
        weight = draw.normal(0, (2 / (9 * CHANNELS)) ** 0.5, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"block{index}.weight"))
        source = "image" if index == 0 else f"out{index - 1}"
        conv = helper.make_node(
            "Conv", [source, f"block{index}.weight"], [f"sum{index}"], f"/block{index}/Conv", pads=[1] * 4
        )
        nodes += [conv, helper.make_node("Relu", [f"sum{index}"], [f"out{index}"], f"/block{index}/Relu")]
    shape = [1, CHANNELS, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"out{blocks - 1}", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7 if opset < 15 else 9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
