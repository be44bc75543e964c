"""How well a device's latency is known: one self-contained HTML file and pictures as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inas_deploy.report import latency_plots, text
from inas_deploy.report.latency_data import BlockErrors, LatencyReport, NetworkErrors
from inas_deploy.report.latency_figures import ErrorFigures, by_kind, error_figures, judged, worst
from inas_deploy.report.page import render
from targets.files import write_atomic

WORST_BLOCKS = 15
_UNKNOWN = "unknown"


def write_latency_html(report: LatencyReport, path: Path) -> None:
    """Write a latency report as one HTML file; the same report gives the same bytes.

    Args:
        report: What was measured and predicted.
        path: File to make or replace.

    Raises:
        MissingExtra: If jinja2 or matplotlib is not installed.
        UsageError: If the file cannot be written.
    """
    write_atomic(path, latency_html(report).encode("utf-8"))


def write_latency_plots(report: LatencyReport, folder: Path) -> list[Path]:
    """Write the report's pictures as ``blocks.png``, ``kinds.png``, ``networks.png`` and ``staircases.png``.

    Args:
        report: What was measured and predicted.
        folder: Existing folder.

    Returns:
        The files written: those that there is something to draw for.

    Raises:
        MissingExtra: If matplotlib is not installed.
        UsageError: If a file cannot be written.
    """
    files = []
    for name, drawing in latency_plots.drawings(report).items():
        files.append(folder / f"{name}.png")
        write_atomic(files[-1], latency_plots.picture(drawing))
    return files


def latency_html(report: LatencyReport) -> str:
    """Render a latency report as an HTML document (see :func:`write_latency_html`)."""
    pictures = latency_plots.drawings(report)
    blocks = report.blocks
    return render(
        "latency.html.j2",
        report=report,
        least_us=f"{report.least_us:g}",
        stand_in=text.stand_in_warning(report.stand_in),
        noise_floor=_share(report.noise_floor),
        repeatability=_share(report.repeatability),
        blocks=judged(blocks, report.least_us) if blocks else None,
        kinds=by_kind(blocks, report.least_us) if blocks else [],
        worst=_worst(blocks, report.least_us) if blocks else [],
        networks=_network_figures(report.networks, calibration=False),
        network_rows=[
            ("not used to calibrate", _network_figures(report.networks, calibration=False), 0),
            ("used to calibrate", _network_figures(report.networks, calibration=True), 0),
        ],
        plots=dict.fromkeys(latency_plots.NAMES)
        | {name: latency_plots.plot(drawing, name) for name, drawing in pictures.items()},
    )


def _share(value: float | None) -> str:
    return _UNKNOWN if value is None else text.percent(value)


def _worst(blocks: BlockErrors, least_us: float) -> list[tuple[str, float, float, float, float]]:
    columns = np.column_stack([blocks.measured_us, blocks.predicted_us, blocks.low_us, blocks.high_us])
    places = worst(blocks, least_us, WORST_BLOCKS)
    return [(blocks.name[n], *columns[n].tolist()) for n in places]


def _network_figures(networks: NetworkErrors | None, *, calibration: bool) -> ErrorFigures | None:
    if networks is None:
        return None
    chosen = np.asarray(networks.calibration, dtype=bool) == calibration
    columns = (networks.measured_ms, networks.predicted_ms, networks.low_ms, networks.high_ms)
    return error_figures(*(column[chosen] for column in columns))
