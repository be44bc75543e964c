"""Whole conversations with the virtual board and the virtual phone, recorded and replayed."""

from pathlib import Path

import pytest

from targets.errors import FailureKind, SessionFailed
from targets.inventory import Device
from targets.jobs import Job
from targets.opening import open_target
from targets.records import RunSettings
from targets.tflite_files import tflite_artifact
from targets.transports.conversation import read_conversation
from tests.targets import tiny_models

TINY = Path(__file__).parents[1] / "targets" / "fixtures" / "tflite" / "tiny.tflite"


def job(artifact, runtime, **changes):
    return Job(artifact=artifact, settings=RunSettings(runtime=runtime), **{"task": "time", "seconds": 0.1} | changes)


def onnx_artifact(folder):
    return tiny_models.artifact_of(tiny_models.save(tiny_models.tiny_model(), folder / "tiny.onnx"))


def replayed(path):
    header, _ = read_conversation(path)
    entry = {"name": "again", "transport": "replay", "recording": str(path), **header.entry}
    return Device.model_validate(entry)


@pytest.mark.parametrize("kind", ["board", "phone"])
def test_a_replayed_conversation_gives_the_same_records(kind, request, tmp_path):
    device = request.getfixturevalue(kind)
    artifact = onnx_artifact(tmp_path) if kind == "board" else tflite_artifact(TINY)
    runtime = device.runtime
    talk = tmp_path / "talk.jsonl"
    with open_target(device, record=talk) as target:
        versions = target.driver(runtime).versions()
        session = target.run_session(job(artifact, runtime))
        # The phone's profile is the same kind of conversation and takes long.
        profile = target.run_profile(job(artifact, runtime, task="profile")) if kind == "board" else None
    again = job(artifact, runtime)
    with open_target(replayed(talk)) as target:
        assert target.device.label == "recorded"
        assert target.driver(runtime).versions() == versions
        back = target.run_session(again)
        if profile is not None:
            assert target.run_profile(job(artifact, runtime, task="profile")) == profile
    assert back.session_id == again.session_id != session.session_id
    assert (back.samples_ns, back.summary) == (session.samples_ns, session.summary)
    assert (back.versions, back.device, back.readings) == (session.versions, session.device, session.readings)
    header, steps = read_conversation(talk)
    assert header.stand_in == "virtual"
    assert header.tools[runtime] == versions[runtime]
    assert len(steps) > 4
    raw = talk.read_text(encoding="utf-8")
    for secret in (device.key_file, "BEGIN OPENSSH PRIVATE KEY", "BEGIN PRIVATE KEY"):
        assert str(secret) not in raw


def test_another_model_or_setting_is_not_answered(board, tmp_path):
    artifact = onnx_artifact(tmp_path)
    talk = tmp_path / "talk.jsonl"
    with open_target(board, record=talk) as target:
        target.run_session(job(artifact, "onnxruntime"))
    other = job(artifact, "onnxruntime").model_copy(update={"settings": RunSettings(runtime="onnxruntime", threads=2)})
    with open_target(replayed(talk)) as target:
        target.driver("onnxruntime").versions()
        with pytest.raises(SessionFailed, match="is not what is asked") as caught:
            target.run_session(other)
    assert caught.value.kind is FailureKind.TOOL_ERROR
