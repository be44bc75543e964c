"""What ``trtexec --exportTimes`` writes: one object an inference, all in milliseconds.

Two layouts are known: 8.2's, with ``endToEndMs`` and the warm-up in the list, and the one without it since 8.4. Times
are told twice, as stamps and as durations, and the latency as their sum: a list whose figures contradict each other is
refused. Source: NVIDIA/TensorRT, samples/common/sampleReporting.cpp of 8.2 and 10.
"""

from __future__ import annotations

from dataclasses import dataclass

from targets.tensorrt.strict_json import agrees, load_json, number, refuse

_STAMPS = ("Enq", "H2d", "Compute", "D2h")
_KEYS = {
    *(f"{edge}{part}Ms" for part in _STAMPS for edge in ("start", "end")),
    "h2dMs",
    "computeMs",
    "d2hMs",
    "latencyMs",
}
_OLD_KEYS = {*_KEYS, "endToEndMs"}


@dataclass(frozen=True)
class Iteration:
    """One inference.

    Attributes:
        start_compute_ms: When the GPU began, since the start of the run.
        h2d_ms: Copying the inputs to the GPU; 0 without transfers.
        compute_ms: The GPU's time for the kernels.
        d2h_ms: Copying the outputs back; 0 without transfers.
        latency_ms: The sum of the three.
    """

    start_compute_ms: float
    h2d_ms: float
    compute_ms: float
    d2h_ms: float
    latency_ms: float


def parse_times(text: str, name: str = "times.json") -> tuple[Iteration, ...]:
    """Read the list.

    Args:
        text: The file's text.
        name: The file's name, for errors.

    Returns:
        At least one iteration, in the order they ran.

    Raises:
        UnknownLayout: If an element has other keys, is no duration, or contradicts itself or the one before it.
    """
    rows = load_json(text, name)
    if not isinstance(rows, list) or not rows:
        refuse(name, "is no list of iterations", text[:80])
    keys = set(rows[0]) if isinstance(rows[0], dict) else set()
    if keys not in (_KEYS, _OLD_KEYS):
        refuse(f"{name}[0]", "has other keys than any known version writes", rows[0])
    found: list[Iteration] = []
    for index, row in enumerate(rows):
        place = f"{name}[{index}]"
        if not isinstance(row, dict) or set(row) != keys:
            refuse(place, "has other keys than the first one", row)
        found.append(_iteration(row, place))
        if index and found[index].start_compute_ms < found[index - 1].start_compute_ms:
            refuse(place, "starts before the one in front of it", row)
    return tuple(found)


def _iteration(row: dict[str, object], place: str) -> Iteration:
    figures = {key: number(row, key, place) for key in row}
    for part in _STAMPS:
        start, end = figures[f"start{part}Ms"], figures[f"end{part}Ms"]
        if end < start:
            refuse(place, f"ends {part} before it starts it", row)
        told = figures.get(f"{part[0].lower()}{part[1:]}Ms")
        if told is not None and not agrees(told, end - start, start, end):
            refuse(place, f"{part}'s stamps contradict its duration", row)
    h2d, compute, d2h, latency = (figures[key] for key in ("h2dMs", "computeMs", "d2hMs", "latencyMs"))
    if compute <= 0:
        refuse(place, "computed for no time", row)
    if not agrees(latency, h2d + compute + d2h, h2d, compute, d2h):
        refuse(place, "latencyMs is not the sum of its parts", row)
    span = figures.get("endToEndMs")
    if span is not None and not agrees(
        span, figures["endD2hMs"] - figures["startH2dMs"], figures["endD2hMs"], figures["startH2dMs"]
    ):
        refuse(place, "endToEndMs contradicts the stamps", row)
    return Iteration(figures["startComputeMs"], h2d, compute, d2h, latency)
