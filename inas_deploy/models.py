"""From what a person names (a network, an .onnx or a .tflite file) to the file a runtime loads.

``csnet-x1`` at 224x224 is shipped as ONNX and needs the base dependencies only. Other networks and sizes are exported
once into a cache folder; that needs the ``torch`` extra, or ``tflite-export`` for TFLite files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inas_deploy.model_cache import cache_folder, make_folder
from inas_deploy.networks import Format, Network, Size, exported, exporter, find_network
from search.spaces.arch import UNTRAINED_NOTE
from targets.errors import UsageError
from targets.onnx_files import OnnxInfo, freeze_shapes, inspect_onnx
from targets.records import Artifact
from targets.tflite_files import tflite_artifact

Shapes = Mapping[str, tuple[int, ...]]
DEFAULT_SIZE = (224, 224)
"""Height and width for every network where none is given: that of the papers' saliency tables."""
SHIPPED_NAME = "csnet-x1"
INPUT_NAME = "image"
_SHAPES_FIXED = "onnx shapes fixed"


@dataclass(frozen=True)
class ModelSource:
    """A model that was found.

    Attributes:
        name: Network name, or the file's name.
        path: The ONNX or TFLite file; ready to load.
        format: Format of ``path``.
        note: What a reader must know about it, for example that its weights are not trained.
        network: What the file was exported from where it is one of the kit's own networks, else ``None``.
        input_size: Height and width of one of the kit's own networks, else ``None``.
        source_sha256: Hash of the file given, weights in files beside it included, where ``path`` is a copy of it
            with fixed shapes, else ``None``.
        shapes: Static input shapes asked for on a file, else ``None``.
        cache_dir: Where conversions are kept.
    """

    name: str
    path: Path
    format: Format
    note: str = ""
    network: Network | None = None
    input_size: Size | None = None
    source_sha256: str | None = None
    shapes: Shapes | None = None
    cache_dir: Path | None = None


def shipped_model() -> Path:
    """The ONNX file of ``csnet-x1`` at 224x224 that comes with the kit."""
    return Path(__file__).parent / "data" / f"{SHIPPED_NAME}.onnx"


def resolve_model(
    text: str, *, shapes: Shapes | None = None, cache_dir: Path | None = None, opset: int | None = None
) -> ModelSource:
    """Find a model by network name or file.

    Args:
        text: A network name such as ``csnet-x1``, ``inas:smallest`` or ``rival:u2net``, or the path of an ``.onnx``
            or ``.tflite`` file, or of a ``.json`` file with an architecture.
        shapes: Static shapes by input name. For an ONNX file they fix open dimensions; for a network,
            ``{"image": (1, 3, H, W)}`` chooses the input size.
        cache_dir: Where exports are kept, instead of the user's cache folder.
        opset: Operator set to export a network with, instead of the kit's own; a file is what it is.

    Returns:
        The model, its file ready.

    Raises:
        UsageError: If there is no such file or network, or the shapes do not fit it.
        InvalidModel: If the file is broken.
        MissingExtra: If the network has to be exported and torch is not installed.
    """
    suffix = Path(text).suffix.lower()
    if suffix == ".onnx":
        return _onnx_source(_file(text), shapes, cache_dir)
    if suffix == ".tflite":
        path = _file(text)
        if shapes:
            raise UsageError(f"{text}: a .tflite file has fixed shapes", "Leave the shapes out.")
        tflite_artifact(path)
        return ModelSource(path.name, path, "tflite")
    name, network = find_network(text)
    size = _input_size(name, network, shapes)
    shipped = name == SHIPPED_NAME and size == DEFAULT_SIZE and opset is None
    path = shipped_model() if shipped else exported(network, size, "onnx", cache_dir, opset)
    return ModelSource(name, path, "onnx", UNTRAINED_NOTE, network, size, cache_dir=cache_dir)


