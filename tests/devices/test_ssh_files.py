"""Files over ssh, against a real sshd: whole or not there, and no further than they may go."""

import hashlib
import os
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from targets.errors import FailureKind, SessionFailed, UsageError
from targets.transports import ssh_files
from targets.transports.ssh import SshTransport
from targets.transports.upload_cache import cached_upload
from targets.virtual.relay import Fault, Relay
from tests.devices.ssh_making import comes, known_as

ODD_NAMES = st.text(
    st.one_of(st.sampled_from("\n\t '\"\\$`;&|*?[]~-#é\x1b"), st.characters(exclude_characters="/\0", codec="utf-8")),
    min_size=1,
    max_size=40,
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 120)


@pytest.fixture(scope="module")
def there(board):
    with SshTransport(board) as transport:
        yield transport


def fresh(there, name):
    folder = Path(there.work_folder) / name
    folder.mkdir(exist_ok=True)
    return folder


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 32_768, 3_000_001])
def test_files_go_there_and_back_whole(there, tmp_path, size):
    data, folder = os.urandom(size), fresh(there, f"whole-{size}")
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "a").chmod(0o750)
    there.push(tmp_path / "a", f"{folder}/b")
    assert there.checksum(f"{folder}/b") == sha(data)
    assert (folder / "b").stat().st_mode & 0o777 == 0o750
    there.pull(f"{folder}/b", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == data
    assert [path.name for path in folder.iterdir()] == ["b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


@given(ODD_NAMES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_is_only_a_name(there, tmp_path, name):
    (tmp_path / "a").write_bytes(name.encode())
    remote = f"{there.work_folder}/odd/{name}"
    fresh(there, "odd")
    there.push(tmp_path / "a", remote)
    assert [path.name for path in (Path(there.work_folder) / "odd").iterdir()] == [name]
    assert there.checksum(remote) == sha(name.encode())
    there.pull(remote, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == name.encode()
    there.remove(remote)
    assert there.checksum(remote) is None
    assert not list((Path(there.work_folder) / "odd").iterdir())


def test_an_existing_file_is_replaced_and_a_link_is_not_written_through(there, tmp_path):
    folder = fresh(there, "replace")
    (tmp_path / "new").write_bytes(b"new")
    (folder / "victim").write_bytes(b"old")
    (folder / "link").symlink_to("victim")
    there.push(tmp_path / "new", f"{folder}/link")
    assert (folder / "link").read_bytes() == b"new" and not (folder / "link").is_symlink()
    assert (folder / "victim").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["no/b", "taken"])
def test_a_place_that_cannot_be_written_is_one_line(there, tmp_path, name):
    folder = fresh(there, "places")
    (folder / "taken").mkdir(exist_ok=True)
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(SessionFailed, match="pushing a to") as caught:
        there.push(tmp_path / "a", f"{folder}/{name}")
    assert caught.value.kind is FailureKind.TOOL_ERROR and "\n" not in str(caught.value)
    assert [path.name for path in folder.iterdir()] == ["taken"] and not list((folder / "taken").iterdir())


def test_a_local_file_that_cannot_be_read_is_the_caller_s_affair(there, tmp_path):
    for path in (tmp_path / "no", tmp_path):
        with pytest.raises(UsageError, match="cannot push"):
            there.push(path, f"{there.work_folder}/x")
    with pytest.raises(UsageError, match="folder does not exist"):
        there.pull(f"{there.work_folder}/x", tmp_path / "no" / "b")


def test_a_full_disk_is_named_and_leaves_nothing(board, tmp_path):
    """A server in a mount namespace of its own, whose work folder is a small file system."""
    small = tmp_path / "small"
    small.mkdir()
    key = Path(board.key_file).parent
    script = 'mount -t tmpfs -o size=1m none "$1" && cp -r "$2/." "$1" && exec /usr/sbin/sshd -i -e -f "$1/config"'
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if os.geteuid() != 0 or probe.returncode:
        pytest.skip("needs root and mount namespaces")
    setup = tmp_path / "setup"
    setup.mkdir()
    text = (key / "sshd_config").read_text().replace(str(key / "home"), str(small))
    (setup / "config").write_text(text.replace("sshd.pid", "none.pid"))

    def connect():
        ours, theirs = socket.socketpair()
        argv = ["unshare", "-m", "sh", "-c", script, "sh", str(small), str(setup)]
        subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL)
        theirs.close()
        return ours

    (tmp_path / "big").write_bytes(os.urandom(3_000_000))
    with Relay(("127.0.0.1", 0), connect) as relay:
        device = known_as(board, tmp_path, relay.port).model_copy(update={"work_folder": f"{small}/device"})
        with SshTransport(device) as there:
            with pytest.raises(
                SessionFailed, match=r"the disk there is full \(\d+ KiB free, 2930 KiB needed\)"
            ) as caught:
                there.push(tmp_path / "big", f"{small}/device/big")
            assert caught.value.kind is FailureKind.TOOL_ERROR
            assert there.run(["ls", "-A", f"{small}/device"], timeout_s=60).stdout.count(b"\n") == 1
            there.run(["sh", "-c", f"cat /dev/zero > {small}/device/fill"], timeout_s=60)
            assert there.run(["echo", "still"], timeout_s=60).stdout == b"still\n"
            there.remove(f"{small}/device/fill")


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_copy_that_is_cut_leaves_the_old_file_and_no_half_one(board, tmp_path, direction):
    (tmp_path / "new").write_bytes(os.urandom(2_000_000))
    with Relay(("127.0.0.1", 0), board.address) as relay:
        device = known_as(board, tmp_path, relay.port).model_copy(update={"work_folder": f"{tmp_path}/device"})
        with SshTransport(device) as there:
            old = Path(there.work_folder) / "file"
            old.write_bytes(b"old" if direction == "up" else bytes(2_000_000))
            (tmp_path / "back").write_bytes(b"mine")
            relay.fault = Fault("cut", after_bytes=500_000, direction=direction)
            there.link().cut()
            with pytest.raises(SessionFailed, match="was lost") as caught:
                if direction == "up":
                    there.push(tmp_path / "new", str(old))
                else:
                    there.pull(str(old), tmp_path / "back")
            assert caught.value.kind is FailureKind.LOST_DEVICE
            assert (tmp_path / "back").read_bytes() == b"mine"
            assert len(old.read_bytes()) in (3, 2_000_000)
            relay.fault = None
            there.push(tmp_path / "new", str(old))  # the next try, and the next connection clears up
            assert there.checksum(str(old)) == sha((tmp_path / "new").read_bytes())
            assert comes(lambda: len([p for p in Path(there.work_folder).iterdir() if p.name[:5] != ".run-"]) == 1)


def test_a_copy_that_differs_is_refused_and_not_kept(there, tmp_path, monkeypatch):
    folder = fresh(there, "differs")
    (folder / "b").write_bytes(b"old")
    (tmp_path / "a").write_bytes(b"new")
    monkeypatch.setattr(ssh_files, "_remote_hash", lambda *_: "0" * 64)
    with pytest.raises(SessionFailed, match="the copy differs"):
        there.push(tmp_path / "a", f"{folder}/b")
    with pytest.raises(SessionFailed, match="the copy differs"):
        there.pull(f"{folder}/b", tmp_path / "c")
    assert (folder / "b").read_bytes() == b"old"
    assert [path.name for path in folder.iterdir()] == ["b"] and not (tmp_path / "c").exists()


def test_a_device_without_sha256sum_is_read_back(there, tmp_path, monkeypatch):
    folder = fresh(there, "no-tool")
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    plain = there.run
    monkeypatch.setattr(
        there, "run", lambda argv, **more: plain(["false"] if "sha256sum" in str(argv) else argv, **more)
    )
    there.push(tmp_path / "a", f"{folder}/b")
    assert there.checksum(f"{folder}/b") == sha(b"x" * 100_000)


def test_what_is_no_plain_file_is_not_pulled(there, tmp_path):
    folder = fresh(there, "special")
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "out").symlink_to("/etc/passwd")
    for name, text in (("pipe", "no plain file"), ("zero", "no plain file"), ("", "no plain file"), ("no", "no such")):
        with pytest.raises(SessionFailed, match=text) as caught:
            there.pull(f"{folder}/{name}", tmp_path / "x")
        assert caught.value.kind is FailureKind.TOOL_ERROR
    with pytest.raises(SessionFailed, match="a link that leads out of the work folder"):
        there.pull(f"{folder}/out", tmp_path / "x")
    assert there.checksum(f"{folder}/pipe") is None
    assert not list(tmp_path.iterdir())


def test_a_file_that_says_it_is_huge_is_refused_before_it_is_read(there, tmp_path):
    folder = fresh(there, "huge")
    with (folder / "sparse").open("wb") as file:
        file.truncate(ssh_files.MAX_PULL_BYTES + 1)
    with pytest.raises(SessionFailed, match="is the most"):
        there.pull(f"{folder}/sparse", tmp_path / "x")
    with pytest.raises(SessionFailed, match="is the most"):
        there.checksum(f"{folder}/sparse")
    (folder / "sparse").unlink()


def test_a_file_that_grows_ends_at_its_announced_size(there, tmp_path):
    folder, stop = fresh(there, "grows"), threading.Event()
    (folder / "log").write_bytes(b"x" * 1_000_000)

    def grow():
        with (folder / "log").open("ab") as file:
            while not stop.is_set() and file.tell() < 50_000_000:
                file.write(b"y" * 1000)
                file.flush()
                time.sleep(0.001)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(SessionFailed, match="the copy differs"):
            there.pull(f"{folder}/log", tmp_path / "x")
    finally:
        stop.set()
        writer.join()
    assert not list(tmp_path.iterdir())


def test_removing_stays_inside_and_follows_no_link(there, tmp_path):
    folder, outside = fresh(there, "remove"), tmp_path / "outside"
    (outside / "in").mkdir(parents=True)
    (outside / "in" / "file").touch()
    (folder / "link").symlink_to(outside)
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "link").symlink_to(outside)
    with pytest.raises(UsageError, match="lies behind a link"):
        there.remove(f"{folder}/link/in")
    for path in ("/etc/passwd", there.work_folder, f"{folder}/../../x", "relative"):
        with pytest.raises(UsageError, match="is not under"):
            there.remove(path)
    there.remove(f"{folder}/deep")
    there.remove(f"{folder}/link")
    there.remove(f"{folder}/never/was")
    assert not list(folder.iterdir())
    assert (outside / "in" / "file").exists()


