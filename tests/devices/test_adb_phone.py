"""Where a virtual phone cannot be had, one line says why; what is fetched for it is checked."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from targets.errors import DeviceUnavailable
from targets.transports.adb import AdbTransport
from targets.virtual import adbd
from targets.virtual.phone import VirtualPhone

ROOT = Path(__file__).resolve().parents[2]
START = """
import sys
from pathlib import Path
from targets.errors import KitError
from targets.virtual.phone import VirtualPhone
try:
    with VirtualPhone(Path(sys.argv[1])):
        print("up")
except KitError as error:
    print(error)
"""


def test_without_apt_the_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(adbd.CACHE_VARIABLE, str(tmp_path / "cache"))
    with pytest.raises(DeviceUnavailable, match="apt-get"):
        adbd.adbd_tree()


def test_without_unshare_the_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("targets.virtual.phone._search_path", lambda: str(tmp_path))
    with pytest.raises(DeviceUnavailable, match="unshare"):
        VirtualPhone(tmp_path / "phone").start()


@pytest.mark.parametrize(
    "sources", ["", "Debian|contrib|http://mirror.invalid/debian\n", "Other|main|ftp://x y/debian\n"]
)
def test_without_a_mirror_the_line_says_so(tmp_path, monkeypatch, sources):
    monkeypatch.setattr(adbd, "_run", lambda _: sources)
    (tmp_path / "keys").touch()
    monkeypatch.setattr(adbd, "KEYRING", tmp_path / "keys")
    monkeypatch.delenv(adbd.MIRROR_VARIABLE, raising=False)
    with pytest.raises(DeviceUnavailable, match="no Debian mirror"):
        adbd._debian_site()


def test_without_debians_keys_the_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(adbd, "KEYRING", tmp_path / "none")
    with pytest.raises(DeviceUnavailable, match="debian-archive-keyring"):
        adbd._debian_site()


def test_a_mirror_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    if shutil.which("apt-get") is None or not adbd.KEYRING.is_file():
        pytest.skip("needs apt-get and Debian's keyring")
    monkeypatch.setenv(adbd.MIRROR_VARIABLE, "http://127.0.0.1:9/debian")
    monkeypatch.setenv(adbd.CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(DeviceUnavailable, match="could not fetch adbd") as caught:
        adbd.adbd_tree()
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_another_binary_is_not_patched(tmp_path):
    binary = tmp_path / "adbd"
    binary.write_bytes(bytes.fromhex("488d0573ef0200c60000"))
    with pytest.raises(DeviceUnavailable, match="another adbd"):
        adbd._switch_authentication_on(binary)
    assert binary.read_bytes() == bytes.fromhex("488d0573ef0200c60000")


def test_a_damaged_cache_is_not_taken_for_a_whole_one(tmp_path):
    (tmp_path / adbd.BINARY).parent.mkdir(parents=True)
    (tmp_path / adbd.BINARY).write_bytes(b"half")
    assert not adbd._is_whole(tmp_path)
    assert adbd._is_whole(adbd.adbd_tree())


def test_where_namespaces_are_forbidden_the_line_says_what_is_needed(tmp_path):
    forbid = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces are forbidden here altogether")
    done = subprocess.run(
        [*command, sys.executable, "-c", START, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "needs user namespaces" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1


def test_the_phone_shows_the_host_read_only_and_has_no_network_but_its_own(phone):
    with AdbTransport(phone) as there:
        for place in ("/usr", "/etc", str(ROOT / "targets"), "/adbd"):
            assert b"ead-only" in there.run(["touch", f"{place}/x"], timeout_s=20).stderr, place
        online = "/sys/devices/system/cpu/online"
        assert there.run(["sh", "-c", 'echo 0 >"$0"', online], timeout_s=20).returncode != 0
        assert there.run(["cat", online], timeout_s=20).stdout == Path(online).read_bytes()
        code = "import targets.errors, numpy; print(1)"
        assert there.run([sys.executable, "-c", code], timeout_s=60).stdout == b"1\n"
        lines = there.run(["cat", "/proc/net/dev"], timeout_s=20).stdout.decode().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in lines] == ["lo"]
