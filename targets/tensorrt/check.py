"""Whether TensorRT takes a model: parsed and built with TensorRT-RTX, without a GPU.

Parsing alone is no proof: some operators parse and have no kernel. Building for one compute capability proves that
this TensorRT-RTX version has kernels for every node there; it says nothing of latency, nor of other versions. The work
is done in a fresh process, because native code may crash, hang or run out of memory.
"""

from __future__ import annotations

import re
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from targets import errors
from targets.errors import FailureKind, KitError, MissingExtra, SessionFailed, UsageError, printable
from targets.extras import DISTRIBUTION, installed
from targets.frozen import Frozen
from targets.jobs import Failure
from targets.onnx_files import inspect_onnx
from targets.records import Precision
from targets.session import worker_environment
from targets.tensorrt.build import FailingNode, Stage
from targets.tensorrt.precision import check_precision, numbers_of
from targets.tensorrt.versions import TensorrtVersion
from targets.transports.base import Completed
from targets.transports.local import LocalTransport

MODULE, EXTRA = "tensorrt_rtx", "tensorrt"
TIMEOUT_S = 600.0
"""Deadline of one model, seconds."""

MEMORY_MIB = 16_384
"""Address space of the process, MiB: a build that would take the whole machine ends with a message instead."""

KNOWN_OPSETS = range(18, 23)
"""Opsets for which TensorRT-RTX takes the kit's networks."""

Problem = Literal["", "parse", "build", "crash", "timeout", "memory"]
_Stopped = Literal["", "crash", "timeout", "memory"]
_MEMORY = re.compile(r"bad_alloc|out of memory|MemoryError|OutOfMemory")
_STRONGLY_TYPED = TensorrtVersion(11, 0)


class CheckRequest(Frozen):
    """What the fresh process is told.

    Attributes:
        path: ONNX file, absolute.
        compute_capability: Such as ``SM86``.
        precision: Numeric type.
        memory_mib: Address space, MiB.
    """

    path: str
    compute_capability: str
    precision: Precision
    memory_mib: Annotated[int, Field(gt=0)]