def test_what_was_pulled_is_an_ordinary_file(there, tmp_path):
    folder = fresh(there, "modes")
    (folder / "a").write_bytes(b"x")
    (folder / "a").chmod(0o6777)
    there.pull(f"{folder}/a", tmp_path / "a")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_a_long_copy_does_not_keep_a_command_waiting(board, tmp_path):
    (tmp_path / "a").write_bytes(bytes(3_000_000))
    with Relay(("127.0.0.1", 0), board.address) as relay:
        relay.fault = Fault("throttle", after_bytes=20_000, direction="up", bytes_per_s=2_000_000)
        with SshTransport(known_as(board, tmp_path, relay.port)) as there:
            copy = threading.Thread(target=there.push, args=(tmp_path / "a", f"{there.work_folder}/slow"))
            copy.start()
            done = 0
            while copy.is_alive():
                assert there.run(["true"], timeout_s=60).returncode == 0
                done += 1
            copy.join()
            assert done > 1
            assert there.checksum(f"{there.work_folder}/slow") == sha(bytes(3_000_000))


def test_a_checksum_is_the_file_s_or_an_error(there):
    folder = fresh(there, "unreadable")
    (folder / "a").write_bytes(b"x")
    (folder / "a").chmod(0)
    if os.access(folder / "a", os.R_OK):  # root reads everything
        assert there.checksum(f"{folder}/a") == sha(b"x")
    else:
        with pytest.raises(SessionFailed, match="permission denied there"):
            there.checksum(f"{folder}/a")


