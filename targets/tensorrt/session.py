"""The host's side of one session with ``trtexec``: the commands before it, and the figures after it.

The agent on the device runs argument lists and returns the text of files; all that is TensorRT is here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from targets.errors import FailureKind, SessionFailed, UnknownLayout, UsageError, printable
from targets.jobs import Job
from targets.runtimes.checks import choose
from targets.tensorrt.flags import CHOICES, BuildFlags, build_arguments, run_arguments
from targets.tensorrt.log import TrtexecLog, parse_log
from targets.tensorrt.precision import check_precision, numbers_of, opset_notes
from targets.tensorrt.times import Iteration, parse_times
from targets.tensorrt.versions import TensorrtVersion, known_version, newest_opset, version_of_banner

BUILD_TIMEOUT_S = 1800.0
"""Deadline of a build, seconds: a Jetson Nano tries kernels for many minutes."""

_RUN_GRACE_S = 240.0
_KEY_LENGTH = 32
_MEMORY = re.compile(r"out of memory|outofmemory|bad_alloc|insufficient memory|MemoryAllocation", re.IGNORECASE)
_MODEL = re.compile(r"failed to parse|parsing model failed|ModelImporter|onnx2trt|unsupported", re.IGNORECASE)
_ENGINE = re.compile(r"deseriali[sz]ation|Serialization assertion|engine plan file is not compatible", re.IGNORECASE)


@dataclass(frozen=True)
class DevicePaths:
    """Places on the device, absolute.

    Attributes:
        model: The ONNX file, its external data beside it.
        engines: Folder that keeps engines and timing caches.
        session: Folder of the session.
    """

    model: str
    engines: str
    session: str


@dataclass(frozen=True)
class Trtexec:
    """The tool on the device.

    Attributes:
        program: Its path.
        version: As it tells, see :func:`targets.tensorrt.versions.version_of_banner`.
        device: What the engine is built for: the GPU's name, or the board's model where the GPU has none.
    """

    program: str
    version: str
    device: str


@dataclass(frozen=True)
class TensorrtCommands:
    """What the agent runs.

    Attributes:
        build: Argument list, run only if :attr:`engine` is not there.
        run: Argument list.
        building: File that the build writes; moved to :attr:`engine` once it ended with status 0.
        engine: The engine that is kept.
        timing_cache: Kernel timings that are kept, for this GPU and version.
        exports: Files that the run writes, by kind: ``times``, ``profile``, ``layers``.
        notes: What a reader of the record must know, one sentence each.
        build_timeout_s: Deadline of the build.
        run_timeout_s: Deadline of the run.
    """

    build: tuple[str, ...]
    run: tuple[str, ...]
    building: str
    engine: str
    timing_cache: str
    exports: Mapping[str, str]
    notes: tuple[str, ...] = ()
    build_timeout_s: float = BUILD_TIMEOUT_S
    run_timeout_s: float = _RUN_GRACE_S

    def steps(self) -> list[dict[str, object]]:
        """The two steps as the agent takes them: build unless the engine is there, then run and send the files back."""
        return [
            {
                "argv": list(self.build),
                "timeout_s": self.build_timeout_s,
                "skip_if": self.engine,
                "keep": [[self.building, self.engine]],
            },
            {"argv": list(self.run), "timeout_s": self.run_timeout_s, "returns": dict(self.exports), "sample": True},
        ]


@dataclass(frozen=True)
class TensorrtFigures:
    """What a session gave.

    Attributes:
        samples_ns: GPU time of each timed inference, nanoseconds.
        warmup_ns: The same of warm-up inferences, where the version writes them.
        load_ms: Reading the engine, where told.
        actual: What the tool says it ran with.
        versions: ``tensorrt``.
        device: What the tool says of the GPU.
        notes: What a reader must know, one sentence each.
    """

    samples_ns: tuple[int, ...]
    warmup_ns: tuple[int, ...]
    load_ms: float | None
    actual: dict[str, str]
    versions: dict[str, str]
    device: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def engine_key(sha256: str, device: str, flags: BuildFlags) -> str:
    """Name of an engine in the cache: anything that can change the engine changes the name.

    Args:
        sha256: Of the model, external data included.
        device: What it is built for.
        flags: Version, precision and all build flags.

    Returns:
        32 hexadecimal digits.
    """
    return _digest([sha256, device, str(flags.version), flags.precision.value, *flags.arguments()])


def commands(job: Job, tool: Trtexec, paths: DevicePaths, inventory_version: str | None = None) -> TensorrtCommands:
    """What to run on the device for a job.

    Args:
        job: A ``time`` or ``profile`` job; its artifact's path is an ONNX file on this host.
        tool: The tool found there.
        paths: Places there.
        inventory_version: ``runtime_version`` of the inventory, where given.

    Raises:
        UsageError: If the version, the precision or an option is not possible.
        InvalidModel: If the file cannot be read as ONNX.
    """
    version = known_version(tool.version)
    if inventory_version is not None:
        _check_version(version, inventory_version)
    if job.settings.accelerator == "npu":
        raise UsageError("trtexec is run on the GPU by this kit, not on the DLA", "Use accelerator = 'gpu'.")
    flags = BuildFlags(version, job.settings.precision, choose(job.settings, CHOICES))
    model = Path(job.artifact.path)
    numbers = numbers_of(model)
    notes = [*check_precision(model.name, numbers, flags.precision, version), *opset_notes(numbers, version)]
    key = engine_key(job.artifact.sha256, tool.device, flags)
    engine = f"{paths.engines}/{key}.plan"
    cache = f"{paths.engines}/{_digest([tool.device, str(version)])}.timing"
    kinds = ("times", "profile", "layers") if job.task == "profile" else ("times",)
    exports = {kind: f"{paths.session}/{kind}.json" for kind in kinds}
    building = f"{paths.session}/engine.plan"
    build = build_arguments(flags, model=paths.model, engine=building, timing_cache=cache)
    run = run_arguments(flags, engine=engine, seconds=job.seconds, min_runs=job.min_runs, exports=exports)
    return TensorrtCommands(
        build=(tool.program, *build),
        run=(tool.program, *run),
        building=building,
        engine=engine,
        timing_cache=cache,
        exports=exports,
        notes=tuple(notes),
        run_timeout_s=job.seconds * 20 + _RUN_GRACE_S,
    )


def texts_of(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the two steps gave, by kind, for :func:`session_figures`.

    Args:
        outcomes: Of each step that was come to ``returncode``, ``log`` and ``files`` (text by kind), or ``skipped``.

    Raises:
        SessionFailed: If a step failed, classified.
    """
    texts: dict[str, str] = {}
    for kind, outcome in zip(("build", "run"), outcomes, strict=False):
        if outcome.get("skipped"):
            continue
        if outcome["returncode"] != 0:
            raise failure_of(outcome["returncode"], outcome["log"], building=kind == "build")
        texts[f"{kind}_log"] = outcome["log"]
        texts.update(outcome.get("files", {}))
    return texts


