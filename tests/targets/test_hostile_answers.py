"""What a strange or hostile device may tell: it ends as one line, and nothing of it can act on who reads the record."""

import base64
import copy
import json
import os
import re
import subprocess
import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from inas_deploy.report.device import temperature_trace
from targets.drivers import agent_answer, agent_benchmark_app, agent_records
from targets.drivers.agent_answer import About, AgentAnswer, AgentFailure, TimedResult, ToolsResult, Unpacker, checked
from targets.drivers.agent_answer import raised as raised_there
from targets.errors import KitError, SessionFailed, UnknownLayout
from targets.jetson import parse_tegrastats
from targets.jobs import Job
from targets.phone.about import about_phone
from targets.phone.flags import pace_of
from targets.phone.outcome import figures_of
from targets.phone.remote_run import RemoteRuns, ToolAnswer
from targets.phone.state import parse_state
from targets.profiles.benchmark_model_text import nodes_observed, parse_op_tables
from targets.records import DeviceReading, RunSettings, SessionRecord
from targets.tensorrt.session import session_figures, texts_of
from targets.transports.base import Completed
from targets.verdict import judge
from tests.targets import trtexec_files
from tests.targets.making import ARTIFACT, measurement
from tests.targets.phone_output import summary
from tests.targets.test_jetson import NANO, SHOWN

FIXTURES = Path(__file__).parent / "fixtures"
EVIL = "\x1b[2J\u202e\ud800"
PLAIN = RunSettings(runtime="onnxruntime")
SMI = "54, 1404, 5705, 98.31, P2, Enabled, 0x0"
DEVFREQ = "/sys/class/devfreq/{}/cur_freq"
RAILS = "/sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/"
READING = {
    "at": "2026-01-01T00:00:00Z",
    "phase": "before",
    "files": {
        "/sys/class/thermal/thermal_zone0/type": "CPU-therm",
        "/sys/class/thermal/thermal_zone0/temp": "41500",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1479000",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
        "/sys/class/devfreq/57000000.gpu/cur_freq": "921600000",
        DEVFREQ.format("other"): "bad",
        RAILS + "rail_name_0": "POM_5V_IN",
        RAILS + "in_power0_input": "2480",
        RAILS + "rail_name_1": "POM_5V_GPU",
        RAILS + "in_power1_input": "bad",
    },
    "tools": {"nvpmodel": "NV Power Mode: MAXN\n0\n", "jetson_clocks": SHOWN, "nvidia-smi": SMI},
    "sampled": {"tool": "tegrastats", "interval_ms": 250, "took_s": 1.0, "lines": [NANO, NANO]},
}
TIMED = {
    "files": [],
    "readings": [READING],
    "versions": {"onnxruntime": "1.2.3"},
    "load_ms": 1.0,
    "first_inference_ms": 1.0,
    "warmup_ns": [],
    "steady": True,
    "samples_ns": [5, 6, 7],
    "host": {},
    "cpu_per_wall": 0.2,
    "peak_rss_mb": 1.0,
    "actual": {"provider": "CPU"},
    "graph": [{"layer_type": "Convolution", "precision": "f32"}],
}
ABOUT = {
    "facts": {"machine": "board", "os": "Linux"},
    "versions": {"openvino": "2026.4.1"},
    "tools": {"trtexec": "/bin/trtexec"},
    "texts": {"nvidia-smi": "NVIDIA X, 500.1, 8.6"},
}


def job_of(settings=PLAIN):
    return Job(task="time", artifact=ARTIFACT, settings=settings, seconds=1.0)


def packed(text):
    return base64.b64encode(zlib.compress(text.encode("utf-8", "surrogatepass"), 9)).decode()


