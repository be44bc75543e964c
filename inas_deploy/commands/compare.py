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
    Resume,
    Seconds,
    Shape,
    Store,
    Threads,
    check_outputs,
    load_model,
    variant_of,
)
from inas_deploy.commands.running import opened, run_plan
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
    b: Annotated[str, typer.Argument(help="Candidate, in the same form.")],
    target: Annotated[str, typer.Option(help="Device name from the inventory.")] = "local",
    threads: Threads = None,
    pairs: Annotated[int, typer.Option(min=comparing.MIN_PAIRS, max=500, help="Alternating pairs of sessions.")] = 10,
    seconds: Seconds = 0.5,
    margin: Annotated[
        float, typer.Option(min=0.1, max=100, help="Percent of difference that does not matter to you.")
    ] = comparing.MARGIN * 100,
    unlike: Annotated[bool, typer.Option("--unlike", help="Compare although input shapes differ.")] = False,
    shape: Shape = None,
    store: Store = DEFAULT_STORE,
    report: Annotated[Path | None, typer.Option(help="Write one self-contained HTML file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown tables for a pull request.")] = None,
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

    inas-deploy compare rival:u2net-small inas:biggest

    inas-deploy compare net.onnx@openvino:fp32 net.onnx@openvino:bf16 --json
    """
    check_outputs(report, markdown, keep=[store, inventory, a, b])
    devices = load_inventory(inventory).select(target)
    if len(devices) != 1:
        raise UsageError(f"--target {target} names {len(devices)} devices", "Name one device.")
    with opened(devices) as targets:
        variants = [_variant(role, text, devices[0], threads, shape) for role, text in (("A", a), ("B", b))]
        meant = ["runtime", "precision"] if "@" in a + b else []
        comparing.refuse_unlike(*variants, meant=[*meant, *(["input shape"] if unlike else [])])
        figures = {"sessions": pairs, "seconds": seconds, "margin": margin / 100}
        plan = BenchPlan(kind="compare", variants=tuple(variants), per_op=False, **figures)
        run = run_plan(plan, targets, store, resume=resume, quiet=as_json)
    result = comparing.compare(*run.measurements, margin=plan.margin)
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
    raise typer.Exit(1 if result.answer == "slower" else 0)


def _variant(role: str, text: str, device: Device, threads: int | None, shapes: Sequence[str] | None) -> Variant:
    model, runtime, precision = split_spec(text)
    choice = Choice(
        load_model(model, shapes, device),
        runtime or device.runtime or DEFAULT_RUNTIME,
        precision or device.precision or Precision.FP32,
        threads or device.threads or 1,
    )
    return variant_of(choice, device, role=role)


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