def session_figures(texts: Mapping[str, str], job: Job, notes: tuple[str, ...] = ()) -> TensorrtFigures:
    """Read what a run wrote.

    Args:
        texts: ``run_log``, ``times``, and ``build_log`` where the engine was built now.
        job: What was asked for.
        notes: Of the commands.

    Raises:
        UnknownLayout: If a file is not as known, or contradicts the log.
        SessionFailed: If the tool says that it failed, or ran otherwise than it was told.
    """
    log = _log_of(texts)
    warm_up, timed = _split(parse_times(_text(texts, "times")), log)
    options = choose(job.settings, CHOICES)
    if options["transfers"] == "off" and any(item.h2d_ms or item.d2h_ms for item in timed):
        raise SessionFailed("trtexec was told not to copy data and did", FailureKind.TOOL_ERROR)
    # The GPU's own time; with transfers asked for, the copies count too.
    chosen = [item.latency_ms if options["transfers"] == "on" else item.compute_ms for item in timed]
    before = [item.latency_ms if options["transfers"] == "on" else item.compute_ms for item in warm_up]
    statistic = "copies and GPU compute time" if options["transfers"] == "on" else "GPU compute time"
    device: dict[str, str] = {key: log.told[key] for key in ("gpu", "compute_capability") if key in log.told}
    return TensorrtFigures(
        samples_ns=_nanoseconds(chosen),
        warmup_ns=_nanoseconds(before),
        load_ms=log.load_ms,
        actual={**_actual(log, job), "statistic": statistic},
        versions={"tensorrt": str(log.version)},
        device=device,
        notes=(*notes, *log_notes(log)),
    )


def log_notes(log: TrtexecLog) -> list[str]:
    """What the tool itself warns of, one sentence each."""
    notes = []
    if log.unstable_percent is not None:
        notes.append(f"trtexec calls the GPU's time unstable (coefficient of variation {log.unstable_percent:g} %).")
    if log.enqueue_bound:
        notes.append("trtexec says that the host's launches, not the GPU, may set the pace.")
    if log.graph_failed:
        notes.append("A CUDA graph was asked for and could not be captured: kernels were launched one by one.")
    if log.auxiliary_streams:
        notes.append("Layers ran beside each other on auxiliary streams: their times overlap.")
    return notes


