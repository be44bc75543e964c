"""Op profiles that ``benchmark_model`` writes as CSV (``--op_profiling_output_mode=csv``).

It is no plain CSV: operator types keep their commas (``Convolution (NHWC, F32) IGEMM``), only those in names become
tabs, so a row is read from its end. Sections and figures are those of the text tables, with six significant digits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from targets.errors import UnknownLayout, printable
from targets.profiles.benchmark_model_text import OpRow, OpTable, check_sums, nodes_observed, timings_total_ms

_RUN_ORDER = re.compile(r"=+ Run Order =+")
_HEADER = "node type, first, avg_ms, %, cdf%, mem KB, times called, name"
_OLD_HEADER = "node type, start, first, avg_ms, %, cdf%, mem KB, times called, name"
_DIGITS = 6
_REAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?(e[+-][0-9]{2})?")
_WHOLE = re.compile(r"[0-9]{1,12}")
_FIX = "Report the line: this version of benchmark_model writes a layout that the kit does not know."


def parse_op_csv(text: str) -> tuple[OpTable, ...]:
    """Read every "Run Order" section of a file.

    Args:
        text: The file.

    Returns:
        At least one table, in order of appearance.

    Raises:
        UnknownLayout: If there is no section, a line does not fit a known layout, a section is cut off, or its figures
            contradict each other. The line is quoted.
    """
    lines = [line.rstrip("\r") for line in text.split("\n")]
    starts = [at for at, line in enumerate(lines) if _RUN_ORDER.fullmatch(line.strip())]
    if not starts:
        last = next((line for line in reversed(lines) if line.strip()), "")
        raise UnknownLayout(f"the CSV holds no 'Run Order' section; its last line is {printable(last)!r}", _FIX)
    ends = [*starts[1:], len(lines)]
    return tuple(_section(lines, start, end) for start, end in zip(starts, ends, strict=True))


def _section(lines: Sequence[str], start: int, end: int) -> OpTable:
    header = lines[start + 1].strip() if start + 1 < end else ""
    if header not in (_HEADER, _OLD_HEADER):
        raise UnknownLayout(f"line {start + 2} is no known CSV header: {printable(header, 200)!r}", _FIX)
    body = start + 2
    close = next((at for at in range(body, end) if not lines[at].strip()), None)
    if close is None or close == body:
        raise UnknownLayout(f"the section at line {start + 1} is empty or cut off", _FIX)
    read = [_row(lines[at], at + 1, header == _OLD_HEADER) for at in range(body, close)]
    rows = tuple(row for row, _ in read)
    tail = [line.strip() for line in lines[close:end]]
    total_ms = timings_total_ms(tail, start + 1)
    nodes = nodes_observed(tail)
    if nodes != len(rows):
        raise UnknownLayout(f"the section at line {start + 1} has {len(rows)} rows; its end tells {nodes} nodes", _FIX)
    check_sums(rows, [running for _, running in read], total_ms, body + 1, digits=_DIGITS)
    title = lines[start - 1].strip().rstrip(":") if start else ""
    return OpTable(title, rows, total_ms)


def _row(line: str, number: int, with_start: bool) -> tuple[OpRow, float]:
    """A row, and the running share that stands in it."""
    columns = 9 if with_start else 8
    cells = [cell.strip(" ") for cell in line.rsplit(", ", columns - 1)]
    numbers = cells[1:-1]
    fits = len(cells) == columns and bool(cells[0]) and bool(cells[-1])
    if fits:
        *times, share, running, memory, calls = numbers
        fits = share.endswith("%") and running.endswith("%") and _WHOLE.fullmatch(calls) is not None
        fits = fits and all(_REAL.fullmatch(cell) for cell in (*times, share[:-1], running[:-1], memory))
    if not fits or not (cells[0].isprintable() and cells[-1].replace("\t", " ").isprintable()):
        raise UnknownLayout(f"line {number} does not fit the CSV's columns: {printable(line, 200)!r}", _FIX)
    row = OpRow(
        op_type=cells[0],
        start_ms=float(times[0]) if with_start else None,
        first_ms=float(times[-2]),
        avg_ms=float(times[-1]),
        percent=float(share[:-1]),
        times_called=int(calls),
        name=cells[-1].replace("\t", ","),
    )
    return row, float(running[:-1])