def artifact_for(source: ModelSource, formats: tuple[str, ...]) -> Artifact:
    """What a runtime loads for a model, converted where that is possible.

    Args:
        source: The model.
        formats: Formats the runtime loads, its favourite first.

    Returns:
        The artifact, with the hash of what it was made from.

    Raises:
        UsageError: If the model cannot be had in one of the formats.
        InvalidModel: If the file is broken, or a conversion gives other numbers.
        MissingExtra: If a conversion needs a package that is not installed.
    """
    if source.format in formats:
        return tflite_artifact(source.path) if source.format == "tflite" else _onnx_artifact(source)
    if "tflite" in formats and source.network is not None and source.input_size is not None:
        path = exported(source.network, source.input_size, "tflite", source.cache_dir)
        return tflite_artifact(path, source_sha256=source.network.sha256, converter=exporter("tflite"))
    if "tflite" in formats:
        raise UsageError(
            f"{source.name} is an ONNX file and this runtime loads .tflite only",
            "Pass a .tflite file made elsewhere (litert-torch makes one from the torch module): no maintained "
            "ONNX to TFLite converter installs beside this kit.",
        )
    raise UsageError(
        f"{source.name} is a .{source.format} file and this runtime loads {', '.join(formats)}",
        "Choose another runtime, or pass the model in that format.",
    )


def _file(text: str) -> Path:
    if not os.path.isfile(text):  # noqa: PTH113  # unlike pathlib's, it takes a name no file can have
        raise UsageError(f"there is no file {text}", "Check the path, or give a network name such as csnet-x1.")
    return Path(text)


def _onnx_source(path: Path, shapes: Shapes | None, cache_dir: Path | None) -> ModelSource:
    info = inspect_onnx(path, shapes)
    if not info.frozen:
        return ModelSource(path.name, path, "onnx", shapes=shapes, cache_dir=cache_dir)
    source = _model_sha256(info)
    key = hashlib.sha256(f"{source} {[(s.name, s.shape) for s in info.inputs]}".encode()).hexdigest()
    frozen = cache_folder(cache_dir) / f"{path.stem}-{key[:24]}.onnx"
    if not frozen.is_file():
        make_folder(frozen.parent)
        freeze_shapes(path, {spec.name: spec.shape for spec in info.inputs}, frozen)
    return ModelSource(
        path.name, frozen, "onnx", "open dimensions fixed", source_sha256=source, shapes=shapes, cache_dir=cache_dir
    )


def _model_sha256(info: OnnxInfo) -> str:
    """Hash of a model: the file's own, mixed with those of its external data where it has any."""
    parts = (info.sha256, *(external.sha256 for external in info.external))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest() if info.external else info.sha256


def _onnx_artifact(source: ModelSource) -> Artifact:
    info = inspect_onnx(source.path)
    sha256 = _model_sha256(info)
    if source.network is not None:
        made_from, converter = source.network.sha256, "torch.onnx"
    elif source.source_sha256 is not None:
        made_from, converter = source.source_sha256, _SHAPES_FIXED
    else:
        made_from, converter = sha256, ""
    return Artifact(
        path=str(source.path),
        format="onnx",
        sha256=sha256,
        source_sha256=made_from,
        inputs=info.inputs,
        converter=converter,
    )


def _input_size(name: str, network: Network, shapes: Shapes | None) -> Size:
    size = DEFAULT_SIZE
    if shapes:
        wanted = next(iter(shapes.values()))
        if len(shapes) != 1 or len(wanted) != 4 or tuple(wanted[:2]) != (1, 3) or set(shapes) - {INPUT_NAME, ""}:
            given = ", ".join(f"{key}{'=' * bool(key)}{'x'.join(map(str, shape))}" for key, shape in shapes.items())
            raise UsageError(f"{name} cannot take the shape {given}", f"Give {INPUT_NAME}=1x3xHxW.")
        size = (wanted[2], wanted[3])
    network.check_size(size)
    return size