def texts_in(value):
    """Every text and every key of a dumped record."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_in(inner)
    elif isinstance(value, str):
        yield value


def damaged(value):
    """Copies of an answer, each with one of its texts or keys made hostile: all of it, its start, middle or end."""
    if isinstance(value, str):
        middle = len(value) // 2
        yield from (EVIL, EVIL + value, value[:middle] + EVIL + value[middle:], value + EVIL)
    elif isinstance(value, dict):
        for key, inner in value.items():
            rest = {other: kept for other, kept in value.items() if other != key}
            yield {**rest, key.replace("other", EVIL) if "other" in key else key + EVIL: inner}
            yield from ({**value, key: changed} for changed in damaged(inner))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from ([*value[:place], changed, *value[place + 1 :]] for changed in damaged(inner))


def harmless(make):
    """Whether a record came of it; what is told either way must print as it stands."""
    try:
        record = make()
    except KitError as error:
        assert str(error).isprintable(), ascii(str(error))
        return False
    assert json.loads(record.model_dump_json())  # a lone surrogate cannot be saved
    assert [text for text in texts_in(record.model_dump(mode="json")) if not text.isprintable()] == []
    return True


def timed(result, about=ABOUT, settings=PLAIN):
    found = checked(TimedResult, result, where="board")
    told = checked(About, about, where="board")
    actual = agent_records.openvino_actual(found)
    return agent_records.timed_record(job_of(settings), found, told, actual, 10.0)


def test_no_text_of_a_timed_session_acts_on_a_terminal():
    assert harmless(lambda: timed(TIMED))
    kept = [harmless(lambda result=result: timed(result)) for result in damaged(TIMED)]
    kept += [harmless(lambda about=about: timed(TIMED, about)) for about in damaged(ABOUT)]
    assert sum(kept) > 100  # most of it is kept as unknown text


@pytest.fixture(scope="module")
def trtexec_texts():
    from benchmarks.chain import write_chain

    def make(folder):
        write_chain(folder / "chain.onnx", 2)
        return trtexec_files.texts("8.2.1", folder / "chain.onnx")

    return make


def tools_result(log, files):
    step = {"returncode": 0, "log": packed(log), "files": {name: packed(text) for name, text in files.items()}}
    return {"files": [], "readings": [READING], "steps": [{"skipped": True}, step], "peak_rss_mb": 1.0}


def tensorrt(log, files):
    settings = RunSettings(runtime="tensorrt", accelerator="gpu")
    found = checked(ToolsResult, tools_result(log, files), where="board")
    outcomes = agent_records.tool_outcomes(found, [{}, {"returns": dict(files)}], where="board")
    figures = session_figures(texts_of(outcomes), job_of(settings))
    about = checked(About, ABOUT, where="board")
    return agent_records.tensorrt_record(job_of(settings), found, about, figures, 10.0)


def words_damaged(text):
    for found in re.finditer(r"\S+", text):
        for place in (found.start(), found.end()):
            yield text[:place] + EVIL + text[place:]


def test_no_text_of_trtexec_acts_on_a_terminal(trtexec_texts, tmp_path):
    texts = trtexec_texts(tmp_path)
    log, files = texts["run_log"], {"times": texts["times"]}
    assert harmless(lambda: tensorrt(log, files))
    assert sum(harmless(lambda text=text: tensorrt(text, files)) for text in words_damaged(log)) > 0


def test_no_text_of_benchmark_app_acts_on_a_terminal():
    report = json.loads((FIXTURES / "benchmark_app" / "openvino-2026.4.1-report.json").read_text())
    about = checked(About, ABOUT, where="board")
    job = job_of(RunSettings(runtime="openvino"))
    result = checked(ToolsResult, tools_result("", {}), where="board")

    def made(told):
        outcome = {"returncode": 0, "log": "", "files": {"report": json.dumps(told)}}
        return lambda: agent_benchmark_app.record(job, result, outcome, about, 1.0)

    assert harmless(made(report))
    assert sum(harmless(made(told)) for told in damaged(report)) > 0


STATE = """@@date
1767225600
@@user
2000
@@battery
  AC powered: false
  level: 85
  scale: 100
  temperature: 300
