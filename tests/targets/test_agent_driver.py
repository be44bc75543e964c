"""The host's side: what is refused, what is asked again, what is never measured twice."""

import base64
import functools
import json
import sys
import zlib
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from benchmarks.chain import write_chain
from targets.drivers.agent_answer import Unpacker, read_answer
from targets.drivers.agent_jobs import onnxruntime_job, openvino_job
from targets.errors import (
    DeviceUnavailable,
    FailureKind,
    InvalidModel,
    KitError,
    MissingProfile,
    SessionFailed,
    UsageError,
)
from targets.onnx_files import inspect_onnx
from targets.records import Precision
from targets.tflite_files import tflite_artifact
from targets.transports.base import Completed
from tests.targets.agent_making import files_in, relayed, rewritten, timing, tiny
from tests.targets.tiny_models import artifact_of

HERE = Path(__file__).resolve().parent
STAND_IN = HERE.parent / "devices" / "trtexec_stand_in.py"
NONCE = "0" * 32


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def models_only(work):
    return [name for name in files_in(work) if not name.startswith(("models/", "engines/"))] == []


def unchanged(done, job):
    return done


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """What a real agent answered once, by task: as short a session as there is."""
    folder = tmp_path_factory.mktemp("real")
    kept = {}

    def keep(done, job):
        def shorten(found):
            for key in ("warmup_ns", "samples_ns"):
                found["result"][key] = found["result"][key][:10]
            found["took_s"] = sum(sum(found["result"][key]) for key in ("warmup_ns", "samples_ns")) / 1e9

        if "task" in job:
            kept[job["task"]] = (rewritten(done, shorten) if job["task"] == "time" else done), job
        return done

    driver, _ = relayed(folder / "work", keep)
    driver.run_session(timing(tiny(folder)))
    driver.close()
    return kept


def answered(real, edit):
    """Gives the kept answers under the ids asked for, and changes the one to the ``time`` job."""

    def change(job):
        done, before = real[job["task"]]
        text = done.stdout
        for key in ("nonce", "session_id"):
            text = text.replace(before[key].encode(), job[key].encode())
        done = Completed(done.returncode, text, done.stderr)
        return rewritten(done, edit) if job["task"] == "time" else done

    return change


def failure_of(tmp_path, change, **settings):
    driver, transport = relayed(tmp_path / "work", change)
    with pytest.raises(KitError) as caught:
        driver.run_session(timing(tiny(tmp_path), **settings))
    driver.close()
    assert models_only(tmp_path / "work")
    return caught.value, transport


def put(*path, value):
    def edit(found):
        for key in path[:-1]:
            found = found[key]
        found[path[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (put("session_id", value="f" * 32), "another question"),
        (put("echo", "artifact", value="f" * 64), "another question"),
        (put("echo", "settings", "threads", value=7), "another question"),
        (put("protocol", value=2), "of protocol 2"),
        (put("result", "files", 0, "sha256", value="f" * 64), "ran another file"),
        (put("result", "samples_ns", value=[]), "samples_ns"),
        (put("result", "samples_ns", value=[-5, 10]), "samples_ns.0"),
        (put("result", "samples_ns", value=[10, 0]), "samples_ns.1"),
        (put("result", "samples_ns", value=[1.5]), "samples_ns.0"),
        (put("result", "samples_ns", value=["9"]), "samples_ns.0"),
        (put("result", "samples_ns", value=[True]), "samples_ns.0"),
        (put("result", "samples_ns", value=[10**15]), "samples_ns.0"),
        (put("result", "samples_ns", value=[60 * 10**9]), "longer than it worked"),
        (put("result", "load_ms", value=float("nan")), "NaN is no figure"),
        (put("result", "load_ms", value=-1), "load_ms"),
        (put("result", "extra", value=1), "extra"),
        (put("result", "actual", "threads", value="8"), "runs 8 threads"),
        (put("took_s", value=8e4), "went by here"),
        (put("failure", value={"what": "x", "kind": "tool_error", "error": "KitError"}), "neither a result"),
    ],
)
def test_an_answer_that_is_not_right_gives_no_number(tmp_path, real, edit, told):
    driver, transport = relayed(tmp_path / "work", unchanged, instead=answered(real, edit))
    with pytest.raises(KitError) as caught:
        driver.run_session(timing(tiny(tmp_path)))
    assert told in str(caught.value)
    assert transport.runs.count("time") == 1


