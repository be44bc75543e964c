"""Simulated devices: computed figures that behave like measured ones, say what they are, and stay among themselves."""

import itertools
import math
import uuid
from pathlib import Path

import numpy as np
import pytest

from inas_deploy.models import artifact_for, resolve_model, shipped_model
from targets.device_profiles import PROFILES
from targets.errors import FailureKind, InvalidModel, KitError, SessionFailed, UsageError
from targets.inventory import Device, load_inventory
from targets.jobs import Job
from targets.measure import measure
from targets.opening import Target, open_target
from targets.plan import BenchPlan, make_variant
from targets.records import Artifact, BenchRun, Measurement, Precision, RunSettings
from targets.simulated.faults import Fault, FaultPlan
from targets.simulated.transport import SimulatedTransport
from targets.simulated.workload import workload_of
from targets.stand_ins import check_session, refuse_mixed
from targets.statistics import latency_stats, session_headline_ms
from targets.store import ResultStore
from targets.tflite_files import tflite_artifact
from targets.verdict import judge

TINY = Path(__file__).parent / "fixtures" / "tflite" / "tiny.tflite"
ARTIFACT = artifact_for(resolve_model("csnet-x1"), ("onnx",))


def simulated(name="sim", model="intel-core"):
    return Device(name=name, transport="simulated", model=model)


def job(model="intel-core", *, index=0, artifact=ARTIFACT, **changes):
    profile = PROFILES[model]
    fields = {"runtime": profile.runtime, "precision": profile.precision, "accelerator": profile.accelerator}
    task = changes.pop("task", "time")
    seconds = changes.pop("seconds", 1.0)
    return Job(
        task=task,
        artifact=artifact,
        settings=RunSettings(**(fields | changes)),
        index=index,
        seconds=seconds,
        min_runs=5,
    )


def test_a_simulated_device_is_read_while_it_runs():
    with open_target(simulated(model="galaxy-s21")) as target:
        session = target.run_session(job("galaxy-s21", seconds=60.0, mode="sustained"))
    phases = [reading.phase for reading in session.readings]
    assert phases[0] == "before" and phases[-1] == "after"
    assert set(phases[1:-1]) == {"during"} and 10 < len(phases) <= 62
    moments = [reading.at for reading in session.readings]
    assert moments == sorted(moments)
    warmth = [reading.temperatures_c["simulated"] for reading in session.readings]
    assert warmth == sorted(warmth)


def test_a_reference_takes_no_turns_on_a_simulated_device():
    with open_target(simulated()) as target:
        asked = [job(task=task).model_copy(update={"reference": ARTIFACT}) for task in ("time", "profile")]
        assert target.run_session(asked[0]).reference_ns == ()
        assert target.run_profile(asked[1]).reference_us is None


@pytest.mark.parametrize("model", sorted(PROFILES))
def test_every_profile_gives_sessions_and_a_profile_that_agree(model):
    with open_target(simulated(model=model)) as target:
        sessions = [target.run_session(job(model, index=index)) for index in range(3)]
        profile = target.run_profile(job(model, task="profile"))
        versions = target.driver(PROFILES[model].runtime).versions()
    stats = latency_stats(sessions)
    assert stats.p50_ms == pytest.approx(profile.unprofiled_us / 1e3, rel=0.05)
    assert sum(op.latency_us for op in profile.ops) == pytest.approx(profile.unprofiled_us)
    assert profile.attributed_share > 0.95
    assert all("simulated" in where for s in sessions for where in (s.versions, s.actual, s.device))
    assert "simulated" in versions
    for before, after in itertools.pairwise(sessions):
        assert before.started_at < before.finished_at <= after.started_at
        assert before.samples_ns != after.samples_ns


def test_the_same_session_is_drawn_again_and_another_device_draws_another():
    def first(name):
        with open_target(simulated(name)) as target:
            return target.run_session(job()).samples_ns

    assert first("one") == first("one")
    assert first("one") != first("two")


def test_noise_ramp_and_heat_are_there():
    with open_target(simulated(model="nova6-se")) as target:
        short = [target.run_session(job("nova6-se", index=index)) for index in range(8)]
        long = target.run_session(job("nova6-se", seconds=120.0))
    headlines = [session_headline_ms(session, "p10") for session in short]
    assert 0.001 < float(np.std(np.log(headlines))) < 0.05
    warm = short[0].warmup_ns
    assert warm[0] > 1.5 * warm[-1]
    tenth = len(long.samples_ns) // 10
    cool, hot = (math.fsum(part) / tenth for part in (long.samples_ns[:tenth], long.samples_ns[-tenth:]))
    assert hot > 1.1 * cool
    assert long.readings[-1].temperatures_c["simulated"] > long.readings[0].temperatures_c["simulated"] + 20
    assert judge([long], latency_stats([long]), planned=1).status == "weak"


