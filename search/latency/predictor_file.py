"""One safetensors file a predictor: arrays, JSON in the metadata, and a hash over both. Nothing in it is ever run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.torch_or_stub import torch
from targets.errors import InvalidModel, UsageError, printable
from targets.extras import require
from targets.files import write_atomic

SCHEMA_VERSION = "1"
_MOST_BYTES = 256 * 2**20
_AGAIN = "Make it again: inas-deploy profile."


def write_parts(path: Path, kind: str, content: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write JSON data and arrays as one file, which appears whole.

    Args:
        path: Where to.
        kind: What the file is; :func:`read_parts` wants the same.
        content: JSON data.
        tensors: Arrays by name.

    Raises:
        UsageError: If the place cannot be written.
        MissingExtra: If safetensors is not installed.
    """
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    values = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"kind": kind, "schema_version": SCHEMA_VERSION, "content": text, "sha256": _digest(kind, text, values)}
    write_atomic(path, require("safetensors.torch", "predictor").save(values, metadata))


def read_parts(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read what :func:`write_parts` wrote.

    Args:
        path: The file.
        kind: What it must be.

    Returns:
        JSON data and arrays by name; numbers in them are finite.

    Raises:
        UsageError: If there is no such file.
        InvalidModel: If it is damaged, of another kind or of another version, saying which.
        MissingExtra: If safetensors is not installed.
    """
    torch_files, errors = require("safetensors.torch", "predictor"), require("safetensors", "predictor")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InvalidModel(f"{path} is larger than any latency predictor", "Name another file.")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "Check the path.") from error
    try:
        loaded: dict[str, torch.Tensor] = torch_files.load(data)
        tensors = {name: tensor.clone() for name, tensor in loaded.items()}  # aligned: equal results to the last bit
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        found, version, text, digest = (metadata[name] for name in ("kind", "schema_version", "content", "sha256"))
    except (errors.SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidModel(f"{path} is no latency predictor, or damaged: {printable(str(error))}", _AGAIN) from error
    if found != kind:
        raise InvalidModel(f"{path} is a file of the kind {printable(found)!r}, not {kind!r}", "Name another file.")
    if version != SCHEMA_VERSION:
        raise InvalidModel(f"{path} has the layout {printable(version)}, not {SCHEMA_VERSION}", _AGAIN)
    if digest != _digest(kind, text, tensors):
        raise InvalidModel(f"{path} is damaged: its hash is not the one it was written with", _AGAIN)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InvalidModel(f"{path} is damaged: {printable(name, 60)} holds what is no finite number", _AGAIN)
    content = _content(text, path)
    return content, tensors


def _content(text: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{path} is damaged: its metadata is no JSON", _AGAIN) from error
    if not isinstance(content, dict):
        raise InvalidModel(f"{path} is damaged: its metadata is no JSON object", _AGAIN)
    return content


def _digest(kind: str, text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """Hash over the kind, the JSON and each array's name, type, shape and bytes."""
    found = hashlib.sha256(json.dumps([kind, SCHEMA_VERSION, text]).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
