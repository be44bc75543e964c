"""Claim: one network, four runtimes, one accuracy. The CSNet authors' weights reach their ECSSD figures everywhere.

    python benchmarks/ecssd_accuracy.py            # both networks, 1,000 images
    python benchmarks/ecssd_accuracy.py --quick    # one network, 20 images: equality of the runtimes only

The channel lists come from the checkpoints' tensor shapes. Images are resized to 224x224 without anti-aliasing and
normalised with the ImageNet mean and deviation; the map is resized back to the mask's size and rounded to
8 bits. An image without a prediction at a threshold has precision 0.
Needs the data sets and weights in $INAS_DATA, and the extras openvino and tflite-export. Nothing here is timed.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from search.export_torch import export_onnx, export_tflite
from search.spaces.csnet.network import fold_csnet
from search.spaces.csnet.weights import load_checkpoint
from targets.errors import KitError, UsageError
from targets.extras import require
from targets.runtimes import openvino as openvino_runtime
from training.metrics.csnet import SaliencyMetric, SaliencyScore, quantise

SIZE = (224, 224)
MEAN = np.array([0.485, 0.456, 0.406])
DEVIATION = np.array([0.229, 0.224, 0.225])
EXPECTED = {"csnet-L-x1": (0.8925, 0.0776), "csnet-L-x2": (0.9104, 0.0685)}
"""Maximum F and MAE of the published weights on the reduced ECSSD at 224x224, by checkpoint."""
F_MARGIN, MAE_MARGIN, EQUAL_MARGIN = 0.003, 0.001, 0.001
QUICK_IMAGES = 20

FloatArray = NDArray[np.float32]
Predict = Callable[[FloatArray], FloatArray]


def data_root() -> Path:
    """Folder of the data sets: $INAS_DATA, or ``shared/data`` beside the checkout."""
    return Path(os.environ.get("INAS_DATA", Path(__file__).parents[1].parent / "shared" / "data"))


def ecssd_pairs(root: Path, limit: int | None = None) -> list[tuple[Path, Path]]:
    """Image and mask files of ECSSD in the order of its list.

    Args:
        root: Data folder.
        limit: Take this many, spread evenly; ``None`` for all.

    Raises:
        UsageError: If the list is not there.
    """
    listing = root / "ECSSD.lst"
    if not listing.is_file():
        raise UsageError(f"there is no {listing}", "Set INAS_DATA to the folder that holds the data sets.")
    lines = [line.split() for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    pairs = [(root / image, root / mask) for image, mask in lines]
    return pairs if limit is None or limit >= len(pairs) else pairs[:: len(pairs) // limit][:limit]


def resize(image: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Bilinear resize of (H, W) or (H, W, C): half-pixel centres, mirrored edges, no anti-aliasing."""
    rows, columns = _weights(image.shape[0], size[0]), _weights(image.shape[1], size[1])
    tall: NDArray[np.float64] = np.tensordot(rows, image, axes=(1, 0))
    return np.moveaxis(np.tensordot(columns, tall, axes=(1, 1)), 0, 1)


@functools.lru_cache(maxsize=512)
def _weights(before: int, after: int) -> NDArray[np.float64]:
    """Interpolation matrix (after, before) of one axis."""
    position = np.abs((np.arange(after) + 0.5) * before / after - 0.5)
    position = np.where(position > before - 1, 2 * (before - 1) - position, position)
    low = np.clip(np.floor(position).astype(int), 0, before - 1)
    high = np.minimum(low + 1, before - 1)
    matrix = np.zeros((after, before))
    np.add.at(matrix, (np.arange(after), low), 1 - (position - low))
    np.add.at(matrix, (np.arange(after), high), position - low)
    return matrix


def prepared(image_path: Path) -> FloatArray:
    """An image file as the network's input (1, 3, 224, 224)."""
    with Image.open(image_path) as file:
        pixels = np.asarray(file.convert("RGB"), dtype=np.float64) / 255
    image = (resize(pixels, SIZE) - MEAN) / DEVIATION
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)


def predictors(checkpoint: Path, folder: Path) -> dict[str, Predict]:
    """The network of a checkpoint, exported where needed, in torch and three runtimes (one thread, float32).

    Args:
        checkpoint: The authors' file.
        folder: Where the exports are written.

    Returns:
        Functions from (1, 3, 224, 224) to a saliency map (224, 224), by runtime name.

    Raises:
        KitError: If the checkpoint, an export or an extra is not as it should be.
    """
    torch = require("torch", "torch")
    openvino = openvino_runtime.module()
    interpreters = require("ai_edge_litert.interpreter", "tflite")
    torch.set_num_threads(1)
    trained = load_checkpoint(checkpoint)
    folded = fold_csnet(trained)
    onnx_path = export_onnx(folded, folder / f"{checkpoint.name}.onnx", (1, 3, *SIZE))
    tflite_path = export_tflite(folded, folder / f"{checkpoint.name}.tflite", (1, 3, *SIZE))

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(onnx_path), options, providers=["CPUExecutionProvider"])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(onnx_path), "CPU", settings)
    interpreter = interpreters.Interpreter(model_path=str(tflite_path), num_threads=1)
    interpreter.allocate_tensors()
    feed, fetch = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def with_torch(image: FloatArray) -> FloatArray:
        with torch.inference_mode():
            found: FloatArray = torch.sigmoid(trained(torch.from_numpy(image)))[0, 0].numpy()
        return found

    def with_ort(image: FloatArray) -> FloatArray:
        found: FloatArray = session.run(None, {"image": image})[0][0, 0]
        return found

    def with_openvino(image: FloatArray) -> FloatArray:
        found: FloatArray = compiled(image)[0][0, 0]
        return found

    def with_tflite(image: FloatArray) -> FloatArray:
        interpreter.set_tensor(feed, np.ascontiguousarray(image.transpose(0, 2, 3, 1)))
        interpreter.invoke()
        found: FloatArray = interpreter.get_tensor(fetch)[0, :, :, 0]
        return found

    return {"torch": with_torch, "onnxruntime": with_ort, "openvino": with_openvino, "tflite": with_tflite}


