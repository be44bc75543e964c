"""OpenVINO's own ``benchmark_app`` on a device, where the inventory names it as the tool; it tells a summary only."""

from __future__ import annotations

import math
import posixpath
from datetime import UTC, datetime, timedelta
from typing import Any

from targets.drivers.agent_answer import About, ToolsResult
from targets.drivers.agent_jobs import staged_name
from targets.drivers.agent_readings import input_power_mw, read_readings
from targets.drivers.agent_records import device_facts
from targets.errors import FailureKind, InvalidModel, SessionFailed, UsageError, printable
from targets.jetson import energy_mj
from targets.jobs import Job
from targets.profiles.benchmark_app import parse_statistics
from targets.records import SampleSummary, SessionRecord
from targets.runtimes.openvino import property_values

NAME = "benchmark_app"
_GRACE_S = 240.0
_REPORT = "benchmark_report.json"


def is_benchmark_app(tool: str | None) -> bool:
    """Whether a device's tool is this program."""
    return tool is not None and posixpath.basename(tool) == NAME


def steps(job: Job, tool: str, folder: str) -> list[dict[str, Any]]:
    """What the agent runs: one stream, one request, and nothing left to the tool's defaults.

    Args:
        job: A ``time`` job.
        tool: Path of the program on the device.
        folder: The session's folder there.

    Raises:
        UsageError: If a setting is not possible.
    """
    if job.settings.accelerator != "cpu":
        raise UsageError("benchmark_app is run on the CPU by this kit", "Set accelerator = 'cpu'.")
    values = property_values(job.settings)
    argv = [tool, "-m", posixpath.join(folder, staged_name(job)), "-d", "CPU", "-api", "sync", "-hint", "none"]
    argv += ["-nstreams", values["NUM_STREAMS"], "-nireq", "1", "-nthreads", values["INFERENCE_NUM_THREADS"]]
    argv += ["-infer_precision", values["INFERENCE_PRECISION_HINT"], "-pin", values["ENABLE_CPU_PINNING"]]
    argv += ["-t", str(max(1, math.ceil(job.seconds))), "-report_type", "no_counters", "-json_stats"]
    argv += ["-report_folder", folder]
    timeout_s = job.seconds * 20 + _GRACE_S
    report = {"report": posixpath.join(folder, _REPORT)}
    return [{"argv": argv, "timeout_s": timeout_s, "returns": report, "sample": True}]


def record(job: Job, result: ToolsResult, outcome: dict[str, Any], about: About, took_s: float) -> SessionRecord:
    """The session's record.

    Args:
        job: What was asked for.
        result: The checked answer.
        outcome: Of the one step: ``returncode``, ``log`` and ``files``.
        about: The device.
        took_s: How long the agent worked, seconds.

    Raises:
        SessionFailed: If the tool failed, in its own words.
        InvalidModel: If it refused the model.
        UnknownLayout: If its report has an unknown layout.
    """
    log, where = outcome["log"], "benchmark_app on the device"
    if outcome["returncode"] != 0:
        told = [line for line in log.splitlines() if "[ ERROR ]" in line] or [line for line in log.splitlines() if line]
        words = printable(told[-1].replace("[ ERROR ]", "").strip() if told else "it printed nothing", 240)
        if outcome["returncode"] in (-9, 137):
            raise SessionFailed(f"{where} was killed, most likely for memory", FailureKind.OUT_OF_MEMORY)
        if "read_model" in log or "Unable to read the model" in log:
            raise InvalidModel(f"{where} refuses the model: {words}", "Export it again, or use another runtime.")
        raise SessionFailed(f"{where} ended with status {outcome['returncode']}: {words}", FailureKind.TOOL_ERROR)
    if "report" not in outcome["files"]:
        raise SessionFailed(f"{where} wrote no report", FailureKind.TOOL_ERROR, "Install OpenVINO 2024 or newer there.")
    told_of = parse_statistics(outcome["files"]["report"], _REPORT)
    if not told_of.min_ms > 0:
        raise SessionFailed(
            f"{where} tells hundredths of a millisecond, and an inference takes less",
            FailureKind.TOOL_ERROR,
            "Leave 'tool' out of the inventory: the agent then times each inference itself.",
        )
    now = datetime.now(UTC)
    setup = {key: printable(value, 80) for key, value in told_of.options.items() if key not in ("-m", "-report_folder")}
    return SessionRecord(
        session_id=job.session_id,
        index=job.index,
        pid=result.pid,
        started_at=now - timedelta(seconds=took_s),
        finished_at=now,
        load_ms=told_of.compile_ms,
        first_inference_ms=told_of.first_inference_ms,
        summary=SampleSummary(
            count=told_of.iterations,
            mean_ms=told_of.mean_ms,
            min_ms=told_of.min_ms,
            max_ms=told_of.max_ms,
            p50_ms=told_of.median_ms,
        ),
        peak_rss_mb=result.peak_rss_mb,
        cpu_per_wall=result.cpu_per_wall,
        host=result.host,
        readings=read_readings(result.readings),
        energy_mj=energy_mj(input_power_mw(result.readings, job.seconds), told_of.mean_ms),
        settings=job.settings,
        actual={"tool": NAME, "inputs": "random", **setup},
        versions={"openvino": about.versions.get("openvino", "unknown")},
        device=device_facts(about),
    )
