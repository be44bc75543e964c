"""Files to and from a phone over adb: whole or not at all, under any name."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from targets.errors import FailureKind, SessionFailed, UsageError
from targets.transports.adb import AdbTransport

MIB = 2**20


@pytest.fixture(scope="module")
def there(phone):
    with AdbTransport(phone) as transport:
        yield transport


def names(transport, folder):
    """What lies in a folder, without what the looking itself puts there."""
    listed = transport.run(["ls", "-A", folder], timeout_s=20).stdout.decode().split()
    return sorted(name for name in listed if not name.startswith("run-"))


def test_a_large_file_goes_there_and_back(there, tmp_path):
    data = os.urandom(32 * MIB)
    (tmp_path / "a").write_bytes(data)
    place = f"{there.work_folder}/deep/er/a; rm -rf x"
    there.push(tmp_path / "a", place)
    assert there.checksum(place) == hashlib.sha256(data).hexdigest()
    there.pull(place, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == data
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o644
    there.remove(f"{there.work_folder}/deep")
    assert names(there, there.work_folder) == []


def test_an_empty_file_and_the_right_to_run_go_along(there, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "tool").write_text("#!/bin/sh\necho ran")
    (tmp_path / "tool").chmod(0o755)
    there.push(tmp_path / "empty", f"{there.work_folder}/e")
    there.push(tmp_path / "tool", f"{there.work_folder}/t")
    there.pull(f"{there.work_folder}/e", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""
    assert there.run([f"{there.work_folder}/t"], timeout_s=20).stdout == b"ran\n"
    there.remove(f"{there.work_folder}/e")
    there.remove(f"{there.work_folder}/t")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=60).filter(
        lambda name: name not in (".", "..") and len(name.encode()) <= 120
    )
)
def test_any_name_is_a_name(there, tmp_path, name):
    (tmp_path / "a").write_bytes(name.encode())
    place = f"{there.work_folder}/odd/{name}"
    there.push(tmp_path / "a", place)
    there.pull(place, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == name.encode()
    assert there.checksum(place) == hashlib.sha256(name.encode()).hexdigest()
    there.remove(place)
    assert there.checksum(place) is None
    assert names(there, f"{there.work_folder}/odd") == []


@pytest.mark.parametrize("path", ["relative", "/data/x/", "/data/\0", "/" + "x" * 1001, "/data/\udcff", ""])
def test_a_path_that_adb_cannot_name_is_refused(there, tmp_path, path):
    (tmp_path / "a").touch()
    for use in (there.checksum, there.remove, lambda p: there.push(tmp_path / "a", p)):
        with pytest.raises(UsageError):
            use(path)
    with pytest.raises(UsageError):
        there.pull(path, tmp_path / "b")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_what_cannot_be_pulled_leaves_nothing_here(there, tmp_path):
    for place, reason in {"/no/such": "no such file", "/data": "no plain file", "/dev/zero": "no plain file"}.items():
        with pytest.raises(SessionFailed, match=reason) as caught:
            there.pull(place, tmp_path / "b")
        assert caught.value.kind is FailureKind.TOOL_ERROR
    with pytest.raises(UsageError, match="folder"):
        there.pull("/etc/hostname", tmp_path / "none" / "b")
    with pytest.raises(UsageError, match="folder"):
        there.pull("/etc/hostname", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_pushed_leaves_nothing_there(there, tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(UsageError, match="no such file"):
        there.push(tmp_path / "b", f"{there.work_folder}/b")
    with pytest.raises(UsageError, match="no such file"):
        there.push(tmp_path, f"{there.work_folder}/b")
    for place, reason in {"/data/local/tmp": "a folder of that name", "/usr/x": "right|read-only|Read-only"}.items():
        with pytest.raises(SessionFailed, match=reason) as caught:
            there.push(tmp_path / "a", place)
        assert caught.value.kind is FailureKind.TOOL_ERROR
    assert "x" not in names(there, "/usr")


def test_a_full_disk_is_told_and_the_old_file_stays(there, tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "big").write_bytes(bytes(8 * MIB))
    there.push(tmp_path / "old", "/mnt/small/model")
    with pytest.raises(SessionFailed, match="free") as caught:
        there.push(tmp_path / "big", "/mnt/small/model")
    assert caught.value.kind is FailureKind.TOOL_ERROR
    assert there.checksum("/mnt/small/model") == hashlib.sha256(b"old").hexdigest()
    there.run(["rm", "/mnt/small/model"], timeout_s=20)
    assert [name for name in names(there, "/mnt/small") if name.startswith(".push")] == []


def test_a_disk_that_fills_up_under_way_is_no_good_copy(there, tmp_path, monkeypatch):
    """The look at the free space came too early: adbd's refusal itself has to end the copy."""
    monkeypatch.setattr("targets.transports.adb_files._prepare", lambda *_: None)
    (tmp_path / "big").write_bytes(bytes(8 * MIB))
    with pytest.raises(SessionFailed, match=r"No space left|is its disk full") as caught:
        there.push(tmp_path / "big", "/mnt/small/model")
    assert caught.value.kind is FailureKind.TOOL_ERROR
    assert there.checksum("/mnt/small/model") is None
    assert [name for name in names(there, "/mnt/small") if name.startswith(".push")] == []