class CheckAnswer(Frozen):
    """What it answers.

    Attributes:
        parses: Whether the parser took every node.
        builds: Whether an engine was built.
        layers: Layers before fusion.
        failing: Nodes in the way.
        messages: Errors that name no node.
        versions: TensorRT-RTX.
        peak_rss_mb: Peak resident memory, where the system tells it.
        failure: Why there is no answer at all.
    """

    parses: bool = False
    builds: bool = False
    layers: int = 0
    failing: tuple[FailingNode, ...] = ()
    messages: tuple[str, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    peak_rss_mb: float | None = None
    failure: Failure | None = None


class CheckResult(Frozen):
    """Whether a model can be built.

    Attributes:
        model: File name.
        sha256: Hash of the file's bytes.
        opset: Of the file.
        nodes: Nodes of the file.
        precision: Numeric type that was built.
        compute_capability: What it was built for.
        parses: Whether the parser took every node.
        builds: Whether an engine was built: the answer.
        problem: Class of what stands in the way; empty where it builds.
        failing: Nodes in the way, where they are known.
        message: What else is to be said of it, one line.
        notes: What a reader must know, one sentence each.
        seconds: Wall time of the check.
        peak_rss_mb: Peak resident memory of the process; absent where it did not end by itself.
        versions: TensorRT-RTX.
    """

    model: str
    sha256: str
    opset: int
    nodes: int
    precision: Precision
    compute_capability: str
    parses: bool
    builds: bool
    problem: Problem = ""
    failing: tuple[FailingNode, ...] = ()
    message: str = ""
    notes: tuple[str, ...] = ()
    seconds: float
    peak_rss_mb: float | None = None
    versions: dict[str, str] = Field(default_factory=dict)


def check_model(
    onnx: Path,
    *,
    compute_capability: str = "sm86",
    precision: Precision | None = None,
    timeout_s: float = TIMEOUT_S,
    memory_mib: int = MEMORY_MIB,
) -> CheckResult:
    """Parse and build a model in a fresh process.

    Args:
        onnx: The file.
        compute_capability: Of the GPU to build for: ``sm86``, ``SM86`` or ``8.6``.
        precision: Numeric type; by default the file's own. TensorRT-RTX computes in the file's own types.
        timeout_s: Deadline, seconds.
        memory_mib: Most address space of the process, MiB.

    Raises:
        MissingExtra: If TensorRT-RTX is not installed.
        InvalidModel: If the file is broken or unsafe.
        UsageError: If the compute capability is not known, or the file is not of that precision.
    """
    if not installed(MODULE):
        raise MissingExtra("tensorrt-rtx is not installed", f"Install it with: pip install '{DISTRIBUTION}[{EXTRA}]'")
    capability = capability_of(compute_capability)
    info = inspect_onnx(onnx)
    numbers = numbers_of(onnx)
    wanted = precision or numbers.precision
    check_precision(onnx.name, numbers, wanted, _STRONGLY_TYPED)
    request = CheckRequest(
        path=str(onnx.resolve()), compute_capability=capability, precision=wanted, memory_mib=memory_mib
    )
    begin = time.monotonic()
    answer, stopped, message = _ask(request, timeout_s)
    problem: Problem = stopped or ("" if answer.builds else "build" if answer.parses else "parse")
    notes = []
    if info.opset not in KNOWN_OPSETS:
        notes.append(f"The file is of opset {info.opset}; 18 to 22 are what TensorRT-RTX is known to take.")
    return CheckResult(
        model=printable(onnx.name),
        sha256=info.sha256,
        opset=info.opset,
        nodes=info.node_count,
        precision=wanted,
        compute_capability=capability.lower(),
        parses=answer.parses,
        builds=answer.builds,
        problem=problem,
        failing=answer.failing,
        message=message or "; ".join(answer.messages[:3]),
        notes=tuple(notes),
        seconds=time.monotonic() - begin,
        peak_rss_mb=answer.peak_rss_mb,
        versions=answer.versions,
    )


def capability_of(text: str) -> str:
    """``SM86`` from ``sm86``, ``SM86`` or ``8.6``.

    Raises:
        UsageError: If it is written otherwise.
    """
    found = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", text.strip().lower())
    if found is None:
        raise UsageError(f"{printable(text)!r} is no compute capability", "Write it as sm86 or 8.6.")
    return f"SM{found[1]}{found[2]}"


def _ask(request: CheckRequest, timeout_s: float) -> tuple[CheckAnswer, _Stopped, str]:
    """The answer, else the class of what went wrong and a line on it."""
    with tempfile.TemporaryDirectory(prefix="inas-check-") as folder:
        asked, answered, stage = (Path(folder, name) for name in ("request.json", "answer.json", "stage"))
        asked.write_text(request.model_dump_json(), encoding="utf-8")
        argv = [sys.executable, "-P", "-m", "targets.tensorrt.check_worker", str(asked), str(answered), str(stage)]
        try:
            done = LocalTransport().run(argv, timeout_s=timeout_s, env=worker_environment())
        except SessionFailed as error:
            if error.kind is not FailureKind.TIMEOUT:
                raise
            return _reached(stage), "timeout", f"{_doing(stage)} took longer than {timeout_s:g} s"
        if done.returncode != 0 or not answered.exists():
            return _reached(stage), *_died(done, stage, request.memory_mib)
        try:
            answer = CheckAnswer.model_validate_json(answered.read_bytes())
        except ValidationError as error:
            raise SessionFailed(f"the check's answer cannot be read: {error}", FailureKind.TOOL_ERROR) from error
    if answer.failure is not None:
        kind: type[KitError] = getattr(errors, answer.failure.error, UsageError)
        raise kind(answer.failure.what, answer.failure.fix)
    if not answer.builds and _MEMORY.search("\n".join(answer.messages)):
        return answer, "memory", f"{_doing_of(answer)} ran out of memory (at most {request.memory_mib} MiB)"
    return answer, "", ""


def _stage(path: Path) -> Stage | None:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return "build" if text == "build" else "parse" if text == "parse" else None


def _doing(path: Path) -> str:
    return {"parse": "parsing", "build": "building", None: "loading TensorRT-RTX"}[_stage(path)]


def _doing_of(answer: CheckAnswer) -> str:
    return "building" if answer.parses else "parsing"


def _reached(path: Path) -> CheckAnswer:
    return CheckAnswer(parses=_stage(path) == "build")


def _died(done: Completed, stage: Path, memory_mib: int) -> tuple[Literal["crash", "memory"], str]:
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    last = printable(lines[-1], 200) if lines else "it printed nothing"
    if done.returncode == -signal.SIGKILL or _MEMORY.search("\n".join(lines)):
        return "memory", f"{_doing(stage)} ran out of memory (at most {memory_mib} MiB): {last}"
    name = signal.Signals(-done.returncode).name if done.returncode < 0 else f"status {done.returncode}"
    return "crash", f"{_doing(stage)} ended its process with {name}: {last}"
