"""``inas-deploy profile``: learn a device's latencies for a search space."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from inas_deploy.commands.choosing import choose
from inas_deploy.commands.options import (
    DEFAULT_RUNTIME,
    Inventory,
    Json,
    Store,
    Threads,
    Wait,
    opset_of,
    settings_of,
)
from inas_deploy.commands.running import opened
from inas_deploy.latency_fit import PREDICTOR, ProfileSummary, fit_run, write_run
from inas_deploy.report.text import clean
from search.latency.carrier_files import CarrierFiles, Exporter, format_for
from search.latency.measuring import Measurer
from search.latency.profiling import OBSERVATIONS, ProfileRequest, ProfileRun, Step, Weight
from search.latency.table import BlockKey, LatencyTable
from search.onnx_exporters import OPSET
from search.spaces.block import BlockSpec
from search.spaces.registry import find_space
from search.spaces.space import check_multiple
from targets.errors import KitError, UsageError
from targets.extras import require
from targets.inventory import Device, load_inventory
from targets.opening import Target
from targets.records import Precision, RunSettings
from targets.runtimes.registry import get_runtime
from targets.store import DEFAULT_STORE

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_REDRAWS_PER_SECOND = 2
_QUICK_EPOCHS = 60
_DOING = {
    "reference": "reference network",
    "cover": "blocks not seen yet",
    "active": "least certain blocks",
    "timing": "whole networks",
    "exporting": "exporting",
    "fitting": "fitting",
}

_Target = Annotated[str, typer.Option(help="Device name or tag from the inventory; it must name one device.")]
_Space = Annotated[str, typer.Option(help="Search space: inas, inas-tiny, rtseg-small, rtseg-c19, csnet, ...")]
_Runtime = Annotated[str | None, typer.Option(help="onnxruntime, openvino, tensorrt or tflite.")]
_Precision = Annotated[Precision | None, typer.Option(help="Numeric type to compute in.")]
_Minutes = Annotated[
    float, typer.Option(min=0.1, max=10_000, help="Device time in all, resumed runs included; exports do not count.")
]
_Out = Annotated[Path | None, typer.Option(help="Folder for everything; by default named after what is profiled.")]
_Shape = Annotated[str, typer.Option(help="Input size in pixels, height x width.")]
_Seed = Annotated[int, typer.Option(min=0, help="Seed of the choice of networks and of the predictor.")]
_Resume = Annotated[bool, typer.Option(help="Go on with the run in the folder.")]
_Workers = Annotated[
    int | None, typer.Option(min=1, max=64, help="Processes that export networks; by default one, two where they help.")
]
_Alongside = Annotated[
    bool,
    typer.Option(help="Export also while this machine measures itself, on cores of their own: faster, and noisier."),
]


def profile(
    target: _Target = "local",
    space: _Space = "inas",
    runtime: _Runtime = None,
    precision: _Precision = None,
    threads: Threads = None,
    shape: _Shape = "224x224",
    minutes: _Minutes = 30.0,
    out: _Out = None,
    seed: _Seed = 0,
    resume: _Resume = False,
    workers: _Workers = None,
    export_alongside: _Alongside = False,
    wait: Wait = 0.0,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    inventory: Inventory = None,
) -> None:
    """Learn a device: measure a search space's blocks, fit a latency predictor, and say how good it is.

    Networks of the space are exported, run on the device and timed per operation, until every block was seen and then
    where the predictor is least certain. Some are timed end to end, to calibrate it and to judge it. The folder then
    holds table.jsonl, predictor.safetensors (for inas-deploy predict), report.html and the raw observations.

    [bold]Examples[/bold]

    inas-deploy profile --space inas --runtime onnxruntime --minutes 30

    inas-deploy profile --target nova6 --space rtseg-small --shape 256x512 --out nova6-rtseg

    inas-deploy profile --target nova6 --space rtseg-small --shape 256x512 --out nova6-rtseg --resume --minutes 60
    """
    require("safetensors", "predictor")
    device = _one(target, inventory)
    size, wanted = _size(shape), find_space(space)
    check_multiple(size, wanted.multiple, f"the {wanted.id} network")
    name = runtime or device.runtime or DEFAULT_RUNTIME
    settings = settings_of(
        device, name, precision or device.precision or Precision.FP32, threads or device.threads or 1
    )
    folder = out or Path(f"latency-{device.name}-{space}-{shape}-{name}-{settings.precision.value}")
    if (folder / OBSERVATIONS).exists() and not resume:
        raise UsageError(f"{folder} holds a run already", "Go on with it by --resume, or name another folder (--out).")
    request = ProfileRequest(folder=folder, space=wanted, minutes=minutes, seed=seed)
    files = CarrierFiles(folder / "models", size, format_for(get_runtime(name).formats), opset_of(device) or OPSET)
    how = _How(settings, workers or min(2, os.cpu_count() or 1), export_alongside or device.transport != "local")
    if device.transport == "local" and export_alongside:
        how = _apart(how)
    with opened([device], store, wait_s=wait) as targets:
        summary = _run(request, files, how, targets[device.name], quiet=as_json)
    if as_json:
        sys.stdout.write(summary.model_dump_json(indent=2) + "\n")
    else:
        _tell(summary)


@dataclass(frozen=True)
class _How:
    settings: RunSettings
    workers: int
    alongside: bool
    export_cores: frozenset[int] | None = None


def _apart(how: _How) -> _How:
    """Give exports cores of their own and the rest to this process and what it starts, where there are enough."""
    if not hasattr(os, "sched_setaffinity"):
        return how
    cores = sorted(os.sched_getaffinity(0))
    exporting = min(how.workers, len(cores) - how.settings.threads)
    if exporting < 1:
        return how
    os.sched_setaffinity(0, cores[exporting:])
    return replace(how, workers=exporting, export_cores=frozenset(cores[:exporting]))


def _run(request: ProfileRequest, files: CarrierFiles, how: _How, target: Target, *, quiet: bool) -> ProfileSummary:
    console = Console(stderr=True)
    with _Bar(console, quiet=quiet and not console.is_terminal) as bar:
        try:
            with Exporter(files, how.workers, how.export_cores) as exporter:
                measurer = Measurer(target, how.settings, exporter, alongside=how.alongside)
                run = ProfileRun(request, measurer, weigh=lambda table: _weigh(table, request.seed), show=bar)
                header, observations = run.run()
            bar.fitting(0.0)
            fitted = fit_run(header, observations, progress=bar.fitting)
            summary = write_run(request.folder, header, observations, fitted)
        except (KeyboardInterrupt, KitError) as stop:
            if (request.folder / OBSERVATIONS).exists() and not isinstance(stop, UsageError):
                console.print(
                    f"stopped: what was measured is kept in {request.folder}; go on by repeating the command with "
                    "--resume",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
            raise
    skipped = [f"{len(run.skipped)} networks could not be measured, first: {run.skipped[0]}"] if run.skipped else []
    return summary.model_copy(update={"notes": (*summary.notes, *skipped)})


def _weigh(table: LatencyTable, seed: int) -> Weight:
    """Blocks weigh as much as their interval is wide, relative to them; the shortest ones, which are noise, less."""
    from search.latency.block_predictor import BlockPredictor
    from search.latency.block_report import HEADLINE_US

    blocks = BlockPredictor.fit(table, seed=seed, members=2, epochs=_QUICK_EPOCHS)

    def weight(key: BlockKey) -> float:
        spec = BlockSpec("", *key, 0, 0)
        if blocks.refusal(spec):
            return 1.0
        found = blocks.predict_blocks([spec])
        width = float(np.log(found.high_us[0] / max(found.low_us[0], 1e-3)))
        return width * min(1.0, float(found.latency_us[0]) / HEADLINE_US)

    known: dict[BlockKey, float] = {}
    return lambda key: known[key] if key in known else known.setdefault(key, weight(key))


def _one(text: str, inventory: Path | None) -> Device:
    devices = choose(load_inventory(inventory), [text]).devices
    if len(devices) != 1:
        names = ", ".join(device.name for device in devices)
        raise UsageError(f"--target {text} names {len(devices)} devices: {names}", "Name one of them.")
    if devices[0].label == "recorded":
        raise UsageError(f"{devices[0].name} is a recording, which holds no other networks", "Name another device.")
    return devices[0]


def _size(text: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(text)
    if not found:
        raise UsageError(f"--shape {clean(text)} is no size", "Give height x width in pixels: 224x224.")
    return int(found[1]), int(found[2])


class _Bar:
    """Progress in device time on a terminal, a line a step elsewhere."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console, self._quiet = console, quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=_REDRAWS_PER_SECOND,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("exporting the first networks", total=None, told="")

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, step: Step) -> None:
        told = (
            f"{step.device_minutes:.1f}/{step.minutes:g} device minutes, {step.carriers} networks, "
            f"{step.covered:.0%} of blocks" + (f", {step.skipped} skipped" if step.skipped else "")
        )
        doing = _DOING[step.doing]
        self._bar.update(self._task, description=doing, completed=step.device_minutes, total=step.minutes, told=told)
        if not self._quiet and not self._console.is_terminal:
            self._console.print(f"{doing}: {told}", markup=False, highlight=False, soft_wrap=True)

    def fitting(self, share: float) -> None:
        self._bar.update(self._task, description="fitting the predictor", completed=share, total=1.0, told="")


def _tell(summary: ProfileSummary) -> None:
    console = Console()

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    def percent(value: float | None) -> str:
        return "unknown" if value is None else f"{100 * value:.1f} %"

    say(summary.label + (f": {summary.stand_in}, nothing was measured" if summary.stand_in == "simulated" else ""))
    bound = "" if summary.distinct_exact else "at most "
    say(
        f"{summary.blocks} of {bound}{summary.distinct_blocks} distinct blocks in {summary.carriers} networks, "
        f"{summary.device_minutes:.1f} device minutes"
    )
    say(summary.block_sentence)
    if summary.network_mape is not None and summary.network_spearman is not None:
        say(
            f"{summary.networks} whole networks, calibrated with {summary.calibrated_with} others: MAPE "
            f"{percent(summary.network_mape)}, Spearman {summary.network_spearman:.4f}; a repeat differs by "
            f"{percent(summary.repeatability)}"
        )
    for note in summary.notes:
        say(note)
    say(f"wrote {', '.join(summary.files)} in {summary.folder}")
    say(f"next: inas-deploy predict --predictor {Path(summary.folder) / PREDICTOR} --sample 10")
