"""TF-NAS's rows: inverted bottlenecks with squeeze-excite, one a line (Hu et al., ECCV 2020)."""

from __future__ import annotations

from pathlib import Path

from search.latency.conditions import Conditions
from search.latency.importers.text import UNTOLD, RowCollector, csv_rows, damaged, decimal, whole
from search.latency.table import LatencyTable
from search.spaces.block import conv_size

SOURCE = "tfnas-csv"
KIND = "tfnas.bottleneck"
COLUMNS = ("res", "in_c", "se_c", "out_c", "kernel", "stride", "act", "mid_c", "latency_ms")
ACTIVATIONS = ("relu", "swish")
"""The setting ``act`` is an index here."""


def read_tfnas_csv(path: Path, conditions: Conditions) -> LatencyTable:
    """Read rows of TF-NAS.

    The authors took the cost of an empty run off, which leaves a few of the smallest blocks at or below zero. Such a
    row says nothing about the block: it is left out, and the table's notes tell how many were.

    Args:
        path: The file, with the columns :data:`COLUMNS`.
        conditions: What the format does not say.

    Returns:
        A table with kind :data:`KIND` and settings ``act``, ``hidden``, ``kernel``, ``squeeze`` and ``stride``.

    Raises:
        UsageError: If the file cannot be read.
        UnknownLayout: If a column is missing or strange, or a line is damaged or there twice.
    """
    columns, body = csv_rows(path, COLUMNS)
    if strange := [name for name in columns if name not in COLUMNS]:
        raise damaged(path, 1, "a column that these rows do not have", strange[0])
    rows, left_out = RowCollector(path), 0
    for line, row in body:
        sizes = {name: whole(path, line, name, row[name]) for name in COLUMNS[:-1] if name not in ("act", "se_c")}
        squeeze = whole(path, line, "se_c", row["se_c"], least=0)
        if row["act"] not in ACTIVATIONS:
            raise damaged(path, line, f"act is none of {', '.join(ACTIVATIONS)}", row["act"])
        latency_us = decimal(path, line, "latency_ms", row["latency_ms"]) * 1e3
        if latency_us <= 0:
            left_out += 1
            continue
        out = conv_size(sizes["res"], sizes["stride"])
        settings = (
            ("act", ACTIVATIONS.index(row["act"])),
            ("hidden", sizes["mid_c"]),
            ("kernel", sizes["kernel"]),
            ("squeeze", squeeze),
            ("stride", sizes["stride"]),
        )
        source, target = (sizes["in_c"], sizes["res"], sizes["res"]), (sizes["out_c"], out, out)
        rows.add(line, (KIND, (source,), (target,), settings), count=1, p10_us=latency_us, p50_us=latency_us)
    notes = (
        "Latency is of a whole batch, whose size the format does not tell, and a single figure: no percentile, spread.",
        UNTOLD,
        f"{left_out} rows at or below 0 ms were left out.",
    )
    return rows.table(SOURCE, conditions, notes)
