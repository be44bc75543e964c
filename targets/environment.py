"""The machine and the software that a latency depends on, as far as they can be read."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from targets.extras import DISTRIBUTION, version_of
from targets.records import Environment

DISTRIBUTIONS = (
    DISTRIBUTION,
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "ai-edge-litert",
    "tflite-runtime",
    "tensorrt",
    "tensorrt-rtx",
    "torch",
    "onnxscript",
    "litert-torch",
)
_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED_BYTES = 2**60  # version 1 of control groups writes "no limit" as a number near 2**63


def capture_environment() -> Environment:
    """Describe this machine; what the system does not tell is left out or said to be unknown."""
    return Environment(
        cpu_model=cpu_model(),
        cores=usable_cores(),
        memory_gb=round(memory_bytes() / 2**30, 2),
        os=os_name(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        virtualized=virtualized(),
        versions={name: version for name in DISTRIBUTIONS if (version := version_of(name)) is not None},
    )


def cpu_model() -> str:
    """Processor name as the kernel gives it, with the architecture where it gives none."""
    text = read_text(_PROC / "cpuinfo") or ""
    for key in ("model name", "Model", "Hardware", "cpu model"):  # x86, 64-bit Arm boards, older Arm, MIPS
        found = re.search(rf"^{key}\s*:\s*(\S.*)$", text, re.MULTILINE)
        if found:
            return " ".join(found[1].split())
    return platform.processor() or platform.machine() or "unknown"


def usable_cores() -> int:
    """Cores this process may keep busy: its affinity, cut down by a control group's CPU quota (rounded down)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return max(1, cores if quota is None else min(cores, int(quota)))


def cpu_quota() -> float | None:
    """CPU quota of this process's control group in cores; ``None`` where there is none.

    Above all groups on the path to this process the tightest one counts. Version 2 writes ``cpu.max``
    (``"200000 100000"``, ``"max 100000"``), version 1 ``cpu.cfs_quota_us`` (-1 for none) and its period.
    """
    quotas = []
    for folder in _groups("cpu"):
        fields = (read_text(folder / "cpu.max") or "").split()
        if not fields:
            fields = [(read_text(folder / f"cpu.cfs_{name}_us") or "").strip() for name in ("quota", "period")]
        if len(fields) == 2 and all(field.isdigit() for field in fields) and int(fields[1]) > 0:
            quotas.append(int(fields[0]) / int(fields[1]))
    return min((quota for quota in quotas if quota > 0), default=None)


def memory_bytes() -> int:
    """Physical memory, or the control group's limit where that is tighter; 0 where neither is known."""
    limits = []
    for folder in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = (read_text(folder / name) or "").strip()
            if text.isdigit() and 0 < int(text) < _UNLIMITED_BYTES:
                limits.append(int(text))
    found = re.search(r"^MemTotal:\s+(\d+) kB", read_text(_PROC / "meminfo") or "", re.MULTILINE)
    if found:
        limits.append(int(found[1]) * 1024)
    elif {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(os.sysconf_names):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=0)


def os_name() -> str:
    """Distribution, kernel and architecture in one line."""
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    try:
        return f"{platform.freedesktop_os_release().get('PRETTY_NAME', '')} ({kernel})".strip()
    except OSError:
        return kernel


def virtualized() -> bool | None:
    """Whether the processor says it is a virtual one; ``None`` where it does not say either way."""
    text = read_text(_PROC / "cpuinfo") or ""
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)  # only x86 has the hypervisor flag
    if flags:
        return "hypervisor" in flags[1].split()
    return None


def read_text(path: Path) -> str | None:
    """A small system file's text; ``None`` where it is absent or not for us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _groups(controller: str) -> list[Path]:
    """Folders of this process's control groups, innermost first, up to the root of each hierarchy."""
    folders: list[Path] = []
    for line in (read_text(_PROC / "self" / "cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        names, _, group = rest.partition(":")
        if number == "0" and not names:
            root = _CGROUP
        elif controller in names.split(","):
            root = _CGROUP / names if (_CGROUP / names).is_dir() else _CGROUP / controller
        else:
            continue
        inner = root / group.strip("/")
        # Inside a container the path is the host's while the files are mounted at the root.
        folders += [inner, *(parent for parent in inner.parents if parent.is_relative_to(root))]
    return folders
