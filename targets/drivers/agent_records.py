"""From a checked answer to the record of a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from targets.drivers.agent_answer import (
    About,
    Result,
    TimedResult,
    ToolsResult,
    Unpacker,
    checked,
)
from targets.drivers.agent_readings import input_power_mw, read_readings
from targets.errors import FailureKind, SessionFailed, UsageError, printable
from targets.jetson import energy_mj
from targets.jobs import Job
from targets.profiles.onnxruntime import parse_ort_profile
from targets.profiles.onnxruntime_join import placement
from targets.records import Frozen, SessionRecord
from targets.runtimes.openvino import most_frequent_types
from targets.runtimes.tflite import checked_delegate, describe
from targets.tensorrt.session import TensorrtFigures
from targets.tflite_files import TfliteFile

_DISTRIBUTIONS = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
_CPU = "CPUExecutionProvider"


class DelegateNode(Frozen):
    """A node of the interpreter's plan, as the agent tells it."""

    index: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class _Told:
    """What :func:`targets.runtimes.tflite.describe` asks an interpreter, told by a device."""

    def __init__(self, nodes: tuple[DelegateNode, ...]) -> None:
        self._nodes = nodes

    def _get_ops_details(self) -> list[dict[str, Any]]:
        return [node.model_dump() for node in self._nodes]


def check_files(job: Job, sent: Mapping[str, str], found: Result, *, where: str) -> None:
    """Refuse figures of another file than was sent.

    Args:
        job: What was asked for.
        sent: SHA-256 of each of the model's files by name.
        found: The answer.
        where: Device name.

    Raises:
        SessionFailed: If they differ.
    """
    if {file.name: file.sha256 for file in found.files} != dict(sent):
        raise SessionFailed(
            f"the agent on {where} ran another file than {job.artifact.sha256[:12]}",
            FailureKind.BAD_ARTIFACT,
            "Nothing of it is used; measure again.",
        )


def device_facts(about: About) -> dict[str, str]:
    """What goes into a record of the device: no serial numbers, addresses or paths."""
    names = {"machine": "model", "jetson": "jetson", "cpu": "cpu", "cores": "cores", "memory_kb": "memory_kb"}
    names |= {"os": "os", "kernel": "kernel", "arch": "arch", "python": "python"}
    facts = {name: about.facts[key] for key, name in names.items() if key in about.facts}
    lines = about.texts.get("nvidia-smi", "").splitlines()
    fields = [part.strip()[:100] for part in lines[0].split(",")] if lines else []
    if len(fields) == 3 and all(field.isprintable() for field in fields):
        facts |= dict(zip(("gpu", "driver", "compute_capability"), fields, strict=True))
    return facts


def timed_record(job: Job, result: TimedResult, about: About, actual: dict[str, str], took_s: float) -> SessionRecord:
    """A session that the agent timed itself.

    Args:
        job: What was asked for.
        result: The checked answer.
        about: The device.
        actual: What the runtime says it runs with.
        took_s: How long the agent worked, seconds.

    Raises:
        SessionFailed: If its inferences took longer than the agent worked.
        UsageError: If other threads run than were asked for.
    """
    if sum(result.samples_ns) + sum(result.warmup_ns) > took_s * 1e9:
        raise SessionFailed(
            "the agent tells inferences that took longer than it worked", FailureKind.TOOL_ERROR, "Measure again."
        )
    threads = actual.get("threads", str(job.settings.threads))
    if threads != str(job.settings.threads):
        raise UsageError(
            f"{job.settings.runtime} runs {threads} threads where {job.settings.threads} were asked for",
            f"Ask for {threads} (--threads).",
        )
    mean_ms = float(np.mean(result.samples_ns)) / 1e6
    now = datetime.now(UTC)
    return SessionRecord(
        session_id=job.session_id,
        index=job.index,
        pid=result.pid,
        started_at=now - timedelta(seconds=took_s),  # this host's clock: a board's own may be years off
        finished_at=now,
        load_ms=result.load_ms,
        first_inference_ms=result.first_inference_ms,
        warmup_ns=result.warmup_ns,
        samples_ns=result.samples_ns,
        steady=result.steady,
        peak_rss_mb=result.peak_rss_mb,
        cpu_per_wall=result.cpu_per_wall if job.settings.accelerator == "cpu" else None,  # a core waits for a GPU
        host=result.host,
        readings=read_readings(result.readings),
        energy_mj=energy_mj(input_power_mw(result.readings, job.seconds), mean_ms),
        settings=job.settings,
        actual=actual,
        versions=result.versions,
        device=device_facts(about),
    )


