"""State of the device at one moment, as raw texts: the host reads them, and refuses what it does not know."""

import os
import shutil
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from targets.agent.counters import read_text
from targets.agent.guard import Guard, remove_file

_SYS = Path("/sys")
_MOST_FILES = 64
_MOST_LINES = 2000
_MOST_TEXT = 20000
_TOOL_S = 10.0
_SAMPLE_MS = 250
_PLACES = ("/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin", "/usr/src/tensorrt/bin", "/opt/nvidia/bin")
SMI_FIELDS = "temperature.gpu,clocks.sm,clocks.mem,power.draw,pstate,persistence_mode,clocks_throttle_reasons.active"


def find_tool(name: str) -> Optional[str]:
    """Full path of a program, on the PATH or where devices have it; shells without a login leave some out."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_PLACES))


def told_by(argv: Sequence[str], longest: int = _MOST_TEXT) -> Optional[str]:
    """What a short program prints, or nothing where it is missing, fails to start or hangs."""
    program = find_tool(argv[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *list(argv[1:])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TOOL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout[:longest].decode("utf-8", "replace")


def _files(pattern: str) -> Dict[str, str]:
    found = {}
    for path in sorted(_SYS.glob(pattern))[:_MOST_FILES]:
        text = read_text(path)
        if text is not None:
            found[str(path)] = text.strip()[:200]
    return found


def reading(phase: str) -> Dict[str, Any]:
    """One reading: what the kernel's files and the vendor's tools say now."""
    now: Dict[str, Any] = {"at": datetime.now(timezone.utc).isoformat(), "phase": phase}
    now["files"] = {}
    for pattern in (
        "class/thermal/thermal_zone*/type",
        "class/thermal/thermal_zone*/temp",
        "devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq",
        "devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor",
        "class/devfreq/*/cur_freq",
        "class/devfreq/*/governor",
        "bus/i2c/drivers/ina3221*/*/iio:device*/rail_name_*",
        "bus/i2c/drivers/ina3221*/*/iio:device*/in_power*_input",
    ):
        now["files"].update(_files(pattern))
    now["tools"] = {}
    for key, argv in (
        ("nvpmodel", ("nvpmodel", "-q")),
        ("jetson_clocks", ("jetson_clocks", "--show")),
        ("nvidia-smi", ("nvidia-smi", f"--query-gpu={SMI_FIELDS}", "--format=csv,noheader,nounits")),
    ):
        text = told_by(argv)
        if text is not None:
            now["tools"][key] = text
    return now


class Sampler:
    """Has the vendor's tool sample heat and power while something is timed, where the device has one.

    Args:
        folder: The session's folder.
        guard: Ends the tool whatever happens to us.

    Attributes:
        readings: What was sampled; one raw reading with all lines, or none.
    """

    def __init__(self, folder: Path, guard: Guard) -> None:
        self.readings: List[Dict[str, Any]] = []
        self._log = folder / "samples.log"
        self._guard = guard
        self._process: Any = None
        self._tool = ""
        self._begin = 0.0

    def start(self) -> None:
        """Begin to sample; nothing happens on a device without such a tool."""
        for tool, arguments in (
            ("tegrastats", ["--interval", str(_SAMPLE_MS)]),
            (
                "nvidia-smi",
                [f"--query-gpu={SMI_FIELDS}", "--format=csv,noheader,nounits", "-lms", str(_SAMPLE_MS)],
            ),
        ):
            program = find_tool(tool)
            if program is None:
                continue
            with self._log.open("wb") as output:
                try:
                    self._process = subprocess.Popen(
                        [program, *arguments],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.DEVNULL,
                        preexec_fn=self._guard.start_tool,
                    )
                except OSError:
                    continue
            self._tool, self._begin = tool, time.monotonic()
            return

    def stop(self) -> None:
        """End sampling and keep the lines."""
        if self._process is None:
            return
        took_s = time.monotonic() - self._begin
        self._guard.kill(self._process)
        self._process = None
        with self._log.open("rb") as file:
            whole = file.read(4 * 2**20).rpartition(b"\n")[0]  # the last line may be half a line
        lines = whole.decode("utf-8", "replace").splitlines()
        remove_file(self._log)
        now: Dict[str, Any] = {"at": datetime.now(timezone.utc).isoformat(), "phase": "during"}
        now["sampled"] = {
            "tool": self._tool,
            "interval_ms": _SAMPLE_MS,
            "took_s": took_s,
            "lines": [line[:2000] for line in lines[-_MOST_LINES:]],
        }
        self.readings.append(now)
