"""Fresh measurements of whole networks, to hold against a latency predictor."""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from inas_deploy.commands.options import opset_of
from inas_deploy.commands.running import opened
from search.latency.carrier_files import CarrierFiles, Exporter, format_for
from search.latency.models import DeviceModel
from search.latency.predictor import LatencyPredictor
from search.latency.spread import spread_archs
from search.latency.staleness import Staleness, check_staleness
from search.onnx_exporters import OPSET
from search.spaces.registry import find_space
from targets.errors import UsageError
from targets.inventory import load_inventory
from targets.runtimes.registry import get_runtime


def check_on_device(
    predictor: LatencyPredictor, count: int, seed: int, target: str, inventory: Path | None, store: str, wait_s: float
) -> Staleness:
    """Time networks spread over the range of latency on a device, and judge the predictor by them.

    Args:
        predictor: With intervals.
        count: How many networks.
        seed: Of their draw.
        target: Name of the device.
        inventory: Inventory file.
        store: Result store, which keeps leases.
        wait_s: How long to stand in line for the device.

    Raises:
        UsageError: If the device is not one of the predictor's kind.
        DeviceUnavailable: If it cannot be used now.
    """
    conditions = predictor.conditions
    device = next((one for one in load_inventory(inventory).select(target) if one.name == target), None)
    if device is None or device.label != conditions.stand_in:
        raise UsageError(
            f"{target} is not a device like the one the predictor is for ({conditions.label})",
            "Name that device with --target.",
        )
    plain = predictor.marked_stale("")
    archs = spread_archs(
        find_space(conditions.space, conditions.classes),
        lambda found: plain.predict(found).latency_ms,
        count,
        random.Random(f"check {seed}"),
        allowed=lambda arch: not plain.refusal(arch),
    )
    format = format_for(get_runtime(conditions.settings.runtime).formats)
    with tempfile.TemporaryDirectory() as folder, opened([device], store, wait_s=wait_s) as targets:
        files = CarrierFiles(Path(folder), conditions.input_size, format, opset_of(device) or OPSET)
        with Exporter(files) as exporter, Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("exporting and timing networks", total=None)
            model = DeviceModel(
                targets[device.name],
                exporter.artifact,
                conditions,
                reference=predictor.network.reference,
                on_session=lambda done, total, session: bar.update(task, completed=done, total=total),
            )
            for arch in archs:
                exporter.artifact(arch)  # all before the first session: an export beside it would slow it
            measured = model.predict(archs)
            found = check_staleness(plain.predict(archs), measured.latency_ms.tolist())
            slowdown = model.slowdown
    if slowdown is None:
        return found
    speed = f"the machine is {abs(slowdown):.1%} {'slower' if slowdown > 0 else 'faster'} than when it was profiled"
    return replace(found, sentence=f"{found.sentence} By the reference network {speed}, which was taken off.")
