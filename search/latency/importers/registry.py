"""One door to every table format: named, or told by the file's first line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from search.latency.conditions import Conditions
from search.latency.importers import inas_text, ofa_yaml, tfnas_csv
from search.latency.importers.text import read_text
from search.latency.table import LatencyTable
from targets.errors import UnknownLayout, UsageError, printable

OWN = "inas-deploy"
AUTO = "auto"
IMPORTERS: dict[str, Callable[[Path, Conditions], LatencyTable]] = {
    inas_text.SOURCE: inas_text.read_inas_text,
    ofa_yaml.SOURCE: ofa_yaml.read_ofa_yaml,
    tfnas_csv.SOURCE: tfnas_csv.read_tfnas_csv,
}
"""Readers of others' tables of blocks by format name."""
FORMATS = (AUTO, OWN, *IMPORTERS)


def read_table(path: Path, conditions: Conditions | None = None, *, format: str = AUTO) -> LatencyTable:
    """Read a latency table of any known format.

    Args:
        path: The file.
        conditions: What the figures hold for. Others' formats do not say, so that they need it; this kit's own tables
            say it themselves, and are refused where it differs.
        format: One of :data:`FORMATS`; ``auto`` tells it from the file's first line.

    Raises:
        UsageError: If the file cannot be read, the format is none of those, or the conditions are missing or differ.
        UnknownLayout: If the format cannot be told, or a line is damaged.
        InvalidModel: If a table of this kit is damaged.
        MissingExtra: If a package the format needs is not installed.
    """
    if format not in FORMATS:
        raise UsageError(f"there is no table format {printable(format)!r}", f"Take one of {', '.join(FORMATS)}.")
    name = table_format(path) if format == AUTO else format
    if name == OWN:
        table = LatencyTable.read(path)
        if conditions is not None and (difference := table.header.conditions.difference(conditions)):
            raise UsageError(f"{path} holds for something else: {difference}", "Take a table made for it.")
        return table
    if conditions is None:
        raise UsageError(
            f"{path} is a table of the format {name}, which does not say what was measured",
            "Give device, runtime, precision, threads and input size.",
        )
    return IMPORTERS[name](path, conditions)


def table_format(path: Path) -> str:
    """The format of a table, from its first line that is not blank.

    Raises:
        UsageError: If the file cannot be read.
        UnknownLayout: If the line is of no known format.
    """
    first = next(line.strip() for line in read_text(path).splitlines() if line.strip())
    if first.startswith("{") and '"inas-deploy latency table"' in first:
        return OWN
    if first.startswith("name:"):
        return inas_text.SOURCE
    if set(first.split(",")) == set(tfnas_csv.COLUMNS):
        return tfnas_csv.SOURCE
    if "-input:" in first and first.endswith(":"):
        return ofa_yaml.SOURCE
    raise UnknownLayout(
        f"{path} is no known table of latencies: {printable(first)!r}", "Name the format, or another file."
    )