def test_the_same_answer_unchanged_is_a_session(tmp_path, real):
    driver, _ = relayed(tmp_path / "work", unchanged, instead=answered(real, lambda found: None))
    assert len(driver.run_session(timing(tiny(tmp_path))).samples_ns) == 10


def test_a_reference_is_not_sent_along(tmp_path, real):
    asked, answer = [], answered(real, lambda found: None)

    def instead(line):
        asked.append(line)
        return answer(line)

    driver, _ = relayed(tmp_path / "work", unchanged, instead=instead)
    for reference in (None, tiny(tmp_path)):
        job = timing(tiny(tmp_path)).model_copy(update={"reference": reference})
        assert driver.run_session(job).reference_ns == ()
    own = ("session_id", "nonce")
    alone, beside = [{k: v for k, v in line.items() if k not in own} for line in asked if line["task"] == "time"]
    assert alone == beside


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html><body>502 Bad Gateway</body></html>",
        b"\n--%b-begin--\n{}\n--%b-end--\n",
        b"\n--%b-begin--\n[" + b"[" * 100_000 + b"\n--%b-end--\n",
        b'\n--%b-begin--\n{"protocol": 1, "took_s": Infinity}\n--%b-end--\n',
        b"\n--%b-begin--\n\xff\xfe\n--%b-end--\n",
        b"\n--%b-begin--\n{}\n--%b-end--\n" * 2,
        b"\n--%b-begin--\n\x1b]0;own\x07{\n--%b-end--\n",
        b'\n--%b-begin--\n{"protocol": 1, "result": {',
    ],
)
def test_garbage_is_one_clean_line(text):
    with pytest.raises(SessionFailed) as caught:
        read_answer(Completed(0, text.replace(b"%b", NONCE.encode()), b""), NONCE, where="board")
    assert caught.value.kind is FailureKind.TOOL_ERROR
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600


@given(st.binary(max_size=200), st.integers(-20, 200))
def test_whatever_is_printed_is_no_answer(text, code):
    framed = b"\n--%b-begin--\n" % NONCE.encode() + text + b"\n--%b-end--\n" % NONCE.encode()
    for stdout in (text, framed):
        with pytest.raises(KitError) as caught:
            read_answer(Completed(code, stdout, text), NONCE, where="board")
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("code", "stderr", "kind"),
    [
        (-9, b"", FailureKind.OUT_OF_MEMORY),
        (137, b"Killed", FailureKind.OUT_OF_MEMORY),
        (-9, b"inas_agent: stopped at its deadline of 9 s\n", FailureKind.TIMEOUT),
        (-9, b"inas_agent: the host is gone\n", FailureKind.LOST_DEVICE),
        (1, b"Segmentation fault", FailureKind.TOOL_ERROR),
    ],
)
def test_an_agent_that_died_is_classified(code, stderr, kind):
    with pytest.raises(SessionFailed) as caught:
        read_answer(Completed(code, b"", stderr), NONCE, where="board")
    assert caught.value.kind is kind


@pytest.mark.parametrize(
    ("code", "stderr", "told"),
    [
        (127, b"sh: python3: not found", "Install Python 3.6"),
        (1, b"SyntaxError: invalid syntax", "too old"),
    ],
)
def test_a_device_without_python_says_what_to_install(code, stderr, told):
    with pytest.raises(DeviceUnavailable, match=told):
        read_answer(Completed(code, b"", stderr), NONCE, where="board")


def test_a_bomb_is_not_unpacked():
    bomb = base64.b64encode(zlib.compress(b"\0" * (65 * 2**20))).decode()
    with pytest.raises(SessionFailed, match="too long"):
        Unpacker("board").data(bomb)


def test_text_from_the_device_is_harmless_in_the_record(tmp_path, real):
    def edit(found):
        found["result"]["actual"]["provider"] = "\x1b[2J" + "x" * 10_000

    driver, _ = relayed(tmp_path / "work", unchanged, instead=answered(real, edit))
    session = driver.run_session(timing(tiny(tmp_path)))
    assert session.actual["provider"].isprintable() and len(session.actual["provider"]) < 400


