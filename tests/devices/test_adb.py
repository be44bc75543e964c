"""Commands on a phone over adb, against a real adbd that asks for a key: what comes back, and what is left running."""

import os
import time
from pathlib import Path

import pytest

from targets.errors import DeviceUnavailable, FailureKind, SessionFailed, UsageError
from targets.transports.adb import AdbTransport
from targets.transports.adb_keys import ensure_key
from targets.transports.registry import open_transport
from tests.devices.ssh_making import comes


@pytest.fixture(scope="module")
def there(phone):
    with AdbTransport(phone, max_output_bytes=2**20) as transport:
        yield transport


def running(transport, mark):
    """Processes on the phone with a word in their command line, the one that looks left out."""
    script = 'for f in /proc/[0-9]*/cmdline; do tr "\\0\\n" "  " <$f; echo; done'
    lines = transport.run(["sh", "-c", script], timeout_s=20).stdout.decode("utf-8", "replace").splitlines()
    return [line for line in lines if mark in line]


def left(transport):
    """What lies in the work folder, without the looking run's own."""
    listed = transport.run(["ls", "-A", transport.work_folder], timeout_s=20).stdout.decode().split()
    runs = [name for name in listed if name.startswith("run-")]
    return [name for name in listed if name not in runs] + runs[1:]


def gone(transport, mark):
    """A killed process needs a moment to leave the table."""
    end = time.monotonic() + 20
    while running(transport, mark):
        if time.monotonic() > end:
            return False
    return True


def test_a_command_gives_status_and_both_streams(there):
    done = there.run(["sh", "-c", "rev; echo bad >&2; exit 3"], input_bytes=b"abc\n", timeout_s=20)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"cba\n", b"bad\n")


@pytest.mark.parametrize("status", [0, 1, 125, 126, 127, 128, 200, 255])
def test_a_status_comes_back_as_it_was(there, status):
    assert there.run(["sh", "-c", f"exit {status}"], timeout_s=20).returncode == status


@pytest.mark.parametrize("number", [9, 11, 15])
def test_a_signal_is_a_negative_status(there, number):
    assert there.run(["sh", "-c", f"kill -{number} $$"], timeout_s=20).returncode == -number


def test_a_hangup_ends_a_command_as_it_would_anywhere(there):
    assert there.run(["sh", "-c", "kill -1 $$; echo survived"], timeout_s=20).stdout == b""


def test_arguments_are_not_read_by_a_shell(there):
    words = ["a  b", "", "*", "~", "$HOME", "`touch /tmp/x`", "; touch /tmp/x", "a\nb", "'\"\\", "é", "-n", "@TOKEN@"]
    done = there.run(["printf", "%s|", *words], timeout_s=20)
    assert done.stdout.decode() == "".join(f"{word}|" for word in words)
    assert there.run(["test", "-e", "/tmp/x"], timeout_s=20).returncode == 1


def test_variables_are_set_and_not_read_by_a_shell(there):
    done = there.run(["sh", "-c", 'printf %s "$A_1"'], env={"A_1": "x'y $HOME\n;"}, timeout_s=20)
    assert done.stdout == b"x'y $HOME\n;"


def test_the_path_of_the_command_is_the_one_it_is_given(there):
    there.run(["mkdir", "-p", f"{there.work_folder}/bin"], timeout_s=20)
    put = ["sh", "-c", 'printf "#!/bin/sh\\necho mine" >"$0"; chmod 755 "$0"', f"{there.work_folder}/bin/only-here"]
    there.run(put, timeout_s=20)
    env = {"PATH": f"{there.work_folder}/bin:/usr/bin:/bin"}
    assert there.run(["only-here"], env=env, timeout_s=20).stdout == b"mine\n"
    there.remove(f"{there.work_folder}/bin")


