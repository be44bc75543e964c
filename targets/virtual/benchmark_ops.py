"""Op tables of the stand-in for ``benchmark_model``: LiteRT's own events, added up and laid out as the tool does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from targets.profiles.litert import graph_ports
from targets.profiles.litert_api import LiteRtModel
from targets.profiles.litert_events import BUILTIN_OP, DELEGATE_OP, Event
from targets.runtimes.base import seeded_inputs
from targets.runtimes.tflite import TFLiteModel, delegated_ops
from targets.tflite_files import tflite_artifact

_DELEGATE = "TfLiteXNNPackDelegate"


@dataclass
class _Detail:
    """One row: what the tool keeps of a name."""

    op_type: str
    name: str
    samples_us: list[int] = field(default_factory=list)


class _Stats:
    """One table: rows by name in order of first appearance, and the total of each run."""

    def __init__(self) -> None:
        self.rows: dict[str, _Detail] = {}
        self.totals_us: list[int] = []

    def add(self, name: str, op_type: str, elapsed_us: int) -> None:
        self.rows.setdefault(name, _Detail(op_type, name)).samples_us.append(elapsed_us)

    def text(self, *, csv: bool, start: bool) -> str:
        order = list(self.rows.values())
        by_time = sorted(order, key=lambda row: -sum(row.samples_us) / len(row.samples_us))
        lines = [
            *self._listing("Run Order", order, csv=csv, start=start),
            "",
            *self._listing("Top by Computation Time", by_time[:10], csv=csv, start=start),
            "",
            f"Number of nodes executed: {len(order)}",
            "",
            f"Timings (microseconds): {_stat(self.totals_us)}",
            "Memory (bytes): count=0",
            f"{len(order)} nodes observed",
            "",
        ]
        return "\n".join(lines) + "\n"

    def _listing(self, title: str, rows: Sequence[_Detail], *, csv: bool, start: bool) -> list[str]:
        bar = "=" * 30
        lines = [f"{bar} {title} {bar}", _header(csv=csv, start=start)]
        whole, before, at = sum(self.totals_us), 0, 0.0
        for row in rows:
            total = sum(row.samples_us)
            before += total
            first, mean = row.samples_us[0] / 1e3, total / len(row.samples_us) / 1e3
            share, running = (100 * value / whole if whole else 0.0 for value in (total, before))
            calls = len(row.samples_us) // len(self.totals_us)
            figures = (at, first, mean, share, running, 0.0)
            lines.append(_csv_row(row, figures, calls) if csv else _text_row(row, figures, calls, start=start))
            at += mean
        return lines


def _stat(values: Sequence[int]) -> str:
    count = len(values)
    if min(values) == max(values):
        return f"count={count} curr={values[-1]}" + ("(all same)" if count > 1 else "")
    mean = sum(values) / count
    variance = sum(value * value for value in values) / count - mean * mean
    return (
        f"count={count} first={values[0]} curr={values[-1]} min={min(values)} max={max(values)} avg={mean:g} "
        f"std={int(max(0.0, variance) ** 0.5)}"
    )


def _header(*, csv: bool, start: bool) -> str:
    if csv:
        return "node type, first, avg_ms, %, cdf%, mem KB, times called, name"
    columns = [("[node type]", 40), *([("[start]", 9)] if start else []), ("[first]", 9), ("[avg ms]", 9)]
    columns += [("[%]", 8), ("[cdf%]", 8), ("[mem KB]", 10), ("[times called]", 9)]
    return "".join(f"\t{name:>{width}}" for name, width in columns) + "\t[Name]"


def _csv_row(row: _Detail, figures: Sequence[float], calls: int) -> str:
    _, first, mean, share, running, memory = figures
    name = row.name.replace(",", "\t")
    return f"{row.op_type}, {first:g}, {mean:g}, {share:g}%, {running:g}%, {memory:g}, {calls}, {name}"


def _text_row(row: _Detail, figures: Sequence[float], calls: int, *, start: bool) -> str:
    at, first, mean, share, running, memory = figures
    begin = f"\t{at:9.3f}" if start else ""
    return (
        f"\t{row.op_type:>40}{begin}\t{first:9.3f}\t{mean:9.3f}\t{share:7.3f}%\t{running:7.3f}%\t{memory:10.3f}"
        f"\t{calls:9d}\t{row.name}"
    )


class OpRecorder:
    """Profiled inferences of a copy of the model.

    Args:
        graph: The file.
        model: The loaded model.
        threads: Threads of the kernels.
        builtin: Whether to run TFLite's own kernels instead of XNNPACK.

    Raises:
        UnknownLayout: If the installed LiteRT cannot be profiled.
    """

    def __init__(self, graph: Path, model: TFLiteModel, *, threads: int, builtin: bool) -> None:
        self._file = model.file
        inputs, outputs = graph_ports(model.file)
        self._compiled = LiteRtModel(
            graph, inputs, outputs, threads=threads, kernel_mode="builtin" if builtin else "delegate"
        )
        artifact = tflite_artifact(graph)
        self._compiled.feed(seeded_inputs(artifact.model_copy(update={"inputs": model.file.inputs})))
        self._partitions = [] if builtin else delegated_ops(model.interpreter, model.file) or []
        self._runs: list[tuple[Event, ...]] = []

    def run(self) -> float:
        """Run one inference and keep its events.

        Returns:
            How long it took, microseconds.
        """
        elapsed_us, events = self._compiled.profiled_run()
        self._runs.append(events)
        return elapsed_us

    def clear(self) -> None:
        """Forget the warm-up."""
        self._runs.clear()

    def text(self, *, csv: bool, start: bool) -> str:
        """All tables, as the tool writes them.

        Args:
            csv: Whether as CSV.
            start: Whether with the ``[start]`` column of older versions.
        """
        graph, inside = _Stats(), _Stats()
        for events in self._runs:
            self._add(events, graph, inside)
        text = f"Operator-wise Profiling Info for Regular Benchmark Runs:\n{graph.text(csv=csv, start=start)}"
        if inside.rows:
            text += f"Delegate internal: \n{inside.text(csv=csv, start=start)}"
        return text + "\n"

    def _add(self, events: Sequence[Event], graph: _Stats, inside: _Stats) -> None:
        total = inner = 0
        part = -1
        spent: dict[int, int] = {}
        for event in events:
            if event.kind == BUILTIN_OP:
                graph.add(self._name(event.node), event.tag, event.elapsed_us)
                total += event.elapsed_us
            elif event.kind == DELEGATE_OP:
                if event.node == 0:
                    part += 1
                    graph.add(self._delegate_name(part), _DELEGATE, 0)
                inside.add(f"Delegate/{event.tag}:{event.node}", "DelegateOpInvoke", event.elapsed_us)
                spent[part] = spent.get(part, 0) + event.elapsed_us
                inner += event.elapsed_us
        for part, elapsed_us in spent.items():
            graph.rows[self._delegate_name(part)].samples_us[-1] = elapsed_us
        graph.totals_us.append(total + inner)
        if inner:
            inside.totals_us.append(inner)

    def _name(self, node: int) -> str:
        return f"[{', '.join(self._file.tensors[tensor].name for tensor in self._file.ops[node].outputs)}]:{node}"

    def _delegate_name(self, part: int) -> str:
        """Outputs of a partition: what operators outside it, or the caller, read."""
        taken = set(self._partitions[part]) if part < len(self._partitions) else set()
        made = [tensor for op in self._file.ops if op.index in taken for tensor in op.outputs]
        read = {tensor for op in self._file.ops if op.index not in taken for tensor in op.inputs}
        kept = [tensor for tensor in made if tensor in read or tensor in self._file.output_tensors]
        names = ", ".join(self._file.tensors[tensor].name for tensor in kept)
        return f"[{names}]:{len(self._file.ops) + part}"
