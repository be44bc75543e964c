"""Flags of the stand-in for ``benchmark_model``: those of the real tool, with its way of telling what it understood."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

# Name: kind, default, and the words with which the tool repeats it.
_FLAGS: dict[str, tuple[str, str, str]] = {
    "help": ("bool", "false", "print out all supported flags"),
    "num_runs": ("int", "50", "Min num runs"),
    "min_secs": ("float", "1", "Min runs duration (seconds)"),
    "max_secs": ("float", "150", "Max runs duration (seconds)"),
    "run_delay": ("float", "-1", "Inter-run delay (seconds)"),
    "num_threads": ("int", "-1", "Num threads"),
    "warmup_runs": ("int", "1", "Min warmup runs"),
    "warmup_min_secs": ("float", "0.5", "Min warmup runs duration (seconds)"),
    "graph": ("string", "", "Graph"),
    "allow_fp16": ("bool", "false", "Allow fp16"),
    "enable_op_profiling": ("bool", "false", "Enable op profiling"),
    "op_profiling_output_mode": ("string", "stdout", "Op profiling output mode."),
    "op_profiling_output_file": ("string", "", "Op profiling output file."),
    "use_gpu": ("bool", "false", "Use gpu"),
    "gpu_precision_loss_allowed": ("bool", "true", "Allow lower precision in gpu"),
    "gpu_inference_for_sustained_speed": ("bool", "false", "Prefer maximizing the throughput in gpu"),
    "use_nnapi": ("bool", "false", "Use NNAPI"),
    "nnapi_allow_fp16": ("bool", "false", "Allow fp16 in NNAPI"),
    "disable_nnapi_cpu": ("bool", "true", "Disable NNAPI cpu"),
    "nnapi_execution_preference": ("string", "", "NNAPI execution preference"),
    "use_xnnpack": ("bool", "false", "Use xnnpack"),
    "xnnpack_force_fp16": ("bool", "false", "xnnpack_force_fp16"),
}
_NEWER = frozenset({"op_profiling_output_mode", "op_profiling_output_file", "xnnpack_force_fp16"})
_PATTERNS = {
    "bool": r"true|false|0|1",
    "int": r"-?[0-9]{1,9}",
    "float": r"-?[0-9]{1,9}(\.[0-9]{1,9})?(e-?[0-9]{1,2})?",
    "string": r"[\s\S]*",
}


class FlagError(Exception):
    """A flag whose value the tool refuses."""


@dataclass(frozen=True)
class Flags:
    """What the tool was told.

    Attributes:
        given: Values by name, in the tool's own notation.
        unknown: Arguments it does not know.
    """

    given: dict[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    def text(self, name: str) -> str:
        """Value of a flag, or its default."""
        return self.given.get(name, _FLAGS[name][1])

    def truth(self, name: str) -> bool:
        """Value of a switch."""
        return self.text(name) in {"true", "1"}

    def whole(self, name: str) -> int:
        """Value of a whole number."""
        return int(self.text(name))

    def real(self, name: str) -> float:
        """Value of a number."""
        return float(self.text(name))

    def echo(self) -> list[str]:
        """Lines in which the tool repeats what it was told, and nothing else."""
        lines = ["Log parameter values verbosely: [0]"]
        for name, (kind, _, words) in _FLAGS.items():
            if name in self.given:
                value = self.given[name]
                shown = (
                    str(int(self.truth(name))) if kind == "bool" else f"{float(value):g}" if kind == "float" else value
                )
                lines.append(f"{words}: [{shown}]")
        return lines


def parse_flags(arguments: Sequence[str], *, old: bool) -> Flags:
    """Read ``--name=value`` words; others, and unknown names, are kept as the tool keeps them: told and ignored.

    Args:
        arguments: The words.
        old: Whether to be a version that lacks the newer flags.

    Raises:
        FlagError: If a value is not of the flag's kind.
    """
    given: dict[str, str] = {}
    unknown = []
    for word in arguments:
        name, equals, value = word.removeprefix("--").partition("=")
        if word == "--help":
            given["help"] = "true"
        elif not word.startswith("--") or not equals or name not in _FLAGS or (old and name in _NEWER):
            unknown.append(word)
        elif not re.fullmatch(_PATTERNS[_FLAGS[name][0]], value):
            raise FlagError(f"Failed to parse flag '{name}' against argv '{word}'")
        else:
            given[name] = value
    return Flags(given, tuple(unknown))


def usage(*, old: bool) -> str:
    """The list of flags."""
    lines = [
        f"\t--{name}={default}\t{kind}\toptional\t{words}"
        for name, (kind, default, words) in _FLAGS.items()
        if not (old and name in _NEWER)
    ]
    return "usage: benchmark_model <flags>\nFlags:\n" + "\n".join(lines) + "\n"
