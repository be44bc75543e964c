"""Small ONNX models written node by node, with the module names a PyTorch export would carry."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from targets.profiles.join import NAME_SCOPES
from targets.records import Artifact, TensorSpec

SHAPE = (1, 3, 32, 32)


def _node(op_type, inputs, outputs, name, scope, call="call", **attributes):
    node = helper.make_node(op_type, inputs, outputs, name=name, **attributes)
    parents = [".".join(scope.split(".")[:i]) for i in range(1, len(scope.split(".")) + 1)] if scope else []
    node.metadata_props.add(key=NAME_SCOPES, value=str(["", *parents, call]))
    return node


def tiny_model() -> onnx.ModelProto:
    """Convolutions, squeeze-and-excitation, layer norm, a linear layer, resize and sigmoid, in five modules."""
    rng = np.random.default_rng(0)
    weights = {
        "stem.0.weight": rng.standard_normal((16, 3, 3, 3)) * 0.2,
        "stem.0.bias": rng.standard_normal(16),
        "slope": np.full((16, 1, 1), 0.25),
        "se.fc.weight": rng.standard_normal((16, 16, 1, 1)) * 0.2,
        "axes": np.array([2, 3], np.int64),
        "flat": np.array([1, 16, 256], np.int64),
        "back": np.array([1, 16, 16, 16], np.int64),
        "mix.norm.weight": np.ones(16),
        "mix.norm.bias": np.full(16, 0.1),
        "mix.linear.weight": rng.standard_normal((16, 16)) * 0.2,
        "mix.linear.bias": rng.standard_normal(16),
        "head.weight": rng.standard_normal((1, 16, 3, 3)) * 0.2,
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    nodes = [
        _node(
            "Conv",
            ["x", "stem.0.weight", "stem.0.bias"],
            ["conv"],
            "node_Conv_1",
            "stem.1",
            call="_native_batch_norm_legit_no_training",
            strides=[2, 2],
            pads=[1, 1, 1, 1],
        ),
        _node("PRelu", ["conv", "slope"], ["prelu"], "node_prelu", "stem.2"),
        _node("ReduceMean", ["prelu", "axes"], ["mean"], "node_mean", "se", keepdims=1),
        _node("Conv", ["mean", "se.fc.weight"], ["fc"], "node_fc", "se.fc"),
        _node("Sigmoid", ["fc"], ["gate"], "node_gate", "se"),
        _node("Mul", ["prelu", "gate"], ["scaled"], "node_mul", "se"),
        _node("Reshape", ["scaled", "flat"], ["tokens_t"], "node_view", "mix"),
        _node("Transpose", ["tokens_t"], ["tokens"], "node_transpose", "mix", perm=[0, 2, 1]),
        _node(
            "LayerNormalization",
            ["tokens", "mix.norm.weight", "mix.norm.bias"],
            ["normed"],
            "node_layer_norm",
            "mix.norm",
            axis=-1,
        ),
        _node("MatMul", ["normed", "mix.linear.weight"], ["product"], "node_MatMul_2", "mix.linear"),
        _node("Add", ["product", "mix.linear.bias"], ["linear"], "node_linear", "mix.linear"),
        _node("Transpose", ["linear"], ["linear_t"], "node_transpose_1", "mix", perm=[0, 2, 1]),
        _node("Reshape", ["linear_t", "back"], ["map"], "node_view_1", "mix"),
        _node("Conv", ["map", "head.weight"], ["logits"], "node_head", "head", pads=[1, 1, 1, 1]),
        _node("Resize", ["logits", "", "scales"], ["large"], "node_up", "up", mode="linear"),
        _node("Sigmoid", ["large"], ["y"], "node_sigmoid", ""),
    ]
    return _model(nodes, weights, SHAPE, (1, 1, 32, 32))


def if_model() -> onnx.ModelProto:
    """Nameless nodes, and a branch whose body the profiler lists as well."""
    body = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["t"], name="inner"), helper.make_node("Exp", ["t"], ["then_y"])],
        "then",
        [],
        [helper.make_tensor_value_info("then_y", TensorProto.FLOAT, SHAPE)],
    )
    other = helper.make_graph(
        [helper.make_node("Abs", ["x"], ["else_y"])],
        "else",
        [],
        [helper.make_tensor_value_info("else_y", TensorProto.FLOAT, SHAPE)],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Less", ["s", "limit"], ["c"]),
        helper.make_node("If", ["c"], ["m"], name="branch", then_branch=body, else_branch=other),
        helper.make_node("Neg", ["m"], ["y"]),
    ]
    return _model(nodes, {"limit": np.float32(1e9)}, SHAPE, SHAPE)


def one_op(op_type, *, domain="", inputs=("x",), shape=(1, 1, 8, 8)) -> onnx.ModelProto:
    """A model of the single node ``bad_node``."""
    node = helper.make_node(op_type, list(inputs), ["y"], name="bad_node", domain=domain)
    return _model([node], {}, shape, shape, domain=domain)


def _model(nodes, weights, in_shape, out_shape, domain=""):
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, in_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out_shape)],
        [
            numpy_helper.from_array(np.asarray(w, np.int64 if np.asarray(w).dtype.kind == "i" else np.float32), name)
            for name, w in weights.items()
        ],
    )
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def artifact_of(path: Path, shape=SHAPE, name="x") -> Artifact:
    """The record of a file with one input."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    inputs = (TensorSpec(name=name, shape=tuple(shape)),)
    return Artifact(path=str(path), format="onnx", sha256=digest, source_sha256=digest, inputs=inputs)


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model without checking it."""
    path.write_bytes(model.SerializeToString())
    return path
