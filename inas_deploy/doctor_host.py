"""What the host allows, and what would make figures better right now; everything is tried, nothing assumed."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from inas_deploy.doctor_checks import Check
from targets.environment import cpu_model, cpu_quota, memory_bytes, read_text, usable_cores, virtualized
from targets.host import HostWatch, temperature_c
from targets.records import HostSnapshot
from targets.verdict import MAX_OTHER_CPU, MAX_STEAL

WATCH_S = 1.0
_CPU = Path("/sys/devices/system/cpu")
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}


def host_checks() -> Iterator[Check]:
    """Cores, memory, clock control, counters and affinity."""
    yield _cores()
    yield _memory()
    yield _virtualization()
    yield _clock()
    yield _turbo()
    yield _smt()
    yield _affinity()
    yield _pressure()
    yield _perf()


def now_checks(seconds: float = WATCH_S) -> Iterator[Check]:
    """What else the host does right now, watched for a moment, and how many threads to use on it.

    Args:
        seconds: How long to watch.
    """
    watch = HostWatch()
    time.sleep(seconds)
    seen = watch.snapshot()
    yield _other_load(seen, seconds)
    yield _steal(seen)
    yield _heat()
    yield _threads()


def _cores() -> Check:
    quota, there = cpu_quota(), os.cpu_count() or 1
    limit = f", quota {quota:g}" if quota is not None else ", no quota"
    detail = f"{cpu_model()}: {usable_cores()} of {there} logical cores usable{limit}"
    if quota is not None and quota < there:
        fix = "A CPU quota stops processes in mid-inference: run without it (docker --cpuset-cpus instead of --cpus)."
        return Check(area="host", name="cores", status="warn", detail=detail, fix=fix)
    return Check(area="host", name="cores", status="ok", detail=detail)


def _memory() -> Check:
    total = memory_bytes()
    if not total:
        return Check(area="host", name="memory", status="missing", detail="the system does not tell")
    return Check(area="host", name="memory", status="ok", detail=f"{total / 2**30:.1f} GiB usable")


def _virtualization() -> Check:
    answer = virtualized()
    if answer is None:
        return Check(area="host", name="virtualization", status="missing", detail="the processor does not say")
    if answer:
        fix = "Compare models within one run (inas-deploy compare), not with figures from another day."
        detail = "a virtual machine: neighbours and core placement are out of sight"
        return Check(area="host", name="virtualization", status="warn", detail=detail, fix=fix)
    return Check(area="host", name="virtualization", status="ok", detail="no hypervisor flag")


def _clock() -> Check:
    governor = (read_text(_CPU / "cpu0/cpufreq/scaling_governor") or "").strip()
    if not governor:
        detail = "hidden by the host: neither governor nor clock can be read, so clock changes go unseen"
        return Check(area="host", name="clock governor", status="missing", detail=detail)
    if governor != "performance":
        fix = "sudo cpupower frequency-set -g performance"
        return Check(
            area="host", name="clock governor", status="warn", detail=f"{governor!r} lets clocks fall", fix=fix
        )
    return Check(area="host", name="clock governor", status="ok", detail="performance")


def _turbo() -> Check:
    for path, on in ((_CPU / "intel_pstate/no_turbo", "0"), (_CPU / "cpufreq/boost", "1")):
        text = (read_text(path) or "").strip()
        if text == on:
            fix = f"For steadier figures: echo {1 - int(on)} | sudo tee {path}"
            return Check(area="host", name="turbo", status="warn", detail="on: the clock depends on heat", fix=fix)
        if text:
            return Check(area="host", name="turbo", status="ok", detail="off")
    return Check(area="host", name="turbo", status="missing", detail="hidden by the host")


def _smt() -> Check:
    state = (read_text(_CPU / "smt/active") or "").strip()
    if state == "1":
        fix = "Pin sessions to one logical core of each physical core (pinned_cores in devices.toml)."
        return Check(area="host", name="SMT", status="warn", detail="on: two logical cores share one core", fix=fix)
    if state == "0":
        detail = "off, or not shown to this machine"
        return Check(area="host", name="SMT", status="ok", detail=detail)
    return Check(area="host", name="SMT", status="missing", detail="hidden by the host")


def _affinity() -> Check:
    if not hasattr(os, "sched_setaffinity"):
        return Check(area="host", name="pinning", status="missing", detail="this system cannot bind processes to cores")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        os.sched_setaffinity(0, before)
    except OSError as error:
        return Check(area="host", name="pinning", status="missing", detail=f"refused: {error.strerror}")
    return Check(area="host", name="pinning", status="ok", detail=f"allowed on cores {sorted(before)}")


def _pressure() -> Check:
    if "some" in (read_text(Path("/proc/pressure/cpu")) or ""):
        return Check(area="host", name="CPU pressure", status="ok", detail="readable: waiting for a core is seen")
    detail = "not readable: waiting for a core goes unseen"
    return Check(area="host", name="CPU pressure", status="missing", detail=detail, fix="Boot with psi=1.")


def _perf() -> Check:
    number = _PERF_EVENT_OPEN.get(platform.machine())
    if platform.system() != "Linux" or number is None:
        return Check(area="host", name="cycle counter", status="missing", detail="not known for this system")
    # perf_event_attr: type hardware, size, event cycles, ..., flags disabled + exclude_kernel + exclude_hv
    attributes = ctypes.create_string_buffer(struct.pack("<IIQQQQQ", 0, 112, 0, 0, 0, 0, 0x61), 112)
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.syscall(ctypes.c_long(number), attributes, 0, -1, ctypes.c_long(-1), ctypes.c_ulong(0))
    if handle >= 0:
        os.close(handle)
        return Check(area="host", name="cycle counter", status="ok", detail="hardware cycles can be counted")
    code = ctypes.get_errno()
    if code in (errno.EACCES, errno.EPERM):
        fix = "sudo sysctl kernel.perf_event_paranoid=2"
        return Check(area="host", name="cycle counter", status="missing", detail="not allowed", fix=fix)
    detail = f"no hardware counters here ({os.strerror(code)})"
    return Check(area="host", name="cycle counter", status="missing", detail=detail)


def _other_load(seen: HostSnapshot, seconds: float) -> Check:
    if seen.other_cpu_share is None:
        return Check(area="now", name="other load", status="missing", detail="the system does not tell")
    pressure = "" if seen.cpu_pressure_share is None else f", tasks waited {seen.cpu_pressure_share:.0%} of the time"
    detail = f"other processes used {seen.other_cpu_share:.0%} of one core over {seconds:g} s{pressure}"
    if seen.other_cpu_share > MAX_OTHER_CPU:
        fix = f"Stop other programs: above {MAX_OTHER_CPU:.0%} a measurement is called weak."
        return Check(area="now", name="other load", status="warn", detail=detail, fix=fix)
    return Check(area="now", name="other load", status="ok", detail=detail)


def _steal(seen: HostSnapshot) -> Check:
    if seen.steal_share is None:
        return Check(area="now", name="steal", status="missing", detail="the system does not tell")
    detail = f"the hypervisor took {seen.steal_share:.1%} of one core"
    if seen.steal_share > MAX_STEAL:
        fix = "Measure at another time or on a machine of your own."
        return Check(area="now", name="steal", status="warn", detail=detail, fix=fix)
    return Check(area="now", name="steal", status="ok", detail=detail)


def _heat() -> Check:
    hottest = temperature_c()
    if hottest is None:
        return Check(area="now", name="temperature", status="missing", detail="no thermal zone is shown")
    return Check(area="now", name="temperature", status="ok", detail=f"{hottest:.0f} degrees C at the hottest zone")


def _threads() -> Check:
    shared = virtualized() is not False or (read_text(_CPU / "smt/active") or "").strip() == "1"
    if shared:
        detail = "use 1 (the default): more threads than that give two-peaked figures on shared or virtual cores"
    else:
        detail = f"1 (the default) repeats best; up to {usable_cores()} cores are yours"
    return Check(area="now", name="threads", status="ok", detail=detail)
