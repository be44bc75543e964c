"""Commands over ssh, against a real sshd: what comes back, and what is left running."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from targets.errors import DeviceUnavailable, FailureKind, SessionFailed, UsageError
from targets.inventory import Device
from targets.transports import ssh_link
from targets.transports.registry import open_transport
from targets.transports.ssh import SshTransport
from targets.virtual.relay import Fault, Relay
from tests.devices.ssh_making import comes, descriptors, gone, known_as, leftovers, number_in

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def there(board):
    with open_transport(board) as transport:
        yield transport


def test_a_command_gives_status_and_both_streams(there):
    code = "import sys; print(sys.stdin.read()[::-1]); print('bad', file=sys.stderr); sys.exit(3)"
    done = there.run([sys.executable, "-c", code], input_bytes=b"abc", timeout_s=60)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"cba\n", b"bad\n")


@pytest.mark.parametrize("status", [0, 1, 125, 126, 127, 129, 137, 255])
def test_a_status_is_not_mistaken_for_a_signal_or_a_program_that_is_absent(there, status):
    assert there.run(["sh", "-c", f"exit {status}"], timeout_s=60).returncode == status


@pytest.mark.parametrize("name", ["KILL", "SEGV", "TERM", "ABRT"])
def test_a_signal_is_a_negative_status(there, name):
    done = there.run(["sh", "-c", f"kill -{name} $$"], timeout_s=60)
    assert done.returncode == -getattr(signal, f"SIG{name}")


def test_a_signal_the_protocol_has_no_name_for_is_an_error_and_no_number(there):
    with pytest.raises(SessionFailed, match="ended by a signal") as caught:
        there.run(["sh", "-c", "kill -BUS $$"], timeout_s=60)
    assert caught.value.kind is FailureKind.TOOL_ERROR


def test_arguments_are_not_read_by_a_shell(there, tmp_path):
    words = [
        "a  b",
        "",
        "*",
        "~",
        "$HOME",
        f"`touch {tmp_path}/x`",
        f"; touch {tmp_path}/x",
        "a\nb",
        "'\"\\",
        "é",
        "-n",
    ]
    done = there.run(["printf", "%s|", *words], timeout_s=60)
    assert done.stdout.decode() == "".join(f"{word}|" for word in words)
    assert not (tmp_path / "x").exists()


def test_variables_are_set_and_their_values_are_not_read_by_a_shell(there):
    done = there.run(["sh", "-c", 'printf %s "$PROBE:$INAS_START"'], timeout_s=60, env={"PROBE": "$(id) 'x\n;"})
    assert done.stdout.decode() == "$(id) 'x\n;:"


def test_a_path_that_is_set_decides_what_is_found(there, tmp_path):
    program = tmp_path / "only-here"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert there.run(["only-here"], timeout_s=60, env={"PATH": path}).stdout == b"found\n"


def test_terminal_escapes_stay_bytes(there):
    assert there.run(["printf", r"\033[2J\377\000x"], timeout_s=60).stdout == b"\x1b[2J\xff\x00x"


def test_large_input_and_output_pass_at_once(there):
    data = os.urandom(5_000_000)
    assert there.run(["cat"], input_bytes=data, timeout_s=120).stdout == data


def test_a_command_that_reads_no_input_is_fine(there):
    assert there.run(["true"], input_bytes=b"x" * 4_000_000, timeout_s=60).returncode == 0


def test_the_input_can_be_kept_open(there):
    script = 'read line; echo "$line"; if read -t 0.3 more; then echo closed; else echo $?; fi'
    open_ = there.run(["bash", "-c", script], input_bytes=b"a\n", timeout_s=60, keep_input_open=True)
    shut = there.run(["bash", "-c", script], input_bytes=b"a\n", timeout_s=60)
    assert open_.stdout == b"a\n142\n"  # it waited, and nothing came
    assert shut.stdout == b"a\n1\n"


def test_a_command_that_closes_its_output_is_waited_for(there):
    assert there.run(["sh", "-c", "exec >&- 2>&-; sleep 0.5; exit 7"], timeout_s=60).returncode == 7


def test_the_deadline_ends_the_whole_group(there, tmp_path):
    script = f"sh -c 'echo $$ > {tmp_path}/pid; sleep 600' & sleep 600"
    with pytest.raises(SessionFailed, match="sh was stopped at its deadline of 1 s") as caught:
        there.run(["sh", "-c", script], timeout_s=1.0)
    assert caught.value.kind is FailureKind.TIMEOUT
    assert gone(number_in(tmp_path / "pid"))
    assert there.run(["true"], timeout_s=60).returncode == 0


def test_the_deadline_holds_for_a_command_that_ignores_every_request(there, tmp_path):
    script = f"trap '' TERM HUP INT; echo $$ > {tmp_path}/pid; while :; do sleep 1; done"
    with pytest.raises(SessionFailed, match="deadline"):
        there.run(["sh", "-c", script], timeout_s=1.0)
    assert gone(number_in(tmp_path / "pid"))


def test_what_a_command_leaves_running_is_ended(there, tmp_path):
    done = there.run(["sh", "-c", f"sleep 600 & echo $! > {tmp_path}/pid; echo done"], timeout_s=60)
    assert done.stdout == b"done\n"
    assert gone(number_in(tmp_path / "pid"))


def test_printing_without_end_is_stopped(board, tmp_path):
    with SshTransport(board, max_output_bytes=1_000_000) as there:
        for stream in ("", " >&2"):
            with pytest.raises(SessionFailed, match="1000000 bytes") as caught:
                there.run(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec yes{stream}"], timeout_s=60)
            assert caught.value.kind is FailureKind.TOOL_ERROR
            assert gone(number_in(tmp_path / "pid"))


@pytest.mark.parametrize(
    ("argv", "env", "timeout_s", "error", "text"),
    [
        ([], None, 9.0, UsageError, "the command to run is empty"),
        ([""], None, 9.0, UsageError, "the command to run is empty"),
        (["echo", "a\0b"], None, 9.0, UsageError, "NUL"),
        (["echo", "x" * 200_000], None, 9.0, UsageError, "longer than 120000 bytes"),
        (["true"], {"A=b; rm": "1"}, 9.0, UsageError, "no name of a variable"),
        (["true"], {"A": "\0"}, 9.0, UsageError, "NUL"),
        (["true"], None, 0.0, UsageError, "timeout_s is 0.0"),
        (["true"], None, float("nan"), UsageError, "timeout_s is nan"),
        (["no-such-program"], None, 60.0, SessionFailed, "cannot start 'no-such-program': No such file"),
        (["/no/such"], None, 60.0, SessionFailed, "cannot start '/no/such': No such file"),
        (["/"], None, 60.0, SessionFailed, "cannot start '/': Permission denied"),
        (["a; touch x"], None, 60.0, SessionFailed, "cannot start 'a; touch x': No such file"),
        (["\x1b[2J"], None, 60.0, SessionFailed, r"cannot start '\x1b[2J': No such file"),
        (["-v"], None, 60.0, SessionFailed, "cannot start '-v': No such file"),
    ],
)
def test_a_command_that_cannot_start_is_one_line(there, argv, env, timeout_s, error, text):
    with pytest.raises(error) as caught:
        there.run(argv, timeout_s=timeout_s, env=env)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_a_program_cannot_pretend_that_it_did_not_start(there):
    done = there.run(["sh", "-c", "echo 0123456789abcdef absent >&2; exit 127"], timeout_s=60)
    assert done.returncode == 127


def test_a_connection_that_is_cut_leaves_no_process_and_no_file_and_is_made_anew(board, tmp_path):
    with Relay(("127.0.0.1", 0), board.address) as relay, SshTransport(known_as(board, tmp_path, relay.port)) as there:
        old = Path(there.link().guard.run_folder)
        script = f"sh -c 'echo $$ > {tmp_path}/inner; sleep 600' & echo $$ > {tmp_path}/pid; sleep 600"
        cutter = threading.Thread(target=lambda: (number_in(tmp_path / "inner"), relay.cut()))
        cutter.start()
        with pytest.raises(SessionFailed, match="the connection to device 'board' was lost") as caught:
            there.run(["sh", "-c", script], timeout_s=60)
        cutter.join()
        assert caught.value.kind is FailureKind.LOST_DEVICE
        assert gone(number_in(tmp_path / "pid")) and gone(number_in(tmp_path / "inner"))
        assert comes(lambda: not old.exists())
        assert there.run(["echo", "again"], timeout_s=60).stdout == b"again\n"
    assert relay.accepted == 2


def test_a_server_process_that_is_killed_leaves_no_command(board, tmp_path):
    with SshTransport(board) as there:
        script = f"echo $PPID > {tmp_path}/server; echo $$ > {tmp_path}/pid; sleep 600"

        def kill():
            number_in(tmp_path / "pid")
            os.kill(number_in(tmp_path / "server"), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(SessionFailed) as caught:
            there.run(["sh", "-c", script], timeout_s=60)
        killer.join()
        assert caught.value.kind is FailureKind.LOST_DEVICE
        assert gone(number_in(tmp_path / "pid"))


def test_a_guard_that_was_killed_is_made_up_for_by_the_next_connection(board, tmp_path):
    board = board.model_copy(update={"work_folder": str(tmp_path / "device")})
    there = SshTransport(board)
    run_folder = Path(there.link().guard.run_folder)
    script = f"echo $$ > {tmp_path}/pid; sleep 600"
    failed = []

    def work():
        with pytest.raises(SessionFailed) as caught:
            there.run(["sh", "-c", script], timeout_s=60)
        failed.append(caught.value.kind)

    worker = threading.Thread(target=work)
    worker.start()
    pid = number_in(tmp_path / "pid")
    os.kill(int(run_folder.name.split("-")[2]), signal.SIGKILL)
    there.link().cut()
    worker.join()
    assert failed == [FailureKind.LOST_DEVICE] and run_folder.exists()
    with SshTransport(board):
        assert gone(pid)
        assert not run_folder.exists()


def test_folders_from_before_a_reboot_go_and_nobody_is_killed_for_them(board, tmp_path):
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    old = tmp_path / ".run-0123456789abcdef-1-1-00000000"
    old.mkdir()
    (old / f"c-0123456789abcdef-{bystander.pid}-1").touch()
    with SshTransport(board.model_copy(update={"work_folder": str(tmp_path)})):
        assert not old.exists()
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_server_that_falls_silent_is_lost_at_the_deadline(board, tmp_path, monkeypatch):
    monkeypatch.setattr("targets.transports.ssh._OVERTIME_S", 1.0)
    with Relay(("127.0.0.1", 0), board.address) as relay:
        relay.fault = Fault("stall", after_bytes=6_000, direction="down", seconds=60)
        there = SshTransport(known_as(board, tmp_path, relay.port))
        with pytest.raises(SessionFailed, match="did not answer within") as caught:
            while True:
                there.run(["head", "-c", "3000", "/dev/zero"], timeout_s=1)
        assert caught.value.kind is FailureKind.TIMEOUT
        there.close()


def test_a_damaged_byte_is_a_lost_device_and_never_a_wrong_answer(board, tmp_path):
    with Relay(("127.0.0.1", 0), board.address) as relay:
        relay.fault = Fault("corrupt", after_bytes=8_000, direction="down")
        with SshTransport(known_as(board, tmp_path, relay.port)) as there:
            data = bytes(20_000)
            with pytest.raises(SessionFailed) as caught:
                there.run(["cat"], input_bytes=data, timeout_s=60)
            assert caught.value.kind is FailureKind.LOST_DEVICE
            relay.fault = None
            assert there.run(["cat"], input_bytes=data, timeout_s=60).stdout == data


def test_a_device_that_is_gone_is_lost_and_not_refused(board, tmp_path):
    relay = Relay(("127.0.0.1", 0), board.address)
    there = SshTransport(known_as(board, tmp_path, relay.port))
    relay.close()
    assert comes(lambda: not there._link.alive)
    with pytest.raises(SessionFailed, match="cannot be reached") as caught:
        there.run(["true"], timeout_s=60)
    assert caught.value.kind is FailureKind.LOST_DEVICE
    there.close()


def test_an_interrupt_ends_the_command(board, tmp_path):
    (tmp_path / "device.json").write_text(board.model_dump_json())
    code = (
        "from pathlib import Path\n"
        "from targets.inventory import Device\n"
        "from targets.transports.ssh import SshTransport\n"
        f"device = Device.model_validate_json(Path({str(tmp_path / 'device.json')!r}).read_bytes())\n"
        "with SshTransport(device) as there:\n"
        f"    there.run(['sh', '-c', 'echo $$ > {tmp_path}/pid; sleep 600'], timeout_s=600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    pid = number_in(tmp_path / "pid")
    parent.send_signal(signal.SIGINT)
    _, stderr = parent.communicate(timeout=60)
    assert b"KeyboardInterrupt" in stderr
    assert gone(pid)


def test_two_transports_and_two_threads_do_not_disturb_each_other(board, tmp_path):
    errors = []

    def work(there, name):
        for turn in range(10):
            done = there.run(["sh", "-c", f"echo {name}-{turn}; sleep 0.01"], timeout_s=60)
            if done.stdout.decode() != f"{name}-{turn}\n":
                errors.append(done)

    with SshTransport(board) as one, SshTransport(board) as two:
        threads = [threading.Thread(target=work, args=(t, n)) for n, t in enumerate((one, one, two, two))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors


def test_a_closed_transport_refuses_and_leaves_nothing(board, tmp_path):
    there = SshTransport(board.model_copy(update={"work_folder": str(tmp_path / "device")}))
    there.run(["true"], timeout_s=60)
    assert leftovers(tmp_path / "device")
    there.close()
    there.close()
    assert not leftovers(tmp_path / "device")
    with pytest.raises(DeviceUnavailable, match="is closed"):
        there.run(["true"], timeout_s=60)


def test_no_descriptor_and_no_thread_is_left(board):
    with SshTransport(board) as there:
        there.run(["true"], timeout_s=60)
    before, threads = descriptors(), threading.active_count()
    for _ in range(3):
        with SshTransport(board) as there:
            for _ in range(5):
                there.run(["true"], timeout_s=60)
    assert comes(lambda: descriptors() <= before + 1 and threading.active_count() <= threads)


def test_the_work_folder_is_private_and_made_when_needed(board, tmp_path):
    with SshTransport(board.model_copy(update={"work_folder": f"{tmp_path}/a/b/"})) as there:
        assert there.work_folder == f"{tmp_path}/a/b"
        assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    with SshTransport(board.model_copy(update={"work_folder": None})) as there:
        assert there.work_folder == str(Path(board.key_file).parent / "home/.cache/inas-deploy")


def test_a_work_folder_that_cannot_be_made_is_one_line(board, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DeviceUnavailable, match="cannot start a shell in its work folder there: mkdir") as caught:
        SshTransport(board.model_copy(update={"work_folder": f"{tmp_path}/file/x"}))
    assert "\n" not in str(caught.value)


def test_a_work_folder_in_which_others_may_swap_files_is_refused(board, tmp_path):
    shared, alien = tmp_path / "shared", tmp_path / "alien"
    for folder in (shared, alien):
        folder.mkdir()
    shared.chmod(0o777)
    if os.geteuid() == 0:
        os.chown(alien, 65534, 65534)
    else:
        alien = Path("/usr")
    for folder in (shared, alien):
        with pytest.raises(DeviceUnavailable, match=f"{folder} belongs to another user"):
            SshTransport(board.model_copy(update={"work_folder": str(folder)}))
    assert not list(shared.iterdir())
    (tmp_path / "link").symlink_to(tmp_path / "own")
    (tmp_path / "own").mkdir()
    with SshTransport(board.model_copy(update={"work_folder": f"{tmp_path}/link"})) as there:
        assert there.run(["true"], timeout_s=60).returncode == 0


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n" + b"\xff" * 4000, b"\0" * 100_000]
)
def test_what_is_no_ssh_server_is_unreachable(said, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            peer, _ = server.accept()
            with peer:
                peer.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        device = Device(name="d", transport="ssh", host="127.0.0.1", port=server.getsockname()[1])
        device = device.model_copy(update={"known_hosts": str(tmp_path / "none"), "connect_timeout_s": 3.0})
        with pytest.raises(ssh_link.Unreachable) as caught:
            SshTransport(device)
        thread.join()
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_a_server_that_never_speaks_is_given_up_at_the_connect_deadline(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        device = Device(name="d", transport="ssh", host=f"127.0.0.1:{server.getsockname()[1]}", connect_timeout_s=0.5)
        with pytest.raises(DeviceUnavailable, match=r"did not answer within 0\.5 s"):
            SshTransport(device)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "127.0.0.1:1"])
def test_an_address_that_leads_nowhere_is_one_line(host):
    with pytest.raises(DeviceUnavailable, match="cannot be reached") as caught:
        SshTransport(Device(name="d", transport="ssh", host=host))
    assert caught.value.exit_code == 3 and "'d'" in str(caught.value)
