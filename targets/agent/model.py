"""A session's own view of its model: the cached files under the names that the model knows them by."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, Dict, List

from targets.agent.protocol import Refused, bad_model


def stage_model(model: Dict[str, Any], folder: Path) -> List[Dict[str, str]]:
    """Put the model's files into the session's folder and hash what lies there.

    Args:
        model: ``files``: a list of ``name`` (relative), ``path`` (in the cache) and ``sha256``.
        folder: The session's folder.

    Returns:
        Name and hash of each file, as found.

    Raises:
        Refused: If a file is missing or is not the one that was sent.
    """
    staged = []
    for file in model["files"]:
        name, source = Path(file["name"]), Path(file["path"])
        if name.is_absolute() or ".." in name.parts or not name.parts:
            raise bad_model(f"{file['name']!r} is no name for a file beside the model")
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            if place.exists():
                place.unlink()
            _link(source, place)
        except OSError as error:
            raise Refused(f"cannot read {source} on the device: {error.strerror}") from error
        staged.append((file, source, place))
    found = []
    for file, source, place in staged:  # only now: a later file may have taken the place of an earlier one
        try:
            digest = _sha256(place)
        except OSError as error:
            raise Refused(f"cannot read {source} on the device: {error.strerror}") from error
        if digest != file["sha256"]:
            raise Refused(
                f"{source} on the device is not the file that was sent", fix="Remove it there; it is sent again."
            )
        found.append({"name": file["name"], "sha256": digest})
    return found


def _link(source: Path, place: Path) -> None:
    """A hard link costs nothing and is no link to a reader; some file systems have none."""
    try:
        os.link(str(source), str(place))
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(str(source), str(place))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        chunk = file.read(1 << 20)
        while chunk:
            digest.update(chunk)
            chunk = file.read(1 << 20)
    return digest.hexdigest()


def seeded_inputs(specs: List[Dict[str, Any]], seed: int = 0) -> Any:
    """Arrays by input name, equal to those of :func:`targets.runtimes.base.seeded_inputs`, and how they were made.

    numpy before 1.17 has another generator; its values differ, which the second value says.
    """
    import numpy as np

    if hasattr(np.random, "default_rng"):
        generator: Any = np.random.default_rng(seed)
        normal, whole, how = generator.standard_normal, generator.integers, "seeded"
    else:
        generator = np.random.RandomState(seed)
        normal, whole = generator.standard_normal, generator.randint
        how = f"seeded with the generator of numpy {np.__version__}"
    tensors = {}
    for spec in specs:
        dtype, shape = np.dtype(spec["dtype"]), tuple(spec["shape"])
        if dtype.kind == "f":
            drawn = normal(shape, dtype=np.float32) if how == "seeded" else normal(shape)
            tensors[spec["name"]] = drawn.astype(dtype)
        elif dtype.kind == "b":
            tensors[spec["name"]] = whole(0, 2, shape).astype(dtype)
        else:
            tensors[spec["name"]] = whole(0, 10, shape).astype(dtype)
    return tensors, how


def check_inputs(specs: List[Dict[str, Any]], found: Dict[str, Any]) -> None:
    """Compare the inputs the host promises with those the runtime found.

    Raises:
        Refused: If they differ.
    """
    told = {spec["name"]: tuple(spec["shape"]) for spec in specs}
    if told != found:
        raise bad_model(f"the model has inputs {found}, its record says {told}", "Describe the file again.")
