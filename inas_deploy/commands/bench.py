"""``inas-deploy bench``: how fast a model is here, where the time goes, how far to trust it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

from inas_deploy.commands.bench_options import (
    DEFAULT_SESSIONS,
    Baseline,
    Image,
    ImageOut,
    PerOp,
    Precisions,
    Record,
    Runtimes,
    SaveBaseline,
    Sessions,
    Sustained,
    Targets,
)
from inas_deploy.commands.choosing import choose
from inas_deploy.commands.options import (
    DEFAULT_MODEL,
    DEFAULT_RUNTIME,
    Choice,
    Inventory,
    Json,
    Margin,
    Markdown,
    Models,
    Report,
    Resume,
    Seconds,
    Shape,
    Store,
    Threads,
    Wait,
    check_outputs,
    load_model,
    variant_of,
)
from inas_deploy.commands.pictures import check_pictures, draw_pictures
from inas_deploy.commands.running import opened, run_plan
from inas_deploy.gate import open_gate, write_baseline
from inas_deploy.report.html import ReportImage, write_html
from inas_deploy.report.markdown import to_markdown
from inas_deploy.report.terminal import bench_table, gate_panel, profile_view
from inas_deploy.saliency import SaliencyResult
from targets.against_baseline import GateResult
from targets.compare import MARGIN
from targets.errors import MissingProfile, UsageError
from targets.files import write_atomic
from targets.inventory import Device, load_inventory
from targets.opening import Target
from targets.plan import BenchPlan
from targets.records import BenchRun, Frozen, Precision, Variant
from targets.store import DEFAULT_STORE


class GatedRun(Frozen):
    """What ``bench --baseline --json`` prints: the gate's answers and the run behind them."""

    gate: GateResult
    run: BenchRun


def bench(
    model: Models = None,
    target: Targets = None,
    runtime: Runtimes = None,
    precision: Precisions = None,
    threads: Threads = None,
    sessions: Sessions = None,
    seconds: Seconds = 1.0,
    per_op: PerOp = True,
    shape: Shape = None,
    image: Image = None,
    image_out: ImageOut = None,
    baseline: Baseline = None,
    margin: Margin = MARGIN * 100,
    save_baseline: SaveBaseline = None,
    sustained: Sustained = None,
    wait: Wait = 0.0,
    record: Record = None,
    store: Store = DEFAULT_STORE,
    report: Report = None,
    markdown: Markdown = None,
    as_json: Json = False,
    resume: Resume = False,
    inventory: Inventory = None,
) -> None:
    """Measure models on devices, end to end and per op.

    [bold]Examples[/bold]

    inas-deploy bench --model net.onnx --runtime openvino --runtime onnxruntime

    inas-deploy bench --model net.onnx --shape input=1x3x224x224 --report out.html

    inas-deploy bench --model inas:smallest --model rival:u2net-small --runtime onnxruntime --runtime tflite

    inas-deploy bench --target android --json > result.json

    inas-deploy bench --model net.onnx --baseline old.json --save-baseline new.json --markdown gate.md

    inas-deploy bench --image photo.jpg
    """
    if image_out is not None and image is None:
        raise UsageError("--image-out is given without --image", "Add --image PHOTO.")
    files = _Files(report, markdown, save_baseline, as_json)
    check_outputs(*files.written, keep=[store, image, inventory, baseline, *(model or [])])
    chosen = choose(load_inventory(inventory), target or ["local"])
    with opened(chosen.devices, store, wait_s=wait, optional=chosen.optional, record=record) as targets:
        devices = [opened_one.device for opened_one in targets.values()]
        variants = _variants(model, devices, _How(runtime, precision, threads, sustained is not None), shape)
        gate = open_gate(baseline, variants, margin / 100) if baseline is not None else None
        measured = (*variants, *(gate.extra if gate else ()))
        if sustained is not None:
            sessions, seconds = sessions or 1, sustained * 60
        times = gate.sessions(sessions, DEFAULT_SESSIONS) if gate else sessions or DEFAULT_SESSIONS
        plan = BenchPlan(variants=measured, sessions=times, seconds=seconds, per_op=per_op)
        # Before the measuring: what the model cannot draw is said at once.
        pictures = _pictures(image, image_out, [store, *files.written], variants, targets)
        run = run_plan(plan, targets, store, resume=resume, quiet=as_json)
    _tell(run, gate.judge(run) if gate else None, files, pictures, store)


@dataclass(frozen=True)
class _Files:
    """Where the result goes, beside the store."""

    report: Path | None
    markdown: Path | None
    baseline: Path | None
    as_json: bool

    @property
    def written(self) -> tuple[Path | None, ...]:
        return self.report, self.markdown, self.baseline


def _tell(
    run: BenchRun, result: GateResult | None, files: _Files, pictures: Sequence[SaliencyResult], store: str
) -> None:
    if files.report is not None:
        images = [ReportImage(path=Path(p.output), caption=p.sentence) for p in pictures]
        paired = [one.comparison for one in (result.judged if result else ()) if one.comparison]
        write_html(run, files.report, comparisons=paired, images=images)
    if files.markdown is not None:
        write_atomic(files.markdown, to_markdown(run, gate=result).encode())
    if files.baseline is not None:
        write_baseline(files.baseline, run)
    if files.as_json:
        document = GatedRun(gate=result, run=run) if result else run
        sys.stdout.write(document.model_dump_json(indent=2) + "\n")
    else:
        _show(run, result, [p.sentence for p in pictures], [path for path in files.written if path], store)
    if result is not None and result.regressed:
        raise typer.Exit(1)
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


@dataclass(frozen=True)
class _How:
    """What the command line says of the running; what it leaves out is the device's to say."""

    runtimes: Sequence[str] | None
    precision: Precision | None
    threads: int | None
    sustained: bool


def _variants(
    models: Sequence[str] | None, devices: Sequence[Device], how: _How, shapes: Sequence[str] | None
) -> list[Variant]:
    variants = [
        variant_of(
            Choice(
                source,
                name,
                how.precision or device.precision or Precision.FP32,
                how.threads or device.threads or 1,
                how.sustained,
            ),
            device,
        )
        for device in devices
        for source in [load_model(text, shapes, device) for text in dict.fromkeys(models or [DEFAULT_MODEL])]
        for name in dict.fromkeys(how.runtimes or [device.runtime or DEFAULT_RUNTIME])
    ]
    return list({variant.key: variant for variant in variants}.values())


def _show(run: BenchRun, result: GateResult | None, pictures: Sequence[str], files: Sequence[Path], store: str) -> None:
    console = Console()
    console.print(bench_table(run))
    if result is not None:
        console.print(gate_panel(result))
    for measurement in run.measurements:
        console.print(profile_view(measurement))
    for line in (*pictures, *(f"wrote {path}" for path in files)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"run {run.run_id} is kept in {store}", markup=False, highlight=False, soft_wrap=True)
