"""Named networks of the RTSeg form: BiSeNetV2, and the width family of blocks with 1x1 expansion (LIR) around it.

The width rule (public code of RTSeg's first author): for a base width ``ch``, detail branch ch or 2ch / 2ch / 4ch,
semantic branch ch / 2ch / 4ch, aggregation 4ch, head 32ch, the stem always 16/8/16/16. BiSeNetV2 has ``ch`` 32 and a
detail branch that starts with 2ch (Yu et al., IJCV 2021; its head of 1024 is what RTSeg counts).
"""

from __future__ import annotations

import re
from typing import Literal

from search.spaces.rtseg.arch import RTSegArch
from targets.errors import UsageError

DEPTHS = (1, 1, 3)
"""Blocks after the first in each stage."""
COMMON = ("bisenetv2", "bisenetv2-lir", "bisenetv2-any", "rtseg-lir-16", "rtseg-lir-32", "rtseg-lir-32-full",
          "rtseg-lir-64", "rtseg-lir-80")  # fmt: skip
"""Names worth suggesting."""
_NAME = re.compile(
    r"(?:(?P<paper>bisenetv2)(?P<lir>-lir)?|rtseg-lir-(?P<base>[0-9]{1,3})(?P<full>-full)?)"
    r"(?P<any>-any)?(?:-c(?P<n>[0-9]{1,4}))?"
)


def family(
    base: int,
    classes: int = 19,
    *,
    path: Literal["lir", "ge"] = "lir",
    full_detail: bool = False,
    space: str = "rtseg",
) -> RTSegArch:
    """One network of the width family.

    Args:
        base: Base width ``ch``.
        classes: Output classes.
        path: Form of all blocks.
        full_detail: Whether the detail branch starts with 2ch, as in BiSeNetV2, instead of ch.
        space: Id of the space it is written down under.

    Raises:
        UsageError: If a width is out of range.
    """
    first, trunks = (2 * base if full_detail else base), (base, 2 * base, 4 * base)
    values = {
        "space": space,
        "classes": classes,
        "detail": ((first,) * 2, (2 * base,) * 3, (4 * base,) * 3),
        "stem": {"conv": 16, "squeeze": 8, "left": 16, "fuse": 16},
        "stages": tuple(
            {
                "trunk": trunk,
                "down": {"path": path, "lead": entry, "expand": 6 * entry},
                "blocks": ({"path": path, "lead": trunk, "expand": 6 * trunk},) * depth,
            }
            for entry, trunk, depth in zip((16, *trunks), trunks, DEPTHS, strict=False)
        ),
        "bga": 4 * base,
        "bga_out": 4 * base,
        "head": 32 * base,
    }
    return RTSegArch.checked(values, f"RTSeg network of base width {base}")


def named(name: str, classes: int | None = None) -> RTSegArch | None:
    """The network of a name: ``bisenetv2``, ``bisenetv2-lir``, ``rtseg-lir-<ch>``, ``rtseg-lir-<ch>-full``.

    ``-any`` after it makes the form that takes any input size (``resize`` is ``detail``).

    Args:
        name: With or without ``-c<classes>``.
        classes: Output classes; ``None`` for those of the name, or else Cityscapes' 19.

    Returns:
        The architecture; ``None`` where the name has another form.

    Raises:
        UsageError: If the numbers in the name make no network, or its classes are others than given.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    said = int(match["n"]) if match["n"] else None
    if said is not None and classes is not None and said != classes:
        raise UsageError(f"{name} has {said} output classes, and {classes} are asked for", "Say the classes once.")
    classes = next((one for one in (said, classes) if one is not None), 19)
    if match["paper"]:
        arch = family(32, classes, path="lir" if match["lir"] else "ge", full_detail=True)
    else:
        arch = family(int(match["base"]), classes, full_detail=bool(match["full"]))
    return arch.model_copy(update={"resize": "detail"}) if match["any"] else arch
