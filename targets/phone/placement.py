"""Where operators ran: which a delegate took, in which partitions, and which fell back to the CPU's builtin kernels.

``benchmark_model`` does not list the operators of a delegate's node. It names that node's outputs in its op table,
and the operators that stayed behind by their index; what lies between is what the node replaced.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from targets.errors import FailureKind, SessionFailed
from targets.profiles.benchmark_model_delegates import DelegateReport
from targets.profiles.benchmark_model_text import OpRow
from targets.records import RunSettings
from targets.tflite_files import TfliteFile

#: Delegates by accelerator, as the tool calls them.
TOOL_NAMES = {"cpu": "XNNPACK", "gpu": "GPU", "npu": "NNAPI"}

_NODE = re.compile(r"\[(?P<outputs>.*)\]:(?P<index>\d{1,7})")


@dataclass(frozen=True)
class GraphNode:
    """One row of the primary op table: an operator that stayed behind, a delegate's node, or the runtime's own work.

    Attributes:
        row: The row.
        index: Node index in the graph; ``None`` for the runtime's own work.
        replaced: Operators of the file that it executes: itself, or the delegate's partition. ``None`` where that
            cannot be told.
        delegated: Whether it is a delegate's node.
    """

    row: OpRow
    index: int | None
    replaced: tuple[int, ...] | None
    delegated: bool


def graph_nodes(rows: Sequence[OpRow], file: TfliteFile) -> list[GraphNode]:
    """Find the operators of the file behind the rows of the primary table.

    Args:
        rows: In execution order.
        file: The model's graph.
    """
    found = [_NODE.fullmatch(row.name) for row in rows]
    indices = [int(match["index"]) if match else None for match in found]
    stayed = {index for index in indices if index is not None and index < len(file.ops)}
    outputs = [_tensors(match["outputs"], file) if match else None for match in found]
    taken = {at: tensors for at, tensors in enumerate(outputs) if _is_delegate(indices[at], file)}
    nodes = []
    for at, (row, index) in enumerate(zip(rows, indices, strict=True)):
        if index is None:
            nodes.append(GraphNode(row, None, (), delegated=False))
        elif not _is_delegate(index, file):
            nodes.append(GraphNode(row, index, (index,), delegated=False))
        else:
            borders = {tensor for other, tensors in taken.items() if other != at for tensor in tensors or ()}
            replaced = None if None in taken.values() else _between(taken[at] or (), borders, stayed, file)
            nodes.append(GraphNode(row, index, replaced, delegated=True))
    return nodes


def _is_delegate(index: int | None, file: TfliteFile) -> bool:
    return index is not None and index >= len(file.ops)


def _tensors(names: str, file: TfliteFile) -> tuple[int, ...] | None:
    """Tensors by a list of their names; ``None`` where a name is unknown or stands for several."""
    known: dict[str, list[int]] = {}
    for number, tensor in enumerate(file.tensors):
        if not tensor.constant:
            known.setdefault(tensor.name, []).append(number)
    single = known.get(names)
    found = [single] if single else [known.get(name) for name in names.split(", ")]
    chosen = [numbers[0] for numbers in found if numbers and len(numbers) == 1]
    return tuple(chosen) if len(chosen) == len(found) else None


def _between(outputs: Sequence[int], borders: set[int], stayed: set[int], file: TfliteFile) -> tuple[int, ...]:
    maker = {tensor: op for op in file.ops for tensor in op.outputs}
    pending, taken = list(outputs), set[int]()
    while pending:
        tensor = pending.pop()
        op = maker.get(tensor)
        if op is None or op.index in taken or op.index in stayed or tensor in borders:
            continue
        taken.add(op.index)
        pending.extend(op.inputs)
    return tuple(sorted(taken))


def placement_of(nodes: Sequence[GraphNode], settings: RunSettings, file: TfliteFile) -> dict[str, int]:
    """Operators of the file by where they ran; empty where one unit runs all or it cannot be told.

    Args:
        nodes: From :func:`graph_nodes`.
        settings: Tells the accelerator.
        file: The model's graph.
    """
    unit = {"cpu": "xnnpack", "gpu": "gpu", "npu": "nnapi"}[settings.accelerator]
    stayed = sum(1 for node in nodes if node.index is not None and not node.delegated)
    delegated = any(node.delegated for node in nodes)
    if not delegated or not stayed:
        return {}
    return {unit: len(file.ops) - stayed, "cpu fallback": stayed}


def fallback_note(nodes: Sequence[GraphNode], settings: RunSettings) -> list[str]:
    """One sentence that names the operators which a delegate left to the CPU, else nothing."""
    left = [node.row.op_type for node in nodes if node.index is not None and not node.delegated]
    if not left or not any(node.delegated for node in nodes):
        return []
    types = dict.fromkeys(left)
    counted = ", ".join(f"{left.count(name)} {name}" for name in list(types)[:8])
    more = f" and {len(types) - 8} more types" if len(types) > 8 else ""
    name = TOOL_NAMES[settings.accelerator]
    return [f"The {name} delegate left {len(left)} operators to the builtin CPU kernels: {counted}{more}."]


def delegate_words(report: DelegateReport, settings: RunSettings, delegate: str) -> dict[str, str]:
    """What a record says of delegates: ``delegate`` and, where one ran, ``delegated_ops``.

    Args:
        report: What the tool printed.
        settings: What was asked for.
        delegate: ``xnnpack`` or ``none``, the choice for the CPU.

    Raises:
        SessionFailed: ``TOOL_ERROR`` if a GPU or NPU was asked for and computes nothing: the figure would be the CPU's.
    """
    wanted = TOOL_NAMES[settings.accelerator]
    applied = next((one for one in report.applied if one.name.upper() == wanted), None)
    if settings.accelerator != "cpu" and (applied is None or applied.extent == "nothing"):
        why = report.refused or ("it takes no operator of the model" if applied else "the tool does not say why")
        raise SessionFailed(
            f"the {wanted} delegate was not applied ({why}), so the CPU would have been timed",
            FailureKind.TOOL_ERROR,
            'Measure on the CPU (accelerator = "cpu"), or with a tool and a model that the delegate takes.',
        )
    if settings.accelerator == "cpu" and delegate == "none":
        return {"delegate": "none"}
    if applied is None:
        raise SessionFailed(
            "benchmark_model does not say that it applied the XNNPACK delegate",
            FailureKind.TOOL_ERROR,
            "Push a benchmark_model that is built with XNNPACK, or take option delegate none.",
        )
    if applied.extent == "nothing":
        return {"delegate": "none (xnnpack took no operator)"}
    return {"delegate": wanted.lower(), "delegated_ops": _extent(report, applied.extent, applied.kernels)}


def _extent(report: DelegateReport, extent: str, kernels: int | None) -> str:
    told = [one for one in report.replaced if one.total is not None]
    parts = f"{kernels} partition{'' if kernels == 1 else 's'}"
    if len(told) == 1:
        return f"{told[0].nodes} of {told[0].total} in {parts}"
    return f"all in {parts}" if extent == "completely" else f"some in {parts}"
