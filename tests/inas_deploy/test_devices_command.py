"""``inas-deploy devices``: add, list, check, accept and stop, against real and virtual devices."""

import json
import shutil
import sys
from datetime import UTC, datetime

import pytest

from inas_deploy import cli, new_device
from inas_deploy.__main__ import main
from inas_deploy.commands.devices import state_of
from targets.errors import FailureKind, UsageError
from targets.health import HealthState, open_health
from targets.inventory import LOCAL, load_inventory
from targets.leases.base import LeaseState
from targets.leases.registry import open_leases
from targets.transports import adb_discovery
from tests.devices.stopping import stop_virtual_devices

needs_sshd = pytest.mark.skipif(
    shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin") is None,
    reason="no sshd: apt install openssh-server",
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty project, with leases, quarantines and virtual devices of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    yield tmp_path
    stop_virtual_devices()


def devices(capsys, *words, code=0):
    """What ``inas-deploy devices WORDS`` prints, on both streams."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["devices", *map(str, words)])
    out, err = capsys.readouterr()
    assert caught.value.code == code, out + err
    return out + err


def test_the_list_says_who_uses_a_device_and_why_one_is_not_used(capsys):
    assert "free" in devices(capsys)
    with open_leases("x.sqlite").acquire(LOCAL.lease_key):
        assert "in use: by" in devices(capsys)
        assert json.loads(devices(capsys, "--json"))[0]["state"] == "in use"
        assert "failed: " in devices(capsys, "check", "local", code=3)
    health = open_health("x.sqlite")
    for _ in range(3):
        health.record_failure(LOCAL.lease_key, FailureKind.TIMEOUT, "it [bold]hangs[/bold]")
    listed = " ".join(devices(capsys).split())
    assert "in quarantine: since" in listed
    assert "it [bold]hangs[/bold]" in listed
    assert "timed a tiny model" in devices(capsys, "check", "local")
    assert (
        json.loads(devices(capsys, "--json"))[0] | {"state": "free", "state_detail": ""}
        == (json.loads(devices(capsys, "--json"))[0])
    )


def test_what_others_wrote_cannot_steer_the_terminal(capsys):
    evil = "\x1b[2J\u202ex"
    now = datetime.now(UTC)
    states = (
        state_of(LeaseState("k", evil, now, now, 1), None),
        state_of(None, HealthState("k", 1, FailureKind.TIMEOUT, evil, now)),
        state_of(None, HealthState("k", 3, FailureKind.TIMEOUT, evil, now, now)),
    )
    assert all(state.detail.isprintable() and "x1b[2J" in state.detail for state in states)
    for words in (("check", evil), ("add", "--simulated", evil), (evil,)):
        assert all(line.isprintable() for line in devices(capsys, *words, code=2).splitlines())


def test_a_bug_is_no_regression(capsys, monkeypatch):
    def broken(_path):
        raise ValueError("a bug")

    monkeypatch.setattr("inas_deploy.commands.devices.load_inventory", broken)
    with pytest.raises(SystemExit) as caught:
        main(["devices"])
    assert caught.value.code == 70
    *trace, last = capsys.readouterr().err.splitlines()
    assert trace[-1] == "ValueError: a bug"
    assert last.startswith("error: a bug of the kit") and "report it" in last


def test_a_simulated_device_is_added_benched_and_labelled(capsys, folder):
    (folder / "devices.toml").write_text("# ours\n[devices.box]\nthreads = 2  # two\n")
    told = devices(capsys, "add", "--simulated", "jetson-nano", "--tag", "lab")
    assert "STAND-IN: simulated" in told
    assert told.rstrip().endswith("ok")
    assert (folder / "devices.toml").read_text() == (
        "# ours\n[devices.box]\nthreads = 2  # two\n\n[devices.simulated-jetson-nano]\n"
        'transport = "simulated"\nmodel = "jetson-nano"\ntags = ["lab"]\n'
    )
    row = next(row for row in json.loads(devices(capsys, "--json")) if row["name"] == "simulated-jetson-nano")
    assert (row["stand_in"], row["runtime"], row["opset"]) == ("simulated", "tensorrt", 13)
    assert "already" in devices(capsys, "add", "--simulated", "jetson-nano", code=2)


@needs_sshd
def test_a_virtual_board_is_added_checked_listed_and_stopped(capsys, folder):
    try:
        told = devices(capsys, "add", "--virtual", "board")
        assert "STAND-IN: virtual" in told
        assert "virtual-board: timed a tiny model" in told
        board = load_inventory().select("board")[0]
        assert "virtual-board: ok" in devices(capsys, "check", "virtual-board")
        # As a stranger's host: its key is unknown until its fingerprint is confirmed.
        where = f"{board.user}@{board.host}:{board.port}"
        known = folder / "known_hosts"
        stranger = (folder / "devices.toml").read_text().replace("[devices.virtual-board]", "[devices.other]")
        stranger = stranger.replace(str(board.known_hosts), str(known)).replace('"board", ', "")
        (folder / "other.toml").write_text(stranger)
        refused = devices(capsys, "check", "other", "--devices", "other.toml", code=3)
        assert "unknown ssh-ed25519 key SHA256:" in refused
        right = refused.partition("key SHA256:")[2].split()[0].rstrip(".")
        wrong = devices(
            capsys, "accept", "other", "--devices", "other.toml", "--fingerprint", "SHA256:" + "A" * 43, code=2
        )
        assert "Nothing was accepted" in wrong
        assert not known.exists()
        devices(capsys, "accept", "other", "--devices", "other.toml", "--fingerprint", f"SHA256:{right}")
        assert "ok" in devices(capsys, "check", "other", "--devices", "other.toml")
        # Added by its address: what runs there is found out.
        key = ("--key-file", board.key_file, "--name", "found", "--no-check", "--devices", "found.toml")
        unknown = devices(capsys, "add", where, *key, code=3)
        assert "--fingerprint SHA256:" in unknown
        assert not (folder / "found.toml").exists()
        told = devices(capsys, "add", where, *key, "--python", sys.executable, "--fingerprint", f"SHA256:{right}")
        assert "found: added to found.toml" in told
        found = load_inventory(folder / "found.toml").select("found")[0]
        assert found.runtime in {"openvino", "onnxruntime"} or found.profile == "intel-core"
        assert (found.host, found.port, found.stand_in) == (board.host, board.port, None)
        assert oct((folder / ".ssh" / "known_hosts").stat().st_mode & 0o777) == "0o600"
    finally:
        assert "stopped" in devices(capsys, "stop", "virtual-board")
    assert (folder / "devices.toml").read_text() == ""
    assert "no device or tag" in devices(capsys, "stop", "virtual-board", code=2)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("add", "a@b", "--simulated", "jetson-nano"), "more than one device is named"),
        (("add", "--simulated", "jetson"), "Did you mean 'jetson-nano'"),
        (("add", "-oProxyCommand=x@y"), "No such option"),
        (("add", "two words"), "is not an address"),
        (("add", "--adb", "me@phone"), "a phone has no login name"),
        (("add", "--recording", "none.jsonl"), "there is no recording"),
        (("add", "a@b", "--profile", "nano"), "no built-in profile"),
        (("accept", "local", "--fingerprint", "x"), "has no host key"),
        (("stop", "local"), "is no virtual device"),
        (("check", "android"), "devices add --virtual phone"),
    ],
)
def test_a_mistake_is_one_line(capsys, folder, words, expected):
    told = devices(capsys, *words, code=2)
    assert expected in told
    assert len(told.strip().splitlines()) == 1
    assert not (folder / "devices.toml").exists()


@pytest.mark.parametrize(
    ("serials", "words", "code", "expected"),
    [
        ([], (), 2, "no phone is on USB"),
        (["A1", "B2"], (), 2, "several phones are on USB: A1, B2"),
        (["A1"], ("--usb", "B2"), 3, "There are: A1."),
    ],
)
def test_phones_on_usb_are_named(capsys, monkeypatch, serials, words, code, expected):
    monkeypatch.setattr(adb_discovery, "usb_phones", lambda: serials)
    assert expected in devices(capsys, "add", *words, code=code)


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("pi@nano", {"transport": "ssh", "host": "nano", "user": "pi"}),
        ("pi@10.0.0.2:2222", {"transport": "ssh", "host": "10.0.0.2", "port": 2222, "user": "pi"}),
        ("[::1]:22", {"transport": "ssh", "host": "::1", "port": 22}),
    ],
)
def test_addresses_are_read(text, entry):
    assert new_device.ssh_entry(text) == entry


@pytest.mark.parametrize("text", ["", "a b", "a@b@c", "-x", "@host", "host:port"])
def test_other_texts_are_no_addresses(text):
    with pytest.raises(UsageError):
        new_device.ssh_entry(text)
