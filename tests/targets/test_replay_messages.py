"""What a replay and a recording say: the key that differs, the line that is broken, and no folder of this machine."""

import json
import uuid
from pathlib import Path

import pytest

from targets.errors import SessionFailed, UsageError
from targets.inventory import Device
from targets.transports.conversation import Blob, Header, Step, read_conversation, write_conversation
from targets.transports.local import LocalTransport
from targets.transports.recording import RecordingTransport
from targets.transports.replay import ReplayTransport
from targets.transports.secrets import Scrubber


def header(**more):
    fields = {"transport": "ssh", "work_folder": "/w", "kit": "0", "recorded_at": "2026-01-01T00:00:00Z"}
    return Header.model_validate({**fields, **more})


def job(**more):
    settings = {"runtime": "onnxruntime", "threads": 1}
    return json.dumps({"nonce": uuid.uuid4().hex, "echo": None, "settings": settings} | more)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (
            job(settings={"runtime": "openvino", "threads": 1}),
            'settings.runtime: recorded "onnxruntime", asked "openvino"',
        ),
        (job(seconds=3), "seconds: recorded nothing, asked 3"),
        (f"{job()} more", "recorded "),
        ("[" * 100_000, "recorded "),
    ],
)
def test_the_key_that_differs_is_named_and_no_nonce(tmp_path, asked, expected):
    path = tmp_path / "talk.jsonl"
    recorded = job()
    write_conversation(path, header(), [Step(call="run", argv=("python3",), input=Blob(text=recorded))])
    replay = ReplayTransport(Device(name="again", transport="replay", recording=str(path)))
    with pytest.raises(SessionFailed) as caught:
        replay.run(["python3"], input_bytes=asked.encode(), timeout_s=1)
    assert expected in caught.value.what
    assert json.loads(recorded)["nonce"] not in caught.value.what
    assert len(caught.value.what) < 500


def test_a_hash_that_differs_is_shown(tmp_path):
    path = tmp_path / "talk.jsonl"
    write_conversation(path, header(), [Step(call="checksum", remote=f"/w/{'a' * 64}.onnx")])
    replay = ReplayTransport(Device(name="again", transport="replay", recording=str(path)))
    with pytest.raises(SessionFailed, match=r"recorded '/w/a{64}.onnx', asked '/w/b{64}"):
        replay.checksum(f"/w/{'b' * 64}.onnx")


@pytest.mark.parametrize(("line", "expected"), [("{", "of this kit: Invalid JSON"), ("{}", "of this kit: call: ")])
def test_a_broken_line_is_told_without_an_empty_place(tmp_path, line, expected):
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{header().model_dump_json()}\n{line}\n")
    with pytest.raises(UsageError, match=expected):
        read_conversation(path)


def test_the_work_folder_of_this_machine_is_not_in_a_recording(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "people" / "erika" / "cache"))
    here = Device(name="here")
    with RecordingTransport(LocalTransport(here), tmp_path / "talk.jsonl", here) as device:
        model = tmp_path / "m.onnx"
        model.write_bytes(b"model")
        remote = f"{device.work_folder}/models/m.onnx"
        Path(remote).parent.mkdir(parents=True)
        device.push(model, remote)
        said = device.run(["echo", f"{device.work_folder}/models:{device.work_folder}"], timeout_s=60)
        device.remove(remote)
    written = (tmp_path / "talk.jsonl").read_text()
    assert "erika" in said.stdout.decode()
    assert "erika" not in written
    again = ReplayTransport(Device(name="again", transport="replay", recording=str(tmp_path / "talk.jsonl")))
    again.push(model, f"{again.work_folder}/models/m.onnx")
    assert again.run(["echo", "/work-folder/models:/work-folder"], timeout_s=1).stdout.startswith(
        b"/work-folder/models"
    )


def test_a_folder_that_begins_alike_is_another_one():
    scrub = Scrubber(Device(name="here"), "/data/kit/")
    assert scrub.text("/data/kit /data/kit/x /data/kitten /data/kit.old") == (
        "/work-folder /work-folder/x /data/kitten /data/kit.old"
    )
    assert Scrubber(Device(name="here")).text("a /b") == "a /b"
