"""The gate's decisions on what to measure, and its refusals, without measuring where that is not needed."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.chain import CHANNELS, SIZE, write_chain
from inas_deploy.gate import load_baseline, open_gate, write_baseline
from inas_deploy.report.markdown import to_markdown
from targets.errors import UsageError
from targets.files import sha256_of
from targets.plan import make_variant
from targets.records import BenchRun, Environment, RunSettings, TensorSpec
from tests.inas_deploy.running import run
from tests.targets.making import ARTIFACT, measurement

HERE = Environment(cpu_model="Made", cores=2, memory_gb=1, os="Linux", python="3.11", versions={})
SETTINGS = RunSettings(runtime="onnxruntime")
INPUTS = (TensorSpec(name="image", shape=(1, CHANNELS, SIZE, SIZE)),)


@pytest.fixture
def models(tmp_path):
    """Three files: the baseline's, one that replaces it, and one that never changes."""
    for name, seed in (("old.onnx", 0), ("new.onnx", 1), ("steady.onnx", 2)):
        write_chain(tmp_path / name, 2, seed=seed)
    return tmp_path


def variant(path: Path, model=None, settings=SETTINGS, device="local", role=""):
    sha256 = sha256_of(path)
    artifact = ARTIFACT.model_copy(
        update={"path": str(path), "sha256": sha256, "source_sha256": sha256, "inputs": INPUTS}
    )
    return make_variant(model or path.name, artifact, settings, device=device, role=role)


def made(one, ms=(10.0,) * 10):
    return measurement(ms).model_copy(update={"variant": one})


def made_run(*measurements, environment=HERE):
    return BenchRun(
        run_id="made", created_at=datetime(2026, 1, 1, tzinfo=UTC), environment=environment, measurements=measurements
    )


def saved(folder, *variants, name="base.json", models_too=True, **more):
    path = folder / name
    result = made_run(*(made(one) for one in variants), **more)
    if models_too:
        write_baseline(path, result)
    else:
        path.write_text(result.model_dump_json())
    return path


def test_a_kept_model_is_measured_again_in_turns(models):
    old = variant(models / "old.onnx", "net")
    path = saved(models, old)
    (models / "old.onnx").unlink()
    new = variant(models / "new.onnx", "net")
    gate = open_gate(path, [new])
    assert [one.artifact.sha256 for one in gate.extra] == [old.artifact.sha256]
    assert Path(gate.extra[0].artifact.path).is_file()
    ratios = [1.2 + i / 1000 for i in range(10)]
    result = gate.judge(made_run(made(new, [10 * r for r in ratios]), made(gate.extra[0])))
    assert result.regressed
    assert result.judged[0].method == "in turns"
    assert "REGRESSION" in to_markdown(made_run(made(new)), gate=result)


def test_a_model_at_its_old_place_needs_no_copy(models):
    path = saved(models, variant(models / "old.onnx", "net"), models_too=False)
    assert len(open_gate(path, [variant(models / "new.onnx", "net")]).extra) == 1


def test_a_copy_that_was_changed_is_not_taken_for_the_baseline(models):
    path = saved(models, variant(models / "old.onnx", "net"))
    (models / "old.onnx").unlink()
    (kept,) = (models / "base.models").iterdir()
    kept.write_bytes((models / "steady.onnx").read_bytes())
    assert open_gate(path, [variant(models / "new.onnx", "net")]).extra == []


def test_without_the_file_a_reference_is_measured(models):
    old, steady = variant(models / "old.onnx", "net"), variant(models / "steady.onnx")
    path = saved(models, old, steady, models_too=False)
    (models / "old.onnx").unlink()
    new = variant(models / "new.onnx", "net")
    gate = open_gate(path, [new])
    assert [one.label.partition(":")[0] for one in gate.extra] == ["reference"]
    assert gate.missing == (steady.label,)
    drifted = gate.judge(made_run(made(new, [15.0] * 10), made(gate.extra[0], [15.0] * 10)))
    assert [(one.method, one.answer) for one in drifted.judged] == [("by reference", "same")]
    both = open_gate(path, [new, variant(models / "steady.onnx")])
    assert both.extra == []  # what is measured anyway is the reference
    slower = both.judge(made_run(made(new, [15.0] * 10), made(variant(models / "steady.onnx"))))
    assert [one.answer for one in slower.judged] == ["slower", "same"]


