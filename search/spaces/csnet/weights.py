"""Read the CSNet authors' checkpoints: the architecture comes from the tensors' shapes, nothing is executed."""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.spaces.csnet.arch import DEPTHS, CSNetArch
from search.spaces.csnet.blocks import DILATIONS
from search.spaces.csnet.network import build_csnet
from targets.errors import InvalidModel, printable
from targets.extras import require

if TYPE_CHECKING:
    import torch
    from torch import nn

Tensors = Mapping[str, "torch.Tensor"]
MAX_BYTES = 200_000_000
"""A CSNet checkpoint is well below this; a larger file is something else."""
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_INTEGERS = ("uint8", "int8", "int16", "int32", "int64")


def load_checkpoint(path: Path | str) -> nn.Module:
    """Load a checkpoint of the authors' layout (a dict with ``state_dict``, or the state dict itself).

    Args:
        path: The ``.pth.tar`` file. It may be untrusted: only tensors and plain data are read from it.

    Returns:
        The network in training form and eval mode; its ``arch`` was derived from the shapes.

    Raises:
        InvalidModel: If the file cannot be read safely, or any tensor is missing, unexpected, of a wrong shape, not
            plain (dense, with all its elements stored) or not finite.
        MissingExtra: If torch is not installed.
    """
    path = Path(path)
    state = _read(path)
    with _torch().device("meta"):  # shapes only: widths from an untrusted file allocate nothing
        network: Any = build_csnet(arch_from_state(state, str(path)))
    wanted = network.state_dict()
    found = _renamed(state, network.arch, str(path))
    problems = [f"missing {name}" for name in wanted if name not in found]
    problems += [f"unexpected {printable(name)}" for name in found if name not in wanted]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    _refuse(path, problems)
    size = sum(tensor.numel() * tensor.element_size() for tensor in wanted.values())
    if size > MAX_BYTES:  # small files can claim as much: tensors may share what they store
        raise _bad(str(path), f"its tensors have {size} bytes, more than {MAX_BYTES}")
    for name, tensor in wanted.items():
        _check_plain(str(path), name, found[name], _FLOATS if tensor.is_floating_point() else _INTEGERS)
    own = {name: found[name].to(wanted[name].dtype).clone() for name in wanted}
    _refuse(path, [f"{name} is not finite" for name, tensor in own.items() if not tensor.isfinite().all()])
    network.load_state_dict(own, assign=True)
    return network.eval()  # type: ignore[no-any-return]


def arch_from_state(state: Tensors, where: str = "state dict") -> CSNetArch:
    """Derive the architecture from the shapes of a state dict in the authors' naming.

    Args:
        state: Tensors by name.
        where: How to call the source in an error.

    Raises:
        InvalidModel: If the layers do not make up a CSNet.
        UsageError: If they do, but with widths that no CSNet can have.
    """

    def width(name: str) -> int:
        return state[name].shape[0] if name in state and state[name].ndim else 0

    def scales(prefix: str, most: int) -> tuple[int, ...]:
        widths = [width(f"{prefix}.bns.{scale}.weight") for scale in range(most)]
        while len(widths) > 1 and widths[-1] == 0:
            widths.pop()
        return tuple(widths)

    if "stage0.0.conv1x1.conv.weight" not in state or "cls_layer.weight" not in state:
        raise _bad(where, "it holds no stage0.0.conv1x1.conv.weight or no cls_layer.weight")
    values: dict[str, object] = {"stem": scales("stage0.0.conv1x1", 2)}
    for stage, depth in DEPTHS.items():
        values[stage] = tuple(scales(f"{stage}.{index}.conv1x1", 2) for index in range(depth))
    values["csf_mid"] = tuple(width(f"oct_fuse.fuse.bns.{scale}.weight") for scale in range(3))
    values["dilated"] = tuple(
        tuple(width(f"oct_fuse.ms.convs.{scale}.msconv.{branch}.weight") for branch in range(len(DILATIONS)))
        for scale in range(3)
    )
    values["csf_out"] = width("oct_fuse.fuse1x1.bns.0.weight")
    return CSNetArch.checked(values, f"The CSNet in {where}")


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        raise _bad(str(path), f"{problems[0]} ({len(problems)} such problem(s))")


