"""Once-for-All's lookup tables: a YAML mapping from a block in words to count, mean and standard deviation.

A block reads ``expanded_conv-input:28x28x48-output:28x28x48-expand:192-kernel:7-stride:1-idskip:1-se:1-hs:0`` (height,
width, channels; Cai et al., ICLR 2020). Kinds become ``ofa.<name>``, fields become settings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from search.latency.conditions import Conditions
from search.latency.importers.text import UNTOLD, RowCollector, damaged, deviation, latency, read_text, whole
from search.latency.table import BlockKey, LatencyTable
from search.spaces.block import Shape
from targets.errors import UnknownLayout
from targets.extras import require

SOURCE = "ofa-yaml"
_NAME = re.compile(r"[A-Za-z]\w{0,59}", re.ASCII)
_FIELD = re.compile(r"[a-z]\w{0,29}", re.ASCII)
_NOTES = (
    "Latency is the file's mean over iterations of one session; milliseconds are assumed.",
    "Count and spread are over those iterations, not over sessions; there is no percentile, so that both are the mean.",
    UNTOLD,
)


def read_ofa_yaml(path: Path, conditions: Conditions) -> LatencyTable:
    """Read a table in Once-for-All's YAML format.

    Args:
        path: The file.
        conditions: What the format does not say.

    Returns:
        A table with the file's blocks; parameters and MACs are 0, for the format does not fix them.

    Raises:
        UsageError: If the file cannot be read.
        MissingExtra: If PyYAML is not installed.
        UnknownLayout: If the file is no YAML, or a block is damaged or there twice.
    """
    rows = RowCollector(path)
    for line, words, entry in _pairs(path, _document(path)):
        figures = {name: (number, text) for number, name, text in _scalars(path, entry)}
        if set(figures) != {"count", "mean", "std"}:
            raise damaged(path, line, "a block has count, mean and std, this one", ", ".join(figures))
        count = whole(path, figures["count"][0], "count", figures["count"][1])
        mean = latency(path, figures["mean"][0], "mean", figures["mean"][1])
        std = deviation(path, figures["std"][0], "std", figures["std"][1])
        spread = std / mean if count > 1 else None
        rows.add(line, _key(path, line, words), count=count, p10_us=mean * 1e3, p50_us=mean * 1e3, spread=spread)
    return rows.table(SOURCE, conditions, _NOTES)


def _document(path: Path) -> Any:
    """The parsed nodes, with line numbers; nothing is constructed from them, so that no tag can do anything."""
    yaml = require("yaml", "predictor")
    try:
        return yaml.compose(read_text(path), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise damaged(path, line, "no YAML", str(error.problem)) from error
    except yaml.YAMLError as error:
        raise UnknownLayout(f"{path} is no YAML: {type(error).__name__}", "Name another file.") from error
    except RecursionError as error:
        raise UnknownLayout(f"{path} nests deeper than any table of latencies", "Name another file.") from error


def _pairs(path: Path, node: Any) -> list[tuple[int, str, Any]]:
    """Line, key and value node of a mapping."""
    line = node.start_mark.line + 1 if node is not None else 1
    if getattr(node, "id", "") != "mapping":
        raise damaged(path, line, "a mapping is wanted here, not", getattr(node, "id", "nothing"))
    found = []
    for key, value in node.value:
        if key.id != "scalar":
            raise damaged(path, key.start_mark.line + 1, "a key is no text but a", key.id)
        found.append((key.start_mark.line + 1, key.value, value))
    return found


def _scalars(path: Path, node: Any) -> list[tuple[int, str, str]]:
    found: dict[str, tuple[int, str, str]] = {}
    for line, key, value in _pairs(path, node):
        if value.id != "scalar" or key in found:
            raise damaged(path, line, "no single value, or the key again", key)
        found[key] = (line, key, value.value)
    return list(found.values())


def _key(path: Path, line: int, words: str) -> BlockKey:
    name, *fields = words.split("-")
    if not _NAME.fullmatch(name):
        raise damaged(path, line, "no block's name", words)
    found: dict[str, str] = {}
    for field in fields:
        key, colon, value = field.partition(":")
        if not colon or not _FIELD.fullmatch(key) or key in found:
            raise damaged(path, line, "no field:value, or the field again", field)
        found[key] = value
    if not {"input", "output"} <= set(found):
        raise damaged(path, line, "a block needs input and output", words)
    shapes = [_shape(path, line, key, found.pop(key)) for key in ("input", "output")]
    settings = tuple(sorted((key, whole(path, line, key, value, least=0)) for key, value in found.items()))
    return f"ofa.{name}", (shapes[0],), (shapes[1],), settings


def _shape(path: Path, line: int, name: str, text: str) -> Shape:
    """``HxWxC``, or ``C`` alone for a vector, as channels, height, width."""
    sizes = [whole(path, line, name, part) for part in text.split("x")]
    if len(sizes) == 1:
        return sizes[0], 1, 1
    if len(sizes) != 3:
        raise damaged(path, line, f"{name} is neither HxWxC nor C", text)
    return sizes[2], sizes[0], sizes[1]
