"""Recorded conversations: what is replayed is what was said, secrets stay out, and other requests are refused."""

import base64
import json
import sys
import uuid
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.errors import DeviceUnavailable, FailureKind, SessionFailed, UsageError
from targets.files import sha256_of
from targets.inventory import Device
from targets.transports import secrets
from targets.transports.conversation import Blob, Header, Step, read_conversation
from targets.transports.local import LocalTransport
from targets.transports.recording import RecordingTransport
from targets.transports.replay import ReplayTransport

ECHO = "import sys; text = sys.stdin.read(); print('answer to', text); print('complaint', file=sys.stderr); sys.exit(3)"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAA\n-----END OPENSSH PRIVATE KEY-----"


def lab(tmp_path, **keys):
    """A device whose entry holds secrets; what it is reached by here is this machine."""
    entry = {"host": "lab-7.example.net:2222", "user": "erika", "key_file": "/home/erika/.ssh/id_lab", **keys}
    return Device(name="nano", transport="ssh", work_folder=str(tmp_path / "device"), **entry)


def replayed(path, **keys):
    return ReplayTransport(Device(name="again", transport="replay", recording=str(path), **keys))


def recording(tmp_path, **keys):
    device = lab(tmp_path, **keys)
    (tmp_path / "device").mkdir(exist_ok=True)
    return RecordingTransport(LocalTransport(device), tmp_path / "talk.jsonl", device)


def ask(transport, session):
    return transport.run([sys.executable, "-c", ECHO, f"--id={session}"], input_bytes=session.encode(), timeout_s=60)