@pytest.mark.parametrize("kind", [FailureKind.LOST_DEVICE, FailureKind.TIMEOUT])
def test_an_answer_lost_on_the_way_is_fetched_and_not_measured_again(tmp_path, kind):
    kept = []

    def lose_the_first(done, job):
        if job.get("task") == "time":
            kept.append(json.loads(done.stdout.partition(b"-begin--\n")[2].partition(b"\n--")[0]))
            if len(kept) == 1:
                raise SessionFailed("the line was cut", kind)
        return done

    driver, transport = relayed(tmp_path / "work", lose_the_first)
    job = timing(tiny(tmp_path))
    session = driver.run_session(job)
    assert transport.runs.count("time") == 2
    assert kept[0] == kept[1]
    assert session.session_id == job.session_id
    assert list(session.samples_ns) == kept[0]["result"]["samples_ns"]
    driver.close()
    assert models_only(tmp_path / "work")


def test_it_is_asked_twice_and_no_more(tmp_path):
    def lost(done, job):
        if job.get("task") == "time":
            raise SessionFailed("the line was cut", FailureKind.LOST_DEVICE)
        return done

    error, transport = failure_of(tmp_path, lost)
    assert error.kind is FailureKind.LOST_DEVICE
    assert transport.runs.count("time") == 2