def test_with_nothing_unchanged_only_a_factor_counts(models):
    path = saved(models, variant(models / "old.onnx", "net"), models_too=False)
    (models / "old.onnx").unlink()
    new = variant(models / "new.onnx", "net")
    gate = open_gate(path, [new])
    assert gate.extra == []
    assert not gate.judge(made_run(made(new, [15.0] * 10))).regressed
    assert gate.judge(made_run(made(new, [25.0] * 10))).regressed
    elsewhere = HERE.model_copy(update={"cpu_model": "Other"})
    with pytest.raises(UsageError, match="another machine: processor Made then, Other now"):
        gate.judge(made_run(made(new), environment=elsewhere))


def test_the_same_file_is_not_measured_twice(models):
    one = variant(models / "old.onnx")
    gate = open_gate(saved(models, one), [one])
    assert gate.extra == []
    assert gate.sessions(1) == 1
    assert [(j.method, j.answer) for j in gate.judge(made_run(made(one))).judged] == [("same file", "same")]


def test_what_has_no_counterpart_is_listed(models):
    old, new, steady = (variant(models / f"{name}.onnx") for name in ("old", "new", "steady"))
    gate = open_gate(saved(models, old, steady), [new, steady])
    assert gate.new == (new.label,)
    assert gate.missing == (old.label,)
    result = gate.judge(made_run(made(new), made(steady)))
    page = to_markdown(made_run(made(new)), gate=result)
    assert "Not in the baseline, so not judged: new.onnx" in page
    assert "In the baseline and not measured: old.onnx" in page


def test_a_renamed_model_is_found_where_it_is_the_only_one(models):
    gate = open_gate(saved(models, variant(models / "old.onnx")), [variant(models / "new.onnx")])
    assert len(gate.matches) == 1


def test_several_models_share_one_promise(models):
    olds = [variant(models / "old.onnx", name) for name in "abcd"]
    gate = open_gate(saved(models, *olds), [variant(models / "new.onnx", name) for name in "abcd"])
    assert gate.alpha == pytest.approx(0.01 / 4)
    assert gate.sessions(None) >= 10
    with pytest.raises(UsageError, match="8 sessions cannot show 4 variants to be slower"):
        gate.sessions(8)


def test_a_gated_run_is_a_baseline_without_what_only_the_gate_measured(models):
    path = saved(models, variant(models / "old.onnx", "net"))
    gate = open_gate(path, [variant(models / "new.onnx", "net")])
    again = saved(models, gate.matches[0].new, *gate.extra, name="next.json")
    assert [m.variant.label for m in load_baseline(again).measurements] == [gate.matches[0].new.label]
    assert len(list((models / "next.models").iterdir())) == 1


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"device": "nova6"}, "holds nothing that this run measures"),
        ({"settings": RunSettings(runtime="openvino")}, "holds nothing that this run measures"),
        ({"settings": RunSettings(runtime="onnxruntime", threads=2)}, "unlike: threads 2 against 1"),
    ],
)
def test_unlike_baselines_are_refused(models, changed, told):
    path = saved(models, variant(models / "old.onnx", "net", **changed))
    with pytest.raises(UsageError, match=told):
        open_gate(path, [variant(models / "new.onnx", "net")])


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff\xfe", b'{"gate": {}, "run": {}}', b"[" * 3000, b'{"record_version": 2}']
)
def test_a_broken_baseline_is_one_line(models, content):
    path = models / "base.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not a bench result") as caught:
        load_baseline(path)
    assert str(caught.value).count("\n") == 0


def test_a_cut_baseline_is_one_line_on_the_command_line(models):
    path = saved(models, variant(models / "old.onnx"))
    path.write_bytes(path.read_bytes()[:-30])
    done = run("bench", "--model", "old.onnx", "--baseline", path, cwd=models)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "is not a bench result" in done.stderr


def test_json_of_a_gated_run(models):
    path = saved(models, variant(models / "old.onnx"))
    words = [
        "bench",
        "--model",
        "old.onnx",
        "--sessions",
        "2",
        "--seconds",
        "0.05",
        "--no-per-op",
        "--json",
        "--baseline",
    ]
    done = run(*words, path, cwd=models)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["gate"]["judged"][0]["method"] == "same file"
    assert len(found["run"]["measurements"]) == 1


def test_compare_takes_one_model_with_a_baseline_and_two_without(models):
    path = saved(models, variant(models / "old.onnx"), models_too=False)
    both = run("compare", "old.onnx", "new.onnx", "--baseline", path, cwd=models)
    assert (both.returncode, "Give two models" in both.stderr) == (2, True)
    (models / "old.onnx").unlink()
    gone = run("compare", "new.onnx", "--baseline", path, cwd=models)
    assert (gone.returncode, "is not to be had" in gone.stderr) == (2, True)