def test_a_model_is_sent_once_under_its_hash(there, tmp_path, monkeypatch):
    model = tmp_path / "a; rm -rf x.ONNX"
    model.write_bytes(b"model")
    remote = cached_upload(there, model, sha(b"model"))
    assert remote == f"{there.work_folder}/models/{sha(b'model')}.onnx"
    assert Path(remote).read_bytes() == b"model"
    monkeypatch.setattr(there, "push", None)
    assert cached_upload(there, model, sha(b"model")) == remote


def test_a_damaged_model_on_the_device_is_sent_again(there, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"model2")
    remote = cached_upload(there, tmp_path / "m.onnx", sha(b"model2"))
    Path(remote).write_bytes(b"half")
    assert cached_upload(there, tmp_path / "m.onnx", sha(b"model2")) == remote
    assert Path(remote).read_bytes() == b"model2"


def test_a_model_that_is_not_what_its_hash_says_is_not_kept(there, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"model3")
    with pytest.raises(SessionFailed, match="changed while it was sent"):
        cached_upload(there, tmp_path / "m.onnx", sha(b"other"))
    assert not (Path(there.work_folder) / "models" / f"{sha(b'other')}.onnx").exists()
    with pytest.raises(UsageError, match="is no SHA-256"):
        cached_upload(there, tmp_path / "m.onnx", "../x")


def test_the_least_used_models_go_first(board, tmp_path):
    with SshTransport(board.model_copy(update={"work_folder": f"{tmp_path}/device"})) as there:
        paths = []
        for turn in range(4):
            data = bytes([turn]) * 200_000
            (tmp_path / "m").write_bytes(data)
            paths.append(Path(cached_upload(there, tmp_path / "m", sha(data), max_cache_bytes=700 * 1024)))
            os.utime(paths[-1], (turn, turn))
            if turn == 2:  # the first is used again, and so the second is the one to go
                (tmp_path / "m").write_bytes(bytes(200_000))
                cached_upload(there, tmp_path / "m", sha(bytes(200_000)))
    assert [path.exists() for path in paths] == [True, False, True, True]
