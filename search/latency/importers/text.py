"""What all importers share: files read whole, numbers read strictly, every complaint with file and line."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from search.latency.conditions import Conditions
from search.latency.table import BlockKey, LatencyTable, Row, TableHeader, describe
from targets.errors import UnknownLayout, UsageError, printable

UNTOLD = "The format tells neither device, threads, precision, versions nor date: the caller of the importer does."
"""Note that others' formats share."""
MOST_BYTES = 64 * 2**20
MOST_SIZE = 10**7
"""Channels, pixels or settings beyond this are damage, not a network."""
_WHOLE = re.compile(r"[0-9]{1,8}")
_DECIMAL = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,3})?")


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UsageError: If it cannot be read.
        UnknownLayout: If it is empty, too large or no UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UnknownLayout(f"{path} has {size:,} bytes, more than any table of latencies", "Name another file.")
        text = path.read_bytes().decode()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise UnknownLayout(f"{path} is not text: byte {error.start} is no UTF-8", "Name a text file.") from error
    if not text.strip():
        raise UnknownLayout(f"{path} is empty", "Name another file.")
    return text


def damaged(path: Path, line: int, what: str, quoted: str) -> UnknownLayout:
    """The error for a line that cannot be what the format says.

    Args:
        path: The file.
        line: Line number from 1.
        what: What is wrong, in words.
        quoted: The part of the line that is.
    """
    return UnknownLayout(f"{path}, line {line}: {what}: {printable(quoted)!r}", "Repair the line or remove it.")


def whole(path: Path, line: int, name: str, text: str, *, least: int = 1) -> int:
    """A whole number from ``least`` to ten million.

    Raises:
        UnknownLayout: If the text is none.
    """
    if not _WHOLE.fullmatch(text) or not least <= int(text) <= MOST_SIZE:
        raise damaged(path, line, f"{name} is no whole number of {least} to {MOST_SIZE:,}", text)
    return int(text)


def decimal(path: Path, line: int, name: str, text: str) -> float:
    """A finite number.

    Raises:
        UnknownLayout: If the text is none.
    """
    if not _DECIMAL.fullmatch(text.strip()) or not math.isfinite(value := float(text)):
        raise damaged(path, line, f"{name} is no number", text)
    return value


def latency(path: Path, line: int, name: str, text: str) -> float:
    """A number above zero: there is no block that takes no time.

    Raises:
        UnknownLayout: If the text is none.
    """
    value = decimal(path, line, name, text)
    if value <= 0:
        raise damaged(path, line, f"{name} is not above zero", text)
    return value


def deviation(path: Path, line: int, name: str, text: str) -> float:
    """A number not below zero.

    Raises:
        UnknownLayout: If the text is none.
    """
    value = decimal(path, line, name, text)
    if value < 0:
        raise damaged(path, line, f"{name} is below zero", text)
    return value


def csv_rows(path: Path, required: Sequence[str] = ()) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """The columns of a comma-separated file and its rows by column, each with its line number.

    Args:
        path: The file; its first line names the columns.
        required: Columns that must be there.

    Raises:
        UsageError: If the file cannot be read.
        UnknownLayout: If a column is missing, unnamed or there twice, or (while rows are drawn) a row is too short,
            too long or badly quoted.
    """
    lines = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        columns = [name.strip() for name in next(lines)]
    except csv.Error as error:
        raise damaged(path, 1, "the names of the columns cannot be read", str(error)) from error
    if missing := [name for name in required if name not in columns]:
        raise damaged(path, 1, f"there is no column {printable(missing[0])}", ",".join(columns))
    if len(set(columns)) < len(columns) or "" in columns or not columns:
        raise damaged(path, 1, "a column has no name or another's", ",".join(columns))

    def body() -> Iterator[tuple[int, dict[str, str]]]:
        try:
            for values in lines:
                if values and len(values) != len(columns):
                    what = f"{len(values)} values for {len(columns)} columns"
                    raise damaged(path, lines.line_num, what, ",".join(values))
                if values:
                    yield lines.line_num, dict(zip(columns, values, strict=True))
        except csv.Error as error:
            raise damaged(path, lines.line_num, "the line cannot be read", str(error)) from error

    return columns, body()


class RowCollector:
    """The rows of one file; a second row for a block is refused with both lines.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[BlockKey, Row] = {}
        self._lines: dict[BlockKey, int] = {}

    def add(self, line: int, key: BlockKey, **fields: int | float | None) -> None:
        """Add a row.

        Args:
            line: Its line number.
            key: The block.
            **fields: The rest of :class:`search.latency.table.Row`.

        Raises:
            UnknownLayout: If the block was there before, or a field is beyond what a table holds.
        """
        if key in self._rows:
            raise damaged(self._path, line, f"the block of line {self._lines[key]} again", describe(key))
        kind, inputs, outputs, settings = key
        row = {"kind": kind, "inputs": inputs, "outputs": outputs, "settings": settings, **fields}
        try:
            self._rows[key] = Row.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise damaged(self._path, line, f"{place}: {first['msg']}", describe(key)) from error
        self._lines[key] = line

    def table(self, source: str, conditions: Conditions, notes: Sequence[str]) -> LatencyTable:
        """The rows as a table made now.

        Raises:
            UnknownLayout: If there are none.
        """
        if not self._rows:
            raise UnknownLayout(f"{self._path} holds no row that can be used", "Name another file.")
        header = TableHeader(conditions=conditions, made_at=datetime.now(UTC), source=source, notes=tuple(notes))
        return LatencyTable(header, self._rows)
