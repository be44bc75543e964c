"""What ``trtexec --exportProfile`` writes: the count of iterations, then the total time of each layer.

Two layouts are known: with ``medianMs`` (8.5 and newer) and without. There are no times of single iterations, and the
median is checked and not kept: medians do not add up to an inference. Source:
NVIDIA/TensorRT, samples/common/sampleReporting.cpp of 8.2 and 10.
"""

from __future__ import annotations

from dataclasses import dataclass

from targets.tensorrt.strict_json import agrees, load_json, number, refuse

_OLD_KEYS = {"name", "timeMs", "averageMs", "percentage"}
_KEYS = {*_OLD_KEYS, "medianMs"}


@dataclass(frozen=True)
class LayerTime:
    """One layer of the engine.

    Attributes:
        name: Its name; two layers may share one.
        total_ms: Sum over the iterations.
        average_ms: Mean of an iteration.
        percentage: Share of the sum over layers, 0 to 100.
    """

    name: str
    total_ms: float
    average_ms: float
    percentage: float


@dataclass(frozen=True)
class LayerProfile:
    """A profile.

    Attributes:
        count: Iterations behind it.
        layers: In the order they run.
    """

    count: int
    layers: tuple[LayerTime, ...]

    @property
    def sum_ms(self) -> float:
        """Mean time of an iteration in all layers, milliseconds."""
        return sum(layer.average_ms for layer in self.layers)


def parse_profile(text: str, name: str = "profile.json") -> LayerProfile:
    """Read a profile.

    Args:
        text: The file's text.
        name: The file's name, for errors.

    Raises:
        UnknownLayout: If an element has other keys, is no duration, or contradicts the rest.
    """
    rows = load_json(text, name)
    if not isinstance(rows, list) or len(rows) < 2:
        refuse(name, "is no list of a count and layers", text[:80])
    head, *body = rows
    if not isinstance(head, dict) or set(head) != {"count"}:
        refuse(f"{name}[0]", "is no count of iterations", head)
    count = head["count"]
    if type(count) is not int or not 0 < count < 10**9:
        refuse(f"{name}[0]", "is no count of iterations", head)
    keys = set(body[0]) if isinstance(body[0], dict) else set()
    if keys not in (_KEYS, _OLD_KEYS):
        refuse(f"{name}[1]", "has other keys than any known version writes", body[0])
    layers = []
    for index, row in enumerate(body, 1):
        if not isinstance(row, dict) or set(row) != keys:
            refuse(f"{name}[{index}]", "has other keys than the first layer", row)
        layers.append(_layer(row, count, f"{name}[{index}]"))
    _check_shares(layers, name)
    return LayerProfile(count, tuple(layers))


def _layer(row: dict[str, object], count: int, place: str) -> LayerTime:
    name = row["name"]
    if not isinstance(name, str) or not name:
        refuse(place, "has no name", row)
    total, average, percentage = (number(row, key, place) for key in ("timeMs", "averageMs", "percentage"))
    median = number(row, "medianMs", place) if "medianMs" in row else None
    if not agrees(average, total / count, total / count):
        refuse(place, f"averageMs is not timeMs over the {count} iterations", row)
    if median is not None and median > 2 * average * (1 + 1e-4):  # half of the iterations take at least the median
        refuse(place, "medianMs contradicts averageMs", row)
    return LayerTime(name, total, average, percentage)


def _check_shares(layers: list[LayerTime], name: str) -> None:
    total = sum(layer.total_ms for layer in layers)
    if total <= 0:
        refuse(name, "no layer took any time", [layer.name for layer in layers[:5]])
    for index, layer in enumerate(layers, 1):
        share = layer.total_ms / total * 100
        if not agrees(layer.percentage, share, share, slack=8):
            refuse(f"{name}[{index}]", f"percentage is not its share of {share:.4f}", layer.name)