def test_every_byte_comes_back_as_it_was(there):
    data = bytes(range(256)) * 64 + b"\r\n\0\x1b[31m\x04\x03\r"
    assert there.run(["cat"], input_bytes=data, timeout_s=20).stdout == data
    assert there.run(["sh", "-c", "cat >&2"], input_bytes=data, timeout_s=20).stderr == data


def test_output_that_holds_the_scripts_own_words_is_not_taken_for_them(there):
    """``ps`` shows the script itself, with its random word."""
    done = there.run(["sh", "-c", "tr '\\0' ' ' </proc/$PPID/cmdline; env; echo; exit 5"], timeout_s=20)
    assert b"INAS_RUN=" in done.stdout
    assert done.returncode == 5


def test_a_command_without_input_sees_its_end(there):
    assert there.run(["cat"], timeout_s=20).stdout == b""
    assert there.run(["cat"], timeout_s=20, keep_input_open=True).stdout == b""


@pytest.mark.parametrize("program", ["no-such-program", "/no/such", "a; rm -rf x", "/data"])
def test_a_program_that_is_not_there_is_a_tool_error(there, program):
    with pytest.raises(SessionFailed, match="cannot start") as caught:
        there.run([program], timeout_s=20)
    assert caught.value.kind is FailureKind.TOOL_ERROR


@pytest.mark.parametrize("argv", [[], [""], ["-x"], ["a\0b"], ["a", "\udcff"]])
def test_a_command_that_cannot_be_told_to_a_phone_is_refused(there, argv):
    with pytest.raises(UsageError):
        there.run(argv, timeout_s=20)


def test_odd_deadlines_variables_and_lengths_are_refused(there):
    for timeout_s in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="timeout_s"):
            there.run(["true"], timeout_s=timeout_s)
    with pytest.raises(UsageError, match="variable"):
        there.run(["true"], env={"A;B": "x"}, timeout_s=20)
    with pytest.raises(UsageError, match="longer than"):
        there.run(["echo", "x" * 70_000], timeout_s=20)


def test_at_the_deadline_the_command_and_all_it_started_are_killed(there):
    script = "sleep 4242.1 & setsid sleep 4242.2 & trap '' TERM HUP INT; sleep 4242.3"
    with pytest.raises(SessionFailed, match="deadline") as caught:
        there.run(["sh", "-c", script], timeout_s=1.5)
    assert caught.value.kind is FailureKind.TIMEOUT
    assert gone(there, "sleep 4242")
    assert left(there) == []
    assert there.run(["echo", "alive"], timeout_s=20).stdout == b"alive\n"


def test_what_a_command_leaves_in_its_group_is_ended_with_it(there):
    one_run = len(running(there, "cat >/dev/null"))  # the looking run's own script and guard
    assert there.run(["sh", "-c", "sleep 4243.1 & echo hi"], timeout_s=20).stdout == b"hi\n"
    assert gone(there, "sleep 4243")
    assert comes(lambda: 1 <= len(running(there, "cat >/dev/null")) <= one_run)


@pytest.mark.parametrize("script", ["yes", "yes >&2", "cat /dev/zero", "yes | tee /dev/stderr"])
def test_output_without_end_is_stopped(there, script):
    with pytest.raises(SessionFailed, match="printed more than") as caught:
        there.run(["sh", "-c", script], timeout_s=60)
    assert caught.value.kind is FailureKind.TOOL_ERROR
    assert left(there) == []


def test_output_of_just_the_bound_is_kept(there):
    done = there.run(["head", "-c", str(2**20), "/dev/zero"], timeout_s=60)
    assert done.stdout == bytes(2**20)


def test_output_that_fills_the_disk_is_an_error_and_no_shorter_output(phone):
    with AdbTransport(phone.model_copy(update={"work_folder": "/mnt/small/kit"})) as transport:
        with pytest.raises(SessionFailed, match="no space left") as caught:
            transport.run(["head", "-c", str(8 * 2**20), "/dev/zero"], timeout_s=60)
        assert caught.value.kind is FailureKind.TOOL_ERROR
        assert left(transport) == []
        assert transport.run(["echo", "on"], timeout_s=20).stdout == b"on\n"


