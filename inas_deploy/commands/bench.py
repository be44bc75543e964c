"""``inas-deploy bench``: how fast a model is here, where the time goes, how far to trust it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from inas_deploy.commands.options import (
    DEFAULT_MODEL,
    DEFAULT_RUNTIME,
    Choice,
    Inventory,
    Json,
    Models,
    Resume,
    Seconds,
    Shape,
    Store,
    Threads,
    check_outputs,
    load_model,
    variant_of,
)
from inas_deploy.commands.pictures import check_pictures, draw_pictures
from inas_deploy.commands.running import opened, run_plan
from inas_deploy.report.html import ReportImage, write_html
from inas_deploy.report.markdown import to_markdown
from inas_deploy.report.terminal import bench_table, profile_view
from inas_deploy.saliency import SaliencyResult
from targets.errors import MissingProfile, UsageError
from targets.files import write_atomic
from targets.inventory import Device, load_inventory
from targets.opening import Target
from targets.plan import BenchPlan
from targets.records import BenchRun, Precision, Variant
from targets.store import DEFAULT_STORE


def bench(
    model: Models = None,
    target: Annotated[list[str] | None, typer.Option(help="Device name or tag from the inventory. Repeatable.")] = None,
    runtime: Annotated[list[str] | None, typer.Option(help="onnxruntime, openvino or tflite. Repeatable.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Numeric type to compute in.")] = None,
    threads: Threads = None,
    sessions: Annotated[int, typer.Option(min=1, max=10_000, help="Fresh processes a variant.")] = 5,
    seconds: Seconds = 1.0,
    per_op: Annotated[bool, typer.Option("--per-op/--no-per-op", help="Also find out where the time goes.")] = True,
    shape: Shape = None,
    image: Annotated[Path | None, typer.Option(help="Photograph to run the model on.")] = None,
    image_out: Annotated[Path | None, typer.Option(help="Side-by-side PNG of --image.")] = None,
    store: Store = DEFAULT_STORE,
    report: Annotated[Path | None, typer.Option(help="Write one self-contained HTML file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown tables for a pull request.")] = None,
    as_json: Json = False,
    resume: Resume = False,
    inventory: Inventory = None,
) -> None:
    """Measure models on devices, end to end and per op.

    [bold]Examples[/bold]

    inas-deploy bench

    inas-deploy bench --model net.onnx --runtime openvino --runtime onnxruntime

    inas-deploy bench --model net.onnx --shape input=1x3x224x224 --report out.html

    inas-deploy bench --model inas:smallest --model rival:u2net-small --runtime onnxruntime --runtime tflite

    inas-deploy bench --model bisenetv2 --shape image=1x3x512x1024

    inas-deploy bench --target android --json > result.json

    inas-deploy bench --image photo.jpg
    """
    if image_out is not None and image is None:
        raise UsageError("--image-out is given without --image", "Add --image PHOTO.")
    check_outputs(report, markdown, keep=[store, image, inventory, *(model or [])])
    known = load_inventory(inventory)
    devices = list({d.name: d for text in target or ["local"] for d in known.select(text)}.values())
    with opened(devices) as targets:
        variants = _variants(model, devices, runtime, precision, threads, shape)
        plan = BenchPlan(variants=tuple(variants), sessions=sessions, seconds=seconds, per_op=per_op)
        # Before the measuring: what the model cannot draw is said at once.
        pictures = _pictures(image, image_out, [store, report, markdown], variants, targets)
        run = run_plan(plan, targets, store, resume=resume, quiet=as_json)
    if report is not None:
        write_html(run, report, images=[ReportImage(path=Path(p.output), caption=p.sentence) for p in pictures])
    if markdown is not None:
        write_atomic(markdown, to_markdown(run).encode())
    if as_json:
        sys.stdout.write(run.model_dump_json(indent=2) + "\n")
    else:
        _show(run, [p.sentence for p in pictures], [path for path in (report, markdown) if path is not None], store)
    missing = [f"{m.variant.label}: {m.profile_failure}" for m in run.measurements if m.profile_failure]
    if missing:
        raise MissingProfile(f"measured, but without a per-op profile: {'; '.join(missing)}", "Or use --no-per-op.")


def _pictures(
    image: Path | None,
    out: Path | None,
    keep: Sequence[str | Path | None],
    variants: Sequence[Variant],
    targets: Mapping[str, Target],
) -> list[SaliencyResult]:
    if image is None:
        return []
    places = check_pictures(image, out, variants)
    check_outputs(None, *places, keep=[image, *keep, *(variant.artifact.path for variant in variants)])
    return draw_pictures(image, places, variants, targets)


def _variants(
    models: Sequence[str] | None,
    devices: Sequence[Device],
    runtimes: Sequence[str] | None,
    precision: Precision | None,
    threads: int | None,
    shapes: Sequence[str] | None,
) -> list[Variant]:
    variants = [
        variant_of(
            Choice(source, name, precision or device.precision or Precision.FP32, threads or device.threads or 1),
            device,
        )
        for device in devices
        for source in [load_model(text, shapes, device) for text in dict.fromkeys(models or [DEFAULT_MODEL])]
        for name in dict.fromkeys(runtimes or [device.runtime or DEFAULT_RUNTIME])
    ]
    return list({variant.key: variant for variant in variants}.values())


def _show(run: BenchRun, pictures: Sequence[str], files: Sequence[Path], store: str) -> None:
    console = Console()
    console.print(bench_table(run))
    for measurement in run.measurements:
        console.print(profile_view(measurement))
    for line in (*pictures, *(f"wrote {path}" for path in files)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"run {run.run_id} is kept in {store}", markup=False, highlight=False, soft_wrap=True)
