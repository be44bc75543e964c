"""Walk an ONNX model, subgraphs and functions included, and refuse operations nobody knows."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from targets.errors import InvalidModel, printable

MAX_NODES = 200_000


@dataclass(frozen=True)
class Site:
    """One node and where it stands.

    Attributes:
        node: The node.
        opsets: Operator set version by domain that holds for it (``""`` is the default domain).
        place: ``"node 'conv1'"``, with the function it is in, if any.
    """

    node: onnx.NodeProto
    opsets: Mapping[str, int]
    place: str


def opsets_of(holder: onnx.ModelProto | onnx.FunctionProto) -> dict[str, int]:
    """Imported operator set versions by domain, the default domain spelled ``""``."""
    return {_domain(entry.domain): entry.version for entry in holder.opset_import}


def sites(model: onnx.ModelProto) -> Iterator[Site]:
    """Every node of a model once: main graph, subgraphs of control flow, training graphs and functions."""
    opsets = opsets_of(model)
    for graph in _top_graphs(model):
        yield from _sites_below(graph.node, opsets, "")
    for function in model.functions:
        opsets, where = opsets_of(function), f" of function {printable(function.name)!r}"
        yield from _sites_below(function.node, opsets, where)
        for attribute in function.attribute_proto:
            for graph in (attribute.g, *attribute.graphs):
                yield from _sites_below(graph.node, opsets, where)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor a model stores: initializers and attributes, sparse ones, subgraphs and defaults included."""
    for graph in _top_graphs(model):
        yield from _tensors_of(graph)
    for attribute in _attributes(model):
        yield attribute.t
        yield from attribute.tensors
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _tensors_of(graph)


def _attributes(model: onnx.ModelProto) -> Iterator[onnx.AttributeProto]:
    """Attributes of every node, and the defaults that functions give theirs."""
    for site in sites(model):
        yield from site.node.attribute
    for function in model.functions:
        yield from function.attribute_proto


def _top_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield model.graph
    for training in model.training_info:
        yield training.initialization
        yield training.algorithm


def _tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def _sites_below(nodes: Iterable[onnx.NodeProto], opsets: Mapping[str, int], where: str) -> Iterator[Site]:
    waiting = [iter(nodes)]
    while waiting:  # a stack of our own: an untrusted file does not choose Python's recursion depth
        node = next(waiting[-1], None)
        if node is None:
            waiting.pop()
            continue
        name = f"node {printable(node.name)!r}" if node.name else f"the unnamed {printable(node.op_type)!r} node"
        yield Site(node, opsets, name + where)
        for attribute in node.attribute:
            waiting += [iter(graph.node) for graph in (attribute.g, *attribute.graphs) if graph.node]


def count_ops(path: Path, model: onnx.ModelProto) -> Counter[str]:
    """Count operations by type (``Conv``, ``com.microsoft.FusedConv``) and refuse unknown ones.

    Args:
        path: For the messages.
        model: The parsed file.

    Raises:
        InvalidModel: If an operation is unknown in its domain, its domain is nobody's or not imported, or there
            are more than ``MAX_NODES`` nodes.
    """
    functions = {(_domain(f.domain), f.name) for f in model.functions}
    counted: Counter[str] = Counter()
    for number, site in enumerate(sites(model)):
        if number >= MAX_NODES:
            raise InvalidModel(f"{path} has more than {MAX_NODES} nodes", "Split the model.")
        domain, op = _domain(site.node.domain), site.node.op_type
        if (domain, op) not in functions:
            _check_op(path, site, domain, op)
        counted[printable(f"{domain}.{op}" if domain else op)] += 1
    return counted


def _check_op(path: Path, site: Site, domain: str, op: str) -> None:
    shown_op, shown_domain = printable(op), printable(domain) or "ai.onnx"
    standard = domain in _standard_domains()
    if not standard and (domain, op) not in _runtime_ops():
        raise InvalidModel(
            f"{path}: {site.place} is op {shown_op!r} of the custom domain {shown_domain!r}, unknown to every runtime",
            "Export the model with standard ONNX operations.",
        )
    if domain not in site.opsets:
        raise InvalidModel(
            f"{path}: {site.place} uses domain {shown_domain!r}, which the model does not import",
            "Export the model again: its opset_import list is incomplete.",
        )
    if not standard:
        return
    version = site.opsets[domain]
    if not isinstance(op, str):
        raise InvalidModel(f"{path}: {site.place} is op {shown_op!r}, not a name", "Export the model again.")
    if not onnx.defs.has(op, max_inclusive_version=min(max(version, 0), 2**31 - 1), domain=domain):
        newer = onnx.defs.has(op, domain=domain)
        hint = f"It came later: export with opset {_since(op, domain)} or newer." if newer else "Check the exporter."
        raise InvalidModel(
            f"{path}: {site.place} is op {shown_op!r}, which domain {shown_domain!r} does not have in opset {version}",
            hint,
        )


def _since(op: str, domain: str) -> int:
    versions = [s.since_version for s in _all_schemas() if s.name == op and _domain(s.domain) == domain]
    return min(versions)


@functools.cache
def _all_schemas() -> Sequence[onnx.defs.OpSchema]:
    return onnx.defs.get_all_schemas_with_history()


@functools.cache
def _standard_domains() -> frozenset[str]:
    return frozenset(_domain(schema.domain) for schema in _all_schemas())


@functools.cache
def _runtime_ops() -> frozenset[tuple[str, str]]:
    """Operations the installed onnxruntime adds to the standard, such as ``com.microsoft``'s."""
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    listed: list[Any] = native.get_all_operator_schema()
    return frozenset((_domain(schema.domain), schema.name) for schema in listed)


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