def test_a_work_folder_that_cannot_be_made_is_an_error(phone):
    device = phone.model_copy(update={"work_folder": "/usr/kit"})
    with AdbTransport(device) as transport, pytest.raises(SessionFailed, match="cannot be made"):
        transport.run(["true"], timeout_s=20)


def test_two_transports_work_at_once(phone, there):
    with open_transport(phone) as second:
        assert second.run(["echo", "2"], timeout_s=20).stdout == b"2\n"
        assert there.run(["echo", "1"], timeout_s=20).stdout == b"1\n"


def test_a_closed_transport_refuses(phone):
    transport = AdbTransport(phone)
    transport.close()
    transport.close()
    with pytest.raises(DeviceUnavailable, match="closed"):
        transport.run(["true"], timeout_s=20)
    with pytest.raises(DeviceUnavailable, match="closed"):
        transport.checksum("/etc/hostname")


def test_an_unknown_key_is_refused_and_the_line_says_what_to_do(phone, tmp_path):
    key = ensure_key(tmp_path / "keys" / "stranger")
    device = phone.model_copy(update={"key_file": str(key), "connect_timeout_s": 1.0})
    with pytest.raises(DeviceUnavailable, match="Accept the key on the phone's screen"):
        AdbTransport(device)


def test_nobody_at_the_address_is_told_at_once(phone):
    device = phone.model_copy(update={"port": 9})
    with pytest.raises(DeviceUnavailable, match="cannot be reached"):
        AdbTransport(device)


def test_a_key_that_others_can_read_is_refused(tmp_path):
    key = ensure_key(tmp_path / "keys" / "adbkey")
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    assert not [path for path in key.parent.iterdir() if path.name not in ("adbkey", "adbkey.pub")]
    before = key.read_bytes()
    assert ensure_key(key).read_bytes() == before
    key.with_name("adbkey.pub").unlink()
    ensure_key(key)
    assert key.with_name("adbkey.pub").stat().st_size > 500
    key.chmod(0o644)
    with pytest.raises(DeviceUnavailable, match="chmod 600"):
        ensure_key(key)


def test_a_key_folder_that_another_process_makes_meanwhile_is_used(tmp_path, monkeypatch):
    plain = Path.mkdir

    def after_another(self, *words, **more):
        plain(self, exist_ok=True)
        plain(self, *words, **more)

    monkeypatch.setattr(Path, "mkdir", after_another)
    assert ensure_key(tmp_path / "keys" / "adbkey").exists()


def test_what_is_no_key_is_told(phone, tmp_path):
    key = tmp_path / "key"
    key.write_text("no key")
    key.chmod(0o600)
    with pytest.raises(DeviceUnavailable, match="key"):
        AdbTransport(phone.model_copy(update={"key_file": str(key)}))
    assert not Path(f"{key}.pub").exists()


def test_without_a_named_key_one_is_kept_with_the_users_settings(phone, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    device = phone.model_copy(update={"key_file": None, "connect_timeout_s": 1.0})
    with pytest.raises(DeviceUnavailable, match="Accept the key"):
        AdbTransport(device)
    assert (tmp_path / "config" / "inas-deploy" / "adbkey").stat().st_mode & 0o777 == 0o600
    own = ensure_key(tmp_path / ".android" / "adbkey")  # the key of the adb program, which this phone accepts
    own.write_bytes(Path(phone.key_file).read_bytes())
    Path(f"{own}.pub").write_bytes(Path(f"{phone.key_file}.pub").read_bytes())
    assert os.access(own, os.R_OK)
    with AdbTransport(device) as transport:
        assert transport.run(["echo", "in"], timeout_s=20).stdout == b"in\n"
