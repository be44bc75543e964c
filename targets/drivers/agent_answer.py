"""Read what the agent answers. It comes from another machine, so nothing of it is believed before it is checked."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AwareDatetime, BeforeValidator, Field, ValidationError

from targets import errors
from targets.errors import DeviceUnavailable, FailureKind, KitError, SessionFailed, printable
from targets.records import Frozen, HostSnapshot
from targets.transports.base import Completed

PROTOCOL = 1
MAX_ANSWER_BYTES = 60 * 2**20
MAX_TEXT_BYTES = 64 * 2**20
MAX_UNPACKED_BYTES = 128 * 2**20
"""Of all packed parts of one answer: four times what the agent packs of one file at most."""
_DAY_NS = 86_400 * 10**9
_MOST_SAMPLES = 300_000
_LONGEST_TEXT = 300
_MOST_TEXTS = 100


def _clean(value: object) -> object:
    return printable(value, _LONGEST_TEXT) if isinstance(value, str) else value


Clean = Annotated[str, BeforeValidator(_clean)]
Texts = Annotated[dict[Clean, Clean], Field(max_length=_MOST_TEXTS)]
Nanoseconds = Annotated[int, Field(gt=0, lt=_DAY_NS, strict=True)]
Samples = Annotated[tuple[Nanoseconds, ...], Field(max_length=_MOST_SAMPLES)]
Milliseconds = Annotated[float, Field(ge=0, lt=_DAY_NS / 1e6)]
Packed = Annotated[str, Field(max_length=MAX_ANSWER_BYTES)]


class AgentFailure(Frozen):
    """Why the agent has no result; see :class:`targets.agent.protocol.Refused`."""

    what: Annotated[str, BeforeValidator(_clean)]
    kind: FailureKind
    fix: Annotated[str, BeforeValidator(_clean)] = ""
    error: str


class AgentAnswer(Frozen):
    """The frame of every answer; see :mod:`targets.agent.inas_agent`."""

    protocol: int
    session_id: str
    task: str
    echo: dict[str, Any] | None = None
    python: Clean = ""
    started_at: AwareDatetime | None = None
    took_s: Annotated[float, Field(ge=0, le=_DAY_NS / 1e9)] = 0.0
    result: dict[str, Any] | None = None
    failure: AgentFailure | None = None


class SampledLines(Frozen):
    """What the vendor's tool printed while something was timed."""

    tool: str
    interval_ms: Annotated[int, Field(gt=0)]
    took_s: Annotated[float, Field(ge=0)]
    lines: Annotated[tuple[Annotated[str, Field(max_length=2000)], ...], Field(max_length=2000)]


class RawReading(Frozen):
    """State of the device at one moment, as raw texts; see :mod:`targets.agent.state`."""

    at: AwareDatetime
    phase: Annotated[str, Field(pattern="^(before|during|after)$")]
    files: Annotated[dict[str, str], Field(max_length=1000)] = Field(default_factory=dict)
    tools: Annotated[dict[str, str], Field(max_length=10)] = Field(default_factory=dict)
    sampled: SampledLines | None = None


class StagedFile(Frozen):
    """A file of the model as the agent found it."""

    name: str
    sha256: str


class Result(Frozen):
    """What every task on a model tells."""

    files: tuple[StagedFile, ...]
    pid: int | None = None
    readings: Annotated[tuple[RawReading, ...], Field(max_length=64)] = ()
    versions: Texts = Field(default_factory=dict)


class TimedResult(Result):
    """A session; units are in the names."""

    load_ms: Milliseconds
    first_inference_ms: Milliseconds
    warmup_ns: Samples
    steady: bool
    samples_ns: Annotated[Samples, Field(min_length=1)]
    host: HostSnapshot
    cpu_per_wall: Annotated[float, Field(ge=0)]
    peak_rss_mb: Annotated[float, Field(ge=0)]
    actual: Texts = Field(default_factory=dict)
    placement_trace: Packed = ""
    graph: tuple[dict[str, Any], ...] = ()
    nodes: tuple[dict[str, Any], ...] | None = None
    inputs: Clean = ""
    module: Clean = ""


class StepOutcome(Frozen):
    """What one tool gave."""

    skipped: bool = False
    returncode: int = 0
    pid: int | None = None
    wall_s: Annotated[float, Field(ge=0)] = 0.0
    log: Packed = ""
    files: Annotated[dict[str, Packed], Field(max_length=16)] = Field(default_factory=dict)


class ToolsResult(Result):
    """What a list of tools gave."""

    steps: Annotated[tuple[StepOutcome, ...], Field(min_length=1, max_length=16)]
    peak_rss_mb: Annotated[float, Field(ge=0)]
    host: HostSnapshot = HostSnapshot()
    cpu_per_wall: Annotated[float, Field(ge=0)] | None = None


class Runs(Frozen):
    """Bursts of inferences; see :class:`targets.agent.timing.Bursts`."""

    wall_us: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, max_length=_MOST_SAMPLES)]
    undisturbed: tuple[Annotated[int, Field(ge=0)], ...]


class PairResult(Frozen):
    """One model with and without ONNX Runtime's profiler."""

    plain: Runs
    profiled: Runs
    trace: Packed
    optimized: Packed = ""


class OnnxRuntimeProfile(Result):
    """Parts of an ONNX Runtime profile."""

    pairs: Annotated[tuple[PairResult, ...], Field(min_length=1, max_length=3)]


