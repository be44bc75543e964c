"""Records with chosen samples, for tests of the statistics (no runtime involved)."""

from datetime import UTC, datetime, timedelta

from targets.plan import make_variant
from targets.records import Artifact, HostSnapshot, Measurement, RunSettings, SessionRecord, TensorSpec, Variant
from targets.statistics import latency_stats
from targets.verdict import judge

QUIET = HostSnapshot(other_cpu_share=0.0, steal_share=0.0, load_1min=0.0, involuntary_switches=0)
SETTINGS = RunSettings(runtime="onnxruntime")
ARTIFACT = Artifact(
    path="net.onnx",
    format="onnx",
    sha256="0" * 64,
    source_sha256="0" * 64,
    inputs=(TensorSpec(name="x", shape=(1, 3, 32, 32)),),
)
START = datetime(2026, 1, 1, tzinfo=UTC)


def session(index=0, ms=10.0, *, samples=None, host=QUIET, steady=True, settings=SETTINGS, name="s"):
    """A session of 20 equal samples of ``ms``, or of the samples given (milliseconds)."""
    values = [ms] * 20 if samples is None else samples
    return SessionRecord(
        session_id=f"{name}{index}",
        index=index,
        pid=1,
        started_at=START + timedelta(seconds=index),
        finished_at=START + timedelta(seconds=index + 1),
        load_ms=1.0,
        first_inference_ms=1.0,
        warmup_ns=(1,),
        samples_ns=tuple(int(v * 1e6) for v in values),
        steady=steady,
        peak_rss_mb=1.0,
        cpu_per_wall=1.0,
        host=host,
        settings=settings,
        actual={},
        versions={},
    )


def variant(role="", **settings) -> Variant:
    return make_variant("net", ARTIFACT, SETTINGS.model_copy(update=settings), role=role)


def measurement(p10s_ms, role="", **settings) -> Measurement:
    sessions = tuple(session(i, ms, name=role or "s") for i, ms in enumerate(p10s_ms))
    stats = latency_stats(sessions)
    return Measurement(
        variant=variant(role, **settings), sessions=sessions, stats=stats, verdict=judge(sessions, stats)
    )
