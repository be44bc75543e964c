"""What is written down: frozen, validated records with units in their names.

Every record refuses unknown keys, so that a file from another version is noticed and not half-read.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from targets.frozen import Frozen as Frozen
from targets.readings import DeviceReading as DeviceReading
from targets.readings import HostSnapshot as HostSnapshot
from targets.readings import SampleSummary as SampleSummary

StandIn = Literal["virtual", "recorded", "simulated"]
SIMULATED: Literal["simulated"] = "simulated"
"""Label of computed figures, and the key in a session's versions that marks it as one."""
Accelerator = Literal["cpu", "gpu", "npu"]
Headline = Literal["p10", "p5", "mean"]


class Precision(StrEnum):
    """Numeric type the runtime is told to compute in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class RunSettings(Frozen):
    """Everything that can change a latency and is set on purpose; unlike settings are not compared.

    Attributes:
        runtime: Runtime name, for example ``"onnxruntime"``.
        precision: Numeric type asked for.
        accelerator: Part of the device that computes: ``cpu``, ``gpu`` or ``npu``.
        threads: Intra-op threads.
        streams: Parallel inference streams; latency is always measured with 1.
        pinned_cores: Cores the process is bound to, or ``None`` for the scheduler's choice.
        mode: ``burst``: cool, short sessions; ``sustained``: one long session, its heat included. Two quantities.
        options: Runtime options by name, for example the graph optimisation level.
    """

    runtime: str
    precision: Precision = Precision.FP32
    accelerator: Accelerator = "cpu"
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    streams: Literal[1] = 1
    pinned_cores: tuple[int, ...] | None = None
    mode: Literal["burst", "sustained"] = "burst"
    options: dict[str, str] = Field(default_factory=dict)


class TensorSpec(Frozen):
    """Name, static shape and element type of one model input or output.

    Attributes:
        name: Tensor name in the artifact.
        shape: Static dimensions.
        dtype: numpy type name, for example ``"float32"``.
    """

    name: str
    shape: tuple[Annotated[int, Field(ge=0)], ...]
    dtype: str = "float32"


class Artifact(Frozen):
    """The file a runtime loads, and what it was made from.

    Attributes:
        path: File on this host.
        format: ``onnx`` or ``tflite``.
        sha256: Hash of the file's bytes, mixed with those of its external data where it has any.
        source_sha256: Hash of what it was made from (its own where nothing was converted).
        inputs: Inputs in the artifact's own layout.
        layout: ``NCHW`` or ``NHWC`` as seen at the boundary.
        converter: Tool and version that made the artifact, empty where the file was given.
    """

    path: str
    format: Literal["onnx", "tflite"]
    sha256: str
    source_sha256: str
    inputs: tuple[TensorSpec, ...]
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    converter: str = ""


class SessionRecord(Frozen):
    """One fresh process: load, warm up, time N inferences. The unit of replication.

    Attributes:
        session_id: Unique; a session that is asked for again after a lost connection keeps its id.
        index: Position among the variant's sessions, from 0.
        pid: Process id of the measuring process, where it is told.
        started_at: Start of the process, UTC.
        finished_at: End of the timed part, UTC.
        load_ms: Reading, compiling and allocating.
        first_inference_ms: The cold inference.
        warmup_ns: Warm-up samples, nanoseconds.
        samples_ns: Timed samples, nanoseconds; never trimmed. Empty where the tool tells a summary only.
        reference_ns: The reference model's inference right before each timed one, nanoseconds; empty where none took
            turns.
        summary: The tool's own summary, where it tells no single inferences.
        steady: Whether warm-up reached a steady state before its deadline; ``None`` where the tool warms up unseen.
        peak_rss_mb: Peak resident memory of the process.
        cpu_per_wall: CPU time over wall time in the timed part (threads really used); absent where a GPU computes.
        host: What else the machine did.
        readings: State of a phone or board before, during and after.
        energy_mj: Energy an inference, millijoules, where the device measures its power.
        settings: What was asked for.
        actual: What the runtime says it runs with (precision, threads, provider, ...).
        versions: Tool versions by name.
        device: What the device says of itself (model, soc, os, driver, ...) but for serial numbers; empty on this host.
    """

    session_id: str
    index: int
    pid: int | None = None
    started_at: datetime
    finished_at: datetime
    load_ms: float | None = None
    first_inference_ms: float | None = None
    warmup_ns: tuple[int, ...] = ()
    samples_ns: tuple[Annotated[int, Field(gt=0)], ...] = ()
    reference_ns: tuple[Annotated[int, Field(gt=0)], ...] = ()
    summary: SampleSummary | None = None
    steady: bool | None = None
    peak_rss_mb: float | None = None
    cpu_per_wall: float | None = None
    host: HostSnapshot = HostSnapshot()
    readings: tuple[DeviceReading, ...] = ()
    energy_mj: float | None = None
    settings: RunSettings
    actual: dict[str, str]
    versions: dict[str, str]
    device: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _samples_or_summary(self) -> Self:
        if bool(self.samples_ns) == (self.summary is not None):
            raise ValueError("a session holds either single samples or a tool's summary")
        if self.reference_ns and len(self.reference_ns) != len(self.samples_ns):
            raise ValueError("a reference inference belongs to each sample")
        return self

    @property
    def simulated(self) -> bool:
        """Whether its figures were computed instead of measured."""
        return SIMULATED in self.versions


class LatencyStats(Frozen):
    """Order statistics in milliseconds, each the median over sessions of the session's own figure.

    Attributes:
        headline: Statistic that is compared: ``p10``; from tools that tell a summary only ``p5``, else ``mean``.
        headline_ms: Its value.
        headline_low_ms: Lower end of its 95 % interval over sessions.
        headline_high_ms: Upper end of it.
        headline_spread: Its relative spread between sessions (standard deviation of its logarithm).
        min_ms: Fastest inference.
        p10_ms: 10th percentile: the repeatable figure on a shared host. Absent, as the others, where not told.
        p50_ms: Median.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        sessions: Number of sessions.
        samples: Number of timed inferences in all.
    """

    headline: Headline
    headline_ms: float
    headline_low_ms: float
    headline_high_ms: float
    headline_spread: float
    min_ms: float
    p10_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    sessions: int
    samples: int


class Verdict(Frozen):
    """How far to trust a measurement.

    Attributes:
        status: ``valid`` or ``weak``.
        reasons: One sentence each; empty only where valid.
        advice: What would make the figure better, one sentence each.
    """

    status: Literal["valid", "weak"]
    reasons: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


class OpTime(Frozen):
    """Time of one executed runtime operation, joined to the module that made it.

    Attributes:
        name: The runtime's own name.
        op_type: The runtime's operation type, for example ``Conv``.
        kernel: Implementation chosen, for example ``brgconv_avx512_f32``; empty where not told.
        latency_us: Time of one inference spent here, rescaled to the unprofiled total.
        share: ``latency_us`` over the profile's sum, 0 to 1.
        source_nodes: Names of the model's nodes that this operation executes.
        module: Module path, ``""`` for the top module; ``None`` where no rule joined it.
        kind: ``compute``, or ``layout`` for a reorder or transpose the runtime put in itself.
    """

    name: str
    op_type: str
    kernel: str = ""
    latency_us: float
    share: float
    source_nodes: tuple[str, ...] = ()
    module: str | None = None
    kind: Literal["compute", "layout"] = "compute"


class OpProfile(Frozen):
    """Per-op times of one artifact, with what could not be explained.

    Attributes:
        runtime: Runtime name.
        ops: Operations in execution order.
        runs: Profiled inferences behind each figure.
        unprofiled_us: Mean of the matching inferences without profiling, interleaved.
        profiled_us: Mean of the same with profiling on.
        reference_us: p10 of a reference model that took turns; all times then are those at that speed of the machine.
            ``None`` where none did.
        sum_us: Sum of the op times before rescaling, profiling cost per op taken off.
        residual_share: ``(sum_us - unprofiled_us) / unprofiled_us``, signed.
        attributed_share: Share of the summed time joined to a module, 0 to 1.
        layout_share: Share of the summed time spent in layout changes, 0 to 1.
        placement: Where operators ran, by unit: number of operators (``{"xnnpack": 50, "cpu fallback": 2}``); empty
            where one unit runs all.
        notes: What a reader must know, one sentence each.
    """

    runtime: str
    ops: tuple[OpTime, ...]
    runs: int
    unprofiled_us: float
    profiled_us: float
    reference_us: float | None = None
    sum_us: float
    residual_share: float
    attributed_share: float
    layout_share: float
    placement: dict[str, int] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Variant(Frozen):
    """One thing that is measured: a model on a device with settings.

    Attributes:
        key: Hash of everything below that decides the figure.
        label: What a person reads, for example ``csnet-x1 @ onnxruntime fp32 1t``.
        model: Model name or file name.
        model_note: What a reader must know about the model, for example untrained weights.
        device: Device name.
        stand_in: How the device is not the real thing: ``virtual``, ``recorded``, ``simulated``; else ``None``.
        artifact: The file that is loaded.
        settings: What is set.
    """

    key: str
    label: str
    model: str
    model_note: str = ""
    device: str = "local"
    stand_in: StandIn | None = None
    artifact: Artifact
    settings: RunSettings


class Measurement(Frozen):
    """Several sessions of one variant, their statistics and a verdict.

    Attributes:
        variant: What was measured.
        sessions: The raw sessions.
        stats: Derived from the sessions, never stored apart from them.
        verdict: How far to trust it.
        profile: Per-op times where they were asked for.
        profile_failure: Why there are none although they were asked for; empty otherwise.
    """

    variant: Variant
    sessions: tuple[SessionRecord, ...]
    stats: LatencyStats
    verdict: Verdict
    profile: OpProfile | None = None
    profile_failure: str = ""

    @model_validator(mode="after")
    def _computed_or_measured(self) -> Self:
        said = self.variant.stand_in == SIMULATED
        if any(session.simulated != said for session in self.sessions):
            raise ValueError("simulated sessions belong to a simulated variant, and no others do")
        return self


class Environment(Frozen):
    """The machine and the software, as far as they can change a latency.

    Attributes:
        cpu_model: Processor name.
        cores: Logical cores this process may use.
        memory_gb: Physical memory.
        os: Operating system and kernel.
        python: Interpreter version.
        virtualized: Whether the host says it is a virtual machine; ``None`` where it does not say.
        versions: Package versions by distribution name.
    """

    cpu_model: str
    cores: int
    memory_gb: float
    os: str
    python: str
    virtualized: bool | None = None
    versions: dict[str, str]


class BenchRun(Frozen):
    """All that one bench produced: the root of ``--json`` and of a report.

    Attributes:
        record_version: Version of this layout.
        run_id: Unique id of the run in its store.
        created_at: Start, UTC.
        environment: The machine.
        measurements: One per variant, in the order asked for.
    """

    record_version: Literal[1] = 1
    run_id: str
    created_at: datetime
    environment: Environment
    measurements: tuple[Measurement, ...]

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if len({measurement.variant.stand_in == SIMULATED for measurement in self.measurements}) > 1:
            raise ValueError("simulated and measured variants do not go into one run")
        return self


class Comparison(Frozen):
    """One of three answers to "is B slower or faster than A?".

    Attributes:
        a: Label of A.
        b: Label of B.
        answer: ``slower`` or ``faster`` (B against A), ``same`` within the margin, or ``cannot tell``.
        effect: B over A minus 1, from session p10s (0.1 = B takes 10 % longer).
        effect_low: Lower end of the interval of the effect.
        effect_high: Upper end of it.
        confidence: Confidence of the interval, 0 to 1.
        p_value: Two-sided, paired permutation test on session p10s.
        margin: Effects within plus or minus this count as the same.
        minimum_detectable_effect: Smallest effect this many pairs would find with 80 % power.
        pairs: Alternating session pairs behind the answer.
        more_pairs: Further pairs that would settle it; 0 where settled, absent where no number is in reach.
        sentence: The answer for a person.
    """

    a: str
    b: str
    answer: Literal["slower", "faster", "same", "cannot tell"]
    effect: float
    effect_low: float
    effect_high: float
    confidence: float
    p_value: float
    margin: float
    minimum_detectable_effect: float
    pairs: int
    more_pairs: int | None
    sentence: str
