"""Options of ``inas-deploy bench`` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inas_deploy.gate import SESSIONS
from targets.records import Precision

DEFAULT_SESSIONS = 5

Targets = Annotated[list[str] | None, typer.Option(help="Device name or tag from the inventory. Repeatable.")]
Runtimes = Annotated[list[str] | None, typer.Option(help="onnxruntime, openvino, tensorrt or tflite. Repeatable.")]
Precisions = Annotated[Precision | None, typer.Option(help="Numeric type to compute in.")]
Sessions = Annotated[
    int | None,
    typer.Option(
        min=1, max=10_000, help=f"Fresh processes a variant; {DEFAULT_SESSIONS}, or {SESSIONS} with --baseline."
    ),
]
PerOp = Annotated[bool, typer.Option("--per-op/--no-per-op", help="Also find out where the time goes.")]
Image = Annotated[Path | None, typer.Option(help="Photograph to run the model on.")]
ImageOut = Annotated[Path | None, typer.Option(help="Side-by-side PNG of --image.")]
Baseline = Annotated[
    Path | None, typer.Option(help="Result to hold this one against; exit code 1 if a model is shown to be slower.")
]
SaveBaseline = Annotated[
    Path | None, typer.Option(help="Write the result for a later --baseline, the models beside it.")
]
Sustained = Annotated[
    float | None,
    typer.Option(min=0.01, max=60, help="Minutes of one long session whose heat counts, instead of short ones."),
]
Record = Annotated[Path | None, typer.Option(help="Also record what is said to the device, for a replay.")]
