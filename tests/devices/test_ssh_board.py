"""The virtual board as users start it: a real sshd that outlives the command that started it."""

import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from targets.errors import DeviceUnavailable
from targets.transports.ssh import SshTransport
from targets.virtual import board as boards
from targets.virtual.board import board_is_running, start_board, stop_board
from tests.devices.ssh_making import gone, number_in

ROOT = Path(__file__).resolve().parents[2]


def test_a_board_outlives_its_starter_and_stops_with_all_that_runs_on_it(tmp_path):
    folder = tmp_path / "a board"
    code = (
        f"from pathlib import Path; from targets.virtual.board import start_board; start_board(Path({str(folder)!r}))"
    )
    try:
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
        assert board_is_running(folder)
        pid = number_in(folder / "sshd.pid")
        device = start_board(folder)  # finds the one that runs
        assert number_in(folder / "sshd.pid") == pid
        with SshTransport(device) as there:
            script = f"sleep 600 >/dev/null 2>&1 & echo $! > '{folder}/pid'; echo $HOME"
            home = there.run(["sh", "-c", f"{script}; true"], timeout_s=60).stdout
            assert home.decode().strip() == f"{folder}/home"
            guard = int(there.link().guard.run_folder.split("-")[-3])
            stop_board(folder)
            assert gone(pid) and gone(guard) and gone(number_in(folder / "pid"))
        assert not board_is_running(folder)
        stop_board(folder)
        assert start_board(folder).known_hosts == device.known_hosts  # with the keys it had
    finally:
        stop_board(folder)


def test_a_board_says_what_it_is_and_keeps_its_keys_private(board):
    assert (board.stand_in, board.transport, board.runtime) == ("virtual", "ssh", "onnxruntime")
    assert board.tags == ("board", "virtual") and board.python == sys.executable
    folder = Path(board.key_file).parent
    for name in ("host_key", "client_key"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert "ListenAddress 127.0.0.1" in (folder / "sshd_config").read_text()


def test_two_starts_at_once_are_one_board_that_nobody_else_can_enter(tmp_path, monkeypatch):
    folder, plain, starts = tmp_path / "b", boards._start, []
    folder.mkdir()
    folder.chmod(0o775)  # as a umask of 002 makes it

    def slow(*words):
        starts.append(words)
        time.sleep(0.5)
        plain(*words)

    monkeypatch.setattr(boards, "_start", slow)
    try:
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda _: start_board(folder), range(3)))
        assert len(starts) == 1
        assert found[0] == found[1] == found[2]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "authorized_keys").stat().st_mode) == 0o600
    finally:
        stop_board(folder)


def test_a_start_that_is_interrupted_leaves_no_server(tmp_path, monkeypatch):
    seen = []

    def interrupted(folder, process, port):
        seen.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(boards, "_answers", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            start_board(tmp_path)
        assert seen[0].returncode is not None
    finally:
        stop_board(tmp_path)


def test_a_folder_of_another_user_or_of_everybody_is_refused(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    with pytest.raises(DeviceUnavailable, match="not a folder of yours alone"):
        start_board(tmp_path / "tmp")
    uid = os.geteuid()
    monkeypatch.setattr(boards.os, "geteuid", lambda: uid + 1)
    with pytest.raises(DeviceUnavailable, match="not a folder of yours alone"):
        start_board(tmp_path)


def test_a_pid_file_of_another_process_is_not_believed(tmp_path):
    (tmp_path / "sshd.pid").write_text(f"{os.getpid()}\n")
    assert not board_is_running(tmp_path)
    stop_board(tmp_path)  # and we still run


def test_without_sshd_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(boards.shutil, "which", lambda name: None)
    monkeypatch.setattr(boards.os, "access", lambda *_: False)
    with pytest.raises(DeviceUnavailable, match="apt-get install openssh-server"):
        start_board(tmp_path)


@pytest.mark.parametrize("name", ['a"b', "a%b", "a\nb"])
def test_a_folder_sshd_cannot_be_told_about_is_refused(tmp_path, name):
    with pytest.raises(DeviceUnavailable, match="Name another folder"):
        start_board(tmp_path / name)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DeviceUnavailable, match="cannot set up a board"):
        start_board(tmp_path / "file" / "x")


def test_an_sshd_that_does_not_start_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr(boards, "_CONFIGURATION", "NoSuchWord yes\n")
    with pytest.raises(DeviceUnavailable, match="sshd does not start") as caught:
        start_board(tmp_path)
    assert "\n" not in str(caught.value)
