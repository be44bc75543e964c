"""``inas-deploy predict``: latencies of architectures from a fitted predictor, without a device."""

from __future__ import annotations

import csv
import io
import json
import random
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inas_deploy.commands.options import Inventory, Json, Store, Wait, waiting
from inas_deploy.latency_check import check_on_device
from inas_deploy.report.text import clean
from inas_deploy.shipped_predictor import REFERENCE_CPU, predictor_path
from search.latency.model import Prediction
from search.latency.predictor import LatencyPredictor, StaleWarning
from search.latency.staleness import Staleness
from search.latency.table import BlockKey
from search.spaces.arch import Arch
from search.spaces.registry import arch_of_file, find_arch, find_space
from targets.errors import UsageError
from targets.extras import require
from targets.files import check_writable, write_atomic
from targets.store import DEFAULT_STORE

EXIT_STALE = 1
_MOST_SHOWN = 40

_Predictor = Annotated[
    str,
    typer.Option(
        help="File that inas-deploy profile wrote, predictor.safetensors; by default that of a virtual reference CPU."
    ),
]
_Archs = Annotated[
    list[str] | None,
    typer.Option("--arch", help="Network name (inas:smallest, rtseg:random-3) or .json file. Repeatable."),
]
_Sample = Annotated[int, typer.Option(min=0, max=1_000_000, help="Also this many networks drawn from the space.")]
_Seed = Annotated[int, typer.Option(min=0, help="Seed of the draw.")]
_Csv = Annotated[Path | None, typer.Option("--csv", help="Write a CSV file, a network a line with its architecture.")]
_Check = Annotated[
    int,
    typer.Option(min=0, max=1000, help="Time this many networks on the device now; say whether the predictor holds."),
]
_Target = Annotated[str, typer.Option(help="Device to check on: a name from the inventory.")]


class Named(NamedTuple):
    """A network to predict.

    Attributes:
        name: What to call it.
        arch: The architecture.
    """

    name: str
    arch: Arch


def predict(
    predictor: _Predictor = REFERENCE_CPU,
    arch: _Archs = None,
    sample: _Sample = 0,
    seed: _Seed = 0,
    out: _Csv = None,
    check: _Check = 0,
    target: _Target = "local",
    wait: Wait = 0.0,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    inventory: Inventory = None,
) -> None:
    """Predict the latency of networks, with the interval that is meant to hold what a measurement would give.

    Nothing is exported or run. Networks of other spaces, and those with blocks unlike any that was measured, are
    refused; of those drawn with --sample they are left out and counted. With --check, networks are timed on the device;
    if they contradict the predictor it is marked stale in its file, it says so on every use, and the exit code is 1.

    [bold]Examples[/bold]

    inas-deploy predict --arch inas:smallest --sample 5

    inas-deploy predict --predictor run/predictor.safetensors --arch inas:smallest --arch mine.json

    inas-deploy predict --predictor run/predictor.safetensors --sample 1000 --csv sampled.csv

    inas-deploy predict --predictor run/predictor.safetensors --check 5 --target nova6
    """
    require("safetensors", "predictor")
    check_writable(out)
    path = predictor_path(predictor)
    model = LatencyPredictor.load(path)
    networks = _named(arch or [])
    drawn, left_out = _drawn(model, sample, seed)
    networks += drawn
    if not networks and not check:
        _refuse_none(model, left_out)
    verdict = _check(model, path, check, seed, (target, inventory, store, wait)) if check else None
    if verdict is not None:
        model = LatencyPredictor.load(path)
    with warnings.catch_warnings(), waiting(f"predicting {len(networks)} networks"):
        warnings.simplefilter("ignore", StaleWarning)  # said below
        found = model.predict([network.arch for network in networks])
    if out is not None:
        write_atomic(out, _csv(networks, found).encode())
    if as_json:
        plain = {**_plain(model, networks, found, verdict), "left_out": left_out}
        sys.stdout.write(json.dumps(plain, indent=2) + "\n")
    else:
        _show(model, networks, found, verdict, left_out)
    if verdict is not None and verdict.status == "stale":
        raise typer.Exit(EXIT_STALE)