class ChunkResult(Frozen):
    """One compilation's counters and runs."""

    before: tuple[dict[str, Any], ...]
    after: tuple[dict[str, Any], ...]
    plain: Runs
    profiled: Runs


class SourceRow(Frozen):
    """One node of the model as OpenVINO read it."""

    name: str
    type: str
    readers: tuple[Annotated[int, Field(ge=0)], ...]


class OpenVINOProfile(Result):
    """Parts of an OpenVINO profile."""

    chunks: Annotated[tuple[ChunkResult, ...], Field(min_length=1)]
    graph: tuple[dict[str, Any], ...]
    source: tuple[SourceRow, ...]


class About(Frozen):
    """What the device says of itself; see :mod:`targets.agent.about`."""

    facts: Texts
    versions: Texts
    tools: Texts
    texts: Annotated[dict[str, str], Field(max_length=10)]


R = TypeVar("R", bound=Frozen)


def read_answer(done: Completed, nonce: str, *, where: str) -> AgentAnswer:
    """Find the answer between its two markers and check its frame.

    Args:
        done: The agent that ended.
        nonce: Of this request.
        where: Device name, for messages.

    Raises:
        SessionFailed: If there is no answer, or something else than one; classified.
        DeviceUnavailable: If the device cannot run the agent.
    """
    begin, end = f"\n--{nonce}-begin--\n".encode(), f"\n--{nonce}-end--\n".encode()
    if done.stdout.count(begin) != 1 or done.stdout.count(end) != 1:
        raise _died(done, where)
    text = done.stdout.partition(begin)[2].partition(end)[0]
    if not text or len(text) > MAX_ANSWER_BYTES:
        raise _refused(where, f"{len(text)} bytes long")
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _refused(where, f"not JSON ({printable(str(error), 80)}): {printable(text[:80])!r}") from error
    answer = checked(AgentAnswer, found, where=where)
    if answer.protocol != PROTOCOL:
        raise _refused(where, f"of protocol {answer.protocol}, not {PROTOCOL}")
    if (answer.result is None) == (answer.failure is None):
        raise _refused(where, "neither a result nor a failure")
    return answer


def checked(model: type[R], found: object, *, where: str) -> R:
    """Validate a part of an answer.

    Raises:
        SessionFailed: If it is not as it must be; the place is named.
    """
    try:
        return model.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = printable(".".join(map(str, first["loc"])))
        raise _refused(where, f"wrong at {place}: {printable(first['msg'])}") from error


def raised(failure: AgentFailure) -> KitError:
    """The agent's refusal as the kit's own error."""
    kind: type[KitError] | None = getattr(errors, failure.error, None)
    if kind is None or not isinstance(kind, type) or not issubclass(kind, KitError) or kind is SessionFailed:
        return SessionFailed(failure.what, failure.kind, failure.fix)
    return kind(failure.what, failure.fix)


class Unpacker:
    """Opens the packed parts of one answer, which are bounded each and together.

    Args:
        where: Device name, for messages.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._left = MAX_UNPACKED_BYTES

    def data(self, packed: str) -> bytes:
        """Bytes that :func:`targets.agent.protocol.packed` made.

        Raises:
            SessionFailed: If they are damaged or too many.
        """
        most = min(MAX_TEXT_BYTES, self._left)
        try:
            opener = zlib.decompressobj()
            found = opener.decompress(base64.b64decode(packed, validate=True), most + 1)
        except (binascii.Error, zlib.error, ValueError) as error:
            raise _refused(self._where, "damaged in a packed part") from error
        if len(found) > most or not opener.eof:
            raise _refused(self._where, "cut short or too long in a packed part")
        self._left -= len(found)
        return found

    def text(self, packed: str) -> str:
        """The same as text; a byte that is no UTF-8 is replaced.

        Raises:
            SessionFailed: As :meth:`data`.
        """
        return self.data(packed).decode("utf-8", "replace")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no figure")


def _refused(where: str, why: str) -> SessionFailed:
    return SessionFailed(
        f"the agent's answer from {where} is refused: it is {why}",
        FailureKind.TOOL_ERROR,
        "Nothing of it is used; measure again, and check what else prints on the device.",
    )


def _died(done: Completed, where: str) -> KitError:
    """Why an agent ended without an answer."""
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    last = printable(lines[-1], 240) if lines else "it printed nothing"
    if any("inas_agent: stopped at its deadline" in line for line in lines):
        return SessionFailed(f"the agent on {where} was stopped at its deadline", FailureKind.TIMEOUT)
    if any("inas_agent: the host is gone" in line for line in lines):
        return SessionFailed(f"the agent on {where} lost the connection to this host", FailureKind.LOST_DEVICE)
    if done.returncode in (-9, 137):
        return SessionFailed(
            f"the session on {where} was killed (signal 9), most likely for memory",
            FailureKind.OUT_OF_MEMORY,
            "Free memory on the device or take a smaller input.",
        )
    if done.returncode in (126, 127):
        return DeviceUnavailable(
            f"Python cannot be started on {where}: {last}",
            "Install Python 3.6 or newer there, or name it with 'python' in the inventory.",
        )
    if "SyntaxError" in last:
        return DeviceUnavailable(f"Python on {where} is too old for the agent", "It needs 3.6 or newer: set 'python'.")
    return SessionFailed(
        f"the agent on {where} ended with status {done.returncode} and no answer: {last}",
        FailureKind.TOOL_ERROR,
        "Check what the device prints with 'inas-deploy devices check'.",
    )
