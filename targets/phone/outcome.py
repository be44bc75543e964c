"""From what the tool left on the phone to figures, or to the class of failure it is."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from targets.errors import (
    DeviceUnavailable,
    FailureKind,
    InvalidModel,
    KitError,
    SessionFailed,
    UnknownLayout,
    printable,
)
from targets.phone.flags import Pace, check_understood
from targets.phone.placement import delegate_words
from targets.phone.remote_run import ToolAnswer
from targets.profiles.benchmark_model_delegates import parse_delegates
from targets.profiles.benchmark_model_summary import ToolSummary, log_lines, parse_summary
from targets.records import Precision, RunSettings

# What the tool says of a file it cannot run, in its own words.
_BAD_MODEL = (
    "Failed to load model",
    "Failed to initialize model loader",
    "Failed to initialize the interpreter",
    "Failed to allocate tensors",
    "not found in the model",
    "Didn't find op for builtin opcode",
    "Encountered unresolved custom op",
    "Op type not registered",
    "Select TensorFlow op(s)",
    "The model is not a valid Flatbuffer",
)
_NOT_STARTED = (126, 127)
_LAST_CHARACTERS = 16_384


@dataclass(frozen=True)
class Figures:
    """A run of the tool that ended well.

    Attributes:
        summary: Its timings.
        actual: What it ran with.
    """

    summary: ToolSummary
    actual: dict[str, str]


def figures_of(
    answer: ToolAnswer, settings: RunSettings, flags: Sequence[str], pace: Pace, *, delegate: str, label: str
) -> Figures:
    """Read a run.

    Args:
        answer: What it left on the phone.
        settings: What was asked for.
        flags: What the tool was given.
        pace: How long it was to run.
        delegate: CPU delegate asked for, ``xnnpack`` or ``none``.
        label: Names the session in errors.

    Raises:
        SessionFailed: If the tool failed or its output cannot be read; never a number then.
        InvalidModel: If it refuses the model.
        DeviceUnavailable: If it cannot be started at all.
    """
    if answer.returncode:
        raise _failed(answer, label)
    try:
        summary = parse_summary(answer.text)
        report = parse_delegates(answer.text)
        summary.samples()
    except UnknownLayout as error:
        raise unreadable(error, label) from error
    check_understood(summary, settings, flags, pace)
    actual = {"threads": str(settings.threads), "precision": _precision(settings)}
    return Figures(summary, {**actual, **delegate_words(report, settings, delegate)})


def unreadable(error: UnknownLayout, label: str) -> SessionFailed:
    """An output that no parser knows, as the failure of its session."""
    return SessionFailed(f"the output of {label} cannot be read: {error.what}", FailureKind.TOOL_ERROR, error.fix)


def _precision(settings: RunSettings) -> str:
    if settings.precision is not Precision.FP16:
        return settings.precision.value
    return "fp16 allowed" if settings.accelerator != "cpu" else "fp16"


def _failed(answer: ToolAnswer, label: str) -> KitError:
    ends = f"{answer.stdout[-_LAST_CHARACTERS:]}\n{answer.stderr[-_LAST_CHARACTERS:]}"
    lines = [line for line in log_lines(ends) if line.strip()]
    cause = next((line for line in lines if any(words in line for words in _BAD_MODEL)), "")
    if cause:
        return InvalidModel(
            f"benchmark_model refuses the model of {label}: {printable(cause, 200)}",
            "Convert the model again, with builtin operators only.",
        )
    # The tool's last words are always "Benchmarking failed."; what it says before them is why.
    last = next((line for line in reversed(lines) if line != "Benchmarking failed."), "it printed nothing")
    told = printable(last, 200)
    if answer.returncode == -signal.SIGKILL:
        return SessionFailed(
            f"{label} was killed (signal 9), most likely for memory",
            FailureKind.OUT_OF_MEMORY,
            "Close other apps, or take a smaller input.",
        )
    if answer.returncode in _NOT_STARTED:
        return DeviceUnavailable(
            f"the phone cannot start benchmark_model: {told}", "Push the build for its ABI, and chmod +x it."
        )
    how = f"was ended by signal {-answer.returncode}" if answer.returncode < 0 else f"ended with {answer.returncode}"
    return SessionFailed(f"{label} {how}: {told}", FailureKind.TOOL_ERROR, "Run the tool by hand to see all it says.")
