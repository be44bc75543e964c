"""Reports of OpenVINO's ``benchmark_app``: statistics in JSON, counters in CSV or JSON.

Its figures are rounded to 10 microseconds (statistics) or to one (counters), there are no single inferences, and
``benchmark_app`` with ``average_counters`` and ``-json_stats`` writes the first node only: that report is refused.
Captured from OpenVINO 2026.4.1; any other layout is an error that names the place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from targets.errors import UnknownLayout, printable
from targets.tensorrt.strict_json import load_json

_SECTIONS = {"cmd_options", "configuration_setup", "execution_results"}
_RESULTS = {
    "read model time (ms)",
    "compile model time (ms)",
    "first inference time (ms)",
    "total execution time (ms)",
    "total number of iterations",
    "latency (ms)",
    "avg latency",
    "min latency",
    "max latency",
    "throughput",
}
_HEADER = "layerName;execStatus;layerType;execType;realTime (ms);cpuTime (ms)"
_NODE = {"name", "node_type", "status", "real_time", "cpu_time", "exec_type"}
_STATUSES = {"Status.EXECUTED", "Status.NOT_RUN", "Status.OPTIMIZED_OUT"}
_CENTS = re.compile(r"\d{1,12}\.\d{2}")
_MILLIS = re.compile(r"\d{1,9}\.\d{3}")
_WHOLE = re.compile(r"[1-9]\d{0,11}")
_FIX = "The report is damaged or of another OpenVINO; no time is read from it."


@dataclass(frozen=True)
class AppStatistics:
    """What ``benchmark_report.json`` holds.

    Attributes:
        iterations: Timed inferences.
        median_ms: Median latency; the report calls it ``latency (ms)``.
        mean_ms: Mean latency.
        min_ms: Fastest inference.
        max_ms: Slowest one.
        first_inference_ms: The cold inference.
        compile_ms: Compiling.
        options: The command line it was started with.
        setup: What it says it ran with; its ``precision`` is that of the file, not of the computation.
    """

    iterations: int
    median_ms: float
    mean_ms: float
    min_ms: float
    max_ms: float
    first_inference_ms: float
    compile_ms: float
    options: dict[str, str]
    setup: dict[str, str]


@dataclass(frozen=True)
class AppCounter:
    """One node's counter.

    Attributes:
        name: Node name.
        node_type: Operation type.
        kernel: Implementation.
        real_ms: Time of one inference, whole microseconds.
        executed: Whether it ran for at least a microsecond.
    """

    name: str
    node_type: str
    kernel: str
    real_ms: float
    executed: bool


def parse_statistics(text: str, name: str = "benchmark_report.json") -> AppStatistics:
    """Read the statistics of a run with one stream and one request.

    Args:
        text: The file's text.
        name: The file's name, for errors.

    Raises:
        UnknownLayout: If a section or key is missing or new, a figure is none, or figures contradict each other.
    """
    data = load_json(text, name)
    if not isinstance(data, dict) or set(data) != _SECTIONS:
        _refuse(name, "has other sections", data)
    results, options, setup = (
        _texts(data[key], f"{name}.{key}") for key in ("execution_results", "cmd_options", "configuration_setup")
    )
    place = f"{name}.execution_results"
    if set(results) != _RESULTS:
        _refuse(place, "has other keys", results)
    if not _WHOLE.fullmatch(results["total number of iterations"]):
        _refuse(place, "'total number of iterations' is no count", results["total number of iterations"])
    figures = {}
    for key, value in results.items():
        if key != "total number of iterations":
            if not _CENTS.fullmatch(value):
                _refuse(place, f"{key!r} is no figure of two decimals", value)
            figures[key] = float(value)
    statistics = AppStatistics(
        iterations=int(results["total number of iterations"]),
        median_ms=figures["latency (ms)"],
        mean_ms=figures["avg latency"],
        min_ms=figures["min latency"],
        max_ms=figures["max latency"],
        first_inference_ms=figures["first inference time (ms)"],
        compile_ms=figures["compile model time (ms)"],
        options=options,
        setup=setup,
    )
    _check_statistics(statistics, figures, place)
    return statistics


def parse_counters_csv(text: str, name: str = "benchmark_average_counters_report.csv") -> tuple[AppCounter, ...]:
    """Read counters parted by semicolons; where there are several tables, all must be of one request.

    Args:
        text: The file's text.
        name: The file's name, for errors.

    Raises:
        UnknownLayout: If a line does not fit, or the rows do not add up to the total.
    """
    lines = [line.rstrip("\r") for line in text.split("\n")]
    if lines[0] != _HEADER:
        _refuse(f"{name}:1", "is no known header", lines[0])
    rows: list[AppCounter] = []
    for number, line in enumerate(lines[1:], 2):
        place = f"{name}:{number}"
        cells = line.rsplit(";", 5)
        if cells[0] == "Total" and len(cells) == 6 and cells[1:4] == ["", "", ""]:
            if any(lines[number:]):
                _refuse(place, "is followed by another table", lines[number:][:2])
            _check_total(rows, cells[4], place)
            return tuple(rows)
        if len(cells) != 6:
            _refuse(place, "has not six cells", line)
        layer, status, kind, kernel, real, cpu = cells
        rows.append(_counter(layer, kind, kernel, status, real, cpu, place))
    return _refuse(name, "ends without a total", lines[-2:])


def parse_counters_json(text: str, name: str = "benchmark_detailed_counters_report.json") -> tuple[AppCounter, ...]:
    """Read detailed counters of one request.

    Args:
        text: The file's text.
        name: The file's name, for errors.

    Raises:
        UnknownLayout: As :func:`parse_counters_csv`, and for average counters, which hold one node only.
    """
    data = load_json(text, name)
    if not isinstance(data, dict) or set(data) != {"report_type", "detailed_performance"}:
        _refuse(name, "is no report of detailed counters", data)
    requests = data["detailed_performance"]
    if data["report_type"] != "detailed" or not isinstance(requests, list) or len(requests) != 1:
        _refuse(name, "is not of one request", requests)
    request = requests[0]
    if not isinstance(request, dict) or set(request) != {"nodes", "total_real_time", "total_cpu_time"}:
        _refuse(f"{name}.detailed_performance[0]", "has other keys", request)
    nodes, total = request["nodes"], request["total_real_time"]
    if not isinstance(nodes, list) or not isinstance(total, str):
        _refuse(f"{name}.detailed_performance[0]", "has no nodes or no total", request)
    rows = []
    for index, node in enumerate(nodes):
        place = f"{name}.detailed_performance[0].nodes[{index}]"
        if not isinstance(node, dict) or set(node) != _NODE or not all(isinstance(v, str) for v in node.values()):
            _refuse(place, "has other keys", node)
        times = node["real_time"], node["cpu_time"]
        rows.append(_counter(node["name"], node["node_type"], node["exec_type"], node["status"], *times, place))
    _check_total(rows, total, f"{name}.detailed_performance[0].total_real_time")
    return tuple(rows)


def _counter(name: str, kind: str, kernel: str, status: str, real: str, cpu: str, place: str) -> AppCounter:
    if not name or not kind or status not in _STATUSES:
        _refuse(place, "has no name, no type or an unknown status", [name, kind, status])
    if not _MILLIS.fullmatch(real) or not _MILLIS.fullmatch(cpu):
        _refuse(place, "times are no milliseconds of three decimals", [real, cpu])
    executed = status == "Status.EXECUTED"
    if not executed and float(real):
        _refuse(place, "did not run and has a time", [name, real])
    return AppCounter(name, kind, kernel, float(real), executed)


def _check_total(rows: list[AppCounter], told: str, place: str) -> None:
    if not rows or not _MILLIS.fullmatch(told):
        _refuse(place, "is no total of rows", told)
    names = [row.name for row in rows]
    if len(set(names)) < len(names):
        _refuse(place, "two nodes share a name", sorted(name for name in names if names.count(name) > 1)[:4])
    total = sum(round(row.real_ms * 1e3) for row in rows)
    if total != round(float(told) * 1e3):  # both are whole microseconds
        _refuse(place, f"is not the sum of the rows, {total / 1e3:.3f}", told)


def _check_statistics(found: AppStatistics, figures: dict[str, float], place: str) -> None:
    """Compare what is told twice: the order of the figures, and iterations against throughput and duration."""
    if not 0 < found.min_ms <= min(found.median_ms, found.mean_ms) <= max(found.median_ms, found.mean_ms):
        _refuse(place, "min, median and mean are out of order", figures)
    if max(found.median_ms, found.mean_ms) > found.max_ms:
        _refuse(place, "max is below the median or the mean", figures)
    total_ms = figures["total execution time (ms)"]
    rate = found.iterations / total_ms * 1e3 if total_ms else 0.0
    if abs(rate - figures["throughput"]) > 0.006 + rate * 0.006 / max(total_ms, 1e-9):
        _refuse(place, f"throughput is not {found.iterations} iterations over {total_ms} ms", figures["throughput"])
    # One request at a time: the latencies fill the duration, but for what lies between them.
    spent_ms, slack_ms = found.mean_ms * found.iterations, 0.006 * found.iterations
    if not total_ms * 0.5 - slack_ms <= spent_ms <= total_ms * 1.01 + slack_ms:
        _refuse(place, "the mean latency times the iterations is not the length of the run", figures)


def _texts(section: object, place: str) -> dict[str, str]:
    if not isinstance(section, dict) or not all(type(value) in (str, bool) for value in section.values()):
        _refuse(place, "does not hold texts", section)
    return {printable(key): printable(str(value), 300) for key, value in section.items()}


def _refuse(place: str, why: str, quoted: object) -> NoReturn:
    raise UnknownLayout(f"{place}: {why}: {printable(str(quoted), 160)!r}", _FIX)
