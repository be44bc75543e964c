"""The local transport: deadlines, groups, bounds and whole files, with real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from targets.errors import DeviceUnavailable, FailureKind, SessionFailed, UsageError
from targets.inventory import Device
from targets.transports import local
from targets.transports.local import LocalTransport
from targets.transports.registry import open_transport


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def _gone(pid: int, within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if not _alive(pid):
            return True
        time.sleep(0.02)
    return False


def test_a_command_gives_status_and_both_streams():
    code = "import sys; print(sys.stdin.read()[::-1]); print('bad', file=sys.stderr); sys.exit(3)"
    with LocalTransport() as here:
        done = here.run([sys.executable, "-c", code], input_bytes=b"abc", timeout_s=30)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"cba\n", b"bad\n")


def test_a_signal_is_a_negative_status():
    with LocalTransport() as here:
        assert here.run(["sh", "-c", "kill -SEGV $$"], timeout_s=30).returncode == -signal.SIGSEGV


def test_arguments_are_not_read_by_a_shell(tmp_path):
    with LocalTransport() as here:
        done = here.run(["echo", f"$(touch {tmp_path}/x); *"], timeout_s=30)
    assert done.stdout.decode() == f"$(touch {tmp_path}/x); *\n"
    assert not (tmp_path / "x").exists()


def test_variables_are_set_on_top_of_our_own():
    with LocalTransport() as here:
        done = here.run(["sh", "-c", "echo $PROBE:$HOME"], timeout_s=30, env={"PROBE": "1"})
    assert done.stdout.decode() == f"1:{os.environ.get('HOME', '')}\n"


def test_large_input_and_output_pass_at_once():
    data = os.urandom(3_000_000)
    with LocalTransport() as here:
        assert here.run(["cat"], input_bytes=data, timeout_s=60).stdout == data


def test_a_command_that_reads_no_input_is_fine():
    with LocalTransport() as here:
        assert here.run(["true"], input_bytes=b"x" * 1_000_000, timeout_s=30).returncode == 0


@pytest.mark.parametrize("pidfd", [True, False])
def test_the_deadline_ends_the_whole_group(tmp_path, monkeypatch, pidfd):
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    mark = tmp_path / "pid"
    script = f"sh -c 'echo $$ > {mark}; sleep 60' & sleep 60"
    begin = time.monotonic()
    with (
        LocalTransport() as here,
        pytest.raises(SessionFailed, match="sh was stopped at its deadline of 1 s") as caught,
    ):
        here.run(["sh", "-c", script], timeout_s=1.0)
    assert time.monotonic() - begin < 10
    assert caught.value.kind is FailureKind.TIMEOUT and caught.value.kind.retryable
    assert _gone(int(mark.read_text()))


def test_what_a_command_leaves_running_is_ended(tmp_path):
    mark = tmp_path / "pid"
    begin = time.monotonic()
    with LocalTransport() as here:
        done = here.run(["sh", "-c", f"sleep 60 & echo $! > {mark}; echo done"], timeout_s=30)
    assert done.stdout == b"done\n"
    assert time.monotonic() - begin < 10
    assert _gone(int(mark.read_text()))


def test_printing_without_end_is_stopped():
    with LocalTransport(max_output_bytes=100_000) as here, pytest.raises(SessionFailed, match="100000 bytes") as caught:
        here.run(["yes"], timeout_s=60)
    assert caught.value.kind is FailureKind.TOOL_ERROR


def test_an_interrupt_ends_the_children(tmp_path):
    mark = tmp_path / "pid"
    code = (
        "from targets.transports.local import LocalTransport\n"
        f"LocalTransport().run(['sh', '-c', 'echo $$ > {mark}; sleep 60'], timeout_s=60)\n"
    )
    root = Path(local.__file__).parents[2]
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.PIPE)
    end = time.monotonic() + 30
    while not (mark.exists() and mark.read_text().strip()) and time.monotonic() < end:
        time.sleep(0.02)
    parent.send_signal(signal.SIGINT)
    _, stderr = parent.communicate(timeout=30)
    assert b"KeyboardInterrupt" in stderr
    assert _gone(int(mark.read_text()))


@pytest.mark.parametrize(
    ("argv", "timeout_s", "error", "text"),
    [
        ([], 1.0, UsageError, "the command to run is empty"),
        (["echo", "a\0b"], 1.0, UsageError, "NUL"),
        (["true"], 0.0, UsageError, "timeout_s is 0.0"),
        (["true"], float("nan"), UsageError, "timeout_s is nan"),
        (
            ["no-such-program-here"],
            1.0,
            SessionFailed,
            "cannot start 'no-such-program-here': No such file",
        ),
        (["/"], 1.0, SessionFailed, "cannot start '/': Permission denied"),
    ],
)
def test_a_command_that_cannot_start_is_one_line(argv, timeout_s, error, text):
    with LocalTransport() as here, pytest.raises(error) as caught:
        here.run(argv, timeout_s=timeout_s)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_a_closed_transport_refuses():
    here = LocalTransport()
    here.close()
    here.close()
    with pytest.raises(DeviceUnavailable, match="closed"):
        here.run(["true"], timeout_s=1)


def test_no_descriptor_is_left_open():
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    with LocalTransport() as here:
        for _ in range(20):
            here.run(["true"], timeout_s=30)
    after = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    assert after <= before + 1


def test_files_go_there_and_back_whole(tmp_path):
    source = tmp_path / "a"
    source.write_bytes(os.urandom(200_000))
    with LocalTransport() as here:
        here.push(source, str(tmp_path / "b"))
        here.pull(str(tmp_path / "b"), tmp_path / "c")
        here.push(source, str(source))
    assert (tmp_path / "c").read_bytes() == source.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]


def test_a_copy_that_differs_is_refused_and_not_kept(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"old")
    monkeypatch.setattr(local, "sha256_of", lambda path: "0" * 64)
    with LocalTransport() as here, pytest.raises(SessionFailed, match="differs"):
        here.push(tmp_path / "a", str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_files_that_cannot_be_moved_are_one_line(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    with LocalTransport() as here:
        with pytest.raises(UsageError, match="no such file"):
            here.push(tmp_path / "no", str(tmp_path / "b"))
        with pytest.raises(SessionFailed, match="cannot push"):
            here.push(tmp_path / "a", str(tmp_path / "no" / "b"))
        with pytest.raises(SessionFailed, match="no such file on the device"):
            here.pull(str(tmp_path / "no"), tmp_path / "b")
        with pytest.raises(UsageError, match="folder does not exist"):
            here.pull(str(tmp_path / "a"), tmp_path / "no" / "b")


def test_a_work_folder_in_which_others_may_swap_files_is_refused(tmp_path, monkeypatch):
    with LocalTransport(Device(name="local", work_folder=str(tmp_path / "a" / "b"))):
        assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    (tmp_path / "a").chmod(0o777)
    with pytest.raises(DeviceUnavailable, match="anybody may write there"):
        LocalTransport(Device(name="local", work_folder=str(tmp_path / "a")))
    uid = os.geteuid()
    monkeypatch.setattr(local.os, "geteuid", lambda: uid + 1)
    with pytest.raises(DeviceUnavailable, match="belongs to another user"):
        LocalTransport(Device(name="local", work_folder=str(tmp_path / "a" / "b")))
    (tmp_path / "file").touch()
    with pytest.raises(DeviceUnavailable, match="cannot make the work folder"):
        LocalTransport(Device(name="local", work_folder=str(tmp_path / "file" / "x")))


def test_local_opens_and_runs():
    with open_transport(Device(name="local")) as here:
        assert here.run(["true"], timeout_s=30).returncode == 0