def test_a_replay_answers_as_the_device_did_and_with_the_ids_of_today(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"model")
    then, now = uuid.uuid4().hex, uuid.uuid4().hex
    with recording(tmp_path) as device:
        remote = f"{device.work_folder}/{sha256_of(model)}.onnx"
        assert device.checksum(remote) is None
        device.push(model, remote)
        assert device.checksum(remote) == sha256_of(model)
        said = ask(device, then)
        device.pull(remote, tmp_path / "back")
        device.remove(remote)
        device.note_tools({"tensorrt": "8.2.1"})
    again = replayed(tmp_path / "talk.jsonl")
    assert again.recorded_transport == "ssh"
    assert again.header.tools == {"tensorrt": "8.2.1"}
    assert again.checksum(remote) is None
    again.push(model, remote)
    assert again.checksum(remote) == sha256_of(model)
    answer = ask(again, now)
    assert answer.returncode == said.returncode == 3
    assert answer.stdout.decode() == said.stdout.decode().replace(then, now)
    assert answer.stderr == b"complaint\n"
    again.pull(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"model"
    again.remove(remote)
    with pytest.raises(SessionFailed, match="the recording ends here") as caught:
        ask(again, now)
    assert caught.value.kind is FailureKind.TOOL_ERROR
    again.close()
    with pytest.raises(DeviceUnavailable):
        ask(again, now)


def test_what_was_not_recorded_is_refused_naming_the_step(tmp_path):
    with recording(tmp_path) as device:
        device.run(["true"], timeout_s=10)
        device.run(["echo", "a" * 64], timeout_s=10)
    again = replayed(tmp_path / "talk.jsonl")
    again.run(["true"], timeout_s=10)
    with pytest.raises(SessionFailed, match=r"step 2 is not what is asked, 'run echo b.*recorded 'a.*', asked 'b"):
        again.run(["echo", "b" * 64], timeout_s=10)  # 64 digits name a model: another one has other figures
    with pytest.raises(SessionFailed, match="step 2"):  # what follows is no part of the recording either
        again.run(["echo", "a" * 64], timeout_s=10)
    again.remove("/anything")


def test_another_model_is_refused_and_a_newer_agent_is_not(tmp_path):
    files = {name: tmp_path / name for name in ("old.pyz", "new.pyz", "old.onnx", "new.onnx")}
    for name, path in files.items():
        path.write_bytes(name.encode() * (2 if "new" in name else 1))
    hashes = {name: sha256_of(path) for name, path in files.items()}

    def talk(transport, agent, model):
        place = f"{transport.work_folder}/{hashes[agent]}.pyz"
        transport.checksum(place)
        transport.push(files[agent], place)
        found = transport.checksum(place)
        transport.push(files[model], f"{transport.work_folder}/{hashes[model]}.onnx")
        return found

    with recording(tmp_path) as device:
        talk(device, "old.pyz", "old.onnx")
    assert talk(replayed(tmp_path / "talk.jsonl"), "new.pyz", "old.onnx") == hashes["new.pyz"]
    with pytest.raises(SessionFailed, match="step 4"):
        talk(replayed(tmp_path / "talk.jsonl"), "new.pyz", "new.onnx")


def test_an_id_that_changes_in_the_middle_is_refused(tmp_path):
    one, two = uuid.uuid4().hex, uuid.uuid4().hex
    with recording(tmp_path) as device:
        for _ in range(2):
            device.run(["echo", one], timeout_s=10)
    again = replayed(tmp_path / "talk.jsonl")
    again.run(["echo", one], timeout_s=10)
    with pytest.raises(SessionFailed, match="step 2"):
        again.run(["echo", two], timeout_s=10)


def test_failures_are_replayed_as_what_they_were(tmp_path):
    with recording(tmp_path) as device:
        with pytest.raises(SessionFailed):
            device.run(["sleep", "5"], timeout_s=0.2)
        with pytest.raises(SessionFailed):
            device.pull(f"{device.work_folder}/nothing", tmp_path / "x")
    again = replayed(tmp_path / "talk.jsonl")
    with pytest.raises(SessionFailed, match="deadline") as caught:
        again.run(["sleep", "5"], timeout_s=9)
    assert caught.value.kind is FailureKind.TIMEOUT
    with pytest.raises(SessionFailed, match="no such file on the device"):
        again.pull(f"{again.work_folder}/nothing", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_no_secret_reaches_the_file_and_the_replay_still_fits(tmp_path):
    packed = base64.b64encode(zlib.compress(b"log of lab-7.example.net, user erika " * 9)).decode()
    text = (
        f"{KEY}\nerika@lab-7.example.net:~$ inet 10.1.2.3/24 peer 192.168.1.9 ether 0a:1b:2c:3d:4e:5f\n"
        f"TensorRT 10.3.0.26 [ro.serialno]: [R58N12ABCDE] /home/otto/x https://me:hunter2@host/ {packed}\n"
    )
    with recording(tmp_path) as device:
        device.run(["cat"], input_bytes=text.encode(), timeout_s=10, env={"API_TOKEN": "s3cr3t", "LANG": "C"})
        device.run(["echo", "/home/erika/models"], timeout_s=10)
        device.note_tools({"tensorrt": "10.3.0.26"})
    raw = (tmp_path / "talk.jsonl").read_text()
    for secret in (
        *("erika", "lab-7", "b3BlbnNzaC1", "10.1.2.3", "192.168.1.9", "0a:1b:2c", "R58N12ABCDE", "otto"),
        *("hunter2", "s3cr3t", packed[:40]),
    ):
        assert secret not in raw, secret
    assert raw.count("10.3.0.26") == 3  # a version, though it looks like an address
    answer = json.loads(raw.splitlines()[1])["stdout"]["text"]
    unpacked = zlib.decompress(base64.b64decode(answer.split()[-1])).decode()
    assert unpacked.startswith("log of <host-1>, user <user-1> ")
    again = replayed(tmp_path / "talk.jsonl")
    with pytest.raises(SessionFailed, match=r"step 1 is not what is asked.*asked 'something else'"):
        again.run(["cat"], input_bytes=b"something else", timeout_s=10, env={"API_TOKEN": "other", "LANG": "C"})


def test_a_login_that_is_a_plain_word_is_put_back_into_the_answers(tmp_path):
    with recording(tmp_path, user="latency", key_file=None) as device:
        device.run(["echo", '{"latency": 3}'], timeout_s=10)
    assert "latency" not in (tmp_path / "talk.jsonl").read_text()
    assert replayed(tmp_path / "talk.jsonl").run(["echo", '{"latency": 3}'], timeout_s=10).stdout == (
        b'{"latency": 3}\n'
    )


def test_an_interrupted_conversation_is_not_written(tmp_path):
    class Interrupted(LocalTransport):
        def run(self, *args, **kwargs):
            raise KeyboardInterrupt

    device = lab(tmp_path)
    with (
        pytest.raises(KeyboardInterrupt),
        RecordingTransport(Interrupted(device), tmp_path / "talk.jsonl", device) as transport,
    ):
        transport.run(["true"], timeout_s=1)
    assert not (tmp_path / "talk.jsonl").exists()


def test_a_simulation_is_not_recorded_as_if_it_were_a_machine(tmp_path):
    device = Device(name="s", transport="simulated", model="nova6-se")
    with pytest.raises(UsageError, match="is not recorded"):
        RecordingTransport(LocalTransport(), tmp_path / "talk.jsonl", device)


def test_another_version_of_the_runtime_is_refused(tmp_path):
    with recording(tmp_path) as device:
        device.run(["true"], timeout_s=10)
        device.note_tools({"tensorrt": "8.2.1.8"})
    replayed(tmp_path / "talk.jsonl", runtime="tensorrt", runtime_version="8.2")
    with pytest.raises(DeviceUnavailable, match=r"made with tensorrt 8\.2\.1\.8, and device 'again' asks for 8\.20"):
        replayed(tmp_path / "talk.jsonl", runtime="tensorrt", runtime_version="8.20")


def good_file(tmp_path):
    with recording(tmp_path) as device:
        device.run(["echo", "hello"], timeout_s=10)
    return (tmp_path / "talk.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda raw: b"", "cut off"),
        (lambda raw: b"\n", r"talk\.jsonl:1: "),
        (lambda raw: raw[:-5], "cut off"),
        (lambda raw: raw.replace(b'"format":1', b'"format":2'), r"talk\.jsonl:1: .*format"),
        (lambda raw: raw.replace(b'"call":"run"', b'"call":"eval"'), r"talk\.jsonl:2: .*call"),
        (lambda raw: raw.replace(b'"text"', b'"base64"', 1).replace(b"hello\\n", b"@"), r"talk\.jsonl:2: "),
        (lambda raw: raw + b"\x1b[2J\n", r"talk\.jsonl:3: "),
    ],
)
def test_a_spoiled_file_is_one_line_with_its_place(tmp_path, spoil, expected):
    raw = spoil(good_file(tmp_path))
    (tmp_path / "talk.jsonl").write_bytes(raw)
    with pytest.raises(UsageError, match=expected) as caught:
        replayed(tmp_path / "talk.jsonl")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="there is no recording"):
        replayed(tmp_path / "nothing.jsonl")