def test_without_sha256sum_files_are_read_back(phone, tmp_path):
    """An old phone's tools, for which the script finds no ``sha256sum``."""
    with AdbTransport(phone) as transport:
        ask = transport._session.ask

        def without(script, *rest):
            return ask(script.replace("sha256sum", "no-such-sum"), *rest)

        transport._session.ask = without
        (tmp_path / "a").write_bytes(b"content")
        place = f"{transport.work_folder}/old"
        transport.push(tmp_path / "a", place)
        assert transport.checksum(place) == hashlib.sha256(b"content").hexdigest()
        transport.pull(place, tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == b"content"
        transport.remove(place)


def test_a_file_that_differs_from_its_checksum_is_not_kept(there, tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"content")
    place = f"{there.work_folder}/kept"
    there.push(tmp_path / "a", place)
    before = names(there, there.work_folder)
    monkeypatch.setattr("targets.transports.adb_files.sha256_of", lambda _: "0" * 64)
    with pytest.raises(SessionFailed, match="checksums differ"):
        there.push(tmp_path / "a", place)
    with pytest.raises(SessionFailed, match="checksums differ"):
        there.pull(place, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert names(there, there.work_folder) == before
    there.remove(place)


def test_only_our_own_files_are_removed_and_links_are_not_followed(there):
    work = there.work_folder
    there.run(["sh", "-c", f"mkdir -p /tmp/far {work}/in && touch /tmp/far/kept"], timeout_s=20)
    there.run(["ln", "-s", "/tmp/far", f"{work}/link"], timeout_s=20)
    there.run(["ln", "-s", "/tmp/far", f"{work}/in/link"], timeout_s=20)
    for place in ("/tmp/far", work, f"{work}/../x", f"{work}/./in", f"{work}x", f"{work}/link/kept"):
        with pytest.raises(UsageError):
            there.remove(place)
    there.remove(f"{work}/link")
    there.remove(f"{work}/in")
    there.remove(f"{work}/in")
    assert names(there, "/tmp/far") == ["kept"]
    there.run(["rm", "-r", "/tmp/far"], timeout_s=20)


def test_debians_own_adb_reads_what_we_wrote(phone, there, tmp_path):
    """The cross-check: another client, another key file, the same daemon."""
    if shutil.which("adb") is None:
        pytest.skip("the adb program is not installed")
    env = {**os.environ, "HOME": str(tmp_path), "ANDROID_ADB_SERVER_PORT": "25037", "ADB_VENDOR_KEYS": phone.key_file}
    (tmp_path / "a").write_bytes(b"seen by both")
    place = f"{there.work_folder}/seen"
    there.push(tmp_path / "a", place)
    address = f"127.0.0.1:{phone.port}"

    def adb(*words):
        done = subprocess.run(["adb", *words], env=env, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    try:
        assert "connected" in adb("connect", address)[1]
        assert adb("-s", address, "wait-for-device")[0] == 0
        assert adb("-s", address, "shell", f"cat {place}; exit 3")[:2] == (3, "seen by both")
        assert adb("-s", address, "pull", place, str(tmp_path / "b"))[0] == 0
        assert Path(tmp_path / "b").read_bytes() == b"seen by both"
    finally:
        adb("kill-server")
    there.remove(place)
