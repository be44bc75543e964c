"""What goes wrong between us and a phone: every failure told apart, nothing left on the phone, no half file here."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from targets.errors import DeviceUnavailable, FailureKind, SessionFailed
from targets.transports.adb import AdbTransport
from targets.transports.adb_connection import AdbConnection
from targets.transports.adb_discovery import answers, usb_hint
from targets.transports.adb_keys import ensure_key
from targets.transports.adb_link import LinkFlooded, LinkLate, LinkLost
from targets.virtual import phone as phones
from targets.virtual.phone import VirtualPhone, phone_is_running, start_phone, stop_phone
from targets.virtual.relay import Fault, Relay

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20
WORK = "data/local/tmp/inas-deploy"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A phone that these tests may cut, restart and lock."""
    with VirtualPhone(tmp_path_factory.mktemp("own")) as running:
        yield running


@pytest.fixture
def wire(own):
    """A relay before the phone, and the phone as seen through it."""
    with Relay(("127.0.0.1", 0), ("127.0.0.1", own.device.port)) as relay:
        yield relay, own.device.model_copy(update={"port": relay.port, "connect_timeout_s": 5.0})


def alive(transport, mark):
    script = 'for f in /proc/[0-9]*/cmdline; do tr "\\0\\n" "  " <$f; echo; done'
    text = transport.run(["sh", "-c", script], timeout_s=20).stdout.decode("utf-8", "replace")
    return [line for line in text.splitlines() if mark in line]


def settles(own, *marks):
    """Nothing of ours runs or lies on the phone any more, seen from a new connection."""
    end = time.monotonic() + 20
    with AdbTransport(own.device) as transport:
        while any(alive(transport, mark) for mark in marks) or list((own.root / WORK).glob("*-*")):
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
    return True


def test_a_connection_lost_under_a_command_ends_the_command(own, wire):
    relay, device = wire
    with AdbTransport(device) as transport:
        cutter = threading.Timer(1.0, relay.cut)
        cutter.start()
        with pytest.raises(SessionFailed, match="lost") as caught:
            transport.run(["sh", "-c", "setsid sleep 4244.1 & sleep 4244.2"], timeout_s=60)
        cutter.join()
        assert caught.value.kind is FailureKind.LOST_DEVICE
        assert settles(own, "sleep 4244")
        assert transport.run(["echo", "again"], timeout_s=20).stdout == b"again\n"


def test_the_phone_clears_up_by_itself_when_we_never_come_back(own, wire):
    relay, device = wire
    transport = AdbTransport(device)
    transport._session.tidy = lambda: None
    threading.Timer(1.0, relay.cut).start()
    with pytest.raises(SessionFailed):
        transport.run(["sh", "-c", "sleep 4245.1 & sleep 4245.2"], timeout_s=60)
    end = time.monotonic() + 20
    while list((own.root / WORK).glob("run-*")) and time.monotonic() < end:
        time.sleep(0.05)
    assert list((own.root / WORK).glob("run-*")) == []
    assert settles(own, "sleep 4245")


def test_a_silent_wire_is_a_timeout(own, wire):
    relay, device = wire
    relay.fault = Fault("stall", after_bytes=2000, direction="down", seconds=8.0)
    with AdbTransport(device) as transport, pytest.raises(SessionFailed, match="deadline") as caught:
        transport.run(["sh", "-c", "head -c 9000 /dev/zero; sleep 4246"], timeout_s=1.0)
    assert caught.value.kind is FailureKind.TIMEOUT
    assert settles(own, "sleep 4246")