def test_the_roofline_knows_precision_threads_and_size():
    def headline(**changes):
        model = changes.pop("model", "galaxy-s21")
        with open_target(simulated(model=model)) as target:
            return session_headline_ms(target.run_session(job(model, **changes)), "p10")

    assert headline(precision=Precision.FP16) < headline()
    assert headline(threads=4) < headline()
    assert headline(threads=4) == pytest.approx(headline(threads=64), rel=0.1)  # it has four fast cores
    assert headline(model="jetson-nano", precision=Precision.FP32) > headline(model="titan-xp")


def test_what_the_device_cannot_do_is_refused():
    with open_target(simulated(model="titan-xp")) as target:
        with pytest.raises(UsageError, match=r"does not compute in fp16.*fp32, int8"):
            target.run_session(job("titan-xp", precision=Precision.FP16))
        with pytest.raises(UsageError, match=r"has no npu.*gpu"):
            target.run_session(job("titan-xp", accelerator="npu"))


def test_multiply_adds_of_a_file_are_those_of_the_network():
    # The convolutions of csnet-x1 at 224x224, as the network's own reference count has them.
    assert sum(work.macs for work in workload_of(ARTIFACT).works) == pytest.approx(432.8e6, rel=1e-4)
    tiny = workload_of(tflite_artifact(TINY))
    assert sum(work.macs for work in tiny.works) > 0
    assert tiny.unknown == 0


def test_a_file_that_is_cut_off_is_one_line(tmp_path):
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(shipped_model().read_bytes()[:5000])
    artifact = ARTIFACT.model_copy(update={"path": str(cut)})
    with open_target(simulated()) as target, pytest.raises(InvalidModel, match=r"cut\.onnx cannot be read"):
        target.run_session(job(artifact=artifact))


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.DISCONNECT, FailureKind.LOST_DEVICE),
        (Fault.LOST_ANSWER, FailureKind.LOST_DEVICE),
        (Fault.SLOW_SHELL, FailureKind.TIMEOUT),
    ],
)
def test_one_fault_is_survived_and_two_are_named(fault, kind):
    wanted = job()
    with open_target(simulated()) as target:
        undisturbed = target.run_session(wanted)
    for faults in ({0: fault}, {1: fault}):
        with Target(simulated(), SimulatedTransport(simulated(), faults=FaultPlan(at=faults))) as target:
            assert target.run_session(wanted).samples_ns == undisturbed.samples_ns
    with (
        Target(simulated(), SimulatedTransport(simulated(), faults=FaultPlan(at={0: fault, 1: fault}))) as target,
        pytest.raises(SessionFailed) as caught,
    ):
        target.run_session(wanted)
    assert caught.value.kind is kind


def test_half_an_answer_is_no_number():
    transport = SimulatedTransport(simulated(), faults=FaultPlan(at={0: Fault.TRUNCATED}))
    with Target(simulated(), transport) as target, pytest.raises(SessionFailed, match="cannot be read") as caught:
        target.run_session(job())
    assert caught.value.kind is FailureKind.TOOL_ERROR


def test_faults_by_chance_never_make_a_second_session():
    plan = FaultPlan(chance={Fault.DISCONNECT: 0.2, Fault.LOST_ANSWER: 0.2, Fault.SLOW_SHELL: 0.1}, seed=4)
    kinds, ids = set(), []
    with Target(simulated(), SimulatedTransport(simulated(), faults=plan)) as target:
        for index in range(60):
            try:
                ids.append(target.run_session(job(index=index)).session_id)
            except SessionFailed as error:
                kinds.add(error.kind)
    assert len(set(ids)) == len(ids) > 20
    assert kinds == {FailureKind.LOST_DEVICE, FailureKind.TIMEOUT}
    with pytest.raises(UsageError, match="not probabilities"):
        FaultPlan(chance={Fault.DISCONNECT: 1.5})


