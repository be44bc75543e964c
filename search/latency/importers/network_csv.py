"""Whole networks in a comma-separated file: any numbers that describe a network, and its latency."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search.latency.importers.text import csv_rows, decimal, deviation, latency
from search.latency.model import Floats
from targets.errors import UnknownLayout, UsageError, printable


@dataclass(frozen=True)
class NetworkLatencies:
    """Measured networks, N of them with F features.

    Attributes:
        columns: Names of the features.
        features: What describes each network, (N, F).
        latency_ms: Each network's latency, milliseconds, (N,).
        deviation_ms: Standard deviation over its repeats, milliseconds, (N,); ``None`` where the file tells none.
    """

    columns: tuple[str, ...]
    features: Floats
    latency_ms: Floats
    deviation_ms: Floats | None = None

    def column(self, name: str) -> Floats:
        """One feature of every network, (N,).

        Raises:
            UsageError: If there is no such feature.
        """
        if name not in self.columns:
            raise UsageError(f"there is no column {printable(name)}", f"Take one of {', '.join(self.columns)}.")
        values: Floats = self.features[:, self.columns.index(name)]
        return values


def read_network_csv(
    path: Path,
    *,
    latency_ms: Sequence[str] = ("latency_ms",),
    deviation_ms: Sequence[str] = (),
    ignore: Collection[str] = (),
) -> NetworkLatencies:
    """Read measurements of whole networks.

    Args:
        path: The file; its first line names the columns.
        latency_ms: Columns that are parts of the latency, in milliseconds; they are summed.
        deviation_ms: Columns with the standard deviation of each part; the parts are taken as independent.
        ignore: Columns that describe nothing, such as names. All others are features and must be numbers.

    Raises:
        UsageError: If the file cannot be read or no column of the latency is named.
        UnknownLayout: If a column is missing, a line is damaged, or there are no rows.
    """
    if not latency_ms:
        raise UsageError("no column of the latency is named", "Name at least one.")
    columns, body = csv_rows(path, [*latency_ms, *deviation_ms, *ignore])
    names = [name for name in columns if name not in {*latency_ms, *deviation_ms, *ignore}]
    features, latencies, deviations = [], [], []
    for line, row in body:
        features.append([decimal(path, line, printable(name), row[name]) for name in names])
        latencies.append(sum(latency(path, line, printable(name), row[name]) for name in latency_ms))
        deviations.append([deviation(path, line, printable(name), row[name]) for name in deviation_ms])
    if not latencies:
        raise UnknownLayout(f"{path} has no rows", "Name another file.")
    return NetworkLatencies(
        columns=tuple(names),
        features=np.array(features, dtype=np.float64).reshape(len(latencies), len(names)),
        latency_ms=np.array(latencies),
        deviation_ms=np.hypot.reduce(np.array(deviations), axis=1) if deviation_ms else None,
    )
