"""What ``trtexec --exportLayerInfo`` writes: the engine's layers, by name only or in detail.

An engine built with ``--profilingVerbosity=detailed`` gives an object a layer; otherwise, and for engines from
elsewhere, a list of names. ``Metadata`` (8.6 and newer) holds ``[ONNX Layer: node]`` items parted by the control
characters 0x1e and 0x1f, which may stand in the file as they are. Source: NVIDIA's developer guide on the engine
inspector, and the TensorRT Engine Explorer, which reads these files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from targets.tensorrt.strict_json import load_json, refuse

_TOP = {"Layers", "Bindings"}
_MARK, _END = "[ONNX Layer: ", "]"
_SEPARATORS = re.compile("[\x1e\x1f]")


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine.

    Attributes:
        name: Its name.
        layer_type: Its type, for example ``CaskConvolution``, ``Reformat``, ``kgen``; empty where only names are told.
        tactic: Kernel chosen; empty where not told.
        onnx_nodes: Names of the ONNX nodes it executes, where told.
        data_types: Formats of its outputs, for example ``Row major linear FP16 format``.
    """

    name: str
    layer_type: str = ""
    tactic: str = ""
    onnx_nodes: tuple[str, ...] = ()
    data_types: tuple[str, ...] = ()


def parse_layers(text: str, name: str = "layers.json") -> tuple[EngineLayer, ...]:
    """Read the layers.

    Args:
        text: The file's text.
        name: The file's name, for errors.

    Returns:
        At least one layer, in the engine's order.

    Raises:
        UnknownLayout: If the file has other keys, an entry is neither a name nor a layer, or both are mixed.
    """
    data = load_json(text, name, strict=False)  # the separators in Metadata are control characters
    if not isinstance(data, dict) or not {"Layers"} <= set(data) <= _TOP:
        refuse(name, "has other keys than 'Layers' and 'Bindings'", sorted(data) if isinstance(data, dict) else data)
    rows = data["Layers"]
    if not isinstance(rows, list) or not rows:
        refuse(f"{name}.Layers", "is no list of layers", rows)
    kind = type(rows[0])
    if kind not in (str, dict):
        refuse(f"{name}.Layers[0]", "is neither a name nor a layer", rows[0])
    found = []
    for index, row in enumerate(rows):
        place = f"{name}.Layers[{index}]"
        if type(row) is not kind:
            refuse(place, "is of another kind than the first one", row)
        found.append(_named(row, place) if isinstance(row, str) else _detailed(row, place))
    return tuple(found)


def nodes_of_metadata(text: str) -> tuple[str, ...]:
    """Names of ONNX nodes in a ``Metadata`` string, each once; other items are not read."""
    found: dict[str, None] = {}
    for part in _SEPARATORS.split(text):
        start = part.find(_MARK)
        if start >= 0 and part.endswith(_END):
            inner = part[start + len(_MARK) : -len(_END)]
            found.update(dict.fromkeys(node for node in inner.split(_END + _MARK) if node))
    return tuple(found)


def _named(row: str, place: str) -> EngineLayer:
    if not row:
        refuse(place, "has no name", row)
    return EngineLayer(row)


def _detailed(row: dict[str, object], place: str) -> EngineLayer:
    for key in ("Name", "LayerType"):
        if not isinstance(row.get(key), str) or not row[key]:
            refuse(place, f"has no {key}", row)
    texts = {key: row.get(key, "") for key in ("TacticName", "Metadata")}
    for key, value in texts.items():
        if not isinstance(value, str):
            refuse(place, f"{key} is no text", row)
    outputs = row.get("Outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        refuse(place, "Outputs is no list of tensors", row)
    types = tuple(str(output["Format/Datatype"]) for output in outputs if "Format/Datatype" in output)
    return EngineLayer(
        name=str(row["Name"]),
        layer_type=str(row["LayerType"]),
        tactic=str(texts["TacticName"]),
        onnx_nodes=nodes_of_metadata(str(texts["Metadata"])),
        data_types=types,
    )
