"""iNAS's latency tables: one block a line, ``name:dynamicmb inres:14 ... latency_mean:1.9 latency_var:0.1``.

The layout is that of the reference implementation's template (Gu et al., ICCV 2021): its block names are mapped to the
kinds of :mod:`search.spaces.inas.blocks`, so that the table holds every block of every architecture of the space.

The format times a level's connection to itself as a row of its own, an identity. This kit has no block for it; each
fusion has exactly one, so that its latency is added to the fusion's row and a network's sum stays what it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from search.latency.conditions import Conditions
from search.latency.importers.text import UNTOLD, RowCollector, damaged, deviation, latency, read_text, whole
from search.latency.table import LatencyTable
from search.spaces.block import BlockSpec, Shape, conv_size
from search.spaces.inas.arch import FACTORS, KERNELS, LEVELS
from search.spaces.inas.blocks import branch_block, fuse_block, head_block, mbconv_block, stem_block
from targets.errors import UsageError

SOURCE = "inas-text"
Statistic = Literal["mean", "median", "min"]
_PLACE = ("inres", "outres", "inc", "outc")
_FIELDS = {
    "stem": (*_PLACE, "stride", "kernel", "ratio"),
    "dynamicmb": (*_PLACE, "stride", "kernel", "ratio"),
    "branchtp": _PLACE,
    "branchd": _PLACE,
    "fusiontp": (*_PLACE, "fusion", "kernel"),
    "fusiond": (*_PLACE, "fusion", "kernel"),
    "decoder": _PLACE,
}
_PARTS = {"branchtp": "transport", "branchd": "decoder", "fusiontp": "transport", "fusiond": "decoder"}
_REQUIRED, _OPTIONAL = ("latency_mean", "latency_var"), ("latency_median", "latency_min")


class _Line(NamedTuple):
    """One parsed line: what it is and its figures in milliseconds."""

    number: int
    name: str
    sizes: Mapping[str, int]
    figures: Mapping[str, float]


class _Figures(NamedTuple):
    latency_us: float
    least_us: float
    variance: float


def read_inas_text(path: Path, conditions: Conditions, *, statistic: Statistic = "mean") -> LatencyTable:
    """Read a table in iNAS's text format.

    Args:
        path: The file.
        conditions: What the format does not say: device, settings, space, classes and the (square) input size.
        statistic: Column that becomes the rows' latency; ``mean`` is the one every such file has, and the one iNAS
            sums. The 10th percentile is the least repeat where the file tells it.

    Returns:
        A table that holds every block in the file.

    Raises:
        UsageError: If the file cannot be read, the conditions are of another space or the input is not square.
        UnknownLayout: If a line is damaged, still holds a placeholder, or lacks the statistic.
    """
    if conditions.space not in FACTORS or conditions.input_size[0] != conditions.input_size[1]:
        raise UsageError(
            f"iNAS's text format holds no {conditions.space} blocks at {conditions.input_size}",
            f"Give one of {', '.join(FACTORS)} and a square input size.",
        )
    lines = [_parse(path, number, text) for number, text in enumerate(read_text(path).split("\n"), 1) if text.strip()]
    identities = {_place(line): line for line in lines if _is_identity(line)}
    rows, used = RowCollector(path), set()
    for line in lines:
        figures = _figures(path, line, statistic)
        if _is_identity(line):
            continue
        spec = _spec(path, line, conditions)
        if own := identities.get(_place(line)) if line.name.startswith("fusion") else None:
            figures = _plus(figures, _figures(path, own, statistic))
            used.add(_place(own))
        rows.add(
            line.number,
            spec.key,
            macs=spec.macs,
            params=spec.params,
            count=1,
            p10_us=figures.least_us,
            p50_us=figures.latency_us,
            spread=math.sqrt(figures.variance) / figures.latency_us,
        )
    return rows.table(SOURCE, conditions, _notes(statistic, len(used), len(identities) - len(used)))


def _notes(statistic: str, added: int, dropped: int) -> tuple[str, ...]:
    return (
        f"Latency is the file's {statistic} over repeats in one session; milliseconds are assumed.",
        "The spread is over those repeats, whose number the format does not tell.",
        "The 10th percentile is the least repeat, or the latency itself where the file has none that can be.",
        UNTOLD,
        f"{added} identities were added to their level's fusions; {dropped} that no network has were dropped.",
    )


def _parse(path: Path, number: int, text: str) -> _Line:
    found: dict[str, str] = {}
    for word in text.split():
        key, colon, value = word.partition(":")
        if not colon or not value or key in found:
            raise damaged(path, number, "no key:value, or the key again", word)
        found[key] = value
    name = found.pop("name", "")
    if name not in _FIELDS:
        raise damaged(path, number, f"the name is none of {', '.join(_FIELDS)}", text.strip())
    wanted = (*_FIELDS[name], *_REQUIRED)
    if missing := [key for key in wanted if key not in found]:
        raise damaged(path, number, f"{name} lacks {missing[0]}", text.strip())
    if strange := [key for key in found if key not in wanted and key not in _OPTIONAL]:
        raise damaged(path, number, f"{name} has no such key", strange[0])
    sizes = {key: whole(path, number, key, found[key]) for key in _FIELDS[name]}
    figures = {
        key: (latency if key == "latency_mean" else deviation)(path, number, key, found[key])
        for key in (*_REQUIRED, *_OPTIONAL)
        if key in found
    }
    return _Line(number, name, sizes, figures)


def _figures(path: Path, line: _Line, statistic: str) -> _Figures:
    """Latency and least repeat in microseconds, variance in their square."""
    figures = line.figures
    if f"latency_{statistic}" not in figures:
        raise damaged(path, line.number, f"the row has no latency_{statistic}", line.name)
    if (chosen := figures[f"latency_{statistic}"]) <= 0:
        raise damaged(path, line.number, f"latency_{statistic} is not above zero", f"{chosen:g}")
    least = figures.get("latency_min", 0.0)
    return _Figures(chosen * 1e3, (least if 0 < least <= chosen else chosen) * 1e3, figures["latency_var"] * 1e6)


def _plus(one: _Figures, other: _Figures) -> _Figures:
    return _Figures(*(a + b for a, b in zip(one, other, strict=True)))


def _is_identity(line: _Line) -> bool:
    return line.name.startswith("branch") and line.sizes["inres"] == line.sizes["outres"]


def _place(line: _Line) -> tuple[str, int, int, int]:
    """Part, resolution, input and output channels."""
    return _PARTS.get(line.name, ""), line.sizes["inres"], line.sizes["inc"], line.sizes["outc"]


def _spec(path: Path, line: _Line, conditions: Conditions) -> BlockSpec:
    """The block of this kit that a row is."""
    sizes, size = line.sizes, conditions.input_size[0]
    source: Shape = (sizes["inc"], sizes["inres"], sizes["inres"])
    target: Shape = (sizes["outc"], sizes["outres"], sizes["outres"])
    part = _PARTS.get(line.name, "")
    if sizes.get("kernel", 3) not in KERNELS:
        raise damaged(path, line.number, "no kernel of the space", str(sizes["kernel"]))
    if line.name == "stem":
        spec = stem_block(sizes["outc"], size, size)
        given = (sizes["stride"], sizes["kernel"], sizes["ratio"])
        return _agreed(path, line, spec, source, target, given == (2, 3, 1))
    if line.name == "decoder":
        return _agreed(path, line, head_block(source, sizes["outc"]), (source[0], size // 2, size // 2), target)
    if line.name == "dynamicmb":
        _level(path, line, source[1], size)
        spec = mbconv_block("", source, sizes["outc"], sizes["kernel"], sizes["stride"], sizes["ratio"])
        return _agreed(path, line, spec, source, target, conv_size(source[1], sizes["stride"]) == target[1])
    level, other = _level(path, line, target[1], size), _level(path, line, source[1], size)
    if line.name.startswith("branch"):
        return branch_block(part, level, other, source, target)
    return _agreed(path, line, fuse_block(part, level, sizes["fusion"], sizes["kernel"], source), source, target)


def _level(path: Path, line: _Line, resolution: int, size: int) -> int:
    """Level of a resolution: 0 is half the image's."""
    for level in range(LEVELS):
        if resolution * 2 ** (level + 1) == size:
            return level
    raise damaged(path, line.number, f"no level of a {size}x{size} network has this resolution", str(resolution))


def _agreed(path: Path, line: _Line, spec: BlockSpec, source: Shape, target: Shape, also: bool = True) -> BlockSpec:
    """The block, if its shapes are those of the row."""
    if set(spec.inputs) == {source} and spec.outputs == (target,) and also:
        return spec
    sizes = " ".join(f"{key}:{value}" for key, value in line.sizes.items())
    raise damaged(path, line.number, f"no {line.name} of the space has these sizes", sizes)