@pytest.mark.parametrize("name", ["a;rm -rf x.bin", "model.onnx", "answer.json", "model/samples.log"])
def test_outside_data_lies_beside_the_model_there(tmp_path, name):
    path = tmp_path / "chain.onnx"
    write_chain(path, 2)
    proto = onnx.load(path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    onnx.save(proto, path, save_as_external_data=True, location=name, size_threshold=0)
    info = inspect_onnx(path)
    assert [file.location for file in info.external] == [name]
    artifact = artifact_of(path).model_copy(update={"inputs": info.inputs})
    driver, _ = relayed(tmp_path / "work", unchanged)
    assert len(driver.run_session(timing(artifact)).samples_ns) >= 10


@pytest.mark.parametrize(
    ("runtime", "settings", "error"),
    [
        ("onnxruntime", {"accelerator": "gpu"}, DeviceUnavailable),
        ("onnxruntime", {"accelerator": "npu"}, UsageError),
        ("onnxruntime", {"precision": Precision.FP16}, UsageError),
        ("onnxruntime", {"options": {"spinning": "perhaps"}}, UsageError),
        ("onnxruntime", {"pinned_cores": (4000,)}, UsageError),
        ("openvino", {"accelerator": "gpu"}, UsageError),
        ("openvino", {"precision": Precision.INT8}, UsageError),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, runtime, settings, error):
    driver, _ = relayed(tmp_path / "work", unchanged, runtime)
    with pytest.raises(error):
        driver.run_session(timing(tiny(tmp_path), runtime=runtime, **settings))
    driver.close()
    assert models_only(tmp_path / "work")


def test_a_file_that_is_no_model_is_refused_by_the_device(tmp_path):
    value = functools.partial(helper.make_tensor_value_info, elem_type=TensorProto.DOUBLE, shape=[1, 1, 8, 8])
    node = helper.make_node("Conv", ["x", "x"], ["y"], pads=[3, 3, 4, 4])  # no kernel for doubles on a CPU
    graph = helper.make_graph([node], "doubles", [value("x")], [value("y")])
    path = tmp_path / "doubles.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    artifact = artifact_of(path).model_copy(update={"inputs": inspect_onnx(path).inputs})
    driver, _ = relayed(tmp_path / "work", unchanged)
    with pytest.raises(InvalidModel, match="onnxruntime on the device refuses the model"):
        driver.run_session(timing(artifact))


def test_tflite_over_the_agent_has_no_profile(tmp_path):
    artifact = tflite_artifact(HERE / "fixtures" / "tflite" / "tiny.tflite")
    driver, _ = relayed(tmp_path / "work", unchanged, "tflite")
    with pytest.raises(MissingProfile):
        driver.run_profile(timing(artifact, "profile", runtime="tflite"))


def test_the_gpu_is_asked_for_with_everything_said(tmp_path):
    job = onnxruntime_job(timing(tiny(tmp_path), accelerator="gpu"))
    (cuda, options), cpu = job["providers"]
    assert (cuda, cpu) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options["use_tf32"] == "0"
    assert openvino_job(timing(tiny(tmp_path), runtime="openvino"))["config"]["INFERENCE_PRECISION_HINT"] == "f32"


@pytest.fixture
def trtexec(tmp_path, monkeypatch):
    """A program that writes what trtexec would; its figures are made up."""
    program = tmp_path / "trtexec"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P "{STAND_IN}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("TRTEXEC_VERSION", "8.2.1")
    return str(program)


def chain(folder):
    path = Path(folder) / "chain.onnx"
    write_chain(path, 4)
    return artifact_of(path).model_copy(update={"inputs": inspect_onnx(path).inputs})


def test_trtexec_builds_once_and_times_each_session(tmp_path, trtexec):
    driver, transport = relayed(tmp_path / "work", unchanged, "tensorrt", tool=trtexec)
    artifact = chain(tmp_path)
    assert driver.versions()["tensorrt"] == "8.2.1"
    sessions = [driver.run_session(timing(artifact, runtime="tensorrt", accelerator="gpu")) for _ in range(2)]
    assert all(session.versions["tensorrt"] == "8.2.1" and session.samples_ns for session in sessions)
    assert sessions[0].samples_ns != sessions[1].samples_ns
    assert [name for name in files_in(tmp_path / "work") if name.endswith(".plan")] != []
    profile = driver.run_profile(timing(artifact, "profile", runtime="tensorrt", accelerator="gpu"))
    assert profile.attributed_share > 0.5
    driver.close()
    assert models_only(tmp_path / "work")
    assert transport.runs.count("tools") == 3


def test_a_trtexec_that_fails_is_told_with_its_own_words(tmp_path, trtexec, monkeypatch):
    script = Path(trtexec)
    script.write_text(script.read_text().replace("exec ", "[ $1 = --help ] || exec false\nexec ", 1))
    driver, _ = relayed(tmp_path / "work", unchanged, "tensorrt", tool=trtexec)
    with pytest.raises(SessionFailed) as caught:
        driver.run_session(timing(chain(tmp_path), runtime="tensorrt", accelerator="gpu"))
    assert "building the engine" in str(caught.value)
    driver.close()
    assert models_only(tmp_path / "work")


def test_a_device_without_trtexec_says_where_it_goes(tmp_path):
    driver, _ = relayed(tmp_path / "work", unchanged, "tensorrt", tool="/nowhere/trtexec")
    with pytest.raises(DeviceUnavailable, match="name it with 'tool'"):
        driver.run_session(timing(chain(tmp_path), runtime="tensorrt", accelerator="gpu"))


def test_benchmark_app_is_run_where_the_inventory_names_it(tmp_path):
    program = Path(sys.executable).parent / "benchmark_app"
    if not program.is_file():
        pytest.skip("OpenVINO's benchmark_app is not installed beside this Python")
    driver, transport = relayed(tmp_path / "work", unchanged, "openvino", tool=str(program))
    session = driver.run_session(timing(chain(tmp_path), runtime="openvino"))
    assert session.summary is not None and session.samples_ns == ()
    assert session.summary.min_ms <= session.summary.p50_ms <= session.summary.max_ms
    assert session.actual["-infer_precision"] == "f32" and session.actual["tool"] == "benchmark_app"
    assert transport.runs.count("tools") == 1
    driver.close()
    assert models_only(tmp_path / "work")


def test_a_benchmark_app_that_fails_is_told_in_its_own_words(tmp_path):
    program = tmp_path / "benchmark_app"
    program.write_text("#!/bin/sh\necho '[ ERROR ] no \033[31mluck'\nexit 1\n")
    program.chmod(0o755)
    driver, _ = relayed(tmp_path / "work", unchanged, "openvino", tool=str(program))
    with pytest.raises(SessionFailed, match=r"ended with status 1: no .*luck") as caught:
        driver.run_session(timing(chain(tmp_path), runtime="openvino"))
    assert str(caught.value).isprintable()
    driver.close()
    assert models_only(tmp_path / "work")
