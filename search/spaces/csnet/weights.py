"""Read the CSNet authors' checkpoints: the architecture comes from the tensors' shapes, nothing is executed."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.spaces.csnet.arch import DEPTHS, DILATIONS, CSNetArch
from search.spaces.csnet.network import build_csnet
from targets.errors import InvalidModel
from targets.extras import require

if TYPE_CHECKING:
    import torch
    from torch import nn

Tensors = Mapping[str, "torch.Tensor"]
MAX_BYTES = 200_000_000
"""A CSNet checkpoint is well below this; a larger file is something else."""


def load_checkpoint(path: Path | str) -> nn.Module:
    """Load a checkpoint of the authors' layout (a dict with ``state_dict``, or the state dict itself).

    Args:
        path: The ``.pth.tar`` file. It may be untrusted: only tensors and plain data are read from it.

    Returns:
        The network in training form and eval mode; its ``arch`` was derived from the shapes.

    Raises:
        InvalidModel: If the file cannot be read safely, or any tensor is missing, unexpected or of a wrong shape.
        MissingExtra: If torch is not installed.
    """
    path = Path(path)
    state = _read(path)
    with _torch().device("meta"):  # shapes only: widths from an untrusted file allocate nothing
        network: Any = build_csnet(arch_from_state(state, str(path)))
    wanted = network.state_dict()
    found = _renamed(state, network.arch, str(path))
    problems = [f"missing {name}" for name in wanted if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in wanted]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    problems += [f"{name} is not finite" for name, tensor in found.items() if not tensor.isfinite().all()]
    if problems:
        raise _bad(str(path), f"{problems[0]} ({len(problems)} such problem(s))")
    own = {name: found[name].to(wanted[name].dtype).clone() for name in wanted}
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


def _torch() -> Any:
    return require("torch", "torch")


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise _bad(str(path), "there is no such file")
    if path.stat().st_size > MAX_BYTES:
        raise _bad(str(path), f"it has {path.stat().st_size} bytes, more than {MAX_BYTES}")
    try:
        content = _torch().load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _bad(str(path), f"torch cannot read it as plain tensors ({first[:160]})") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise _bad(str(path), "it holds no state_dict")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, _torch().Tensor):
            raise _bad(str(path), f"state_dict entry {name!r} is not a named tensor")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _renamed(state: Tensors, arch: CSNetArch, where: str) -> dict[str, torch.Tensor]:
    """The authors' names to ours; undivided gOctConv weights to one tensor per pair of scales."""
    splits = {plan.name: (plan.inputs, plan.outputs) for plan in arch.blocks()}
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