def failure_of(returncode: int, log: str, *, building: bool) -> SessionFailed:
    """Classify a ``trtexec`` that ended with an error.

    Args:
        returncode: Its exit status, minus the signal's number where a signal ended it.
        log: Its output.
        building: Whether it was to build an engine.
    """
    lines = [line for line in log.splitlines() if re.search(r"\[[EF]\]", line)]
    told = printable(re.sub(r"^.*?\[[EF]\] ?", "", lines[0]).strip(), 240) if lines else "it names no error"
    what = "building the engine" if building else "timing the engine"
    if returncode in (-9, 137) or _MEMORY.search("\n".join(lines)):
        text = f"trtexec ran out of memory while {what} (status {returncode}): {told}"
        return SessionFailed(text, FailureKind.OUT_OF_MEMORY, "Take a smaller input, or option workspace_mib=256.")
    if building and _MODEL.search("\n".join(lines)):
        fix = f"Check it with 'inas-deploy check', and its opset: {_opset_hint(log)}."
        return SessionFailed(f"trtexec cannot take the model: {told}", FailureKind.BAD_ARTIFACT, fix)
    if not building and _ENGINE.search("\n".join(lines)):
        fix = "Remove the engine on the device, so that it is built again: its TensorRT or GPU has changed."
        return SessionFailed(f"trtexec cannot load the engine: {told}", FailureKind.BAD_ARTIFACT, fix)
    text = f"trtexec ended with status {returncode} while {what}: {told}"
    return SessionFailed(text, FailureKind.TOOL_ERROR, "Run it by hand on the device to see all it prints.")


def _opset_hint(log: str) -> str:
    try:
        version = version_of_banner(log)
    except (UnknownLayout, UsageError):
        return "old versions read old opsets only"
    return f"TensorRT {version} is known to read up to opset {newest_opset(version)}"


def _log_of(texts: Mapping[str, str]) -> TrtexecLog:
    log = parse_log(_text(texts, "run_log"))
    if log.passed is not True:
        last = log.errors[0] if log.errors else "its log ends without a verdict"
        raise SessionFailed(f"trtexec did not finish its run: {last}", FailureKind.TOOL_ERROR)
    return log


def _text(texts: Mapping[str, str], kind: str) -> str:
    if kind not in texts:
        raise SessionFailed(f"the device sent no {kind}", FailureKind.TOOL_ERROR, "Try again.")
    return texts[kind]


def _check_version(version: TensorrtVersion, told: str) -> None:
    if known_version(told)[:2] != version[:2]:
        raise UsageError(
            f"trtexec on the device is {version} and the inventory says runtime_version {told!r}",
            f"Write runtime_version = '{version.major}.{version.minor}', or name another tool.",
        )


def _split(rows: tuple[Iteration, ...], log: TrtexecLog) -> tuple[tuple[Iteration, ...], tuple[Iteration, ...]]:
    """Warm-up and timed inferences: old versions write both, and the log counts them."""
    if log.timed_count is None or log.warm_up_count is None:
        raise UnknownLayout("trtexec's log does not count its inferences", "Report the log of this version.")
    if len(rows) == log.timed_count:
        return (), rows
    if len(rows) == log.timed_count + log.warm_up_count:
        return rows[: log.warm_up_count], rows[log.warm_up_count :]
    raise UnknownLayout(
        f"times.json has {len(rows)} iterations and the log counts {log.warm_up_count} + {log.timed_count}",
        "The file is cut off, or this version counts otherwise.",
    )


def _actual(log: TrtexecLog, job: Job) -> dict[str, str]:
    """What the log tells, after comparing it with what was asked for."""
    options = choose(job.settings, CHOICES)
    words = {"on": "Enabled", "off": "Disabled"}
    for name in ("cuda_graph", "spin_wait", "transfers"):
        told = log.told.get(name)
        if told is not None and told != words[options[name]]:
            raise SessionFailed(f"trtexec was told {name} {options[name]} and says {told}", FailureKind.TOOL_ERROR)
    if log.told.get("streams", "1") != "1":
        raise SessionFailed(f"trtexec ran {log.told['streams']} streams, not 1", FailureKind.TOOL_ERROR)
    shown = ("precision", "cuda_graph", "spin_wait", "transfers", "streams", "input_format", "output_format")
    actual = {name: log.told.get(name, "not told") for name in shown}
    if log.graph_failed:
        actual["cuda_graph"] = "asked for, could not be captured"
    return actual


def _nanoseconds(values_ms: list[float]) -> tuple[int, ...]:
    return tuple(max(1, round(value * 1e6)) for value in values_ms)


def _digest(parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_KEY_LENGTH]
