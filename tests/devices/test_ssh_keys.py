"""Who a host is and who we are: known hosts, fingerprints, keys, the ssh agent and a jump host, with a real sshd."""

import base64
import os
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.errors import DeviceUnavailable, UsageError
from targets.inventory import Device
from targets.transports.ssh import SshTransport
from targets.transports.ssh_keys import HostKey, accept_host_key, judge_key, parse_known_hosts, scan_host_key
from targets.virtual.board import VirtualBoard
from tests.devices.ssh_making import known_as


def keygen(path, *more, passphrase=""):
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path), *more]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return path


def refused(device):
    with pytest.raises(DeviceUnavailable) as caught:
        SshTransport(device)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    return str(caught.value)


def opens(device):
    with SshTransport(device) as there:
        return there.run(["true"], timeout_s=60).returncode == 0


@pytest.fixture
def stranger(board, tmp_path):
    """The board, as somebody sees it who has never been there."""
    return board.model_copy(update={"known_hosts": str(tmp_path / "ssh" / "known_hosts")})


@pytest.fixture
def lonely(monkeypatch, tmp_path):
    """A home folder without keys, and no ssh agent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    return tmp_path


@pytest.fixture
def agent(lonely, monkeypatch):
    """A real ssh agent, empty."""
    place = lonely / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
    while not place.exists():
        assert process.poll() is None
    yield place
    process.terminate()
    process.wait()


def fingerprint_by_ssh_keygen(board):
    path = Path(board.key_file).parent / "host_key.pub"
    return subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True).stdout.split()[1]


def test_an_unknown_key_is_refused_with_its_fingerprint_and_nothing_is_written(board, stranger):
    text = refused(stranger)
    fingerprint = fingerprint_by_ssh_keygen(board)
    assert f"unknown ssh-ed25519 key {fingerprint}" in text
    assert f"inas-deploy devices accept board --fingerprint {fingerprint}" in text
    assert not Path(stranger.known_hosts).exists()


def test_a_key_is_accepted_only_if_it_is_the_one_that_was_meant(board, stranger):
    key = scan_host_key(stranger)
    assert key.fingerprint == fingerprint_by_ssh_keygen(board) and key.kind == "ssh-ed25519"
    with pytest.raises(UsageError, match=r"shows ssh-ed25519 key SHA256:.*, not SHA256:wrong"):
        accept_host_key(stranger, "SHA256:wrong")
    assert not Path(stranger.known_hosts).exists()
    accept_host_key(stranger, key.fingerprint)
    accept_host_key(stranger, key.fingerprint)
    assert Path(stranger.known_hosts).read_text() == f"{key.line}\n"
    assert Path(stranger.known_hosts).stat().st_mode & 0o777 == 0o600
    assert Path(stranger.known_hosts).parent.stat().st_mode & 0o777 == 0o700
    assert opens(stranger)


def test_accepting_keeps_what_the_file_says_already(board, stranger):
    path = Path(stranger.known_hosts)
    path.parent.mkdir()
    mine = b"# caf\xe9\nother ssh-rsa AAAA"  # no UTF-8, and without a line end
    path.write_bytes(mine)
    path.chmod(0o644)
    with path.open("ab") as ssh:  # which adds a line of its own meanwhile
        accept_host_key(stranger, scan_host_key(stranger).fingerprint)
        ssh.write(b"later ssh-rsa BBBB\n")
    lines = path.read_bytes().split(b"\n")
    assert b"\n".join(lines[:2]) == mine
    assert lines[2].startswith(b"[127.0.0.1]:")
    assert lines[3:] == [b"later ssh-rsa BBBB", b""]
    assert path.stat().st_mode & 0o777 == 0o644
    assert opens(stranger)


def test_a_changed_key_is_refused_with_both_fingerprints_and_cannot_be_accepted(board, stranger, tmp_path):
    other = keygen(tmp_path / "other")
    path = Path(stranger.known_hosts)
    path.parent.mkdir()
    path.write_text(f"[127.0.0.1]:{board.port} {other.with_suffix('.pub').read_text()}")
    before = path.read_bytes()
    text = refused(stranger)
    old = subprocess.run(["ssh-keygen", "-lf", other], capture_output=True, text=True, check=True).stdout.split()[1]
    assert old in text and fingerprint_by_ssh_keygen(board) in text
    assert f"ssh-keygen -R '[127.0.0.1]:{board.port}' -f {path}" in text
    with pytest.raises(DeviceUnavailable, match="knows it by"):
        accept_host_key(stranger, scan_host_key(stranger).fingerprint)
    assert path.read_bytes() == before
    subprocess.run(["ssh-keygen", "-R", f"[127.0.0.1]:{board.port}", "-f", path], check=True, capture_output=True)
    accept_host_key(stranger, scan_host_key(stranger).fingerprint)
    assert opens(stranger)


def test_a_key_of_another_kind_is_a_changed_key(board, stranger, tmp_path):
    other = keygen(tmp_path / "other", "-t", "ecdsa")
    Path(stranger.known_hosts).parent.mkdir()
    Path(stranger.known_hosts).write_text(f"[127.0.0.1]:{board.port} {other.with_suffix('.pub').read_text()}")
    assert "knows it by ecdsa-sha2-nistp256 key" in refused(stranger)


def test_the_kind_of_key_that_is_known_is_asked_for(board, tmp_path):
    """A host with two keys, of which the one that would not come first is known."""
    folder = Path(board.key_file).parent
    rsa = keygen(tmp_path / "rsa", "-t", "rsa", "-b", "2048")
    text = (folder / "sshd_config").read_text() + f"HostKey {rsa}\nPidFile none\n"
    (tmp_path / "config").write_text(text)
    ours, theirs = socket.socketpair()
    device = known_as(board, tmp_path, board.port)
    Path(device.known_hosts).write_text(f"[127.0.0.1]:{board.port} {rsa.with_suffix('.pub').read_text()}")
    server = subprocess.Popen(
        ["/usr/sbin/sshd", "-i", "-f", str(tmp_path / "config")], stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL
    )
    theirs.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("targets.transports.ssh_link._dial", lambda *_: ours)
        assert opens(device)
    server.wait(timeout=20)


def test_hashed_names_and_marks_are_understood(board, stranger):
    path = Path(stranger.known_hosts)
    path.parent.mkdir()
    path.write_text(scan_host_key(stranger).line + "\n")
    subprocess.run(["ssh-keygen", "-H", "-f", path], check=True, capture_output=True)
    assert "127.0.0.1" not in path.read_text()
    assert opens(stranger)
    path.write_text(path.read_text() + f"@revoked * {' '.join(scan_host_key(stranger).line.split()[1:])}\n")
    assert "marked as revoked" in refused(stranger)


@pytest.mark.parametrize(
    ("hosts", "name", "known"),
    [
        ("board", "board", True),
        ("BOARD", "Board", True),
        ("a,board,b", "board", True),
        ("board", "[board]:2222", False),
        ("[board]:2222", "[board]:2222", True),
        ("[board]:2222", "board", False),
        ("*.lab", "board.lab", True),
        ("*.lab,!board.lab", "board.lab", False),
        ("!board.lab,*.lab", "board.lab", False),
        ("b?ard", "board", True),
        ("[b]oard", "board", False),
        ("|1|x|y", "board", False),
        ("|2|AAAA|AAAA", "board", False),
    ],
)
def test_names_are_matched_as_openssh_does(hosts, name, known):
    key = HostKey("board", 22, "ssh-ed25519", b"blob")
    text = f"{hosts} ssh-ed25519 {base64.b64encode(b'blob').decode()} comment\n"
    entries = [entry for entry in parse_known_hosts(text) if entry.names(name)]
    assert judge_key(key, entries) == ("known" if known else "unknown")


@given(st.text())
def test_no_text_vouches_for_a_key_it_does_not_hold(text):
    key = HostKey("board", 22, "ssh-ed25519", b"a key that is in no such text")
    assert judge_key(key, [entry for entry in parse_known_hosts(text) if entry.names("board")]) != "known"


def test_a_certificate_authority_vouches_for_nobody_here():
    assert parse_known_hosts("@cert-authority * ssh-ed25519 AAAA\n@other * ssh-ed25519 AAAA\n# a b c\nx y\n") == []


def test_a_wrong_key_is_refused_and_named(board, tmp_path):
    keygen(tmp_path / "wrong")
    text = refused(board.model_copy(update={"key_file": str(tmp_path / "wrong")}))
    assert f"{board.user}@127.0.0.1:{board.port} refuses the login (tried wrong)" in text
    assert "ssh-copy-id" in text


def test_a_private_key_that_others_can_read_is_refused_before_it_is_used(board, tmp_path):
    key = tmp_path / "open"
    key.write_bytes(Path(board.key_file).read_bytes())
    key.chmod(0o644)
    assert f"can be used by others. Run: chmod 600 {key}" in refused(board.model_copy(update={"key_file": str(key)}))


@pytest.mark.parametrize("text", ["", "SECRET WORDS", "-----BEGIN OPENSSH PRIVATE KEY-----\nSECRETWORDS\n", "\0\xff"])
def test_what_is_no_key_is_one_line_without_its_content(board, tmp_path, text):
    key = tmp_path / "key"
    key.write_text(text)
    key.chmod(0o600)
    message = refused(board.model_copy(update={"key_file": str(key)}))
    assert "no private key that can be used" in message and "SECRET" not in message


def test_a_key_that_is_not_there_is_one_line(board, tmp_path):
    message = refused(board.model_copy(update={"key_file": str(tmp_path / "none")}))
    assert "cannot be read: No such file" in message


def test_no_key_at_all_is_one_line(board, lonely):
    assert "there is no key to log in to" in refused(board.model_copy(update={"key_file": None}))


def test_default_keys_are_tried_and_those_that_cannot_be_used_are_named(board, lonely):
    device = board.model_copy(update={"key_file": None})
    keygen(lonely / ".ssh" / "id_ed25519", passphrase="secret words")
    keygen(lonely / ".ssh" / "id_ecdsa", "-t", "ecdsa")
    (lonely / ".ssh" / "id_rsa").write_text("x")
    text = refused(device)
    assert "tried id_ed25519 (asks for a passphrase), id_ecdsa, id_rsa (cannot be used)" in text
    (lonely / ".ssh" / "id_rsa").write_bytes(Path(board.key_file).read_bytes())
    (lonely / ".ssh" / "id_rsa").chmod(0o600)
    assert opens(device)


def test_a_key_with_a_passphrase_is_used_through_the_agent(board, agent, tmp_path):
    locked = tmp_path / "locked"
    locked.write_bytes(Path(board.key_file).read_bytes())
    locked.chmod(0o600)
    locked.with_suffix(".pub").write_bytes(Path(board.key_file).with_suffix(".pub").read_bytes())
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret words", "-P", "", "-f", locked], check=True)
    device = board.model_copy(update={"key_file": str(locked)})
    assert f"asks for a passphrase. Unlock it first: ssh-add {locked}" in refused(device)
    keygen(tmp_path / "other")
    subprocess.run(["ssh-add", "-q", tmp_path / "other"], check=True)
    assert "asks for a passphrase" in refused(device)
    subprocess.run(["ssh-add", "-q", board.key_file], check=True)
    assert opens(device)
    assert opens(board.model_copy(update={"key_file": None}))


def test_an_agent_that_is_gone_is_as_good_as_none(board, lonely, monkeypatch):
    monkeypatch.setenv("SSH_AUTH_SOCK", str(lonely / "gone"))
    assert "there is no key" in refused(board.model_copy(update={"key_file": None}))


def test_another_user_is_refused(board):
    assert "nobody-here@127.0.0.1" in refused(board.model_copy(update={"user": "nobody-here"}))


def test_a_jump_host_is_gone_through_and_checked_the_same_way(board, tmp_path):
    with VirtualBoard(tmp_path / "second", "second") as second:
        jump = f"{board.user}@127.0.0.1:{board.port}"
        keys = Path(board.known_hosts).read_text() + Path(second.device.known_hosts).read_text()
        authorized = Path(board.key_file).with_suffix(".pub").read_text()
        (tmp_path / "second" / "authorized_keys").write_text(authorized)
        (tmp_path / "keys").write_text(keys)
        update = {"jump": jump, "known_hosts": str(tmp_path / "keys"), "key_file": board.key_file}
        device = second.device.model_copy(update=update)
        with SshTransport(device) as there:
            done = there.run(["sh", "-c", "echo $SSH_CONNECTION"], timeout_s=60)
            assert done.stdout.split()[3] == str(second.device.port).encode()
            (tmp_path / "a").write_bytes(os.urandom(200_000))
            there.push(tmp_path / "a", f"{there.work_folder}/a")
        (tmp_path / "keys").unlink()
        assert f"host [127.0.0.1]:{board.port} shows an unknown" in refused(device)
        for port in (board.port, second.device.port):  # first the jump host's key, then the device's own
            key = scan_host_key(device)
            assert key.port == port
            accept_host_key(device, key.fingerprint)
        assert opens(device)


def test_a_jump_host_that_may_not_or_cannot_go_on_is_one_line(board):
    jump = f"{board.user}@127.0.0.1:{board.port}"
    assert "cannot be reached" in refused(board.model_copy(update={"jump": jump, "port": 1}))
    assert "jump names no host" in refused(board.model_copy(update={"jump": "somebody@"}))


def test_nothing_of_paramiko_s_log_reaches_the_terminal(board, tmp_path, capfd, caplog):
    refused(Device(name="d", transport="ssh", host="127.0.0.1", port=1))
    refused(board.model_copy(update={"key_file": str(keygen(tmp_path / "wrong"))}))
    with SshTransport(board) as there:
        there.link().cut()
        there.run(["true"], timeout_s=60)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert not [record for record in caplog.records if "key" in record.getMessage().lower()]