@pytest.mark.parametrize("after", [3 * MIB, 5000])
def test_a_pull_that_is_cut_leaves_no_file(own, wire, tmp_path, after):
    relay, device = wire
    (own.root / "data" / "big").write_bytes(os.urandom(6 * MIB))
    relay.fault = Fault("cut", after_bytes=after, direction="down")
    with AdbTransport(device) as transport, pytest.raises(SessionFailed) as caught:
        transport.pull("/data/big", tmp_path / "big")
    assert caught.value.kind is FailureKind.LOST_DEVICE
    assert list(tmp_path.iterdir()) == []
    relay.fault = None
    with AdbTransport(device) as transport:
        transport.pull("/data/big", tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == (own.root / "data" / "big").read_bytes()


def test_a_push_that_is_cut_leaves_no_file(own, wire, tmp_path):
    relay, device = wire
    (tmp_path / "big").write_bytes(os.urandom(6 * MIB))
    with AdbTransport(device) as transport:
        transport.push(tmp_path / "big", f"{transport.work_folder}/model")
        before = transport.checksum(f"{transport.work_folder}/model")
        (tmp_path / "big").write_bytes(os.urandom(6 * MIB))
        transport.close()
    relay.fault = Fault("cut", after_bytes=2 * MIB, direction="up")
    with AdbTransport(device) as transport, pytest.raises(SessionFailed) as caught:
        transport.push(tmp_path / "big", f"{transport.work_folder}/model")
    assert caught.value.kind is FailureKind.LOST_DEVICE
    assert settles(own)
    with AdbTransport(own.device) as transport:
        assert transport.checksum(f"{transport.work_folder}/model") == before
        transport.remove(f"{transport.work_folder}/model")


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("after", [30, 2500, 400_000])
def test_a_wrong_byte_is_never_a_wrong_file(own, wire, tmp_path, direction, after):
    relay, device = wire
    data = os.urandom(MIB)
    (tmp_path / "a").write_bytes(data)
    relay.fault = Fault("corrupt", after_bytes=after, direction=direction)
    place = f"/data/local/tmp/{direction}{after}"
    try:
        with AdbTransport(device.model_copy(update={"connect_timeout_s": 1.0})) as transport:
            transport.push(tmp_path / "a", place)
            transport.pull(place, tmp_path / "b")
    except (SessionFailed, DeviceUnavailable) as error:
        assert getattr(error, "kind", FailureKind.LOST_DEVICE) in FailureKind
    if (tmp_path / "b").exists():
        assert (tmp_path / "b").read_bytes() == data
    there = own.root / place[1:]
    assert not there.exists() or there.read_bytes() == data
    assert not [path for path in tmp_path.iterdir() if path.name not in ("a", "b")]
    assert settles(own)


def test_after_a_restart_the_same_transport_goes_on(own):
    with AdbTransport(own.device) as transport:
        failed = []

        def long_run():
            try:
                transport.run(["sleep", "4247"], timeout_s=60)
            except SessionFailed as error:
                failed.append(error.kind)

        thread = threading.Thread(target=long_run)
        thread.start()
        time.sleep(0.5)
        own.reboot()
        thread.join(30)
        assert failed == [FailureKind.LOST_DEVICE]
        assert settles(own, "sleep 4247")
        assert transport.run(["echo", "up"], timeout_s=20).stdout == b"up\n"


def test_a_run_that_a_restart_left_behind_is_cleared_by_the_next_one(own):
    left = own.root / WORK / f"run-{'ab' * 16}"
    left.mkdir(parents=True)
    (left / "wrapper").write_text("1\n")  # a number used again by something else
    (left / "group").write_text("1\n")
    fresh = own.root / WORK / f"run-{'cd' * 16}"  # perhaps another connection's, just beginning
    fresh.mkdir()
    half = own.root / WORK / "push-0123456789abcdef"
    half.write_bytes(b"half")
    old = time.time() - 600
    os.utime(half, (old, old))
    with AdbTransport(own.device) as transport:
        assert not left.exists()
        assert not half.exists()
        assert fresh.exists()
        assert transport.run(["echo", "1 lives"], timeout_s=20).returncode == 0
    fresh.rmdir()


def test_a_key_that_is_no_longer_accepted_locks_us_out_and_another_lets_us_in(own, tmp_path):
    device = own.device.model_copy(update={"connect_timeout_s": 1.0})
    with AdbTransport(device) as transport:
        own.revoke()
        own.cut()
        with pytest.raises(SessionFailed):
            transport.run(["true"], timeout_s=5)
        with pytest.raises(DeviceUnavailable, match="Accept the key"):
            transport.run(["true"], timeout_s=5)
        own.authorize(Path(f"{device.key_file}.pub"))
        assert transport.run(["echo", "in"], timeout_s=20).stdout == b"in\n"
    second = ensure_key(tmp_path / "second")
    own.authorize(Path(f"{second}.pub"))
    with AdbTransport(device.model_copy(update={"key_file": str(second)})) as transport:
        assert transport.run(["echo", "in"], timeout_s=20).stdout == b"in\n"


def test_two_phones_are_two(own, tmp_path):
    with (
        VirtualPhone(tmp_path / "second", "second") as other,
        AdbTransport(own.device) as one,
        AdbTransport(other.device) as two,
    ):
        here = "/data/local/tmp"
        for phone, mine in ((one, "one"), (two, "two")):
            phone.run(["touch", f"{here}/{mine}"], timeout_s=20)
        seen = [phone.run(["ls", here], timeout_s=20).stdout.split() for phone in (one, two)]
        assert [{b"one", b"two"} & set(names) for names in seen] == [{b"one"}, {b"two"}]
        swapped = {"key_file": other.device.key_file, "connect_timeout_s": 1.0}
        with pytest.raises(DeviceUnavailable, match="Accept the key"):
            AdbTransport(own.device.model_copy(update=swapped))


def test_a_phone_that_outlives_its_starter_is_found_and_stopped(tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    assert not phone_is_running(folder)
    started = []

    def slow(*words, **more):
        started.append(words)
        time.sleep(0.5)
        return plain(*words, **more)

    plain = phones._start
    monkeypatch.setattr(phones, "_start", slow)
    try:
        with ThreadPoolExecutor(2) as pool:  # two at once are one
            device, second = pool.map(lambda _: start_phone(folder), range(2))
        assert device == second
        assert len(started) == 1
        assert phone_is_running(folder)
        with pytest.raises(DeviceUnavailable, match="already"):
            VirtualPhone(folder).start()
        with AdbTransport(device) as transport:
            assert transport.run(["echo", "here"], timeout_s=20).stdout == b"here\n"
    finally:
        stop_phone(folder)
    assert not phone_is_running(folder)
    stop_phone(folder)
    with pytest.raises(DeviceUnavailable):
        AdbTransport(device)


def test_a_phone_dies_with_its_owner(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from targets.virtual.phone import VirtualPhone\n"
        "with VirtualPhone(Path(sys.argv[1])) as phone: print(phone.device.port, flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    with owner:
        port = int(owner.stdout.readline())
        assert answers("127.0.0.1", port)
        owner.send_signal(signal.SIGKILL)
    end = time.monotonic() + 20
    while answers("127.0.0.1", port) and time.monotonic() < end:
        time.sleep(0.05)
    assert not answers("127.0.0.1", port)


class Liar(threading.Thread):
    """A server that is no adbd."""

    def __init__(self, says, hold=True):
        super().__init__(daemon=True)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.says, self.hold = says, hold
        self.start()

    def run(self):
        end, _ = self.server.accept()
        end.recv(4096)
        try:
            while True:
                end.sendall(self.says)
                if not self.hold:
                    break
                time.sleep(0.01)
        except OSError:
            return
        end.close()


def frame(word, first, second, data):
    number = int.from_bytes(word, "little")
    head = struct.pack("<6I", number, first, second, len(data), sum(data), number ^ 0xFFFFFFFF)
    return head + data


@pytest.mark.parametrize(
    ("says", "hold", "reason"),
    [
        (frame(b"AUTH", 1, 0, b"x" * 19), True, "not adb"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", True, "not adb"),
        (b"", False, "closed the connection|connection broke"),
        (b"", True, "no answer"),
        (b"CNXN" + bytes(8) + b"\xff\xff\xff\x7f" + bytes(4) + bytes([0xBC, 0xB1, 0xA7, 0xB1]), True, "packet of"),
        (b"STLS" + bytes(12) + bytes(4) + bytes([0xAC, 0xAB, 0xB3, 0xAC]), True, "cannot be reached|wireless"),
    ],
)
def test_whoever_is_no_adbd_is_found_out(own, says, hold, reason):
    liar = Liar(says, hold)
    started = time.monotonic()
    with pytest.raises(DeviceUnavailable, match=reason):
        AdbTransport(own.device.model_copy(update={"port": liar.port, "connect_timeout_s": 1.0}))
    assert time.monotonic() - started < 30
    liar.server.close()


def test_a_device_does_not_decide_how_much_memory_is_set_aside(own, tmp_path):
    liar = Liar(frame(b"CNXN", 0x01000000, 2**29, b"device::") + frame(b"OKAY", 7, 1, b""))
    device = own.device.model_copy(update={"port": liar.port, "connect_timeout_s": 5.0})
    connection = AdbConnection(device)
    connection.open()
    tracemalloc.start()
    try:
        with pytest.raises((LinkLost, LinkLate, LinkFlooded)):
            connection.pull("/x", tmp_path / "x", 100, 1.0)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
        connection.drop()
        liar.server.close()


def test_a_look_at_usb_is_one_line_whatever_there_is():
    assert "\n" not in usb_hint()
    assert usb_hint().endswith(".")


def test_a_phone_that_is_not_on_usb_is_told(own):
    device = own.device.model_copy(update={"host": None, "port": None, "serial": "NOSUCH"})
    with pytest.raises(DeviceUnavailable, match="NOSUCH"):
        AdbTransport(device)
