"""What the device says of itself: machine, tools and runtimes, with their versions."""

import os
import platform
import sys
from pathlib import Path
from typing import Any, Dict, Optional

from targets.agent.counters import read_text
from targets.agent.guard import Guard
from targets.agent.state import find_tool, told_by

_PACKAGES = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "ai-edge-litert": "ai_edge_litert",
    "tflite-runtime": "tflite_runtime",
    "numpy": "numpy",
}


def about(job: Dict[str, Any], guard: Guard) -> Dict[str, Any]:
    """Facts by name; what the device does not tell is absent."""
    facts = {
        "python": platform.python_version(),
        "arch": platform.machine(),
        "os": _os_name(),
        "kernel": platform.release(),
        "machine": _first_line("/proc/device-tree/model") or _first_line("/sys/class/dmi/id/product_name"),
        "cpu": _cpu(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory_kb": _memory_kb(),
        "jetson": _first_line("/etc/nv_tegra_release"),
        "free_bytes": _free_bytes(job["work_folder"]),
    }  # type: Dict[str, Optional[str]]
    versions = {name: _version(name, module) for name, module in _PACKAGES.items()}
    program = find_tool(job.get("tool") or "trtexec")
    tools = {"trtexec": program, "benchmark_app": find_tool("benchmark_app")}
    texts = {
        "nvidia-smi": told_by(("nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"))
    }
    if program is not None and job.get("ask_tool"):
        texts["trtexec"] = told_by((program, "--help"), 4000)
    if job.get("runtime") == "onnxruntime" and versions.get("onnxruntime"):
        facts["providers"] = _providers()
    return {
        "facts": {key: value for key, value in facts.items() if value},
        "versions": {key: value for key, value in versions.items() if value},
        "tools": {key: value for key, value in tools.items() if value},
        "texts": {key: value for key, value in texts.items() if value},
    }


def _first_line(path: str) -> Optional[str]:
    text = read_text(Path(path))
    lines = (text or "").replace("\0", "").strip().splitlines()
    return lines[0][:200] if lines else None


def _os_name() -> str:
    for line in (read_text(Path("/etc/os-release")) or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.split("=", 1)[1].strip().strip('"')[:100]
    return platform.platform()[:100]


def _cpu() -> Optional[str]:
    text = read_text(Path("/proc/cpuinfo")) or ""
    for key in ("model name", "Hardware", "Processor"):
        for line in text.splitlines():
            if line.startswith(key) and ":" in line:
                return line.split(":", 1)[1].strip()[:200]
    return platform.processor() or None


def _memory_kb() -> Optional[str]:
    for line in (read_text(Path("/proc/meminfo")) or "").splitlines():
        fields = line.split()
        if fields[:1] == ["MemTotal:"] and len(fields) > 1:
            return fields[1]
    return None


def _free_bytes(folder: str) -> Optional[str]:
    try:
        left = os.statvfs(folder)
    except OSError:
        return None
    return str(left.f_bavail * left.f_frsize)


def _version(distribution: str, module: str) -> Optional[str]:
    """Version of a package, without importing it where Python can tell (3.8 on)."""
    if sys.version_info >= (3, 8):
        from importlib import metadata

        names = [distribution, distribution + "-gpu"]
        for name in names:
            try:
                return metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return None
    import importlib

    try:
        found = importlib.import_module(module)
    except ImportError:
        return None
    return str(getattr(found, "__version__", "unknown"))


def _providers() -> Optional[str]:
    import onnxruntime

    return ",".join(onnxruntime.get_available_providers())
