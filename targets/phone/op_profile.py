"""Per-op profile of a phone: the tool's op tables, joined to the operators and modules of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from targets.errors import UnknownLayout
from targets.phone.partitions import Part, parts_of
from targets.phone.placement import GraphNode, fallback_note, graph_nodes, placement_of
from targets.phone.remote_run import ToolAnswer
from targets.profiles.assemble import Joined, Row, finished
from targets.profiles.benchmark_model_csv import parse_op_csv
from targets.profiles.benchmark_model_text import OpRow, OpTable, parse_op_tables
from targets.profiles.litert import joined_row
from targets.profiles.litert_align import Aligned, align
from targets.profiles.litert_events import BUILTIN_OP, DELEGATE_OP, Event
from targets.profiles.tflite_modules import module_of
from targets.records import OpProfile, RunSettings
from targets.tflite_files import TfliteFile

_REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs"
_INSIDE = "Delegate internal"
# XNNPACK cuts each duration to whole microseconds: half of one is missing on average.
_CUT_US = 0.5


@dataclass(frozen=True)
class ToolTables:
    """Op tables of one run.

    Attributes:
        graph: Nodes of the graph.
        inside: Operators inside the delegate's nodes; empty where the delegate tells none.
    """

    graph: OpTable
    inside: tuple[OpRow, ...]


@dataclass(frozen=True)
class Runs:
    """Plain and profiled runs of the tool that took turns.

    Attributes:
        count: Profiled inferences behind each figure.
        plain_us: Mean inference without profiling, of the run least disturbed.
        profiled_us: The same with profiling.
    """

    count: int
    plain_us: float
    profiled_us: float


def tables_of(answer: ToolAnswer) -> ToolTables:
    """The op tables of a run, from its CSV if it wrote one, else from what it printed.

    Raises:
        UnknownLayout: If they are not there, or not as any known version writes them.
    """
    tables = parse_op_csv(answer.csv) if answer.csv.strip() else _printed(answer)
    regular = [table for table in tables if table.title.endswith(_REGULAR)]
    inside = [table for table in tables if table.title == _INSIDE]
    if len(regular) != 1 or len(inside) > 1:
        titles = ", ".join(repr(table.title[:60]) for table in tables)
        raise UnknownLayout(
            f"the op profile has the tables {titles}, where one for the regular runs and at most one for the "
            "delegate's inside should be",
            "Take a model without control flow, or --no-per-op.",
        )
    after = tables.index(regular[0])
    return ToolTables(regular[0], inside[0].rows if inside and tables.index(inside[0]) > after else ())


def _printed(answer: ToolAnswer) -> tuple[OpTable, ...]:
    try:
        return parse_op_csv(answer.stdout)
    except UnknownLayout:
        return parse_op_tables(answer.stdout)


def profile_of(tables: ToolTables, runs: Runs, file: TfliteFile, settings: RunSettings) -> OpProfile:
    """Join the tables of one run to the model.

    Args:
        tables: From :func:`tables_of`.
        runs: How often and how long.
        file: The model's graph.
        settings: Tells the accelerator.

    Returns:
        The profile; a delegate's operators stand in the place of its node.
    """
    nodes = graph_nodes(tables.graph.rows, file)
    delegates = [node for node in nodes if node.delegated]
    parts = parts_of(tables.inside, len(delegates)) if tables.inside else None
    rows: list[Row] = []
    if parts is not None:
        aligned = _aligned(parts, delegates, tables.inside, file)
        for node in nodes:
            rows += aligned.pop(0) if node.delegated else [_node_row(node, file)]
    else:
        rows = [_node_row(node, file) for node in nodes if not (node.delegated and tables.inside)]
        rows += [_inside_row(row, position, Aligned(None), file) for position, row in enumerate(tables.inside)]
    profile = finished(
        "tflite",
        rows,
        runs=runs.count,
        unprofiled_us=runs.plain_us,
        profiled_us=runs.profiled_us,
        notes=[*_notes(rows, tables, parts is None), *fallback_note(nodes, settings)],
    )
    return profile.model_copy(update={"placement": placement_of(nodes, settings, file)})


def _aligned(
    parts: Sequence[Sequence[Part]], delegates: Sequence[GraphNode], inside: Sequence[OpRow], file: TfliteFile
) -> list[list[Row]]:
    """Rows of each partition. An operator that the tool added to another's row stands once, without a module."""
    shared = {row for row in range(len(inside)) if inside[row].times_called > 1}
    done: set[int] = set()
    found = []
    for node, partition in zip(delegates, parts, strict=True):
        ops = [file.ops[index] for index in node.replaced or ()]
        entries = align(ops, [part.tag for part in partition], file) if ops else [Aligned(None)] * len(partition)
        rows = []
        for part, entry in zip(partition, entries, strict=True):
            if part.row in done:
                continue
            done.add(part.row)
            rows.append(_inside_row(inside[part.row], part.row, Aligned(None) if part.row in shared else entry, file))
        found.append(rows)
    return found


def _inside_row(row: OpRow, position: int, entry: Aligned, file: TfliteFile) -> Row:
    tag = row.name.removeprefix("Delegate/").rpartition(":")[0] or row.op_type
    calls = max(1, row.times_called)
    spent_us = row.avg_ms * 1e3 * calls
    spent_us += _CUT_US * calls if spent_us >= _CUT_US else 0.0
    return joined_row(Event(tag, DELEGATE_OP, 0, round(spent_us), position), entry, spent_us, file)


def _node_row(node: GraphNode, file: TfliteFile) -> Row:
    spent_us = node.row.avg_ms * 1e3 * max(1, node.row.times_called)
    if node.index is None:
        return Row(f"runtime:{node.row.name}", node.row.op_type, "", spent_us, Joined())
    if not node.delegated:
        event = Event(node.row.op_type.partition("/")[0], BUILTIN_OP, 0, round(spent_us), node.index)
        return joined_row(event, Aligned(file.ops[node.index]), spent_us, file)
    # A delegate that tells nothing of its inside: one operation that executes all it took.
    ops = [file.ops[at] for at in node.replaced or ()]
    modules = {module_of(op, file) for op in ops}
    module = modules.pop() if len(modules) == 1 else None
    joined = Joined(tuple(f"{op.op_type}:{op.index}" for op in ops), module)
    return Row(f"delegate:{node.index}", node.row.op_type, "delegate", spent_us, joined)


def _notes(rows: Sequence[Row], tables: ToolTables, unparted: bool) -> list[str]:
    notes = [
        "Op times are the tool's means of a run with profiling; the unprofiled mean is that of a run of its own, and "
        "both are of the least disturbed of several runs that took turns.",
    ]
    merged = sum(1 for row in tables.inside if row.times_called > 1)
    if merged:
        notes.append(
            f"The tool adds up operators that share a name and a number in different partitions: {merged} rows stand "
            "for several and are joined to no module."
        )
    if tables.inside and unparted:
        notes.append("The delegate's operators cannot be told apart by partition, so none is joined to a module.")
    if tables.inside:
        notes.append("XNNPACK tells whole microseconds, rounded down: half of one is added.")
    unplaced = sum(1 for row in rows if not row.joined.source_nodes)
    if unplaced:
        notes.append(f"{unplaced} of {len(rows)} operators could not be traced to operators of the file.")
    if any(row.joined.module is not None for row in rows):
        notes.append("Module paths come from the tensor names, which leave out containers (blocks.0 reads 0).")
    return notes
