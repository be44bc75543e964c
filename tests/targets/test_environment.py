"""The machine is described from its own files; every layout the kernel uses is tried."""

import os

import pytest

from targets import environment
from targets.environment import capture_environment


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A /proc and a /sys/fs/cgroup of our own; the test writes what a kernel would."""
    monkeypatch.setattr(environment, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(environment, "_CGROUP", tmp_path / "cgroup")

    def write(**texts):
        for name, text in texts.items():
            path = tmp_path.joinpath(*name.split("__"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def test_this_machine_is_described():
    env = capture_environment()
    assert env.cpu_model and env.os and env.python
    assert 1 <= env.cores <= (os.cpu_count() or 1)
    assert env.memory_gb > 0.1
    assert {"numpy", "onnx", "onnxruntime"} <= set(env.versions)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a process to cores")
def test_affinity_counts():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert environment.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_the_tightest_quota_of_version_2_counts(system):
    system(proc__self__cgroup="0::/a/b\n")
    system(**{"cgroup__a__cpu.max": "150000 100000\n", "cgroup__a__b__cpu.max": "max 100000\n"})
    system(**{"cgroup__a__memory.max": "1073741824\n", "cgroup__a__b__memory.max": "max\n"})
    system(proc__meminfo="MemTotal:       8000000 kB\n")
    assert environment.cpu_quota() == 1.5
    assert environment.usable_cores() == 1
    assert environment.memory_bytes() == 2**30


def test_quota_and_limit_of_version_1(system):
    system(proc__self__cgroup="4:memory:/m\n3:cpu,cpuacct:/c\n")
    (environment._CGROUP / "cpu,cpuacct").mkdir(parents=True)
    system(
        **{"cgroup__cpu,cpuacct__c__cpu.cfs_quota_us": "50000", "cgroup__cpu,cpuacct__c__cpu.cfs_period_us": "100000"}
    )
    system(**{"cgroup__memory__m__memory.limit_in_bytes": "536870912"})
    assert environment.cpu_quota() == 0.5
    assert environment.usable_cores() == 1
    assert environment.memory_bytes() == 2**29


def test_no_limit_is_no_limit(system):
    system(proc__self__cgroup="4:memory:/m\n3:cpu:/c\n", proc__meminfo="MemTotal: 1000 kB\n")
    system(**{"cgroup__cpu__c__cpu.cfs_quota_us": "-1", "cgroup__cpu__c__cpu.cfs_period_us": "100000"})
    system(**{"cgroup__memory__m__memory.limit_in_bytes": "9223372036854771712"})
    assert environment.cpu_quota() is None
    assert environment.memory_bytes() == 1000 * 1024


def test_a_container_sees_its_limits_at_the_root(system):
    system(proc__self__cgroup="0::/../outside\n", **{"cgroup__cpu.max": "200000 100000"})
    assert environment.cpu_quota() == 2.0


@pytest.mark.parametrize(
    ("cpuinfo", "model", "virtual"),
    [
        ("model name\t: Some  CPU @ 2.0GHz\nflags\t\t: fpu hypervisor sse\n", "Some CPU @ 2.0GHz", True),
        ("model name\t: Bare CPU\nflags\t\t: fpu sse\n", "Bare CPU", False),
        ("processor\t: 0\nFeatures\t: asimd\n\nModel\t\t: Board 4\n", "Board 4", None),
    ],
)
def test_processors_are_named(system, cpuinfo, model, virtual):
    system(proc__cpuinfo=cpuinfo)
    assert environment.cpu_model() == model
    assert environment.virtualized() is virtual


def test_a_system_that_tells_nothing_is_described_all_the_same(system, monkeypatch):
    def no_release():
        raise OSError("no os-release")

    monkeypatch.setattr(environment.platform, "freedesktop_os_release", no_release)
    env = capture_environment()
    assert env.cpu_model and env.cores >= 1 and env.memory_gb > 0
    assert env.virtualized is None
