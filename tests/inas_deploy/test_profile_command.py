import json
import random
import signal
from datetime import UTC, datetime, timedelta

import pytest

from inas_deploy.cli import main
from inas_deploy.latency_fit import PREDICTOR, TABLE, fit_run, write_run
from search.latency.conditions import Conditions
from search.latency.observations import Observation, ObservationsHeader
from search.latency.pace import reference_arch
from search.latency.predictor import LatencyPredictor
from search.latency.profiling import OBSERVATIONS
from search.latency.table import LatencyTable
from search.spaces.registry import find_space
from targets.records import RunSettings

pytest.importorskip("torch")
pytest.importorskip("safetensors")

SIZE = (64, 64)
SPACE = find_space("inas-tiny")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def run_cli(words):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        main(words)
    signal.signal(signal.SIGTERM, before)
    return stop.value.code


def observed(arch, role, number, factor=1.0, reference_us=None):
    blocks = {spec.name: factor * (30 + spec.macs / 1000) for spec in arch.blocks(SIZE)}
    return Observation(
        role=role, arch=json.loads(arch.to_json()), at=BEGIN + timedelta(seconds=number), device_s=3.0,
        total_us=1.1 * sum(blocks.values()), blocks_us=blocks if role == "carrier" else {},
        reference_us=None if reference_us is None else factor * reference_us,
    )  # fmt: skip


def test_a_run_becomes_a_table_a_predictor_and_a_report(tmp_path):
    draw = random.Random(0)
    settings = RunSettings(runtime="onnxruntime")
    conditions = Conditions(device="local", settings=settings, space=SPACE.id, input_size=SIZE)
    header = ObservationsHeader(conditions=conditions, started_at=BEGIN)
    roles = ["carrier"] * 9 + ["calibration"] * 4 + ["interval"] * 5
    archs = [SPACE.sample(draw) for _ in range(9)] * 2
    found = [observed(arch, role, n) for n, (arch, role) in enumerate(zip(archs, roles, strict=True))]
    fitted = fit_run(header, found, epochs=20)
    summary = write_run(tmp_path, header, found, fitted)
    table = LatencyTable.read(tmp_path / TABLE)
    predictor = LatencyPredictor.load(tmp_path / PREDICTOR)
    assert summary.blocks == len(table.rows) > 200
    assert summary.calibrated_with == 4
    assert summary.networks == 5
    assert summary.network_mape < 0.1
    truth = [one.total_us / 1e3 for one in found[-5:]]
    assert predictor.predict(archs[-5:]).latency_ms == pytest.approx(truth, rel=0.15)
    assert set(summary.files) <= {path.name for path in tmp_path.iterdir()}


def test_a_run_beside_other_load_is_told_at_the_references_usual_speed():
    draw = random.Random(1)
    conditions = Conditions(
        device="local", settings=RunSettings(runtime="onnxruntime"), space=SPACE.id, input_size=SIZE
    )
    header = ObservationsHeader(conditions=conditions, started_at=BEGIN, seed=3)
    archs = [SPACE.sample(draw) for _ in range(5)]
    runs = [*((arch, "carrier") for arch in archs), *((arch, "calibration") for arch in archs[:4])]
    factors = [1.0, 1.3, 0.8, 1.1, 1.0, 0.9, 1.2, 1.0, 0.7]
    steady = [observed(arch, role, n) for n, (arch, role) in enumerate(runs)]
    loaded = [observed(a, r, n, f, 2000.0) for n, ((a, r), f) in enumerate(zip(runs, factors, strict=True))]
    plain, fitted = (fit_run(header, found, epochs=1) for found in (steady, loaded))
    assert plain.predictor.network.reference is None
    reference = fitted.predictor.network.reference
    assert reference.latency_ms == pytest.approx(2.0)
    assert reference.architecture == reference_arch(SPACE, 3)
    assert [ms for _, ms in fitted.calibration] == pytest.approx([ms for _, ms in plain.calibration])
    for key, row in plain.table.rows.items():
        assert fitted.table.rows[key].p50_us == pytest.approx(row.p50_us)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--shape", "224"], "is no size"),
        (["--shape", "100x100"], "multiples of 32"),
        (["--space", "inass"], "no search space"),
        (["--target", "nobody"], "nobody"),
        (["--precision", "int8"], "cannot compute in int8"),
        (["--runtime", "torch"], "no runtime"),
    ],
)
def test_what_cannot_be_profiled_is_said_in_one_line(tmp_path, monkeypatch, capsys, words, what):
    monkeypatch.chdir(tmp_path)
    assert run_cli(["profile", *words]) == 2
    told = capsys.readouterr().err
    assert what in " ".join(told.split())
    assert "Traceback" not in told


def test_a_folder_with_a_run_is_not_written_into_by_mistake(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / OBSERVATIONS).write_text("{}\n")
    assert run_cli(["profile", "--out", "run"]) == 2
    assert "--resume" in capsys.readouterr().err
