"""Op tables that ``benchmark_model`` and LiteRT's profile summary print.

Two layouts are known: nine columns with ``[start]``, and eight without it. Columns are parted by tabs, or padded with
blanks in LiteRT 2.3. Types may hold blanks and commas. Every row is checked against its own share of the total, so
that a shifted column is noticed: a table that does not add up is refused, never read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from targets.errors import UnknownLayout

_TITLE = re.compile(r"^=+ Run Order =+$")
_COLUMN = re.compile(r"\[([^\]]*)\]")
_WITH_START = ("node type", "start", "first", "avg ms", "%", "cdf%", "mem KB", "times called", "Name")
_WITHOUT_START = tuple(column for column in _WITH_START if column != "start")
_TIMINGS = re.compile(
    r"^Timings \(microseconds\): count=\d+ (?:first=\S+ )?curr=(?P<curr>[^\s(]+)(?:.* avg=(?P<avg>\S+))?"
)
_NODES = re.compile(r"^(?P<count>\d{1,9}) nodes observed$")
_DECIMAL = re.compile(r"\d{1,12}\.\d{1,6}")
_WHOLE = re.compile(r"\d{1,12}")
_NUMBER = r"\s+([0-9.]+%?)"
_FIX = "Report the line: this version prints a table that the kit does not know."
_HALF_MS = 0.0005
_HALF_PERCENT = 0.0005


@dataclass(frozen=True)
class OpRow:
    """One row of a table.

    Attributes:
        op_type: Operation, with the kernel where it is told: ``Convolution (NHWC, F32) IGEMM``.
        start_ms: Start within the inference; ``None`` in the layout without it.
        first_ms: First inference.
        avg_ms: Mean over the inferences.
        percent: Share of the total.
        times_called: Calls an inference; ``avg_ms`` is one call.
        name: Node name and index as printed.
    """

    op_type: str
    start_ms: float | None
    first_ms: float
    avg_ms: float
    percent: float
    times_called: int
    name: str


@dataclass(frozen=True)
class OpTable:
    """The operators of one section in the order they ran.

    Attributes:
        title: The line above the table, for example ``Operator-wise Profiling Info for Regular Benchmark Runs``.
        rows: One an operator.
        total_ms: Mean of an inference, as the tool sums it.
    """

    title: str
    rows: tuple[OpRow, ...]
    total_ms: float


def parse_op_tables(text: str) -> tuple[OpTable, ...]:
    """Read every "Run Order" table of an output.

    Args:
        text: What the tool printed.

    Returns:
        At least one table, in order of appearance.

    Raises:
        UnknownLayout: If there is no table, a line does not fit a known layout, a table is cut off, or its figures
            contradict each other. The line is quoted.
    """
    lines = [line.rstrip("\r") for line in text.split("\n")]
    starts = [index for index, line in enumerate(lines) if _TITLE.match(line.strip())]
    if not starts:
        last = next((line for line in reversed(lines) if line.strip()), "")
        raise UnknownLayout(f"the output holds no 'Run Order' table; its last line is {last[:120]!r}", _FIX)
    ends = [*starts[1:], len(lines)]
    return tuple(_table(lines, start, end) for start, end in zip(starts, ends, strict=True))


def _table(lines: Sequence[str], start: int, end: int) -> OpTable:
    header = lines[start + 1] if start + 1 < end else ""
    columns = tuple(_COLUMN.findall(header))
    if columns not in (_WITH_START, _WITHOUT_START):
        raise UnknownLayout(f"line {start + 2} is no known table header: {header[:200]!r}", _FIX)
    body = start + 2
    close = next((index for index in range(body, end) if not lines[index].strip()), None)
    if close is None or close == body:
        raise UnknownLayout(f"the table at line {start + 1} is empty or cut off", _FIX)
    rows = tuple(_row(lines[index], index + 1, columns, "\t" in header) for index in range(body, close))
    tail = [line.strip() for line in lines[close:end]]
    total_ms = timings_total_ms(tail, start + 1)
    nodes = nodes_observed(tail)
    if nodes != len(rows):
        raise UnknownLayout(f"the table at line {start + 1} has {len(rows)} rows; its end tells {nodes} nodes", _FIX)
    numbers = [_percents(lines[index], "\t" in header) for index in range(body, close)]
    check_sums(rows, numbers, total_ms, body + 1)
    title = lines[start - 1].strip().rstrip(":") if start else ""
    return OpTable(title, rows, total_ms)


def _fields(line: str, columns: int, tabs: bool) -> list[str] | None:
    if tabs:
        fields = line.split("\t")
        return [field.strip() for field in fields[1:]] if len(fields) == columns + 1 and not fields[0] else None
    found = re.fullmatch(r"\s*(\S.*?)" + _NUMBER * (columns - 2) + r"\s+(\S.*?)\s*", line)
    return list(found.groups()) if found else None


def _row(line: str, number: int, columns: tuple[str, ...], tabs: bool) -> OpRow:
    fields = _fields(line, len(columns), tabs)
    cells = dict(zip(columns, fields, strict=True)) if fields else {}
    fits = bool(cells) and all(_fits(column, cell) for column, cell in cells.items())
    if not fits:
        raise UnknownLayout(f"line {number} does not fit the table's columns: {line[:200]!r}", _FIX)
    return OpRow(
        op_type=cells["node type"],
        start_ms=float(cells["start"]) if "start" in cells else None,
        first_ms=float(cells["first"]),
        avg_ms=float(cells["avg ms"]),
        percent=float(cells["%"].rstrip("%")),
        times_called=int(cells["times called"]),
        name=cells["Name"],
    )


def _fits(column: str, cell: str) -> bool:
    if column in {"node type", "Name"}:
        return bool(cell) and cell.isprintable()
    if column in {"%", "cdf%"}:
        return cell.endswith("%") and _DECIMAL.fullmatch(cell[:-1]) is not None
    return (_WHOLE if column == "times called" else _DECIMAL).fullmatch(cell) is not None


def _percents(line: str, tabs: bool) -> float:
    """Running share of a row that is known to fit."""
    cells = line.split("\t") if tabs else re.split(r"\s+", line)
    return float([cell for cell in cells if re.fullmatch(r"\s*[0-9.]+%\s*", cell)][-1].strip().rstrip("%"))


def check_sums(
    rows: Sequence[OpRow], running: Sequence[float], total_ms: float, number: int, *, digits: int | None = None
) -> None:
    """Compare each time with its share of the total, and each running share with the shares before it.

    Args:
        rows: Rows of one table.
        running: Running share of each row, percent.
        total_ms: What the tool says they sum to.
        number: Line of the first row.
        digits: Significant digits printed; by default three decimals are.

    Raises:
        UnknownLayout: If a figure contradicts another; the line is named.
    """
    relative = 0.6 * 10 ** (1 - digits) if digits else 0.0
    half_ms, half_percent = (0.0, 0.0) if digits else (_HALF_MS, _HALF_PERCENT)
    before = 0.0
    for offset, (row, cumulated) in enumerate(zip(rows, running, strict=True)):
        quoted = f"line {number + offset} ({row.op_type}, {row.avg_ms} ms, {row.percent}%)"
        told = row.percent / 100 * total_ms
        # Operators that do not run in every inference (0 calls) have a mean that their share does not show.
        spent = row.avg_ms * row.times_called
        slack = 1.2 * half_ms * row.times_called + half_percent / 100 * total_ms + (1e-5 + 2 * relative) * spent
        if row.times_called and abs(told - spent) > slack + 1e-9:
            raise UnknownLayout(f"{quoted} contradicts the total of {total_ms} ms", _FIX)
        if abs(before + row.percent - cumulated) > 3 * half_percent + 3 * relative * cumulated + 1e-9:
            raise UnknownLayout(f"{quoted} contradicts the running share of {cumulated}%", _FIX)
        before = cumulated
    if abs(before - 100) > 0.1 and total_ms > 0:
        raise UnknownLayout(
            f"the shares of the table that ends before line {number + len(rows)} sum to {before}%", _FIX
        )


def timings_total_ms(tail: Sequence[str], number: int) -> float:
    """Mean of the runs behind a table, from the "Timings" line that follows it.

    Args:
        tail: Lines after the table's rows.
        number: Line of the table, for the error.

    Raises:
        UnknownLayout: If there is no such line.
    """
    found = next((match for match in map(_TIMINGS.match, tail) if match), None)
    text = "" if found is None else found["avg"] or found["curr"]
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?(e\+?[0-9]{1,2})?", text):
        raise UnknownLayout(f"the table at line {number} has no 'Timings (microseconds)' line after it", _FIX)
    return float(text) / 1e3


def nodes_observed(tail: Sequence[str]) -> int | None:
    """Number of nodes that the tool says a table has; ``None`` where it does not."""
    return next((int(found["count"]) for found in map(_NODES.match, tail) if found), None)