@given(data=st.binary(max_size=200))
def test_any_bytes_survive_the_file(data):
    step = Step(call="run", argv=("x",), stdout=Blob.of(data))
    assert Step.model_validate_json(step.model_dump_json(exclude_defaults=True)).stdout.data() == data


def test_a_hostile_error_class_is_a_plain_failure(tmp_path):
    raw = good_file(tmp_path)
    header = Header.model_validate_json(raw.splitlines()[0])
    error = {"what": "\x1b[31mx", "kind": "timeout", "error": "__builtins__"}
    step = json.dumps({"call": "run", "argv": ["true"], "error": error})
    (tmp_path / "talk.jsonl").write_text(f"{header.model_dump_json()}\n{step}\n")
    with pytest.raises(SessionFailed) as caught:
        replayed(tmp_path / "talk.jsonl").run(["true"], timeout_s=1)
    assert caught.value.kind is FailureKind.TIMEOUT
    assert "\x1b" not in str(caught.value)
    assert len(read_conversation(tmp_path / "talk.jsonl")[1]) == 1


def test_a_conversation_that_unpacks_to_too_much_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(secrets, "MAX_UNPACKED", 2**20)
    bomb = base64.b64encode(zlib.compress(bytes(2**19 + 1), 9))
    (tmp_path / "bomb").write_bytes(bomb)
    device = recording(tmp_path)
    for _ in range(3):  # together too much
        assert device.run(["cat", str(tmp_path / "bomb")], timeout_s=60).stdout == bomb
    with pytest.raises(UsageError, match="is given up: the device sent more than 1 MiB of compressed text"):
        device.close()
    assert not (tmp_path / "talk.jsonl").exists()


def edited(tmp_path, argument):
    """A recording in which ``echo`` had this argument."""
    header = good_file(tmp_path).splitlines()[0].decode()
    step = Step(call="run", argv=("echo", argument)).model_dump_json(exclude_defaults=True)
    (tmp_path / "talk.jsonl").write_text(f"{header}\n{step}\n")
    return tmp_path / "talk.jsonl"


def test_many_placeholders_in_a_word_are_no_endless_search(tmp_path):
    path = edited(tmp_path, "".join(f"<user-{n}>a" for n in range(30)) + "!")
    with pytest.raises(SessionFailed, match="step 1"):
        replayed(path).run(["echo", "a" * 4000], timeout_s=1)
    replayed(path).run(["echo", "ba" * 30 + "!"], timeout_s=1)
    with pytest.raises(UsageError, match=r"talk\.jsonl:2: two placeholders touch"):
        replayed(edited(tmp_path, "<user-1><host-1>"))


@pytest.mark.parametrize(
    ("recorded", "now", "fits"),
    [
        ("/home/<user-1>/x/<user-1>", "/home/eve/x/eve", True),
        ("/home/<user-1>/x/<user-1>", "/home/eve/x/bob", False),
        ("<user-1>@<host-1>/x", "eve@lab/x", True),
        ("<user-1>-bar", "bar-bar-bar", True),
        ("<user-1>" + "f" * 32, "eve-" + "e" * 32, True),
        ("<user-1>", "two words", False),
        ("<user-1>", "a" * 256, False),
        ("a<user-1>", "a", False),
    ],
)
def test_what_a_placeholder_stands_for(tmp_path, recorded, now, fits):
    again = replayed(edited(tmp_path, recorded))
    if fits:
        again.run(["echo", now], timeout_s=1)
    else:
        with pytest.raises(SessionFailed, match="step 1"):
            again.run(["echo", now], timeout_s=1)


def test_a_file_of_empty_lines_is_refused_before_it_is_split(tmp_path):
    (tmp_path / "talk.jsonl").write_bytes(b"\n" * 2**20)
    with pytest.raises(UsageError, match="cut off or too long"):
        replayed(tmp_path / "talk.jsonl")
