"""One self-contained HTML file: opens offline, makes no request, runs no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from inas_deploy.report import device, modules, plots, text
from inas_deploy.report.page import render
from targets.errors import UsageError
from targets.files import write_atomic
from targets.records import BenchRun, Comparison, Measurement, OpProfile
from targets.statistics import session_percentile_ms

TOP_OPS = 15
MAX_MODULE_ROWS = 40
MAX_IMAGE_BYTES = 20_000_000
_IMAGE_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}


@dataclass(frozen=True)
class ReportImage:
    """A picture for the report, for example a photo beside its saliency map.

    Attributes:
        path: PNG or JPEG file; its bytes are put into the page.
        caption: What it shows; also the text for readers who cannot see it.
    """

    path: Path
    caption: str


@dataclass(frozen=True)
class _Bar:
    name: str
    compute: float
    layout: float
    unattributed: float
    total_us: float
    share: float
    count: int


def write_html(
    run: BenchRun,
    path: Path,
    *,
    comparisons: Sequence[Comparison] = (),
    images: Sequence[ReportImage] = (),
) -> None:
    """Write a run as one HTML file; the same arguments give the same bytes.

    Args:
        run: What was measured.
        path: File to make or replace.
        comparisons: Comparisons to show with it.
        images: Pictures to put into it.

    Raises:
        MissingExtra: If jinja2 or matplotlib is not installed.
        UsageError: If the file cannot be written or a picture cannot be read.
    """
    write_atomic(path, to_html(run, comparisons=comparisons, images=images).encode("utf-8"))


def to_html(run: BenchRun, *, comparisons: Sequence[Comparison] = (), images: Sequence[ReportImage] = ()) -> str:
    """Render a run as an HTML document (see :func:`write_html`)."""
    overview = plots.overview(run.measurements, "all") if len(run.measurements) > 1 else None
    return render(
        "template.html.j2",
        run=run,
        variants=[_variant(m, number) for number, m in enumerate(run.measurements, 1)],
        overview=overview,
        reading_columns=device.READING_COLUMNS,
        comparisons=[
            (c, list(zip(text.COMPARISON_COLUMNS, text.comparison_cells(c), strict=True)), plots.effect(c))
            for c in comparisons
        ],
        images=[(_data_uri(image.path), image.caption) for image in images],
        environment_rows=text.environment_rows(run),
        version_rows=sorted(run.environment.versions.items()),
        created=f"{run.created_at:%Y-%m-%d %H:%M:%S} UTC",
    )


def _variant(measurement: Measurement, number: int) -> dict[str, Any]:
    sessions = measurement.sessions
    return {
        "number": number,
        "measurement": measurement,
        "variant": measurement.variant,
        "stats": measurement.stats,
        "verdict": measurement.verdict,
        "warnings": text.warnings_of(measurement.variant),
        "plot": plots.distribution(measurement, f"v{number}") if all(s.samples_ns for s in sessions) else None,
        "session_rows": [
            (*text.session_cells(s), *(text.latency(session_percentile_ms(s, q)) for q in (10, 50, 90)))
            for s in sessions
        ],
        "sustained": device.sustained_notes(measurement),
        "device_facts": device.facts(measurement),
        "readings": device.reading_rows(measurement),
        "device_remarks": device.remarks(measurement),
        "trace": device.temperature_trace(measurement, f"t{number}"),
        "settings": _settings(measurement),
        "versions": text.merged(s.versions for s in sessions),
        "profile": _profile(measurement.profile) if measurement.profile else None,
        "artifact": measurement.variant.artifact,
    }


def _settings(measurement: Measurement) -> list[tuple[str, str, str]]:
    """Every setting with what was asked for and what the runtime says; a dash where one side is silent."""
    asked = dict(text.settings_rows(measurement))
    actual = dict(text.merged(s.actual for s in measurement.sessions))
    return [(key, asked.get(key, "-"), actual.get(key, "-")) for key in dict.fromkeys([*asked, *actual])]


def _profile(profile: OpProfile) -> dict[str, Any]:
    depth = modules.readable_depth(profile)
    found = modules.by_module(profile, depth)
    longest_us = max((m.total_us for m in found), default=0.0) or 1.0
    kept = sorted(found, key=lambda m: -m.total_us)[:MAX_MODULE_ROWS]
    dropped = [m for m in found if m not in kept]
    return {
        "sentence": text.profile_sentence(profile),
        "notes": profile.notes,
        "runtime": profile.runtime,
        "depth": depth,
        "bars": [_bar(m, longest_us) for m in found if m in kept],
        "dropped": len(dropped),
        "dropped_us": sum(m.total_us for m in dropped),
        "top": modules.slowest(profile, TOP_OPS),
        "ops": profile.ops,
        "kernels": modules.by_kernel(profile),
        "top_module": modules.TOP_MODULE,
        "unattributed": modules.UNATTRIBUTED,
    }


def _bar(module: modules.ModuleTime, longest_us: float) -> _Bar:
    scale = 100.0 / longest_us
    placed = module.module is not None
    return _Bar(
        name=module.name,
        compute=module.compute_us * scale if placed else 0.0,
        layout=module.layout_us * scale if placed else 0.0,
        unattributed=0.0 if placed else module.total_us * scale,
        total_us=module.total_us,
        share=module.share,
        count=len(module.ops),
    )


def _data_uri(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_IMAGE_BYTES:
            raise UsageError(f"picture {path} is larger than {MAX_IMAGE_BYTES:,} bytes", "Give a smaller one.")
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=tuple(_IMAGE_TYPES)) as image:
            kind = _IMAGE_TYPES[str(image.format)]
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UsageError(f"picture {path} cannot be read as PNG or JPEG", "Give another file.") from error
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
