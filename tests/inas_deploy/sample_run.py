"""Runs for the report tests: a small ONNX model that is really timed, and profiled by ONNX Runtime itself.

What is not real is said in the record: sessions share one process, which the verdict names, and ``layout_sample`` is
labelled as a stand-in.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import time
import uuid
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from targets.records import (
    Artifact,
    BenchRun,
    Comparison,
    Environment,
    HostSnapshot,
    Measurement,
    OpProfile,
    OpTime,
    RunSettings,
    SessionRecord,
    TensorSpec,
    Variant,
    Verdict,
)
from targets.statistics import latency_stats
from targets.verdict import judge

SIZE = 64
BLOCKS = 3


def tiny_model(channels: int = 8) -> bytes:
    """Image to map: 3x64x64 -> conv, PReLU blocks -> 1x64x64 in 0..1, with module-like node names."""
    generator = np.random.default_rng(0)
    nodes, weights, value, inside = [], [], "image", 3
    for block in range(BLOCKS):
        kernel = generator.standard_normal((channels, inside, 3, 3), dtype=np.float32) / (3 * inside**0.5)
        weights += [numpy_helper.from_array(kernel, f"w{block}")]
        weights += [numpy_helper.from_array(np.full((channels, 1, 1), 0.25, np.float32), f"s{block}")]
        name = f"stage{block}"
        nodes.append(helper.make_node("Conv", [value, f"w{block}"], [f"c{block}"], f"/{name}/conv/Conv", pads=[1] * 4))
        nodes.append(helper.make_node("PRelu", [f"c{block}", f"s{block}"], [f"p{block}"], f"/{name}/act/PRelu"))
        value, inside = f"p{block}", channels
    weights += [numpy_helper.from_array(generator.standard_normal((1, inside, 1, 1), dtype=np.float32), "head")]
    nodes.append(helper.make_node("Conv", [value, "head"], ["logit"], "/head/conv/Conv"))
    nodes.append(helper.make_node("Sigmoid", ["logit"], ["map"], "/head/Sigmoid"))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, 1, SIZE, SIZE])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def open_model(model: bytes, profile_prefix: str | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if profile_prefix:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def timed_session(model: bytes, index: int, settings: RunSettings, samples: int) -> SessionRecord:
    """Load and time once, in this process."""
    started, before, cpu = datetime.now(UTC), time.perf_counter_ns(), time.process_time_ns()
    session = open_model(model)
    loaded = time.perf_counter_ns()
    feed = {"image": np.random.default_rng(0).standard_normal((1, 3, SIZE, SIZE), dtype=np.float32)}
    times = []
    for _ in range(samples + 11):
        start = time.perf_counter_ns()
        session.run(None, feed)
        times.append(time.perf_counter_ns() - start)
    wall = time.perf_counter_ns() - before
    return SessionRecord(
        session_id=uuid.uuid4().hex,
        index=index,
        pid=os.getpid(),
        started_at=started,
        finished_at=datetime.now(UTC),
        load_ms=(loaded - before) / 1e6,
        first_inference_ms=times[0] / 1e6,
        warmup_ns=tuple(times[1:11]),
        samples_ns=tuple(times[11:]),
        steady=True,
        peak_rss_mb=float(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6,
        cpu_per_wall=(time.process_time_ns() - cpu) / wall,
        host=HostSnapshot(other_cpu_share=0.0, steal_share=0.0, load_1min=os.getloadavg()[0], involuntary_switches=0),
        settings=settings,
        actual={"provider": session.get_providers()[0], "precision": "fp32"},
        versions={"onnxruntime": onnxruntime.__version__},
    )


def real_profile(model: bytes, runs: int = 40) -> OpProfile:
    """Per-op times from ONNX Runtime's own profile; modules are the node names' folders."""
    feed = {"image": np.random.default_rng(0).standard_normal((1, 3, SIZE, SIZE), dtype=np.float32)}
    plain = open_model(model)
    with tempfile.TemporaryDirectory() as folder:
        profiled = open_model(model, str(Path(folder) / "ops"))
        plain_us, profiled_us = [], []
        for _ in range(runs):
            for session, times in ((plain, plain_us), (profiled, profiled_us)):
                start = time.perf_counter_ns()
                session.run(None, feed)
                times.append((time.perf_counter_ns() - start) / 1e3)
        events = json.loads(Path(profiled.end_profiling()).read_text())
    found: dict[str, list[float]] = {}
    types: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            found.setdefault(name, []).append(float(event["dur"]))
            types[name] = event["args"]["op_name"]
    sum_us = sum(sum(durations) / runs for durations in found.values())
    unprofiled_us = sum(plain_us) / runs
    scale = unprofiled_us / sum_us
    ops = [
        OpTime(
            name=name,
            op_type=types[name],
            kernel="CPUExecutionProvider",
            latency_us=scale * sum(durations) / runs,
            share=sum(durations) / runs / sum_us,
            source_nodes=(name,) if name.startswith("/") else (),
            module=".".join(name.split("/")[1:-1]) if name.startswith("/") else None,
            kind="layout" if types[name].startswith("Reorder") else "compute",
        )
        for name, durations in found.items()
    ]
    return OpProfile(
        runtime="onnxruntime",
        ops=tuple(ops),
        runs=runs,
        unprofiled_us=unprofiled_us,
        profiled_us=sum(profiled_us) / runs,
        sum_us=sum_us,
        residual_share=(sum_us - unprofiled_us) / unprofiled_us,
        attributed_share=sum(op.share for op in ops if op.module is not None),
        layout_share=sum(op.share for op in ops if op.kind == "layout"),
        notes=("profile of a test model, resolution of one event is 1 µs",),
    )


def measured(label: str, channels: int, sessions: int, samples: int, profile: bool) -> Measurement:
    model = tiny_model(channels)
    settings = RunSettings(runtime="onnxruntime", options={"graph_optimization": "basic"})
    digest = hashlib.sha256(model).hexdigest()
    variant = Variant(
        key=digest,
        label=label,
        model=f"tiny-{channels}.onnx",
        model_note="random weights: its maps mean nothing, its latency is real",
        artifact=Artifact(
            path=f"tiny-{channels}.onnx",
            format="onnx",
            sha256=digest,
            source_sha256=digest,
            inputs=(TensorSpec(name="image", shape=(1, 3, SIZE, SIZE)),),
        ),
        settings=settings,
    )
    records = tuple(timed_session(model, index, settings, samples) for index in range(sessions))
    stats = latency_stats(records)
    found = judge(records, stats)
    verdict = Verdict(
        status="weak",
        reasons=("sessions share one process, so they are not independent", *found.reasons),
        advice=("measure with the bench, which starts a process for each session", *found.advice),
    )
    return Measurement(
        variant=variant,
        sessions=records,
        stats=stats,
        verdict=verdict,
        profile=real_profile(model) if profile else None,
    )


@cache
def real_run() -> BenchRun:
    """Two models, four and three sessions, timed once and shared by the tests (about two seconds)."""
    return BenchRun(
        run_id="sample",
        created_at=datetime.now(UTC),
        environment=Environment(
            cpu_model=platform.processor() or platform.machine(),
            cores=len(os.sched_getaffinity(0)),
            memory_gb=os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
            os=platform.platform(),
            python=platform.python_version(),
            versions={"onnxruntime": onnxruntime.__version__, "numpy": np.__version__},
        ),
        measurements=(
            measured("tiny-8 @ onnxruntime fp32 1t", 8, sessions=4, samples=250, profile=True),
            measured("tiny-16 @ onnxruntime fp32 1t", 16, sessions=3, samples=120, profile=False),
        ),
    )


def relabelled(run: BenchRun, label: str) -> BenchRun:
    """The same figures under a hostile label, model name, note, path, op name and module, for escaping tests."""
    first = run.measurements[0]
    assert first.profile is not None
    op = first.profile.ops[0].model_copy(update={"name": label, "module": label, "kernel": label, "op_type": label})
    profile = first.profile.model_copy(update={"ops": (op, *first.profile.ops[1:]), "notes": (label,)})
    artifact = first.variant.artifact.model_copy(
        update={"path": label, "inputs": (TensorSpec(name=label, shape=(1, 3, SIZE, SIZE)),)}
    )
    variant = first.variant.model_copy(
        update={"label": label, "model": label, "model_note": label, "device": label, "artifact": artifact}
    )
    sessions = tuple(
        s.model_copy(update={"actual": {label: label}, "versions": {label: label}}) for s in first.sessions
    )
    verdict = Verdict(status="weak", reasons=(label,), advice=(label,))
    hostile = first.model_copy(
        update={"variant": variant, "profile": profile, "sessions": sessions, "verdict": verdict}
    )
    environment = run.environment.model_copy(update={"cpu_model": label, "os": label, "versions": {label: label}})
    return run.model_copy(update={"run_id": label, "environment": environment, "measurements": (hostile,)})


def layout_sample(run: BenchRun) -> BenchRun:
    """Many modules, layout and unplaced ops, a valid verdict: for looking at the page only, labelled as a stand-in."""
    first = run.measurements[0]
    assert first.profile is not None
    ops = []
    for stage in range(5):
        for block in range(4):
            for kind, name, us in (("compute", "conv", 40.0), ("compute", "act", 25.0), ("layout", "reorder", 6.0)):
                module = None if (stage, block, kind) == (2, 1, "layout") else f"stages.{stage}.blocks.{block}.{name}"
                us_here = us * (1 + stage / 3) / (1 + block)
                ops.append(
                    OpTime(
                        name=f"/stages.{stage}/blocks.{block}/{name}",
                        op_type={"conv": "Conv", "act": "PRelu", "reorder": "Reorder"}[name],
                        kernel={"conv": "brgconv_avx512_f32", "act": "jit_avx512", "reorder": ""}[name],
                        latency_us=us_here,
                        share=0.0,
                        module=module,
                        kind="layout" if kind == "layout" else "compute",
                    )
                )
    total = sum(op.latency_us for op in ops)
    ops = [op.model_copy(update={"share": op.latency_us / total}) for op in ops]
    profile = OpProfile(
        runtime="invented",
        ops=tuple(ops),
        runs=200,
        unprofiled_us=total * 1.01,
        profiled_us=total * 1.05,
        sum_us=total,
        residual_share=-0.01,
        attributed_share=sum(op.share for op in ops if op.module is not None),
        layout_share=sum(op.share for op in ops if op.kind == "layout"),
    )
    variant = first.variant.model_copy(
        update={"label": "layout-sample @ nobody's phone", "stand_in": "recorded", "model_note": "invented op times"}
    )
    made_up = first.model_copy(update={"variant": variant, "profile": profile, "verdict": Verdict(status="valid")})
    return run.model_copy(update={"measurements": (made_up, *run.measurements)})


def sample_comparison(answer: str = "slower", **changes: object) -> Comparison:
    """An invented answer, for layout only."""
    fields: dict[str, object] = {
        "a": "A (invented)",
        "b": "B (invented)",
        "answer": answer,
        "effect": 0.104,
        "effect_low": 0.082,
        "effect_high": 0.131,
        "confidence": 0.95,
        "p_value": 0.00195,
        "margin": 0.02,
        "minimum_detectable_effect": 0.031,
        "pairs": 10,
        "more_pairs": 0,
        "sentence": "B is 10.4 % slower than A (95 % interval 8.2 to 13.1 %, 10 pairs)",
    }
    return Comparison.model_validate(fields | changes)
