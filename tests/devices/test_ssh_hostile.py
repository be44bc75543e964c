"""A device whose server of files says what none should: a lost device, never a traceback, and never without end."""

import sys
from pathlib import Path

import pytest

from targets.errors import FailureKind, SessionFailed
from targets.transports.ssh import SshTransport
from targets.virtual import board as boards
from targets.virtual.board import VirtualBoard

LIAR = """
import pathlib, struct, sys
there, here = sys.stdin.buffer, sys.stdout.buffer
while head := there.read(4):
    body = there.read(struct.unpack(">I", head)[0])
    kind = pathlib.Path(sys.argv[1]).read_text()
    if body[0] == 1:  # the greeting
        answer = b"\\x02" + struct.pack(">I", 3)
    elif kind == "another packet":
        answer = b"\\x68" + body[1:5] + struct.pack(">II", 1, 1) + b"x" + struct.pack(">I", 1) + b"y" + bytes(4)
    elif kind == "huge":
        answer = b"\\x69" + body[1:5] + struct.pack(">IQI", 5, 2**62, 0o100644)
    else:
        answer = b""
    here.write(struct.pack(">I", len(answer)) + answer if answer else b"\\xff" * 64)
    here.flush()
"""


@pytest.fixture(scope="module")
def lying(tmp_path_factory):
    """A board with such a server, and the file that says what it does."""
    folder = tmp_path_factory.mktemp("lying")
    (folder / "liar.py").write_text(LIAR)
    own = f"Subsystem sftp {sys.executable} {folder}/liar.py {folder}/kind"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            boards, "_CONFIGURATION", boards._CONFIGURATION.replace("Subsystem sftp internal-sftp", own), raising=True
        )
        with VirtualBoard(folder / "board") as board:
            yield board.device, folder / "kind"


@pytest.mark.parametrize("kind", ["garbage", "another packet"])
@pytest.mark.parametrize("what", ["push", "pull", "checksum"])
def test_what_no_server_says_is_a_lost_device(lying, tmp_path, kind, what):
    device, says = lying
    says.write_text(kind)
    with SshTransport(device) as there:
        place = f"{there.work_folder}/x"
        calls = {
            "push": lambda: there.push(Path(__file__), place),
            "pull": lambda: there.pull(place, tmp_path / "x"),
            "checksum": lambda: there.checksum(place),
        }
        with pytest.raises(SessionFailed, match="was lost") as caught:
            calls[what]()
        assert caught.value.kind is FailureKind.LOST_DEVICE
        assert not there._link.alive
    assert not list(tmp_path.iterdir())


def test_a_size_without_sense_is_not_hashed(lying):
    device, says = lying
    says.write_text("huge")
    with SshTransport(device) as there, pytest.raises(SessionFailed, match=f"says it has {2**62} bytes"):
        there.checksum(f"{there.work_folder}/x")