def onnxruntime_actual(job: Job, result: TimedResult, *, where: str) -> dict[str, str]:
    """What ONNX Runtime ran with; on a GPU also where each operation ran.

    Raises:
        UnknownLayout: If the trace that tells it has an unknown layout.
        SessionFailed: If nothing ran on the accelerator that was asked for.
    """
    actual = {key: value for key, value in result.actual.items() if key != "inputs" or value != "seeded"}
    if job.settings.accelerator == "cpu":
        return actual
    events = parse_ort_profile(Unpacker(where).text(result.placement_trace))[0].events
    counts = placement(events)
    if not any(count for provider, count in counts.items() if provider != _CPU):
        raise SessionFailed(
            f"onnxruntime on {where} ran every operation on the CPU",
            FailureKind.TOOL_ERROR,
            "Check the driver, CUDA and cuDNN versions there, or ask for the CPU.",
        )
    actual["placement"] = ", ".join(f"{count} on {provider}" for provider, count in sorted(counts.items()))
    actual["transfers"] = "included"
    return actual


def openvino_actual(result: TimedResult) -> dict[str, str]:
    """What OpenVINO ran with, and the types its operations computed in."""
    actual = {key: value for key, value in result.actual.items() if key != "inputs" or value != "seeded"}
    told = [row for row in result.graph if "precision" in row]
    types = most_frequent_types((str(row.get("layer_type")), str(row["precision"])) for row in told)
    return {**actual, "executed_precisions": printable(types, 200)}


def tflite_actual(job: Job, result: TimedResult, file: TfliteFile, *, where: str) -> dict[str, str]:
    """What TFLite ran with: :func:`targets.runtimes.tflite.describe` of what the device told."""
    told: object = object()
    if result.nodes is not None:
        told = _Told(tuple(checked(DelegateNode, node, where=where) for node in result.nodes))
    actual = describe(told, file, job.settings.threads, checked_delegate(job.settings))
    return actual if result.inputs == "seeded" else {**actual, "inputs": result.inputs}


def tflite_versions(result: TimedResult, about: About) -> dict[str, str]:
    """Version of the interpreter that ran, by its distribution."""
    name = _DISTRIBUTIONS.get(result.module, result.module)
    return {name: about.versions.get(name, "unknown")}


def tool_outcomes(result: ToolsResult, asked: Sequence[Mapping[str, Any]], *, where: str) -> list[dict[str, Any]]:
    """What each tool gave, with its texts opened.

    Args:
        result: The checked answer.
        asked: The steps that the agent was given.
        where: Device name.

    Raises:
        SessionFailed: If steps or files are told that were not asked for, or a text is damaged or too long.
    """
    steps = result.steps
    if len(steps) > len(asked) or any(
        not step.files.keys() <= ask.get("returns", {}).keys() for step, ask in zip(steps, asked, strict=False)
    ):
        raise SessionFailed(
            f"the agent on {where} tells of tools or files that were not asked for",
            FailureKind.TOOL_ERROR,
            "Nothing of it is used; measure again.",
        )
    unpacker = Unpacker(where)
    return [
        {
            "skipped": step.skipped,
            "returncode": step.returncode,
            "log": unpacker.text(step.log) if step.log else "",
            "files": {name: unpacker.text(text) for name, text in step.files.items()},
        }
        for step in steps
    ]


def tensorrt_record(
    job: Job, result: ToolsResult, about: About, figures: TensorrtFigures, took_s: float
) -> SessionRecord:
    """A session that ``trtexec`` timed.

    Args:
        job: What was asked for.
        result: The checked answer.
        about: The device.
        figures: What the tool wrote.
        took_s: How long the agent worked, seconds; building included.
    """
    now = datetime.now(UTC)
    actual = dict(figures.actual)
    if figures.notes:
        actual["notes"] = " ".join(figures.notes)
    mean_ms = float(np.mean(figures.samples_ns)) / 1e6
    return SessionRecord(
        session_id=job.session_id,
        index=job.index,
        pid=result.pid,
        started_at=now - timedelta(seconds=took_s),
        finished_at=now,
        load_ms=figures.load_ms,
        warmup_ns=figures.warmup_ns,
        samples_ns=figures.samples_ns,
        peak_rss_mb=result.peak_rss_mb,
        host=result.host,
        readings=read_readings(result.readings),
        energy_mj=energy_mj(input_power_mw(result.readings, job.seconds), mean_ms),
        settings=job.settings,
        actual=actual,
        versions=figures.versions,
        device={**device_facts(about), **figures.device},
    )
