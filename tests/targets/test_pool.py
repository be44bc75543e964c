"""The pool over real leases and health; the devices' work is a function, so that faults come when they should."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from targets.errors import DeviceUnavailable, FailureKind, InvalidModel, SessionFailed, UsageError
from targets.health import FileHealth
from targets.inventory import Device
from targets.leases.files import FileLeases
from targets.pool import Pool, equal

ROOT = Path(__file__).resolve().parents[2]


class Opened:
    """Stands for an open target."""

    def __init__(self, device, lease):
        self.device, self.lease = device, lease

    def close(self):
        self.lease.release()


@pytest.fixture
def lab(tmp_path):
    class Lab:
        leases = FileLeases(tmp_path / "leases", poll_s=0.02)
        health = FileHealth(tmp_path / "health")
        devices = tuple(Device(name=f"phone{n}", transport="adb", serial=str(n), profile=None) for n in range(3))

        def pool(self, devices=devices, **options):
            return Pool(devices, self.leases, self.health, **{"open_device": Opened, **options})

    return Lab()


def lost(what="gone"):
    return SessionFailed(what, FailureKind.LOST_DEVICE)


def test_results_keep_the_items_order_and_all_devices_work(lab):
    meet = threading.Barrier(3)
    seen = []

    def work(target, item):
        if item < 3:
            meet.wait(30)  # three at once, or the test ends here
        target.lease.check()
        seen.append((target.device.name, item))
        return item * item

    saved = {}
    assert lab.pool().run(range(10), work, saved.__setitem__) == [n * n for n in range(10)]
    assert saved == {n: n * n for n in range(10)}
    assert sorted(item for _, item in seen) == list(range(10))
    assert {name for name, _ in seen} == {"phone0", "phone1", "phone2"}
    assert lab.leases.states() == []


def test_nothing_to_do_opens_nothing(lab):
    assert lab.pool(open_device=None).run([], None) == []


def test_an_item_of_a_lost_device_goes_whole_to_another(lab):
    failed = []
    first_failure = threading.Event()

    def work(target, item):
        if target.device.name == "phone0" and not failed:
            failed.append(item)
            first_failure.set()
            raise lost()
        first_failure.wait(60)
        return target.device.name

    done = lab.pool(lab.devices[:2]).run("abc", work)
    assert done["abc".index(failed[0])] == "phone1"


def test_one_device_alone_is_tried_again_and_not_forever(lab):
    tries = []

    def work(target, item):
        tries.append(item)
        if len(tries) == 1:
            raise lost()
        return "done"

    assert lab.pool(lab.devices[:1]).run(["a"], work) == ["done"]
    with pytest.raises(SessionFailed, match=r"gone \(tried on phone1, phone1\)"):
        lab.pool(lab.devices[1:2], attempts=2).run(["a"], lambda *_: (_ for _ in ()).throw(lost()))
    assert lab.leases.states() == []


def test_a_device_that_keeps_failing_is_quarantined_and_its_work_done_by_others(lab):
    failures = threading.Semaphore(0)
    enough = threading.Event()

    def work(target, item):
        if target.device.name == "phone0":
            failures.release()
            raise lost("cable")
        if not enough.is_set():
            assert all(failures.acquire(timeout=60) for _ in range(3)) or enough.is_set()
            enough.set()
        return target.device.name

    assert set(lab.pool(lab.devices[:2]).run(range(60), work)) == {"phone1"}
    [state] = lab.health.states()
    assert (state.key, state.reason) == ("adb:0", "cable")
    assert state.quarantined_at is not None
    assert set(lab.pool().run(range(6), work)) <= {"phone1", "phone2"}
    with pytest.raises(DeviceUnavailable, match=r"no device is left for 2 .*phone0 has been in quarantine"):
        lab.pool(lab.devices[:1]).run("ab", work)


def test_devices_in_use_or_out_of_reach_are_left_out(lab):
    def open_device(device, lease):
        if device.name == "phone1":
            lease.release()
            raise DeviceUnavailable("no route", "Plug it in.")
        return Opened(device, lease)

    with lab.leases.acquire("adb:0"):
        assert set(lab.pool(open_device=open_device).run(range(4), lambda t, _: t.device.name)) == {"phone2"}
        with pytest.raises(DeviceUnavailable, match=r"phone0: adb:0 is in use.*phone1: no route"):
            lab.pool(lab.devices[:2], open_device=open_device).run(range(4), lambda t, _: 0)
    assert [state.key for state in lab.health.states()] == ["adb:1"]


def test_nobody_stands_in_line_after_the_work_is_done(lab):
    with lab.leases.acquire("adb:0"):
        started = time.monotonic()
        assert lab.pool(lab.devices[:2], wait_s=3600).run("ab", lambda t, _: t.device.name) == ["phone1", "phone1"]
        assert time.monotonic() - started < 600
        assert lab.leases.states()[0].waiting == 0


@pytest.mark.parametrize("error", [InvalidModel("bad", "Mend it."), ZeroDivisionError()])
def test_what_no_other_device_can_mend_ends_the_run(lab, error):
    done = []

    def work(target, item):
        if item == 3:
            raise error
        time.sleep(0.005)
        done.append(item)

    with pytest.raises(type(error)):
        lab.pool().run(range(1000), work)
    assert len(done) < 999
    assert lab.leases.states() == []


def test_ctrl_c_ends_between_items_and_gives_the_leases_back(tmp_path):
    program = f"""
import os, sys, time
from pathlib import Path
from targets.health import FileHealth
from targets.leases.files import FileLeases
from targets.pool import Pool
from targets.inventory import Device
from tests.targets.test_pool import Opened
leases = FileLeases(Path({str(tmp_path / "leases")!r}))
devices = [Device(name=f"phone{{n}}", transport="adb", serial=str(n)) for n in range(2)]
pool = Pool(devices, leases, FileHealth(Path({str(tmp_path / "health")!r})), open_device=Opened)
def work(target, item):
    os.write(1, b"working\\n")
    time.sleep(0.3)
    return item
try:
    pool.run(range(10000), work)
except KeyboardInterrupt:
    print("interrupted", leases.states(), flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "working\n"
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=120)[0].endswith("interrupted []\n")
    assert child.returncode == 0


def test_unlike_devices_are_refused_with_the_difference(lab):
    equal(lab.devices)
    one = lab.devices[0]
    for change, said in (
        ({"runtime": "tflite"}, "runtime is None and 'tflite'"),
        ({"threads": 4}, "threads is None and 4"),
        ({"stand_in": "virtual"}, "label is None and 'virtual'"),
    ):
        other = Device(name="other", transport="adb", serial="9", **change)
        with pytest.raises(UsageError, match=said):
            Pool([one, other], lab.leases, lab.health)
    with pytest.raises(UsageError, match="one machine"):
        equal([one, Device(name="same", transport="adb", serial="0")])
    with pytest.raises(UsageError, match="at least one"):
        equal([])