def test_files_on_the_device_are_kept_and_removed(tmp_path):
    local = tmp_path / "a; rm -rf x"
    local.write_bytes(b"model")
    with SimulatedTransport(simulated()) as transport:
        place = f"{transport.work_folder}/models/m.onnx"
        assert transport.checksum(place) is None
        transport.push(local, place)
        transport.pull(place, tmp_path / "back")
        transport.remove(f"{transport.work_folder}/models")
        assert transport.checksum(place) is None
        with pytest.raises(UsageError, match="is not under"):
            transport.remove("/etc/passwd")
        with pytest.raises(SessionFailed, match="no such file"):
            transport.pull(place, tmp_path / "back")
        with pytest.raises(SessionFailed, match="has no programs"):
            transport.run(["sh"], timeout_s=1)
    assert (tmp_path / "back").read_bytes() == b"model"


def variant(device):
    return make_variant(
        "csnet-x1", ARTIFACT, RunSettings(runtime="openvino"), device=device.name, stand_in=device.label
    )


def one_session(device):
    with open_target(device) as target:
        return target.run_session(job())


def test_a_run_does_not_mix_computed_and_measured(tmp_path):
    fake, real = variant(simulated()), variant(Device(name="real"))
    with ResultStore(str(tmp_path / "r.db")) as store:
        plan = BenchPlan(variants=(fake, real), sessions=1, seconds=0.1)
        with pytest.raises(UsageError, match="do not go into one table"):
            measure(plan, store, {})
    refuse_mixed([fake, fake])
    refuse_mixed([real, variant(Device(name="v", stand_in="virtual"))])
    refuse_mixed([])


def test_a_simulated_session_never_becomes_a_measured_one(tmp_path):
    session = one_session(simulated())
    mislabelled = variant(simulated()).model_copy(update={"stand_in": None})
    with pytest.raises(UsageError, match=r"csnet-x1 .* is simulated, and the variant says that it is measured"):
        check_session(mislabelled, session)
    with pytest.raises(UsageError, match="is measured, and the variant says that it is simulated"):
        check_session(variant(simulated()), session.model_copy(update={"versions": {"openvino": "2026"}}))
    with ResultStore(str(tmp_path / "r.db")) as store:
        plan = BenchPlan(variants=(mislabelled,), sessions=1, seconds=0.1, per_op=False)
        with open_target(simulated()) as target, pytest.raises(UsageError, match="Correct 'stand_in'"):
            measure(plan, store, {"sim": target})
        assert store.runs() == []


def test_records_that_mix_them_are_refused_as_files_too(tmp_path):
    with ResultStore(str(tmp_path / "r.db")) as store, open_target(simulated()) as target:
        run = measure(BenchPlan(variants=(variant(simulated()),), sessions=3, seconds=0.1), store, {"sim": target})
    assert BenchRun.model_validate_json(run.model_dump_json()) == run
    plain = run.measurements[0].model_dump(mode="json")
    plain["variant"]["stand_in"] = None
    with pytest.raises(ValueError, match="belong to a simulated variant"):
        Measurement.model_validate(plain)
    honest = run.measurements[0]
    sessions = [s.model_copy(update={"versions": {}, "session_id": uuid.uuid4().hex}) for s in honest.sessions]
    measured = honest.model_copy(
        update={"sessions": tuple(sessions), "variant": honest.variant.model_copy(update={"stand_in": None})}
    )
    with pytest.raises(ValueError, match="do not go into one run"):
        BenchRun.model_validate(run.model_copy(update={"measurements": (honest, measured)}).model_dump())


def test_a_simulated_key_is_not_the_real_devices_key():
    real = Device(name="phone", transport="adb", serial="X")
    assert variant(real).key != variant(simulated("phone")).key


def test_the_inventory_cannot_call_a_simulation_real(tmp_path):
    path = tmp_path / "devices.toml"
    path.write_text('[devices.s]\ntransport = "simulated"\nmodel = "nova6-se"\nstand_in = "virtual"\n')
    with pytest.raises(KitError, match="'stand_in' of a device with transport 'simulated' is 'simulated'"):
        load_inventory(path)


def test_operations_without_shapes_are_told(tmp_path):
    # A shape that only the data tells: the operations behind it cost little and are counted.
    import onnx

    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("NonZero", ["x"], ["found"], name="found"),
            onnx.helper.make_node("Cast", ["found"], ["y"], name="cast", to=1),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [2, 3])],
        [onnx.helper.make_tensor_value_info("y", 1, None)],
    )
    path = tmp_path / "open.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    artifact = Artifact(path=str(path), format="onnx", sha256="0" * 64, source_sha256="0" * 64, inputs=())
    with open_target(simulated()) as target:
        profile = target.run_profile(job(artifact=artifact, task="profile"))
    assert any("does not tell the shapes of 2 operations" in note for note in profile.notes)
