"""``inas-deploy compare A B``: alternating sessions, one of three answers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from inas_deploy.commands.options import (
    DEFAULT_RUNTIME,
    Choice,
    Inventory,
    Json,
    Margin,
    Markdown,
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
from inas_deploy.commands.running import opened, run_plan
from inas_deploy.gate import again_of, load_baseline, match_one
from inas_deploy.report.html import write_html
from inas_deploy.report.markdown import to_markdown
from inas_deploy.report.terminal import bench_table, comparison_panel
from targets import compare as comparing
from targets.errors import UsageError
from targets.files import write_atomic
from targets.inventory import Device, load_inventory
from targets.plan import BenchPlan
from targets.records import BenchRun, Comparison, Frozen, Precision, Variant
from targets.store import DEFAULT_STORE


class CompareResult(Frozen):
    """What ``compare --json`` prints: the answer and the run behind it."""

    comparison: Comparison
    run: BenchRun


def compare(
    a: Annotated[str, typer.Argument(help="Baseline: MODEL, MODEL@RUNTIME or MODEL@RUNTIME:PRECISION.")],
    b: Annotated[str | None, typer.Argument(help="Candidate, in the same form. The only one with --baseline.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="A is the model of this result (bench --save-baseline); give B alone.")
    ] = None,
    target: Annotated[str, typer.Option(help="Device name from the inventory.")] = "local",
    threads: Threads = None,
    pairs: Annotated[int, typer.Option(min=comparing.MIN_PAIRS, max=500, help="Alternating pairs of sessions.")] = 10,
    seconds: Seconds = 0.5,
    margin: Margin = comparing.MARGIN * 100,
    unlike: Annotated[bool, typer.Option("--unlike", help="Compare although input shapes differ.")] = False,
    shape: Shape = None,
    wait: Wait = 0.0,
    store: Store = DEFAULT_STORE,
    report: Report = None,
    markdown: Markdown = None,
    as_json: Json = False,
    resume: Resume = False,
    inventory: Inventory = None,
) -> None:
    """Is B slower than A? Exit code 1 if it is.

    The two are measured in alternating sessions and judged by a paired permutation test. The
    answer is slower or faster (shown, and beyond the margin) with its effect and interval, the
    same within the margin, or "cannot tell" with the number of sessions that would settle it.

    [bold]Examples[/bold]

    inas-deploy compare old.onnx new.onnx

    inas-deploy compare csnet-x1@onnxruntime csnet-x1@openvino --margin 5

    inas-deploy compare net.onnx@openvino:fp32 net.onnx@openvino:bf16 --json

    inas-deploy compare new.onnx --baseline baseline.json
    """
    if (b is None) == (baseline is None):
        raise UsageError("what to compare is not clear", "Give two models, or one and --baseline FILE.")
    check_outputs(report, markdown, keep=[store, inventory, baseline, a, b])
    devices = load_inventory(inventory).select(target)
    if len(devices) != 1:
        raise UsageError(f"--target {target} names {len(devices)} devices", "Name one device.")
    with opened(devices, store, wait_s=wait) as targets:
        texts = {"B": a} if b is None else {"A": a, "B": b}
        variants = [variant_from_spec(role, text, devices[0], threads, shape) for role, text in texts.items()]
        if baseline is not None:
            variants.insert(0, _of_baseline(baseline, variants[0]))
        meant = ["runtime", "precision"] if any("@" in text for text in texts.values()) else []
        comparing.refuse_unlike(*variants, meant=[*meant, *(["input shape"] if unlike else [])])
        figures = {"sessions": pairs, "seconds": seconds, "margin": margin / 100}
        plan = BenchPlan(kind="compare", variants=tuple(variants), per_op=False, **figures)
        run = run_plan(plan, targets, store, resume=resume, quiet=as_json)
    result = comparing.compare(*run.measurements, margin=plan.margin)
    _tell(run, result, report, markdown, as_json)
    raise typer.Exit(1 if result.answer == "slower" else 0)


def _tell(run: BenchRun, result: Comparison, report: Path | None, markdown: Path | None, as_json: bool) -> None:
    if report is not None:
        write_html(run, report, comparisons=[result])
    if markdown is not None:
        write_atomic(markdown, to_markdown(run, comparisons=[result]).encode())
    if as_json:
        sys.stdout.write(CompareResult(comparison=result, run=run).model_dump_json(indent=2) + "\n")
    else:
        console = Console()
        console.print(bench_table(run))
        console.print(comparison_panel(result))


def variant_from_spec(
    role: str, text: str, device: Device, threads: int | None, shapes: Sequence[str] | None
) -> Variant:
    """The variant that ``MODEL[@RUNTIME[:PRECISION]]`` names on a device.

    Args:
        role: ``A`` or ``B`` in a comparison, else empty.
        text: As on the command line.
        device: Where it will run.
        threads: Intra-op threads; the device's own, or 1, where absent.
        shapes: Static input shapes, as on the command line.

    Raises:
        KitError: If there is no such model, or the runtime does not take it.
    """
    model, runtime, precision = split_spec(text)
    choice = Choice(
        load_model(model, shapes, device),
        runtime or device.runtime or DEFAULT_RUNTIME,
        precision or device.precision or Precision.FP32,
        threads or device.threads or 1,
    )
    return variant_of(choice, device, role=role)


def _of_baseline(path: Path, new: Variant) -> Variant:
    """The baseline's model, with the settings of the new one."""
    baseline = load_baseline(path)
    found = again_of(baseline, match_one(baseline, new), new, role="A")
    if found is None:
        raise UsageError(
            f"the model behind {path} is not to be had",
            "Keep it with bench --save-baseline, or hold its figures against a new run with: bench --baseline",
        )
    return found


def split_spec(text: str) -> tuple[str, str | None, Precision | None]:
    """Split ``MODEL[@RUNTIME[:PRECISION]]``.

    Raises:
        UsageError: If the part behind ``@`` is empty or the precision is unknown.
    """
    model, at, rest = text.rpartition("@")
    if not at or "/" in rest:
        return text, None, None
    runtime, colon, word = rest.partition(":")
    if not model or not runtime or (colon and not word):
        raise UsageError(f"{text!r} is not MODEL@RUNTIME:PRECISION", "For example: csnet-x1@openvino:fp32")
    if not word:
        return model, runtime, None
    if word not in set(Precision):
        raise UsageError(f"unknown precision {word!r} in {text!r}", f"Take one of: {', '.join(Precision)}.")
    return model, runtime, Precision(word)
