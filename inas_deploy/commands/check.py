"""``inas-deploy check``: whether TensorRT takes a model, and which node stands in the way, without a GPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from inas_deploy.commands.options import DEFAULT_MODEL, Json, Models, Shape, load_model
from inas_deploy.report.text import clean
from targets.errors import UsageError
from targets.records import Precision
from targets.tensorrt.check import CheckResult, check_model

EXIT_DOES_NOT_BUILD = 1
_SHOWN = 4


def check(
    model: Models = None,
    compute_capability: Annotated[
        str, typer.Option(help="GPU to build for: sm75, sm80, sm86, sm89, sm120 or sm121; also written 8.6.")
    ] = "sm86",
    precision: Annotated[
        Precision | None, typer.Option(help="Numeric type the file must have; by default whatever it has.")
    ] = None,
    shape: Shape = None,
    as_json: Json = False,
) -> None:
    """Parse and build models with TensorRT-RTX, without a GPU; name the nodes that it cannot take.

    A model that builds here has a kernel for every node, for that GPU, in that TensorRT-RTX version. Nothing is said
    of its latency, nor of other TensorRT versions. Exit code 1 if a model does not build.

    [bold]Examples[/bold]

    inas-deploy check

    inas-deploy check --model net.onnx --model inas:smallest --compute-capability sm80

    inas-deploy check --model bisenetv2 --shape image=1x3x512x1024 --json
    """
    names = list(dict.fromkeys(model or [DEFAULT_MODEL]))
    results = _checked(names, shape, compute_capability, precision)
    if as_json:
        plain = [{"name": name, **result.model_dump(mode="json")} for name, result in zip(names, results, strict=True)]
        sys.stdout.write(json.dumps(plain, indent=2) + "\n")
    else:
        _show(names, results)
    if not all(result.builds for result in results):
        raise typer.Exit(EXIT_DOES_NOT_BUILD)


def _checked(
    names: Sequence[str], shape: Sequence[str] | None, capability: str, precision: Precision | None
) -> list[CheckResult]:
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    results = []
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("checking", total=len(names))
        for name in names:
            bar.update(task, description=escape(f"checking {clean(name)}"))
            results.append(check_model(_onnx_of(name, shape), compute_capability=capability, precision=precision))
            bar.advance(task)
    return results


def _onnx_of(name: str, shape: Sequence[str] | None) -> Path:
    if name.strip().lower().endswith(".tflite"):
        raise UsageError(f"{name} is a .tflite file, and TensorRT reads ONNX", "Name an ONNX file or a network.")
    return load_model(name, shape).path


def _show(names: Sequence[str], results: Sequence[CheckResult]) -> None:
    table = Table("model", "precision", "parses", "builds", "what stands in the way", title=_title(results))
    for name, result in zip(names, results, strict=True):
        marks = ("yes" if done else "no" for done in (result.parses, result.builds))
        table.add_row(Text(clean(name)), result.precision.value, *marks, Text(_in_the_way(result)))
    console = Console()
    console.print(table)
    for note in dict.fromkeys(note for result in results for note in result.notes):
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    good = sum(result.builds for result in results)
    console.print(f"{good} of {len(results)} models build", highlight=False)


def _title(results: Sequence[CheckResult]) -> str:
    versions = sorted({version for result in results for version in result.versions.values()})
    return f"TensorRT-RTX {', '.join(versions) or '(version unknown)'}, {results[0].compute_capability}"


def _in_the_way(result: CheckResult) -> str:
    lines = []
    for node in result.failing[:_SHOWN]:
        place = f" in {node.module}" if node.module else ""
        lines.append(f"{node.name} ({node.op_type or 'unknown operator'}{place}): {node.reason}")
    if len(result.failing) > _SHOWN:
        lines.append(f"and {len(result.failing) - _SHOWN} more nodes")
    if result.problem in ("crash", "timeout", "memory") or (result.problem and not lines):
        lines.append(f"{result.problem}: {result.message or 'no reason was given'}")
    return "\n".join(lines)
