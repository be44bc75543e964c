"""What ``trtexec`` prints: its version, the GPU, what it says it runs with, and its warnings.

Lines may start with a stamp and a level (``[05/13/2025-10:36:46] [I] ``). What is not recognised is left alone, but
the banner, the verdict and the counts of iterations have to be there. Source: logs of 8.2 to 11.0 that users have
published, and NVIDIA/TensorRT, samples/common/sampleReporting.cpp and sampleOptions.cpp.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from targets.errors import UnknownLayout, printable
from targets.tensorrt.versions import TensorrtVersion, version_of_banner

_LINE = re.compile(r"^(?:\[[0-9/:.\- ]{1,40}\] )?\[([VIWEF])\] ?(.*)$")
_VERDICT = re.compile(r"^&&&& (PASSED|FAILED) TensorRT\.trtexec")
_WARM_UP = re.compile(r"Warmup completed (\d{1,9}) queries over (\d{1,9}(?:\.\d{1,6})?) ms")
_TRACE = re.compile(r"Timing trace has (\d{1,9}) queries over ([0-9.e+\-]{1,15}) s")
_DESERIALIZED = re.compile(r"Engine deserialized in (\d{1,6}(?:\.\d{1,9})?(?:e-\d{1,2})?) sec")
_UNSTABLE = re.compile(r"GPU compute time is unstable, with coefficient of variance = ([0-9.]{1,12})%")
_FIX = "Report the log: this version prints something that the kit does not know."

_TOLD = {
    "Precision": "precision",
    "CUDA Graph": "cuda_graph",
    "Spin-wait": "spin_wait",
    "Data transfers": "transfers",
    "Streams": "streams",
    "Inference Streams": "streams",
    "Input(s)s format": "input_format",
    "Output(s)s format": "output_format",
    "Selected Device": "gpu",
    "Compute Capability": "compute_capability",
}


@dataclass(frozen=True)
class TrtexecLog:
    """A log.

    Attributes:
        version: Of the tool.
        passed: Whether it says that all went well; ``None`` where it was cut off before saying so.
        told: What it says of itself and its device, by our names.
        load_ms: Reading the engine, where told.
        warm_up_count: Warm-up inferences, where it timed.
        timed_count: Timed inferences, where it timed.
        unstable_percent: Coefficient of variation it warns of, percent.
        warnings: Lines of level W, printable, without repeats.
        errors: Lines of level E and F, the same.
    """

    version: TensorrtVersion
    passed: bool | None
    told: dict[str, str] = field(default_factory=dict)
    load_ms: float | None = None
    warm_up_count: int | None = None
    timed_count: int | None = None
    unstable_percent: float | None = None
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def enqueue_bound(self) -> bool:
        """Whether it warns that the host, not the GPU, sets the pace."""
        return any("bound by Enqueue Time" in line for line in self.warnings)

    @property
    def graph_failed(self) -> bool:
        """Whether a CUDA graph was asked for and could not be captured."""
        return any(re.search(r"useCudaGraph flag has been ignored|graph capture .*failed", w) for w in self.warnings)

    @property
    def auxiliary_streams(self) -> bool:
        """Whether layers ran beside each other, so that their times overlap."""
        return any("auxiliary stream" in line.lower() for line in self.warnings)


def parse_log(text: str) -> TrtexecLog:
    """Read a log.

    Args:
        text: Standard output and error in one.

    Raises:
        UnknownLayout: If there is no banner, or a figure is told twice and differently.
        UsageError: If the version's flags are not known.
    """
    version = version_of_banner(text)
    told: dict[str, str] = {}
    levels: dict[str, dict[str, None]] = {"W": {}, "E": {}, "F": {}}
    passed: bool | None = None
    for raw in text.splitlines():
        verdict = _VERDICT.match(raw)
        if verdict:
            passed = verdict[1] == "PASSED" and passed is not False
        found = _LINE.match(raw)
        if found is None:
            continue
        level, line = found[1], found[2].strip()
        if level in levels and line:
            levels[level].setdefault(printable(line, 300))
        key, colon, value = line.partition(":")
        if level == "I" and colon and key in _TOLD:
            told.setdefault(_TOLD[key], printable(value.strip(), 100))
    counts = {name: _once(pattern, text) for name, pattern in (("warm", _WARM_UP), ("timed", _TRACE))}
    load_s, unstable = _once(_DESERIALIZED, text, last=True), _once(_UNSTABLE, text, last=True)
    return TrtexecLog(
        version=version,
        passed=passed,
        told=told,
        load_ms=None if load_s is None else float(load_s) * 1e3,
        warm_up_count=None if counts["warm"] is None else int(counts["warm"]),
        timed_count=None if counts["timed"] is None else int(counts["timed"]),
        unstable_percent=None if unstable is None else _decimal(unstable),
        warnings=tuple(levels["W"]),
        errors=(*levels["E"], *levels["F"]),
    )


def _once(pattern: re.Pattern[str], text: str, *, last: bool = False) -> str | None:
    """The first group of a line that may stand there once."""
    found = [match[1] for match in pattern.finditer(text)]
    if len(set(found)) > 1 and not last:
        raise UnknownLayout(f"trtexec's log tells {found[:3]} for one figure: {pattern.pattern!r}", _FIX)
    return found[-1] if found else None


def _decimal(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UnknownLayout(f"trtexec's log holds {text!r} for a number", _FIX) from error