def _check_plain(where: str, name: str, tensor: torch.Tensor, dtypes: tuple[str, ...]) -> None:
    """Refuse what arithmetic cannot be trusted with: sparse, quantised, on no device, or larger than its storage."""
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != _torch().strided:
        raise _bad(where, f"{name} is sparse ({str(tensor.layout).removeprefix('torch.')}), not dense")
    if tensor.device.type != "cpu":
        raise _bad(where, f"{name} holds no values (device {tensor.device.type})")
    if tensor.is_quantized or kind not in dtypes:
        raise _bad(where, f"{name} has elements of type {kind}, not one of {', '.join(dtypes)}")
    needed, stored = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if stored < needed:
        raise _bad(where, f"{name} needs {needed} bytes for its shape and stores {stored}")


def _torch() -> Any:
    return require("torch", "torch")


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise _bad(str(path), "there is no such file")
    if path.stat().st_size > MAX_BYTES:
        raise _bad(str(path), f"it has {path.stat().st_size} bytes, more than {MAX_BYTES}")
    _check_unpacked_size(path)
    try:
        content = _torch().load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _bad(str(path), f"torch cannot read it as plain tensors ({printable(first)})") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise _bad(str(path), "it holds no state_dict")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, _torch().Tensor) or tensor.is_nested:
            raise _bad(str(path), f"state_dict entry {printable(repr(name))} is not a named tensor")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


_UNREADABLE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def _check_unpacked_size(path: Path) -> None:
    """Refuse a compressed archive that is small on disk only; torch writes none."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # torch's older layout, or something that torch refuses
    if size > MAX_BYTES:
        raise _bad(str(path), f"it unpacks to {size} bytes, more than {MAX_BYTES}")


def _renamed(state: Tensors, arch: CSNetArch, where: str) -> dict[str, torch.Tensor]:
    """The authors' names to ours; undivided gOctConv weights to one tensor per pair of scales."""
    splits = {plan.name: (plan.inputs, plan.outputs) for plan in arch.plans()}
    splits["csf.reduce"] = (arch.csf_inputs, arch.csf_mid)
    splits["csf.fuse"] = (arch.csf_dilated, (arch.csf_out,))
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        ours = _rename(name)
        if not ours.endswith(".undivided"):
            found[ours] = tensor
            continue
        layer = ours.removesuffix(".undivided")
        inputs, outputs = splits.get(layer.removesuffix(".conv"), ((), ()))
        if tensor.ndim != 4 or tensor.shape[:2] != (sum(outputs), sum(inputs)):
            wanted = f"({sum(outputs)}, {sum(inputs)}, k, k)"
            raise _bad(where, f"{name} has shape {tuple(tensor.shape)}, not {wanted}")
        _check_plain(where, name, tensor, _FLOATS)  # others cannot be split
        for j, rows in enumerate(_torch().split(tensor, list(outputs))):
            for i, block in enumerate(_torch().split(rows, list(inputs), 1)):
                if math.prod(block.shape):
                    found[f"{layer}.conv{i}to{j}.weight"] = block
    return found


_RULES = (
    (r"^stage0\.0\.", "stem."),
    (r"^oct_fuse\.fuse1x1\.conv\.weight$", "csf.fuse.undivided"),
    (r"^oct_fuse\.fuse\.conv\.weight$", "csf.reduce.undivided"),
    (r"^oct_fuse\.fuse1x1\.", "csf.fuse."),
    (r"^oct_fuse\.fuse\.", "csf.reduce."),
    (r"\.conv1x1\.conv\.weight$", ".conv.undivided"),
    (r"\.conv1x1\.", ".conv."),
    (r"\.conv3x3_([12])\.convs\.", r".dw\1.conv"),
    (r"\.conv3x3_([12])\.", r".dw\1."),
    (r"^oct_fuse\.ms\.convs\.(\d)\.bn\.", r"csf.dilated.norm\1."),
    (r"^oct_fuse\.ms\.convs\.(\d)\.prelu\.", r"csf.dilated.act\1."),
    (r"\.bns\.", ".norm"),
    (r"\.prelus\.", ".act"),
    (r"^cls_layer\.", "head."),
)


def _rename(name: str) -> str:
    branch = re.fullmatch(r"oct_fuse\.ms\.convs\.(\d)\.msconv\.([0-4])\.weight", name)
    if branch:
        return f"csf.dilated.conv{branch[1]}x{DILATIONS[int(branch[2])]}.weight"
    for pattern, ours in _RULES:
        name = re.sub(pattern, ours, name)
    return name


def _bad(where: str, what: str) -> InvalidModel:
    return InvalidModel(
        f"{where} is not a CSNet checkpoint: {what}",
        "Give the authors' .pth.tar file, or a state dict with the same names.",
    )
