"""Weights that an ONNX model keeps in files beside it: read from its own folder and nowhere else."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx import TensorProto

from targets.errors import InvalidModel, printable
from targets.files import sha256_of
from targets.onnx_graph import tensors

_RESAVE = "Save the model again with its data in one file beside it, or embedded."
# Elements that do not fill whole bytes; their size is left to the checker.
_PACKED_BITS = {TensorProto.INT4: 4, TensorProto.UINT4: 4}


@dataclass(frozen=True)
class ExternalFile:
    """A file of weights.

    Attributes:
        location: Path relative to the model's folder.
        size_bytes: Size of the file.
        sha256: Hash of its bytes.
    """

    location: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class _Slice:
    tensor: onnx.TensorProto
    location: str
    file: Path
    offset: int
    length: int


def external_files(path: Path, model: onnx.ModelProto) -> tuple[ExternalFile, ...]:
    """Check every reference to outside data and list the files.

    Args:
        path: The model file; data must lie in its folder or below.
        model: The parsed file.

    Raises:
        InvalidModel: If a file is missing or outside the folder (absolute, ``..`` or through a link), or a
            tensor's offset, length or size does not fit the file.
    """
    files = {part.location: part.file for part in _slices(path, model)}
    return tuple(
        ExternalFile(location, file.stat().st_size, sha256_of(file)) for location, file in sorted(files.items())
    )


def embed_external(path: Path, model: onnx.ModelProto, max_bytes: int) -> None:
    """Replace references to outside data by the data.

    Args:
        path: The model file.
        model: Changed in place.
        max_bytes: Most bytes to embed.

    Raises:
        InvalidModel: As :func:`external_files`, or if there is more data than that.
    """
    parts = list(_slices(path, model))
    total = sum(part.length for part in parts)
    if total > max_bytes:
        raise InvalidModel(f"{path} has {total} bytes of external data, too many to embed", "Export it static instead.")
    for part in parts:
        with part.file.open("rb") as file:
            file.seek(part.offset)
            data = file.read(part.length)
        if len(data) != part.length:
            raise InvalidModel(f"{path}: external file {part.location!r} changed while it was read", "Try again.")
        part.tensor.raw_data = data
        part.tensor.ClearField("external_data")
        part.tensor.data_location = TensorProto.DEFAULT


def _slices(path: Path, model: onnx.ModelProto) -> Iterator[_Slice]:
    for tensor in tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            yield _slice(path, tensor)


def _slice(path: Path, tensor: onnx.TensorProto) -> _Slice:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    what = f"{path}: tensor {printable(tensor.name)!r}"
    location = entries.get("location", "")
    file = _file_in_folder(path.parent, location, what)
    size = file.stat().st_size
    offset = _count(entries.get("offset", "0"), "offset", what)
    needed = bytes_needed(tensor)
    length = _count(entries["length"], "length", what) if "length" in entries else needed
    if length is None:
        length = max(size - offset, 0)
    if offset + length > size:
        raise InvalidModel(
            f"{what} wants bytes {offset} to {offset + length} of {printable(location)!r}, which has {size}",
            "The data file is cut short or belongs to another model; copy it again.",
        )
    if needed is not None and length != needed:
        raise InvalidModel(f"{what} has {length} bytes of external data, its shape needs {needed}", _RESAVE)
    return _Slice(tensor, location, file, offset, length)


def _file_in_folder(folder: Path, location: str, what: str) -> Path:
    shown = printable(location)
    if not isinstance(location, str) or not location or not location.isprintable():
        raise InvalidModel(f"{what} has no usable file name for its external data ({shown!r})", _RESAVE)
    ways = (PurePosixPath(location), PureWindowsPath(location))
    if any(way.is_absolute() or way.drive or ".." in way.parts for way in ways):
        raise InvalidModel(f"{what} wants data from outside the model's folder: {shown!r}", _RESAVE)
    file = folder / location
    try:
        real = file.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        raise InvalidModel(
            f"{what} needs the external data file {shown!r}, which cannot be found",
            f"Put it beside the model: {folder}.",
        ) from error
    if not real.is_relative_to(folder.resolve()):
        raise InvalidModel(
            f"{what} wants data from outside the model's folder: {shown!r} is a link that leads out of it",
            "Copy the model with its files in place of links (cp -L).",
        )
    if not real.is_file():
        raise InvalidModel(f"{what} has external data in {shown!r}, which is not a file", _RESAVE)
    return real


def _count(text: str, key: str, what: str) -> int:
    if not isinstance(text, str) or not re.fullmatch(r"[0-9]{1,18}", text):
        raise InvalidModel(f"{what} has {key} {printable(text)!r} for its external data, not a number", _RESAVE)
    return int(text)


def bytes_needed(tensor: onnx.TensorProto) -> int | None:
    """Bytes a tensor's shape and type call for; ``None`` where the type has no whole bytes or means nothing."""
    if tensor.data_type in _PACKED_BITS or any(dim < 0 for dim in tensor.dims):
        return None
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError):
        return None
    return int(math.prod(tensor.dims)) * int(dtype.itemsize)
