"""``inas-deploy devices``: nothing is left half done, entries go as they came, and every mistake says what to do."""

import shutil
from pathlib import Path

import pytest

from inas_deploy import cli, new_device
from inas_deploy.commands import devices_add
from targets.errors import DeviceUnavailable, UsageError
from targets.inventory import Device
from targets.transports.ssh_auth import load_key
from tests.devices.stopping import stop_virtual_devices

needs_sshd = pytest.mark.skipif(
    shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin") is None,
    reason="no sshd: apt install openssh-server",
)
OLD = '[devices.virtual-board]\ntransport = "ssh"\nhost = "127.0.0.1:9"\nstand_in = "virtual"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty project, with leases and virtual devices of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    yield tmp_path
    stop_virtual_devices()


def devices(capsys, *words, code=0):
    with pytest.raises(SystemExit) as caught:
        cli.main(["devices", *map(str, words)])
    out, err = capsys.readouterr()
    assert caught.value.code == code, out + err
    return out + err


def running(kind="board"):
    return new_device.virtual_is_running(kind, Path("devices.toml"), f"virtual-{kind}")


@needs_sshd
@pytest.mark.parametrize(("failing", "code"), [("start_virtual", 130), ("put_entry", 2)])
@pytest.mark.parametrize("before", ["", OLD])
def test_a_virtual_board_whose_adding_fails_is_stopped(capsys, monkeypatch, folder, failing, code, before):
    """Ctrl-C once it runs, and a file that cannot be written; for a new entry, and in place of an old one."""
    seen = []
    start = new_device.start_virtual

    def interrupted(*words):
        start(*words)
        seen.append(running())
        raise KeyboardInterrupt

    def unwritable(*_):
        seen.append(running())
        raise UsageError("cannot write devices.toml", "Name another.")

    module, fails = (new_device, interrupted) if failing == "start_virtual" else (devices_add, unwritable)
    monkeypatch.setattr(module, failing, fails)
    (folder / "devices.toml").write_text(before)
    devices(capsys, "add", "--virtual", "board", code=code)
    assert seen == [True]
    assert not running()
    assert (folder / "devices.toml").read_text() == before


def test_a_virtual_phone_takes_the_same_way(capsys, monkeypatch):
    calls = []

    def start(*_):
        calls.append("start")
        raise KeyboardInterrupt

    monkeypatch.setattr("targets.virtual.phone.start_phone", start)
    monkeypatch.setattr("targets.virtual.phone.stop_phone", lambda *_: calls.append("stop"))
    devices(capsys, "add", "--virtual", "phone", code=130)
    assert calls[:2] == ["start", "stop"]


def test_a_virtual_device_does_not_take_the_place_of_another_kind(capsys, folder):
    (folder / "devices.toml").write_text(OLD)
    assert "no virtual phone" in devices(capsys, "add", "--virtual", "phone", "--name", "virtual-board", code=2)


def test_an_entry_is_removed(capsys, folder):
    (folder / "devices.toml").write_text("# ours\n[devices.box]\nthreads = 2\n[devices.local]\n")
    devices(capsys, "add", "--simulated", "jetson-nano", "--no-check")
    assert "Name the device" in devices(capsys, "remove", "jetson", code=2)
    assert "removed from devices.toml" in devices(capsys, "remove", "simulated-jetson-nano")
    devices(capsys, "remove", "local")
    assert (folder / "devices.toml").read_text() == "# ours\n[devices.box]\nthreads = 2\n"


@needs_sshd
def test_a_virtual_board_is_removed_and_stopped(capsys, folder):
    devices(capsys, "add", "--virtual", "board", "--no-check")
    assert running()
    devices(capsys, "remove", "virtual-board")
    assert not running()
    assert (folder / "devices.toml").read_text() == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("add", "--simulated", "jetson-nano", "--name", "local"), "Take another --name"),
        (("add", "--simulated", "jetson-nano", "--runtime", "tflite"), "runs tensorrt, not tflite"),
        (("add", "a@b", "--name", "../b"), "Use up to 64 letters"),
        (("add", "a@b", "--profile", "jetson-nan"), "Did you mean 'jetson-nano'"),
        (("add", "a@b", "--runtime", "onnxruntim"), "Did you mean 'onnxruntime'"),
        (("add", "a@b", "--key-file", "none"), "there is no key file none"),
        (("add", "a@b", "--jump", "-x"), "--jump '-x' is refused. It begins with neither '-'"),
        (("add", "--adb", "foo:bar"), "Write HOST or HOST:PORT."),
        (("add", "--virtual", "bored"), "'--virtual': 'bored' is not one of"),
        (("add", "--recording", "none.jsonl", "--name", "a b"), "--name 'a b' is refused"),
        (("accept", "local"), "Try 'inas-deploy devices accept --help'"),
        (("stop", "local"), "inas-deploy devices remove local"),
        (("remove", "local"), "There is nothing to remove"),
    ],
)
def test_a_mistake_says_what_to_do(capsys, folder, words, expected):
    told = devices(capsys, *words, code=2)
    assert expected in told
    assert len(told.strip().splitlines()) == 1
    assert not (folder / "devices.toml").exists()


def test_a_device_that_is_away_is_named_with_its_port_and_a_virtual_one_with_how_to_start_it(capsys, folder):
    place = 'host = "127.0.0.1"\nport = 9\n'
    (folder / "devices.toml").write_text(
        f'[devices.vb]\ntransport = "ssh"\nstand_in = "virtual"\n{place}'
        f'[devices.vp]\ntransport = "adb"\nstand_in = "virtual"\n{place}'
        f'[devices.real]\ntransport = "ssh"\n{place}'
    )
    for name, kind in (("vb", "board"), ("vp", "phone")):
        told = devices(capsys, "check", name, code=3)
        assert "(127.0.0.1:9)" in told
        assert f"inas-deploy devices add --virtual {kind} --name {name}" in told
    assert "Check host and port" in devices(capsys, "check", "real", code=3)


def test_the_public_half_of_a_key_is_no_private_one(capsys, folder):
    key = folder / "wrong.pub"
    key.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA a@b\n")
    key.chmod(0o644)
    assert "public half" in devices(capsys, "add", "a@b", "--key-file", key, code=2)
    with pytest.raises(DeviceUnavailable, match="public half"):
        load_key(key)


class NoRuntime:
    """A board's agent that finds no runtime."""

    def __init__(self, *_):
        self.facts, self.texts, self.versions, self.tools = {"cpu": "Some CPU"}, {}, {}, {}

    def about(self):
        return self

    def close(self):
        """Nothing is open."""


def test_a_board_without_a_runtime_says_which_python_was_asked(monkeypatch):
    monkeypatch.setattr("targets.drivers.agent.AgentDriver", NoRuntime)
    device = Device(name="b4", transport="ssh", host="box")
    with pytest.raises(DeviceUnavailable, match=r"found by python3 .*--python ~/venv/bin/python"):
        new_device._board_keys(device, None)