def evaluate(
    runtimes: dict[str, Predict], pairs: list[tuple[Path, Path]], tick: Callable[[], None] = lambda: None
) -> tuple[dict[str, SaliencyScore], dict[str, float]]:
    """Score every runtime on the same images.

    Args:
        runtimes: Predictors by name; the first is the reference.
        pairs: Image and mask files.
        tick: Called after each image.

    Returns:
        Scores by runtime, and the largest difference of any map's pixel to the reference.
    """
    metrics = {name: SaliencyMetric() for name in runtimes}
    worst = dict.fromkeys(runtimes, 0.0)
    for image_path, mask_path in pairs:
        image = prepared(image_path)
        with Image.open(mask_path) as file:
            mask = np.asarray(file.convert("L"), dtype=np.uint8)
        reference: FloatArray | None = None
        for name, predict in runtimes.items():
            found = predict(image)
            reference = found if reference is None else reference
            worst[name] = max(worst[name], float(np.abs(found - reference).max()))
            metrics[name].update(quantise(resize(found.astype(np.float64), mask.shape)), mask)
        tick()
    return {name: metric.score() for name, metric in metrics.items()}, worst


def problems(checkpoint: str, scores: dict[str, SaliencyScore], *, absolute: bool) -> Iterator[str]:
    """What a set of scores fails, one phrase each.

    Args:
        checkpoint: Key of ``EXPECTED``.
        scores: By runtime.
        absolute: Whether to hold the scores to the expected figures and not only to each other.
    """
    spread = max(s.max_f for s in scores.values()) - min(s.max_f for s in scores.values())
    if spread > EQUAL_MARGIN:
        yield f"{checkpoint}: maximum F differs by {spread:.4f} between runtimes"
    if not absolute:
        return
    want_f, want_mae = EXPECTED[checkpoint]
    for name, score in scores.items():
        if abs(score.max_f - want_f) > F_MARGIN or abs(score.mae - want_mae) > MAE_MARGIN:
            yield f"{checkpoint} in {name}: {score.max_f:.4f} / {score.mae:.4f}, not {want_f} / {want_mae}"


def run(*, quick: bool, console: Console) -> list[str]:
    """Evaluate, print the table and return what failed."""
    root = data_root()
    pairs = ecssd_pairs(root, QUICK_IMAGES if quick else None)
    failed: list[str] = []
    table = Table(title=f"ECSSD, {len(pairs)} images, {SIZE[0]}x{SIZE[1]}, float32, 1 thread")
    for column in ("weights", "parameters", "runtime", "max F", "MAE", "largest map difference"):
        table.add_column(column, justify="left" if column in ("weights", "runtime") else "right")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with tempfile.TemporaryDirectory() as folder, Progress(*columns, console=console) as progress:
        for checkpoint in list(EXPECTED)[: 1 if quick else None]:
            task = progress.add_task(f"{checkpoint}: exporting", total=len(pairs))
            path = root / "weights" / "csnet" / f"{checkpoint}.pth.tar"
            runtimes = predictors(path, Path(folder))
            progress.update(task, description=f"{checkpoint}: scoring")
            scores, worst = evaluate(runtimes, pairs, functools.partial(progress.advance, task))
            failed += problems(checkpoint, scores, absolute=not quick)
            parameters = sum(p.numel() for p in load_checkpoint(path).parameters())
            for name, score in scores.items():
                row = (f"{score.max_f:.4f}", f"{score.mae:.4f}", f"{worst[name]:.1e}")
                table.add_row(checkpoint, f"{parameters:,}", name, *row)
    console.print(table)
    return failed


def main() -> int:
    """Run the benchmark; 0 where the claim holds, 1 where it fails, 2 where it cannot be run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one network, 20 images, equality only; within a minute")
    arguments = parser.parse_args()
    console = Console()
    try:
        failed = run(quick=arguments.quick, console=console)
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    claim = "four runtimes agree within 0.001 max F" + ("" if arguments.quick else " and match the expected figures")
    print(f"FAIL: {'; '.join(failed)}" if failed else f"PASS: {claim}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