def _named(names: Sequence[str]) -> list[Named]:
    found = []
    for name in names:
        is_file = Path(name).suffix.lower() == ".json"
        found.append(Named(Path(name).name if is_file else name, arch_of_file(name) if is_file else find_arch(name)))
    return found


def _drawn(model: LatencyPredictor, count: int, seed: int) -> tuple[list[Named], int]:
    """Networks drawn from the space, and how many more were drawn that hold blocks the predictor does not know."""
    conditions = model.conditions
    space, rng = find_space(conditions.space, conditions.classes), random.Random(seed)
    unknown: dict[BlockKey, bool] = {}
    found = []
    for number in range(count):
        arch = space.sample(rng)
        blocks = arch.blocks(conditions.input_size)
        for block in blocks:
            if block.key not in unknown:
                unknown[block.key] = bool(model.blocks.refusal(block))
        if not any(unknown[block.key] for block in blocks):
            found.append(Named(f"{space.id} drawn {number}", arch))
    return found, count - len(found)


def _refuse_none(model: LatencyPredictor, left_out: int) -> NoReturn:
    if not left_out:
        raise UsageError("no network was named", "Name some with --arch, or draw some with --sample.")
    raise UsageError(
        f"all {left_out} networks drawn hold blocks that the predictor for {model.conditions.label} does not know",
        "Measure longer (inas-deploy profile --resume --minutes ...), or draw more of them.",
    )


def _check(
    model: LatencyPredictor, path: Path, count: int, seed: int, where: tuple[str, Path | None, str, float]
) -> Staleness:
    """Time networks on the device, and write into the file whether the predictor holds."""
    check_writable(path)
    verdict = check_on_device(model, count, seed, *where)
    stale = {"stale": verdict.sentence, "fresh": "", "cannot tell": model.network.stale}[verdict.status]
    if stale != model.network.stale:
        model.marked_stale(stale).save(path)
    return verdict


def _plain(
    model: LatencyPredictor, networks: Sequence[Named], found: Prediction, verdict: Staleness | None
) -> dict[str, Any]:
    rows = zip(networks, found.latency_ms, found.low_ms, found.high_ms, strict=True)
    return {
        "conditions": model.conditions.model_dump(mode="json"),
        "coverage": found.coverage,
        "stale": model.network.stale,
        "notes": list(model.network.notes),
        "check": None if verdict is None else asdict(verdict),
        "networks": [
            {
                "name": network.name,
                "latency_ms": float(latency_ms),
                "low_ms": float(low_ms),
                "high_ms": float(high_ms),
                "arch": network.arch.model_dump(mode="json"),
            }
            for network, latency_ms, low_ms, high_ms in rows
        ],
    }


def _csv(networks: Sequence[Named], found: Prediction) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "latency_ms", "low_ms", "high_ms", "coverage", "arch"])
    for network, *figures in zip(networks, found.latency_ms, found.low_ms, found.high_ms, strict=True):
        numbers = [f"{float(figure):.6g}" for figure in figures]
        writer.writerow([network.name, *numbers, found.coverage, network.arch.to_json()])
    return text.getvalue()


def _show(
    model: LatencyPredictor, networks: Sequence[Named], found: Prediction, verdict: Staleness | None, left_out: int
) -> None:
    console = Console()

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    if networks:
        interval = f"{found.coverage:.0%} interval, ms" if found.coverage else "no interval"
        table = Table("network", "latency, ms", interval, title=clean(model.conditions.label))
        for network, latency_ms, low_ms, high_ms in list(
            zip(networks, found.latency_ms, found.low_ms, found.high_ms, strict=True)
        )[:_MOST_SHOWN]:
            ends = f"{low_ms:.3f} to {high_ms:.3f}" if found.coverage else ""
            table.add_row(Text(clean(network.name)), f"{latency_ms:.3f}", ends)
        console.print(table)
        if len(networks) > _MOST_SHOWN:
            say(f"and {len(networks) - _MOST_SHOWN} more: write them all with --csv or --json")
    if not model.conditions.measured:
        say("simulated: nothing here was measured on a device")
    if left_out:
        say(f"{left_out} networks drawn hold blocks that the predictor does not know, and were left out")
    for note in model.network.notes:
        say(note)
    if verdict is not None:
        say(verdict.sentence)
    elif model.network.stale:
        say(model.network.stale)