@@screen
mWakefulness=Asleep
@@thermal
Thermal Status: 0
@@zones
36000 thermal_zone0 cpu-0
35000 thermal_zone1 cpu-0
@@cores
cpu0 cur=2000000 limit=2000000 top=2000000 low=300000 gov=schedutil
cpu1 cur=1000000 limit=2000000 top=2000000 low=300000 gov=schedutil
@@gpu
585000000
@@end
"""


def test_no_text_of_a_phones_state_acts_on_a_terminal():
    assert harmless(lambda: parse_state(STATE, "before"))
    assert sum(harmless(lambda text=text: parse_state(text, "before")) for text in words_damaged(STATE)) > 50
    assert parse_state(STATE.replace("cpu1 ", "\x1b[2J "), "before").governors == {"cpu0": "schedutil"}
    assert parse_state(STATE.replace("cpu1 ", "A" * 10_000 + " "), "before").governors == {"cpu0": "schedutil"}


def test_no_text_of_benchmark_model_acts_on_a_terminal():
    settings, text = RunSettings(runtime="tflite"), summary(percentiles=True)
    flags = ["--graph=/data/local/tmp/net.tflite", "--num_threads=1"]

    def made(told):
        def make():
            answer = ToolAnswer(0, told, "", "")
            figures = figures_of(answer, settings, flags, pace_of(1.0, 10), delegate="xnnpack", label="session 0")
            now = datetime.now(UTC)
            base = {"session_id": "s", "index": 0, "started_at": now, "finished_at": now, "settings": settings}
            found = {"summary": figures.summary.samples(), "actual": figures.actual, "versions": {}}
            return SessionRecord.model_validate({**base, **found})

        return make

    assert harmless(made(text))
    assert sum(harmless(made(told)) for told in words_damaged(text)) > 0
    told = "".join(f"{name}={EVIL}\n" for name in ("ro.product.model", "ro.build.id", "kernel"))
    said = about_phone(SimpleNamespace(run=lambda *_, **__: Completed(0, told.encode("utf-8", "surrogatepass"), b"")))
    assert said and all(text.isprintable() for text in said.values())


def test_a_core_without_a_limit_and_an_answer_without_its_parts():
    assert parse_state("@@cores\ncpu0 cur=1 low=5 gov=schedutil\n@@end\n", "before").clocks_locked is False
    run_id = "a" * 32
    for left_out in ("out", "err", "end"):
        parts = "".join(f"\n@@{run_id} {part}\n0\n" for part in ("code", "out", "err", "end") if part != left_out)
        transport = SimpleNamespace(work_folder="/w", run=lambda *_, told=parts, **__: Completed(0, told.encode(), b""))
        with pytest.raises(SessionFailed, match="not whole"):
            RemoteRuns(transport).run(run_id, ["true"], limit_s=1)


def test_more_nodes_than_there_are_numbers_for():
    text = (FIXTURES / "benchmark_model" / "tensorflow-2.14.1-text.txt").read_text()
    with pytest.raises(UnknownLayout, match="nodes"):
        parse_op_tables(re.sub(r"\d+ nodes observed", "9" * 5000 + " nodes observed", text))
    assert nodes_observed(["123 nodes observed"]) == 123


@pytest.mark.parametrize("took_s", [1e300, 1e12, 86_401, -1])
def test_a_session_of_years_is_refused(took_s):
    told = {"protocol": 1, "session_id": "x", "task": "time", "took_s": took_s, "result": {}}
    with pytest.raises(SessionFailed, match="took_s"):
        checked(AgentAnswer, told, where="board")


def test_times_of_readings_can_be_compared():
    naive = {**READING, "at": "2026-01-01T00:00:00"}
    with pytest.raises(SessionFailed, match=r"readings\.0\.at"):
        checked(TimedResult, {**TIMED, "readings": [naive]}, where="board")
    with pytest.raises(ValidationError, match="at"):
        DeviceReading(at=datetime(2026, 1, 1), phase="before")
    far = ["0001-01-01T00:00:00+23:00", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59-23:00"]
    readings = [DeviceReading(at=at, phase="during", temperatures_c={"cpu": 40.0}) for at in far]
    assert temperature_trace(SimpleNamespace(sessions=[SimpleNamespace(readings=readings)]), "k") is not None


def test_an_unknown_kind_of_error_is_a_failed_session():
    for name in ("__dict__", "KitError", "nothing", "\ud800"):
        failure = AgentFailure(what=EVIL, kind="tool_error", fix=EVIL, error=name)
        assert isinstance(raised_there(failure), KitError) and str(raised_there(failure)).isprintable()


def test_no_more_is_opened_than_was_asked_for(monkeypatch):
    result = checked(ToolsResult, tools_result("log", {"times": "[]"}), where="board")
    asked = [{}, {"returns": {"times": "/x"}}]
    outcomes = agent_records.tool_outcomes(result, asked, where="board")
    assert outcomes[1]["log"] == "log" and outcomes[1]["files"] == {"times": "[]"}
    for fewer in (asked[1:], [{}, {"returns": {"layers": "/x"}}], [{}, {}]):
        with pytest.raises(SessionFailed, match="not asked for"):
            agent_records.tool_outcomes(result, fewer, where="board")
    monkeypatch.setattr(agent_answer, "MAX_UNPACKED_BYTES", 100)
    assert Unpacker("board").text(packed("x" * 100)) == "x" * 100
    with pytest.raises(SessionFailed, match="too long"):
        Unpacker("board").text(packed("x" * 101))
    unpacker = Unpacker("board")
    assert unpacker.text(packed("x" * 60)) and unpacker.text(packed("x" * 40)) and unpacker.text(packed("")) == ""
    with pytest.raises(SessionFailed, match="too long"):
        unpacker.text(packed("x"))


def test_a_small_answer_takes_no_gibibytes():
    script = """
