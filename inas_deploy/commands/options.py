"""Options that several commands share, and how their words become variants."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from inas_deploy.models import ModelSource, artifact_for, resolve_model
from search.onnx_exporters import OPSET
from targets.drivers.registry import HERE, precisions_of
from targets.errors import UsageError
from targets.extras import require
from targets.files import check_writable
from targets.inventory import LOCAL, Device
from targets.onnx_files import parse_shape_option
from targets.plan import make_variant
from targets.records import Precision, RunSettings, Variant
from targets.runtimes.registry import get_runtime
from targets.tensorrt.versions import known_version, newest_opset

DEFAULT_MODEL = "csnet-x1"
DEFAULT_RUNTIME = "onnxruntime"

Models = Annotated[
    list[str] | None,
    typer.Option(
        help="Network name (csnet-x1, inas:smallest, bisenetv2, rival:u2net, ...), .onnx or .tflite file, "
        "or .json file with an architecture. Repeatable."
    ),
]
Threads = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Intra-op threads. 1, the default, repeats best on a shared host.")
]
Seconds = Annotated[float, typer.Option(min=0.05, max=3600, help="Timed part of each session, in seconds.")]
Margin = Annotated[float, typer.Option(min=0.1, max=100, help="Percent of difference that does not matter to you.")]
Store = Annotated[str, typer.Option(help="Result store: a file name, or an SQLAlchemy URL.")]
Report = Annotated[Path | None, typer.Option(help="Write one self-contained HTML file.")]
Markdown = Annotated[Path | None, typer.Option(help="Write Markdown tables for a pull request.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output and nothing else.")]
Resume = Annotated[bool, typer.Option(help="Go on with the newest unfinished run of exactly this request.")]
Shape = Annotated[
    list[str] | None,
    typer.Option(
        help="Static shape for a dynamic input: [bold]input=1x3x224x224[/bold]. Repeatable. "
        "Named networks are made for [bold]image=1x3x224x224[/bold] unless this says another size."
    ),
]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to stand in line for a device that somebody else uses.")]
Inventory = Annotated[
    Path | None, typer.Option("--devices", help="Inventory file; ./devices.toml by default, if it is there.")
]


@dataclass(frozen=True)
class Choice:
    """One model on one runtime, as asked for.

    Attributes:
        source: The model.
        runtime: Runtime name.
        precision: Numeric type.
        threads: Intra-op threads.
        sustained: One long session whose heat counts, instead of several short ones.
    """

    source: ModelSource
    runtime: str
    precision: Precision
    threads: int
    sustained: bool = False


def waiting(text: str) -> AbstractContextManager[object]:
    """Show on a terminal that something without countable steps is going on."""
    return Console(stderr=True).status(escape(text))


def load_model(text: str, shapes: Sequence[str] | None, device: Device = LOCAL) -> ModelSource:
    """Find a model by name or file, with the shapes given on the command line; exports it where needed.

    Args:
        text: Network name or file.
        shapes: ``NAME=1x3x224x224``.
        device: Its opset is exported with.
    """
    wanted = dict(parse_shape_option(shape) for shape in shapes or ()) or None
    with waiting(f"preparing {text} (an export is made once and kept)"):
        return resolve_model(text, shapes=wanted, opset=opset_of(device))


def opset_of(device: Device) -> int | None:
    """ONNX opset to export with for a device, ``None`` for the kit's own.

    It is the inventory's, else what the device's TensorRT reads at most where that is less than what the kit exports.
    """
    if device.opset:
        return device.opset
    if device.runtime != "tensorrt" or device.runtime_version is None:
        return None
    newest = newest_opset(known_version(device.runtime_version))
    return newest if newest < OPSET else None


def variant_of(choice: Choice, device: Device, *, role: str = "") -> Variant:
    """Prepare what the runtime loads and name the variant.

    Raises:
        MissingExtra: If the runtime is not installed.
        UsageError: If it cannot do the precision.
        InvalidModel: If it cannot take the model.
    """
    settings = settings_of(device, choice.runtime, choice.precision, choice.threads, sustained=choice.sustained)
    with waiting(f"preparing {choice.source.name} for {choice.runtime} (an export is made once and kept)"):
        artifact = artifact_for(choice.source, get_runtime(choice.runtime).formats)
    return make_variant(
        choice.source.name,
        artifact,
        settings,
        device=device.name,
        stand_in=device.label,
        model_note=choice.source.note,
        role=role,
    )


def settings_of(
    device: Device, runtime: str, precision: Precision, threads: int, *, sustained: bool = False
) -> RunSettings:
    """Everything that is set on a device.

    Args:
        device: From the inventory.
        runtime: Runtime name.
        precision: Numeric type.
        threads: Intra-op threads.
        sustained: One long session whose heat counts.

    Raises:
        MissingExtra: If the runtime is not installed.
        UsageError: If there is no such runtime, or it cannot do the precision.
    """
    if (device.transport, runtime) in HERE:
        get_runtime(runtime).versions()  # a missing package is said before anything is converted or measured
    precisions = precisions_of(device, runtime)
    if precision not in precisions:
        known = ", ".join(precision.value for precision in precisions)
        raise UsageError(f"{runtime} cannot compute in {precision.value} here", f"Take one of: {known} (--precision).")
    return RunSettings(
        runtime=runtime,
        precision=precision,
        accelerator=device.accelerator or ("gpu" if runtime == "tensorrt" else "cpu"),
        threads=threads,
        pinned_cores=device.pinned_cores,
        mode="sustained" if sustained else "burst",
    )


def check_outputs(html: Path | None, *others: Path | None, keep: Sequence[str | Path | None] = ()) -> None:
    """Say before measuring what would otherwise be said after it.

    Args:
        html: A report to be written, which needs the ``report`` extra.
        others: Other files to be written.
        keep: Files that are read or kept and must not be written over: models, the store, a photograph.

    Raises:
        UsageError: If a place cannot be written, or is named twice.
        MissingExtra: If the extra is not installed.
    """
    taken = {Path(path).resolve(): path for path in keep if path is not None}
    for path in (html, *others):
        if path is None:
            continue
        check_writable(path)
        if path.resolve() in taken:
            raise UsageError(f"{path} would be written over", "Name another file.")
        taken[path.resolve()] = path
    if html is not None:
        require("matplotlib", "report")
        require("jinja2", "report")
