"""Per-layer times of TensorRT, joined to the modules of the source model.

Rules in order: the ONNX nodes that ``Metadata`` names; else the layer's own name, which joins the names of what was
fused (``a + b``, ``a || b``, ``PWN(a, b)``, ``{ForeignNode[a...b]}``); a reformatting copy belongs to the layer it
feeds; last, the one module that the layers around it share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from targets.errors import UnknownLayout
from targets.jobs import Job
from targets.profiles.assemble import Joined, Row, finished
from targets.profiles.join import ModuleIndex, Node, common_module, from_neighbours
from targets.records import OpProfile
from targets.tensorrt.layers import EngineLayer, parse_layers
from targets.tensorrt.log import parse_log
from targets.tensorrt.profile import LayerProfile, parse_profile
from targets.tensorrt.session import log_notes, session_figures

_HEAVY = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_COPY = re.compile(r"^Reformatting CopyNode for (?:(?:Input|Output) Tensor \d+ to|Network (?:Input|Output)) (.+)$")
_FOREIGN = re.compile(r"^\{ForeignNode\[(.*)\.\.\.(.*)\]\}$")
_POINTWISE = re.compile(r"^PWN\((.*)\)$")
_UNNAMED = "node_of_"  # how the parser calls a node without a name: after the value it writes
_OWN_RUN = "Layers were profiled in a run of their own, after the timed one: shares are rescaled to the timed mean."
_NAMES_ONLY = "The engine tells its layers by name only, so types and kernels are unknown."


def op_profile(texts: Mapping[str, str], job: Job, notes: tuple[str, ...] = ()) -> OpProfile:
    """Read a profiling run of ``trtexec``.

    Args:
        texts: ``run_log``, ``times``, ``profile`` and ``layers``, as the run wrote them.
        job: The ``profile`` job; its artifact's path is the ONNX file on this host.
        notes: Of the commands.

    Raises:
        UnknownLayout: If a file is not as known, or profile and layers are of two engines.
        SessionFailed: If the run failed.
        InvalidModel: If the model cannot be read.
    """
    figures = session_figures(texts, job)
    profile = parse_profile(texts.get("profile", ""))
    layers = matched(profile, parse_layers(texts.get("layers", "")))
    index = ModuleIndex.from_onnx(Path(job.artifact.path))
    joined = join_layers(layers, index)
    rows = [
        Row(time.name, layer.layer_type, layer.tactic, time.average_ms * 1e3, join)
        for time, layer, join in zip(profile.layers, layers, joined, strict=True)
    ]
    samples = figures.samples_ns
    named = [_NAMES_ONLY] if not any(layer.layer_type for layer in layers) else []
    return finished(
        "tensorrt",
        rows,
        runs=profile.count,
        unprofiled_us=sum(samples) / len(samples) / 1e3,
        profiled_us=profile.sum_ms * 1e3,
        notes=(*notes, *log_notes(parse_log(texts["run_log"])), _OWN_RUN, *named, *index.notes()),
    )


def matched(profile: LayerProfile, layers: Sequence[EngineLayer]) -> tuple[EngineLayer, ...]:
    """The engine's layer behind each time, by name; of equal names the first one is taken first.

    Layers that take no time of their own (constants, concatenations done in place) are not in the profile.

    Raises:
        UnknownLayout: If the profile has a layer that the engine has not.
    """
    waiting: dict[str, list[EngineLayer]] = {}
    for layer in reversed(layers):
        waiting.setdefault(layer.name, []).append(layer)
    found = []
    for position, time in enumerate(profile.layers, 1):
        same = waiting.get(time.name)
        if not same:
            raise UnknownLayout(
                f"profile.json[{position}]: the engine has no layer {time.name[:120]!r}",
                "Profile and layers come from two engines; try again.",
            )
        found.append(same.pop())
    return tuple(found)


def join_layers(layers: Sequence[EngineLayer], index: ModuleIndex) -> tuple[Joined, ...]:
    """Join layers to source nodes and modules.

    Args:
        layers: In the order they run.
        index: The source model.
    """
    sources = [_sources(layer, index) for layer in layers]
    modules = [main_module(found) for found in sources]
    chain = [[position - 1] if position else [] for position in range(len(layers))]
    settled = from_neighbours(modules, chain)
    return tuple(
        Joined(
            tuple(node.name for node in found),
            module,
            "layout" if _is_layout(layer) else "compute",
            guessed=before is None and module is not None,
        )
        for layer, found, before, module in zip(layers, sources, modules, settled, strict=True)
    )


def main_module(sources: Sequence[Node]) -> str | None:
    """Module of a fused layer: that of its convolutions and products where they agree, else what all share."""
    heavy = {node.module for node in sources if node.op_type in _HEAVY}
    if len(heavy) == 1:
        return heavy.pop()
    modules = {node.module for node in sources}
    return modules.pop() if len(modules) == 1 else common_module(modules)


def names_in(layer_name: str) -> tuple[str, ...]:
    """Names of source nodes within a layer's name, as far as it tells them."""
    name = layer_name.strip()
    copy = _COPY.match(name)
    if copy:
        return names_in(copy[1])
    foreign = _FOREIGN.match(name)
    if foreign:
        return (*names_in(foreign[1]), *names_in(foreign[2]))
    for separator in (" + ", " || "):
        parts = _split_outside(name, separator)
        if len(parts) > 1:
            return tuple(inner for part in parts for inner in names_in(part))
    pointwise = _POINTWISE.match(name)
    if pointwise:
        return tuple(inner for part in _split_outside(pointwise[1], ", ") for inner in names_in(part))
    return (name,) if name else ()


def _split_outside(text: str, separator: str) -> list[str]:
    """Split at a separator that stands outside of parentheses."""
    parts, depth, start, position = [], 0, 0, 0
    while position < len(text):
        if depth == 0 and text.startswith(separator, position):
            parts.append(text[start:position])
            position += len(separator)
            start = position
            continue
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        position += 1
    return [*parts, text[start:]]


def _sources(layer: EngineLayer, index: ModuleIndex) -> list[Node]:
    found: dict[str, Node] = {}
    for name in layer.onnx_nodes or (layer.name,):
        whole = index.node_or_value(name)
        candidates = (name,) if whole is not None else names_in(name)
        for candidate in candidates:
            node = index.node_or_value(candidate) or index.node_or_value(candidate.removeprefix(_UNNAMED))
            if node is not None:
                found.setdefault(node.name or candidate, node)
    return list(found.values())


def _is_layout(layer: EngineLayer) -> bool:
    return layer.layer_type == "Reformat" or layer.name.startswith("Reformatting CopyNode")
