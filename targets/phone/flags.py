"""Arguments of ``benchmark_model`` for one run: all that can change a latency is said, nothing is left to a default.

A figure whose label would name something that did not run is refused: the tool repeats what it understood, and that
is compared with what was meant (:func:`check_understood`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from targets.errors import FailureKind, SessionFailed, UsageError, printable
from targets.profiles.benchmark_model_summary import ToolSummary
from targets.records import Precision, RunSettings
from targets.runtimes.checks import choose
from targets.runtimes.tflite import DELEGATES

#: Numeric types the tool can be told to compute in; int8 is in the file itself.
PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)

WARMUP_RUNS = 10
WARMUP_S = 1.0
LONGEST_S = 30.0
"""For a model so slow that even the fewest runs take long, seconds."""

# Older tools lack these; each only repeats what a tool that lacks it does.
_REPEATS_DEFAULT = frozenset({"--xnnpack_force_fp16=false", "--use_nnapi=false", "--use_gpu=false"})
_PROFILING = "--enable_op_profiling="
_OUTPUT = "--op_profiling_output_"  # a tool without these prints its table


@dataclass(frozen=True)
class Pace:
    """How long one run of the tool lasts.

    Attributes:
        min_runs: Fewest timed inferences.
        min_s: Shortest timed part, seconds.
        max_s: Time after which neither warm-up nor timed part begins another inference.
    """

    min_runs: int
    min_s: float
    max_s: float


def pace_of(seconds: float, min_runs: int) -> Pace:
    """The pace that sessions on this host have too.

    Args:
        seconds: Length of the timed part.
        min_runs: Fewest inferences, unless they take longer than half a minute.
    """
    return Pace(min_runs, seconds, max(seconds, LONGEST_S))


def checked_options(settings: RunSettings) -> dict[str, str]:
    """Options of a run on a phone: ``delegate``, for the CPU only.

    Raises:
        UsageError: If an option or the precision is not possible with this accelerator.
    """
    options = choose(settings, DELEGATES)
    if settings.precision not in PRECISIONS:
        raise UsageError(
            f"benchmark_model cannot be told to compute in {settings.precision.value}", "Take fp32 or fp16."
        )
    if settings.accelerator != "cpu" and "delegate" in settings.options:
        raise UsageError(
            f"option delegate chooses CPU kernels and the accelerator is {settings.accelerator}", "Leave it out."
        )
    if settings.accelerator == "cpu" and settings.precision is Precision.FP16 and options["delegate"] == "none":
        raise UsageError("the builtin CPU kernels have no fp16", "Take delegate xnnpack, or fp32.")
    return options


def tool_flags(model: str, settings: RunSettings, pace: Pace) -> list[str]:
    """Arguments of a run without profiling.

    Args:
        model: The model on the device.
        settings: What is asked for.
        pace: How long.

    Raises:
        UsageError: As :func:`checked_options`.
    """
    options = checked_options(settings)
    half = settings.precision is Precision.FP16
    xnnpack = settings.accelerator == "cpu" and options["delegate"] == "xnnpack"
    flags = {
        "graph": model,
        "num_threads": str(settings.threads),
        "num_runs": str(pace.min_runs),
        "min_secs": f"{pace.min_s:g}",
        "max_secs": f"{pace.max_s:g}",
        "warmup_runs": str(WARMUP_RUNS),
        "warmup_min_secs": f"{WARMUP_S:g}",
        "run_delay": "-1",
        "allow_fp16": "false",
        # The first delegate named is applied first, and what it leaves falls to the CPU's builtin kernels.
        "use_gpu": _word(settings.accelerator == "gpu"),
        "use_nnapi": _word(settings.accelerator == "npu"),
        "use_xnnpack": _word(xnnpack),
    }
    if xnnpack:
        flags["xnnpack_force_fp16"] = _word(half)
    if settings.accelerator == "gpu":
        flags["gpu_precision_loss_allowed"] = _word(half)
        flags["gpu_inference_for_sustained_speed"] = _word(settings.mode == "sustained")
    if settings.accelerator == "npu":
        flags["nnapi_allow_fp16"] = _word(half)
        flags["disable_nnapi_cpu"] = "true"
        flags["nnapi_execution_preference"] = (
            "sustained_speed" if settings.mode == "sustained" else "fast_single_answer"
        )
    flags["enable_op_profiling"] = "false"
    return [f"--{name}={value}" for name, value in flags.items()]


def profile_flags(flags: Sequence[str], csv_file: str) -> list[str]:
    """The same run with an op profile, written as CSV where the tool can.

    Args:
        flags: From :func:`tool_flags`.
        csv_file: File on the device; an older tool prints its table instead.
    """
    kept = [flag for flag in flags if not flag.startswith(_PROFILING)]
    return [
        *kept,
        "--enable_op_profiling=true",
        "--op_profiling_output_mode=csv",
        f"--op_profiling_output_file={csv_file}",
    ]


def taskset_prefix(cores: Sequence[int] | None) -> list[str]:
    """Words before a command that bind it to cores: Android's ``taskset`` takes a hexadecimal mask.

    Args:
        cores: Core numbers; ``None`` leaves the choice to the scheduler.
    """
    if cores is None:
        return []
    return ["taskset", f"{sum(1 << core for core in set(cores)):x}"]


def check_understood(summary: ToolSummary, settings: RunSettings, flags: Sequence[str], pace: Pace) -> None:
    """Refuse a run in which the tool ignored a setting.

    Args:
        summary: What it printed.
        settings: What was asked for.
        flags: What it was given.
        pace: How long it was to run.

    Raises:
        SessionFailed: ``TOOL_ERROR``, naming the flag.
    """
    ignored = [flag for flag in summary.unconsumed if flag not in _REPEATS_DEFAULT and not flag.startswith(_OUTPUT)]
    if ignored:
        raise SessionFailed(
            f"this benchmark_model does not know {printable(' '.join(ignored))}, so it would not run what is asked for",
            FailureKind.TOOL_ERROR,
            "Push a newer benchmark_model to the phone.",
        )
    wanted = {
        "Num threads": str(settings.threads),
        "Min num runs": str(pace.min_runs),
        "Min runs duration (seconds)": f"{pace.min_s:g}",
    }
    names = {"--use_gpu=true": "Use gpu", "--use_nnapi=true": "Use NNAPI", "--use_xnnpack=true": "Use xnnpack"}
    wanted.update({name: "1" for flag, name in names.items() if flag in flags})
    for name, value in wanted.items():
        told = summary.parameters.get(name)
        if told != value:
            raise SessionFailed(
                f"benchmark_model runs with {name}: {told or 'nothing told'} where {value} was asked for",
                FailureKind.TOOL_ERROR,
                "Push a newer benchmark_model to the phone.",
            )


def _word(yes: bool) -> str:
    return "true" if yes else "false"
