"""Sessions on a device over ssh, and TensorRT on this machine: the agent does them."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from targets.drivers import agent_benchmark_app, agent_jobs, agent_profiles, agent_records
from targets.drivers.agent_answer import (
    About,
    AgentAnswer,
    OnnxRuntimeProfile,
    OpenVINOProfile,
    TimedResult,
    ToolsResult,
    checked,
)
from targets.drivers.agent_line import AgentLine
from targets.errors import DeviceUnavailable, MissingProfile
from targets.files import sha256_of
from targets.inventory import Device
from targets.jobs import Job
from targets.onnx_files import inspect_onnx
from targets.profiles import trtexec
from targets.records import OpProfile, SessionRecord
from targets.runtimes.checks import check_artifact
from targets.runtimes.openvino import check_onnx
from targets.tensorrt.session import DevicePaths, TensorrtCommands, Trtexec, commands, session_figures, texts_of
from targets.tensorrt.versions import version_of_banner
from targets.tflite_files import inspect_tflite
from targets.transports.base import Transport

_GRACE_S = 240.0
_FORMATS = {"onnxruntime": "onnx", "openvino": "onnx", "tensorrt": "onnx", "tflite": "tflite"}
_HOW = {
    "onnxruntime": "Install it there: python3 -m pip install onnxruntime.",
    "openvino": "Install it there: python3 -m pip install openvino.",
    "tflite": "Install it there: python3 -m pip install ai-edge-litert (or tflite-runtime).",
    "tensorrt": "Put trtexec on the PATH there or name it with 'tool' in the inventory "
    "(a Jetson has it in /usr/src/tensorrt/bin).",
}


class AgentDriver:
    """Runs the agent; see :class:`targets.drivers.base.Driver`.

    Args:
        device: A device with transport ``ssh``, or ``local``.
        transport: The way to it.
        runtime: Registry name of the runtime.
    """

    def __init__(self, device: Device, transport: Transport, runtime: str) -> None:
        self._device = device
        self._runtime = runtime
        self._line = AgentLine(device, transport, runtime)

    def about(self) -> About:
        """What the device says of itself.

        Raises:
            SessionFailed: If it gives no answer.
            DeviceUnavailable: If the agent cannot run there.
        """
        return self._line.about()

    def run_session(self, job: Job) -> SessionRecord:
        """Time one session in a fresh process on the device."""
        path = check_artifact(job.artifact, (_FORMATS[self._runtime],), self._runtime)
        about = self._line.about()
        if self._runtime == "tensorrt":
            plan = self._plan(job, about)
            timeout_s = plan.build_timeout_s + plan.run_timeout_s
            answer, tools, outcomes = self._tools(job, path, plan.steps(), timeout_s)
            figures = session_figures(texts_of(outcomes), job, plan.notes)
            return agent_records.tensorrt_record(job, tools, about, figures, answer.took_s)
        if self._runtime == "openvino" and agent_benchmark_app.is_benchmark_app(self._device.tool):
            return self._by_benchmark_app(job, path, about)
        answer, sent = self._ask(job, path, self._task(job, path))
        result = checked(TimedResult, answer.result, where=self._where)
        agent_records.check_files(job, sent, result, where=self._where)
        actual, versions = self._described(job, path, result, about)
        result = result.model_copy(update={"versions": versions})
        return agent_records.timed_record(job, result, about, actual, answer.took_s)

    def run_profile(self, job: Job) -> OpProfile:
        """Take a per-op profile in a fresh process on the device.

        Raises:
            MissingProfile: If the runtime's profile cannot be taken over a connection.
        """
        path = check_artifact(job.artifact, (_FORMATS[self._runtime],), self._runtime)
        where = self._where
        if self._runtime == "tflite":
            raise MissingProfile(
                "per-op times of tflite are not taken over ssh",
                "Profile the model with 'tflite' on this machine, or on a phone.",
            )
        if self._runtime == "tensorrt":
            plan = self._plan(job, self._line.about())
            _, _, outcomes = self._tools(job, path, plan.steps(), plan.build_timeout_s + plan.run_timeout_s)
            return trtexec.op_profile(texts_of(outcomes), job, plan.notes)
        if self._runtime == "openvino":
            check_onnx(path)
            answer, sent = self._ask(job, path, agent_jobs.openvino_job(job))
            found = checked(OpenVINOProfile, answer.result, where=where)
            agent_records.check_files(job, sent, found, where=where)
            return agent_profiles.openvino_profile(path, found)
        first = job.model_copy(update={"session_id": _second_id(job.session_id)})
        sizes, events = agent_profiles.sizes_of(self._profiled(first, path, [], 1), where=where)
        result = self._profiled(job, path, sizes, events)
        return agent_profiles.onnxruntime_profile(path, result, len(sizes), where=where)

    def versions(self) -> dict[str, str]:
        """Versions of the tools on the device.

        Raises:
            DeviceUnavailable: If the device lacks the runtime.
        """
        about = self._line.about()
        if self._runtime == "tensorrt":
            tool = self._tool(about)
            return {"tensorrt": tool.version, "trtexec": tool.version}
        names = {"tflite": ("ai-edge-litert", "tflite-runtime")}.get(self._runtime, (self._runtime,))
        found = {name: about.versions[name] for name in names if name in about.versions}
        if not found:
            raise DeviceUnavailable(f"device {self._where!r} has no {self._runtime}", _HOW[self._runtime])
        return {self._runtime: next(iter(found.values())), **found}

    def close(self) -> None:
        """Remove what sessions left on the device; models and engines stay cached."""
        self._line.close()

    @property
    def _where(self) -> str:
        return self._line.where

    def _task(self, job: Job, path: Path) -> dict[str, Any]:
        if self._runtime == "onnxruntime":
            return agent_jobs.onnxruntime_job(job)
        if self._runtime == "openvino":
            check_onnx(path)
            return agent_jobs.openvino_job(job)
        return agent_jobs.tflite_job(job, inspect_tflite(path))

    def _described(
        self, job: Job, path: Path, result: TimedResult, about: About
    ) -> tuple[dict[str, str], dict[str, str]]:
        """What the runtime says it ran with, and its versions."""
        if self._runtime == "onnxruntime":
            return agent_records.onnxruntime_actual(job, result, where=self._where), result.versions
        if self._runtime == "openvino":
            version = {"openvino": about.versions.get("openvino", "")}
            return agent_records.openvino_actual(result), {**version, **result.versions}
        actual = agent_records.tflite_actual(job, result, inspect_tflite(path), where=self._where)
        return actual, agent_records.tflite_versions(result, about)

    def _by_benchmark_app(self, job: Job, path: Path, about: About) -> SessionRecord:
        check_onnx(path)
        folder = self._line.session_folder(job.session_id)
        steps = agent_benchmark_app.steps(job, str(self._device.tool), folder)
        answer, tools, outcomes = self._tools(job, path, steps, job.seconds * 20 + _GRACE_S)
        return agent_benchmark_app.record(job, tools, outcomes[0], about, answer.took_s)

    def _profiled(self, job: Job, path: Path, sizes: list[int], events: int) -> OnnxRuntimeProfile:
        answer, sent = self._ask(job, path, agent_jobs.onnxruntime_profile(job, sizes, events))
        found = checked(OnnxRuntimeProfile, answer.result, where=self._where)
        agent_records.check_files(job, sent, found, where=self._where)
        return found

    def _plan(self, job: Job, about: About) -> TensorrtCommands:
        folder = self._line.session_folder(job.session_id)
        paths = DevicePaths(
            model=posixpath.join(folder, agent_jobs.staged_name(job)),
            engines=posixpath.join(self._line.work_folder, "engines"),
            session=folder,
        )
        return commands(job, self._tool(about), paths, self._device.runtime_version)

    def _tool(self, about: About) -> Trtexec:
        program = about.tools.get("trtexec")
        if program is None:
            raise DeviceUnavailable(f"device {self._where!r} has no trtexec", _HOW["tensorrt"])
        facts = agent_records.device_facts(about)
        machine = facts.get("gpu") or facts.get("model") or "unknown"
        return Trtexec(program, str(version_of_banner(about.texts.get("trtexec", ""))), machine)

    def _tools(
        self, job: Job, path: Path, steps: Sequence[Mapping[str, Any]], timeout_s: float
    ) -> tuple[AgentAnswer, ToolsResult, list[dict[str, Any]]]:
        """Have tools run; gives the answer, its result and each tool's outcome with its texts."""
        task = {"task": "tools", "steps": steps}
        answer, sent = self._ask(job, path, task, timeout_s=timeout_s + _GRACE_S)
        result = checked(ToolsResult, answer.result, where=self._where)
        agent_records.check_files(job, sent, result, where=self._where)
        return answer, result, agent_records.tool_outcomes(result, steps, where=self._where)

    def _ask(
        self, job: Job, path: Path, task: Mapping[str, Any], *, timeout_s: float | None = None
    ) -> tuple[AgentAnswer, dict[str, str]]:
        """Send the model's files and ask; gives the answer and the hash of each file by name."""
        files = _files(job, path)
        settings = job.settings.model_dump(mode="json")

        def line() -> dict[str, Any]:
            sent = [
                {"name": name, "sha256": sha256, "path": self._line.send(file, sha256)}
                for name, (file, sha256) in files.items()
            ]
            cores = job.settings.pinned_cores
            return {
                "task": job.task,
                "runtime": self._runtime,
                "seconds": job.seconds,
                "min_runs": job.min_runs,
                "pinned_cores": None if cores is None else list(cores),
                "model": {"name": next(iter(files)), "files": sent},
                **task,
            }

        answer = self._line.ask(
            job.session_id,
            line,
            timeout_s=timeout_s or job.seconds * 20 + _GRACE_S,
            echo={"artifact": job.artifact.sha256, "settings": settings, "seconds": job.seconds},
        )
        return answer, {name: sha256 for name, (_, sha256) in files.items()}


def _files(job: Job, path: Path) -> dict[str, tuple[Path, str]]:
    """The model's files by the names they get beside each other on the device: the model first, then outside data."""
    name = agent_jobs.staged_name(job)
    files = {name: (path, sha256_of(path))}
    if job.artifact.format == "onnx":
        for outside in inspect_onnx(path).external:
            place = posixpath.join(posixpath.dirname(name), outside.location)
            files[place] = (path.parent / outside.location, outside.sha256)
    return files


def _second_id(session_id: str) -> str:
    """Id of the short run before a profile, which is a session of its own on the device."""
    return session_id[::-1] if session_id != session_id[::-1] else "0" + session_id[1:]