import base64, resource, zlib
from targets.drivers import agent_records
from targets.drivers.agent_answer import ToolsResult
from targets.errors import SessionFailed
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bomb = base64.b64encode(zlib.compress(b"a" * 2**26)).decode()
files = {name: bomb for name in "abcdefghijklmno"}
result = ToolsResult(files=(), steps=({"log": bomb, "files": files},), peak_rss_mb=1)
try:
    agent_records.tool_outcomes(result, [{"returns": files}], where="board")
except SessionFailed as error:
    print("refused", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    word, mib = done.stdout.split()
    assert word == "refused" and int(mib) < 450, done.stdout


def test_readings_and_texts_are_counted():
    for key, value in (
        ("readings", [READING] * 65),
        ("actual", {str(number): "" for number in range(101)}),
        ("readings", [{**READING, "sampled": {**READING["sampled"], "lines": ["x" * 2001]}}]),
    ):
        with pytest.raises(SessionFailed, match=key):
            checked(TimedResult, {**TIMED, key: value}, where="board")


def test_a_rails_name_is_short():
    with_rail = NANO + " VDD_" + "A" * 1000 + " 5mW/5mW"
    assert max(map(len, parse_tegrastats(with_rail).power_mw)) < 50


def test_a_core_that_waits_for_a_gpu_is_no_contention(trtexec_texts, tmp_path):
    texts = trtexec_texts(tmp_path)
    gpu = RunSettings(runtime="onnxruntime", accelerator="gpu")
    waiting = [timed(TIMED, settings=gpu), tensorrt(texts["run_log"], {"times": texts["times"]})]
    assert [session.cpu_per_wall for session in waiting] == [None, None]
    assert timed(copy.deepcopy(TIMED)).cpu_per_wall == 0.2
    stats = measurement([10.0] * 3).stats
    assert not any("had a core for only" in reason for reason in judge(waiting[:1], stats).reasons)
    assert any("had a core for only 20%" in reason for reason in judge([timed(TIMED)], stats).reasons)
