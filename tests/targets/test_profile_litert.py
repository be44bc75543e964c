"""Per-op profiles of TFLite models: real networks, converted once; events and joins that must be refused."""

from __future__ import annotations

import ctypes
import resource
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from targets.errors import InvalidModel, MissingExtra, UnknownLayout
from targets.profiles import litert_api
from targets.profiles.litert import _notes, _partitions, _time, _Timing, graph_ports
from targets.profiles.litert_align import Aligned, align, split_tag
from targets.profiles.litert_api import LiteRtModel
from targets.profiles.litert_events import BUILTIN_OP, EVENT_BYTES, Event, decode_events
from targets.profiles.tflite_modules import module_of
from targets.profiles.timing import Pace
from targets.records import RunSettings
from targets.runtimes.base import seeded_inputs
from targets.runtimes.tflite import TFLiteRuntime, delegated_ops
from targets.tflite_files import TfliteFile, TfliteOp, TfliteTensor, inspect_tflite, tflite_artifact

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

FIXTURES = Path(__file__).parent / "fixtures" / "tflite"
TINY = FIXTURES / "tiny.tflite"
TWO = FIXTURES / "two.tflite"


def settings(**options) -> RunSettings:
    return RunSettings(runtime="tflite", options=options)


def make_net():
    """Two resolutions with PReLU, pooling and bilinear upsampling, then squeeze-excitation and attention."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    nn, functional = torch.nn, torch.nn.functional

    class Branch(nn.Module):
        def __init__(self, cin, cout, stride=1, groups=1):
            super().__init__()
            self.conv = nn.Conv2d(cin, cout, 3, stride, 1, groups=groups, bias=False)
            self.bn = nn.BatchNorm2d(cout)
            self.act = nn.PReLU(cout)

        def forward(self, x):
            return self.act(self.bn(self.conv(x)))

    class Octave(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.high, self.low, self.up, self.down = (Branch(c, c) for _ in range(4))
            self.pool = nn.AvgPool2d(2)

        def forward(self, high, low):
            raised = functional.interpolate(self.up(low), scale_factor=2.0, mode="bilinear", align_corners=False)
            return self.high(high) + raised, self.low(low) + self.down(self.pool(high))

    class Gate(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.squeeze, self.expand = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c // 4, c, 1)

        def forward(self, x):
            gate = self.expand(functional.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
            return x * functional.hardsigmoid(gate)

    class Attention(nn.Module):
        def __init__(self, c, heads=2):
            super().__init__()
            self.norm, self.qkv, self.project = nn.LayerNorm(c), nn.Linear(c, 3 * c), nn.Linear(c, c)
            self.mlp = nn.Sequential(nn.LayerNorm(c), nn.Linear(c, 2 * c), nn.GELU(), nn.Linear(2 * c, c))
            self.heads = heads

        def forward(self, x):
            b, c, h, w = x.shape
            tokens = x.flatten(2).transpose(1, 2)
            qkv = self.qkv(self.norm(tokens)).reshape(b, h * w, 3, self.heads, c // self.heads)
            mixed = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4).unbind(0))
            tokens = tokens + self.project(mixed.transpose(1, 2).reshape(b, h * w, c))
            tokens = tokens + self.mlp(tokens)
            return tokens.transpose(1, 2).reshape(b, c, h, w)

    class Net(nn.Module):
        def __init__(self, c=24):
            super().__init__()
            self.stem, self.pool, self.halve = Branch(3, c, stride=2), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2)
            self.stages = nn.ModuleList([Octave(c), Octave(c)])
            self.depthwise, self.gate, self.attention = Branch(c, c, groups=c), Gate(c), Attention(c)
            self.head = nn.Conv2d(2 * c, 1, 1)

        def forward(self, x):
            high = self.pool(self.stem(x))
            low = self.halve(high)
            for stage in self.stages:
                high, low = stage(high, low)
            high, low = self.gate(self.depthwise(high)), self.attention(low)
            low = functional.interpolate(low, scale_factor=2.0, mode="bilinear", align_corners=False)
            y = self.head(torch.cat([high, low], 1))
            return torch.sigmoid(functional.interpolate(y, scale_factor=4.0, mode="bilinear", align_corners=False))

    torch.manual_seed(0)
    net = Net().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The network with channels last, and its stem as it is."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    litert_torch = pytest.importorskip("litert_torch", reason="litert-torch is not installed")
    folder = tmp_path_factory.mktemp("net")
    net = make_net()
    last = litert_torch.to_channel_last_io(net, args=[0], outputs=[0]).eval()
    litert_torch.convert(last, (torch.randn(1, 256, 256, 3),)).export(str(folder / "last.tflite"))
    litert_torch.convert(net.stem, (torch.randn(1, 3, 256, 256),)).export(str(folder / "first.tflite"))
    return folder, net


@pytest.fixture(scope="module")
def profiles(converted):
    folder, _ = converted
    artifact = tflite_artifact(folder / "last.tflite")
    runtime = TFLiteRuntime()
    return {
        delegate: runtime.profile(artifact, settings(delegate=delegate), seconds=2) for delegate in ("xnnpack", "none")
    }


def test_the_converted_network_computes_what_torch_does(converted):
    import torch

    folder, net = converted
    artifact = tflite_artifact(folder / "last.tflite")
    model = TFLiteRuntime().load(artifact, settings())
    model.run()
    image = torch.from_numpy(seeded_inputs(artifact)[artifact.inputs[0].name]).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = net(image).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(model.outputs()[0], expected, atol=1e-5)


@pytest.mark.parametrize("delegate", ["xnnpack", "none"])
def test_nearly_all_time_is_joined_to_a_module(profiles, delegate):
    profile = profiles[delegate]
    assert profile.attributed_share >= 0.97
    assert all(op.source_nodes for op in profile.ops)
    assert sum(op.latency_us for op in profile.ops) == pytest.approx(profile.unprofiled_us)
    assert sum(op.share for op in profile.ops) == pytest.approx(1)


def test_the_operators_sum_to_the_unprofiled_time(converted):
    folder, _ = converted
    artifact = tflite_artifact(folder / "last.tflite")
    residuals = []
    for _ in range(4):  # a shared host may spoil one; each is judged by its own interleaved twin
        profile = TFLiteRuntime().profile(artifact, settings(), seconds=1.5)
        residuals.append(abs(profile.residual_share))
        if residuals[-1] <= 0.05:
            break
    assert min(residuals) <= 0.05, residuals


def test_modules_are_the_networks_own(profiles):
    modules = {op.module for op in profiles["xnnpack"].ops}
    assert {"stem.conv", "gate.expand", "attention.qkv", "head"} <= modules


def test_xnnpack_joins_agree_with_the_builtin_kernels(profiles):
    """Builtin events carry the node index of the file: an independent truth for what the alignment decided."""
    truth = {op.source_nodes[0]: op.module for op in profiles["none"].ops}
    joined = [op for op in profiles["xnnpack"].ops if op.name.startswith("xnnpack")]
    seen = [node for op in joined for node in op.source_nodes]
    assert set(seen) <= truth.keys()
    for op in joined:
        assert truth[op.source_nodes[-1]] == op.module
    order = [int(op.source_nodes[-1].rpartition(":")[2]) for op in joined]
    assert order == sorted(order)


def test_a_fused_pad_is_told_with_its_convolution(profiles):
    first = profiles["xnnpack"].ops[0]
    assert first.source_nodes == ("PAD:0", "CONV_2D:1")
    assert (first.op_type, first.kernel, first.module) == ("Convolution (NHWC, F32)", "IGEMM", "stem.conv")


def test_a_linear_layer_that_flattens_is_told_with_its_reshape(profiles, converted):
    """litert-torch lets the last layer of an MLP drop the batch dimension; XNNPACK reshapes before it."""
    folder, _ = converted
    file = inspect_tflite(folder / "last.tflite")
    flattening = [
        f"FULLY_CONNECTED:{op.index}"
        for op in file.ops
        if op.op_type == "FULLY_CONNECTED" and len(file.tensors[op.inputs[0]].shape) == 3
        if len(file.tensors[op.outputs[0]].shape) == 2
    ]
    assert flattening
    for name in flattening:
        parts = [op for op in profiles["xnnpack"].ops if name in op.source_nodes]
        assert [op.op_type.partition(" (")[0] for op in parts] == ["Static Reshape", "Fully Connected"]
        assert {op.module for op in parts} == {"attention.mlp.3"}


def test_one_unforeseen_event_leaves_only_itself_open(converted):
    """Itself, and the exact origin of reshapes around it: XNNPACK may drop those of the file and add others."""
    folder, _ = converted
    model = TFLiteRuntime().load(tflite_artifact(folder / "last.tflite"), settings())
    inputs, outputs = graph_ports(model.file)
    with LiteRtModel(folder / "last.tflite", inputs, outputs, threads=1) as compiled:
        _, events = compiled.profiled_run()
    partitions = delegated_ops(model.interpreter, model.file)
    tags, ops = next(
        ([events[at].tag for at in positions], [model.file.ops[index] for index in partition])
        for positions, partition in zip(_partitions(events), partitions, strict=True)
        if any(model.file.ops[index].op_type == "SOFTMAX" for index in partition)
    )
    expected = align(ops, tags, model.file)
    at = next(n for n, tag in enumerate(tags) if tag.startswith("Softmax"))
    assert expected[at].op is not None
    for changed, kept in (
        ([*tags[:at], "Unheard Of (NC)", *tags[at + 1 :]], [*expected[:at], Aligned(None), *expected[at + 1 :]]),
        ([*tags[:at], "Unheard Of (NC)", *tags[at:]], [*expected[:at], Aligned(None), *expected[at:]]),
        ([*tags[:at], *tags[at + 1 :]], [*expected[:at], *expected[at + 1 :]]),
    ):
        found = align(ops, changed, model.file)
        for tag, now, before in zip(changed, found, kept, strict=True):
            if tag.startswith("Static Reshape"):
                assert before.op in now.candidates
                assert len({module_of(op, model.file) for op in now.candidates}) == 1
            else:
                assert now == before


def test_boundary_transposes_count_as_layout(converted):
    folder, _ = converted
    profile = TFLiteRuntime().profile(tflite_artifact(folder / "first.tflite"), settings(), seconds=0.5)
    layout = [op.source_nodes[0].partition(":")[0] for op in profile.ops if op.kind == "layout"]
    assert layout and set(layout) == {"TRANSPOSE"}
    assert 0 < profile.layout_share < 1
    assert profile.layout_share == pytest.approx(sum(op.share for op in profile.ops if op.kind == "layout"))


def test_the_smallest_model_is_profiled_under_its_modules():
    profile = TFLiteRuntime().profile(tflite_artifact(TWO), settings(), seconds=0.2)
    assert [op.module for op in profile.ops][:2] == ["left", "right"]


@pytest.mark.parametrize(("elapsed_us", "below"), [((0.4, 3.0), 1), ((0.0, 0.49), 2), ((0.5, 3.0), 0)])
def test_operators_below_the_resolution_are_counted(elapsed_us, below):
    # On made-up times: whether real ones fall below a microsecond depends on the host.
    timing = _Timing(
        (),
        np.array(elapsed_us),
        profiled_us=4.0,
        unprofiled_us=4.0,
        runs=9,
        undisturbed=9,
        profiled_runs=9,
        reference_us=None,
    )
    notes = [note for note in _notes(timing, [], inspect_tflite(TWO)) if "less than a microsecond" in note]
    assert [note.split()[0] for note in notes] == [str(below)] * bool(below)


@pytest.mark.parametrize("mode", ["delegate", "builtin"])
def test_the_profiled_copy_computes_what_the_interpreter_does(mode):
    artifact = tflite_artifact(TWO)
    plain = TFLiteRuntime().load(artifact, settings())
    tensors = seeded_inputs(artifact, seed=5)
    plain.feed(tensors)
    plain.run()
    inputs, outputs = graph_ports(plain.file)
    with LiteRtModel(TWO, inputs[::-1], outputs[::-1], threads=2, kernel_mode=mode) as compiled:
        compiled.feed(tensors)
        wall_us, events = compiled.profiled_run()
        assert wall_us > 0 and events
        for spec, expected in zip(plain.file.outputs, plain.outputs(), strict=True):
            np.testing.assert_allclose(compiled.outputs()[spec.name], expected, rtol=1e-5, atol=1e-6)
        with pytest.raises(InvalidModel, match="needs a float32 array"):
            compiled.feed({})


def test_handles_are_given_back():
    inputs, outputs = graph_ports(inspect_tflite(TINY))

    def once():
        with LiteRtModel(TINY, inputs, outputs, threads=1) as compiled:
            compiled.profiled_run()

    for _ in range(10):
        once()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(60):
        once()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024


def test_another_version_is_refused(monkeypatch):
    inputs, outputs = graph_ports(inspect_tflite(TINY))
    litert_api._library.cache_clear()
    monkeypatch.setattr(litert_api, "version_of", lambda name: "9.9.9")
    with pytest.raises(UnknownLayout, match=r"ai-edge-litert 2\.3\.0.*9\.9\.9 is installed"):
        LiteRtModel(TINY, inputs, outputs, threads=1)
    monkeypatch.undo()
    litert_api._library.cache_clear()


@pytest.mark.parametrize(("version", "kind"), [("2.2.0", UnknownLayout), (None, MissingExtra)])
def test_an_interpreter_without_a_known_profiler_says_what_to_do(monkeypatch, version, kind):
    """Another ai-edge-litert, or tflite-runtime alone: sessions run, profiles do not."""
    monkeypatch.setattr(litert_api, "version_of", lambda name: version)
    TFLiteRuntime().load(tflite_artifact(TINY), settings()).run()
    with pytest.raises(kind, match=rf"ai-edge-litert 2\.3\.0.*{version or 'none'} is installed.*--no-per-op"):
        TFLiteRuntime().profile(tflite_artifact(TINY), settings(), seconds=0.1)


def test_a_profiled_copy_that_computes_something_else_is_refused(monkeypatch):
    honest = LiteRtModel.outputs
    monkeypatch.setattr(LiteRtModel, "outputs", lambda self: {k: v + 1 for k, v in honest(self).items()})
    with pytest.raises(UnknownLayout, match=r"differs from the timed model's.*--no-per-op"):
        TFLiteRuntime().profile(tflite_artifact(TINY), settings(), seconds=0.1)


def test_the_fast_runs_are_the_undisturbed_ones_of_both_kinds():
    """The first inference of each block, which only warms the cache, is slow on purpose and counts nowhere."""
    calls = {"plain": 0, "profiled": 0}

    def spend(kind):
        calls[kind] += 1
        time.sleep(0.02 if calls[kind] % 5 == 1 else 0.001)

    def profiled():
        begin = time.perf_counter_ns()
        spend("profiled")
        wall_us = (time.perf_counter_ns() - begin) / 1e3
        return wall_us, (Event("CONV_2D", BUILTIN_OP, 0, int(wall_us), 0),)

    timing = _time(lambda: spend("plain"), profiled, 0.0, None)
    assert timing.profiled_runs == timing.runs == 12
    assert calls == {"plain": 15, "profiled": 15}
    assert 1000 <= timing.unprofiled_us < 20_000
    assert 1000 <= timing.profiled_us < 20_000
    assert timing.elapsed_us[0] == pytest.approx(timing.profiled_us, abs=1)
    assert timing.reference_us is None


def test_blocks_beside_a_reference_are_single_inferences():
    """The reference has thrown the model out of the cache, as it does in paced sessions: nothing warms it again."""
    order = []

    def profiled():
        order.append("profiled")
        time.sleep(0.001)
        return 1000.0, (Event("CONV_2D", BUILTIN_OP, 0, 900, 0),)

    timing = _time(lambda: order.append("plain"), profiled, 0.0, Pace(lambda: order.append("reference")))
    assert order == ["reference", "profiled", "reference", "plain"] * 12
    assert timing.profiled_runs == timing.runs == 12
    assert timing.reference_us > 0


TAG = ctypes.create_string_buffer(b"CONV_2D")
BAD_TAG = ctypes.create_string_buffer(b"\xff\xfe\x01")


def raw_events(*rows, tag=None, filler=0xA5):
    """Bytes as the library writes them: (kind, start, elapsed, index) a row, then the pattern."""
    raw = np.full(2 * len(rows) * EVENT_BYTES, filler, np.uint8)
    for position, (kind, start, elapsed, index) in enumerate(rows):
        words = np.zeros(13, np.uint64)
        words[0] = ctypes.addressof(TAG) if tag is None else tag
        words[1:4] = kind, start, elapsed
        words[10] = index
        raw[position * EVENT_BYTES : (position + 1) * EVENT_BYTES] = words.view(np.uint8)
    return raw


def test_events_are_read():
    events = decode_events(raw_events((1, 5, 90, 0), (2, 7, 40, 0), (8, 0, 30, 1)), 3, 100.0)
    assert [(row.tag, row.kind, row.elapsed_us, row.node) for row in events] == [
        ("CONV_2D", 1, 90, 0),
        ("CONV_2D", 2, 40, 0),
        ("CONV_2D", 8, 30, 1),
    ]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (raw_events((3, 0, 1, 0)), "unknown kind"),
        (raw_events((2, 0, 1, 2**40)), "impossible index"),
        (raw_events((2, 0, 500, 0)), "lasts longer than the inference"),
        (raw_events((2, 9, 1, 0), (2, 8, 1, 1)), "starts before"),
        (raw_events((8, 0, 60, 0), (8, 0, 60, 1)), "sum to 120 us"),
        (raw_events((2, 0, 1, 0), tag=0), "no readable name"),
        (raw_events((2, 0, 1, 0), tag=0x10), "no readable name"),
        (raw_events((2, 0, 1, 0), tag=0xDEAD_0000_0000), "no readable name"),
        (raw_events((2, 0, 1, 0), tag=ctypes.addressof(BAD_TAG)), "no readable name"),
        (raw_events((2, 0, 1, 0), filler=0), "larger than 104 bytes"),
    ],
)
def test_bytes_of_another_layout_are_refused(raw, words):
    with pytest.raises(UnknownLayout, match=words):
        decode_events(raw, raw.size // (2 * EVENT_BYTES), 100.0)


@given(st.binary(min_size=2 * EVENT_BYTES, max_size=2 * EVENT_BYTES))
def test_noise_is_refused(noise):
    raw = np.full(4 * EVENT_BYTES, 0xA5, np.uint8)
    raw[: 2 * EVENT_BYTES] = np.frombuffer(noise, np.uint8)
    with pytest.raises(UnknownLayout):
        decode_events(raw, 2, 100.0)


def graph(*chain, activations=(), shapes=()) -> TfliteFile:
    """A chain of operators: each reads the tensor before it and writes the next."""
    sizes = dict(shapes)
    tensors = tuple(TfliteTensor(f"t{n}", sizes.get(n, (1,)), "float32", False) for n in range(len(chain) + 1))
    marked = dict(activations)
    ops = tuple(TfliteOp(n, name, False, (n, n), (n + 1,), marked.get(n, "")) for n, name in enumerate(chain))
    return TfliteFile("", (), (), ops, tensors, (0,), (len(chain),), {}, {}, 1)


def joined(file, *tags):
    return [entry.op.index if entry.op else None for entry in align(file.ops, tags, file)]


CONV, CLAMP, COPY, RESHAPE = "Convolution (NHWC, F32) IGEMM", "Clamp (NC)", "Copy (NC, X32)", "Static Reshape (NC)"


def test_fused_operators_leave_no_event():
    file = graph("PAD", "CONV_2D", "RELU", "CONV_2D")
    assert joined(file, CONV, CONV) == [1, 3]
    assert align(file.ops, [CONV, CONV], file)[0].absorbed == (file.ops[0], file.ops[2])
    assert joined(file, CONV, CLAMP, CONV) == [1, 2, 3]


def test_a_fused_activation_may_run_on_its_own():
    assert joined(graph("MUL", "ADD", activations={0: "RELU"}), "Multiply (ND)", CLAMP, "Add (ND)") == [0, 0, 1]
    assert joined(graph("MUL", "ADD"), "Multiply (ND)", CLAMP, "Add (ND)") == [None] * 3


def test_a_concatenation_may_run_as_several_copies():
    file = graph("CONV_2D", "CONCATENATION", "CONV_2D")
    assert joined(file, CONV, COPY, COPY, CONV) == [0, 1, 1, 2]
    assert joined(file, CONV, COPY, CONV) == [0, 1, 2]


def test_what_two_assignments_place_differently_stays_open():
    file = graph("RESHAPE", "RESHAPE", "CONV_2D")
    assert joined(file, RESHAPE, CONV) == [None, 2]
    assert [op.index for op in align(file.ops, [RESHAPE, CONV], file)[0].candidates] == [0, 1]
    # Either the activation of the product or the one after it ran; the other is fused.
    assert joined(graph("MUL", "RELU", activations={0: "RELU"}), "Multiply (ND)", CLAMP) == [0, None]
    # An operator that XNNPACK put in itself belongs to none.
    assert joined(graph("CONV_2D", "CONV_2D"), CONV, "Transpose (ND, X32) Transpose", CONV) == [0, None, 1]


def test_a_flattening_linear_layer_reshapes_first():
    file = graph("GELU", "FULLY_CONNECTED", "ADD", shapes={0: (1, 4, 8), 1: (1, 4, 8), 2: (4, 8)})
    linear = "Fully Connected (NC, F32) GEMM"
    assert joined(file, "GELU (NC)", RESHAPE, linear, "Add (ND)") == [0, 1, 1, 2]
    assert joined(file, "GELU (NC)", linear, "Add (ND)") == [0, 1, 2]
    # A reshape before it may have run, or have vanished and left its own.
    file = graph("RESHAPE", "FULLY_CONNECTED", shapes={0: (4, 8), 1: (1, 4, 8), 2: (4, 8)})
    assert joined(file, RESHAPE, linear) == [None, 1]
    assert joined(file, RESHAPE, RESHAPE, linear) == [0, 1, 1]


def test_an_unforeseen_operator_leaves_its_neighbours_joined():
    file = graph("CONV_2D", "SOFTMAX", "MUL", "ADD", "CONV_2D")
    multiply, add = "Multiply (ND)", "Add (ND)"
    assert joined(file, CONV, "Unheard Of (NC)", multiply, add, CONV) == [0, None, 2, 3, 4]
    assert joined(file, CONV, multiply, add, CONV) == [0, 2, 3, 4]
    assert all(not entry.absorbed for entry in align(file.ops, [CONV, multiply, add, CONV], file))
    assert joined(file, CONV, multiply, "Sum (ND)", multiply, add, CONV) == [0, None, None, 2, 3, 4]
    # The clamp may be the activation, or all that ran of the softmax before it.
    file = graph("CONV_2D", "SOFTMAX", "RELU", "ADD", "CONV_2D")
    assert joined(file, CONV, CLAMP, add, CONV) == [0, None, 3, 4]


def test_types_that_do_not_belong_together_join_nothing():
    assert joined(graph("CONV_2D", "SOFTMAX"), CONV, "Sigmoid (NC)") == [None, None]
    assert joined(graph("CONV_2D", "CONV_2D"), CONV) == [None]
    assert joined(graph("CONV_2D"), CONV, CONV) == [None, None]


KNOWN = {
    "CONV_2D": CONV,
    "ADD": "Add (ND)",
    "MUL": "Multiply (ND)",
    "RELU": CLAMP,
    "RESHAPE": RESHAPE,
    "TRANSPOSE": "Transpose (ND, X32) Transpose",
    "SOFTMAX": "Softmax (NC, F32)",
    "CONCATENATION": COPY,
}


STEPS = st.tuples(st.sampled_from(sorted(KNOWN)), st.booleans(), st.booleans())
# Runs as up to three events of any types; its own is no name of theirs.
UNFORESEEN = st.lists(st.sampled_from([*KNOWN.values(), "Unheard Of (NC)"]), max_size=3)


@given(st.lists(STEPS, min_size=1, max_size=25), st.dictionaries(st.integers(0, 24), UNFORESEEN, max_size=4))
def test_a_join_is_right_or_open(drawn, runs):
    """Run a made-up graph with known origins: what the alignment claims must be the origin."""
    runs = {n: run for n, run in runs.items() if n < len(drawn)}
    file = graph(
        *("L2_NORMALIZATION" if n in runs else name for n, (name, _, _) in enumerate(drawn)),
        activations={n: "RELU" for n, (_, fused, _) in enumerate(drawn) if fused},
    )
    tags, origins = [], []
    for index, (name, fused, dropped) in enumerate(drawn):
        if index in runs:
            tags += runs[index]
            origins += [index] * len(runs[index])
            continue
        if dropped and name in {"RELU", "RESHAPE"}:
            continue
        tags.append(KNOWN[name])
        origins.append(index)
        if fused and name in {"ADD", "MUL"}:
            tags.append(CLAMP)
            origins.append(index)
    claims = joined(file, *tags)
    assert len(claims) == len(origins)
    assert all(claim in (None, origin) for claim, origin in zip(claims, origins, strict=True))
    event(f"{'all joined' if None not in claims else 'some left open'}{' and unforeseen' if runs else ''}")


def test_tags_are_split_into_operation_and_kernel():
    assert split_tag("Convolution (NHWC, F32) IGEMM") == ("Convolution (NHWC, F32)", "IGEMM")
    assert split_tag("Clamp (NC)") == ("Clamp (NC)", "")
    assert split_tag("PADV2") == ("PADV2", "")


def named(name, op_type="CONV_2D"):
    tensors = (TfliteTensor("in", (1,), "float32", False), TfliteTensor(name, (1,), "float32", False))
    op = TfliteOp(0, op_type, False, (0,), (1,))
    return op, TfliteFile("", (), (), (op,), tensors, (0,), (), {}, {}, 1)


WRAPPER = "litert_torch._convert.to_channel_last_io.ChannelLastIOWrapper"


@pytest.mark.parametrize(
    ("name", "op_type", "module"),
    [
        ("net.Net/net.Stage_one/torch.nn.modules.conv.Conv2d_conv;2", "CONV_2D", "one.conv"),
        ("net.Net/net.Block_b/x.BatchNorm2d_bn;;net.Net/net.Block_b/x.Conv2d_conv;2", "CONV_2D", "b.conv"),
        ("net.Net/net.Block_b/x.BatchNorm2d_bn;;net.Net/net.Block_b/x.Conv2d_conv;2", "ADD", "b.bn"),
        (f"{WRAPPER}/net.Net_wrapped/net.Stage_one;", "ADD", "one"),
        (f"{WRAPPER}/net.Net_wrapped;", "ADD", ""),
        ("net.Net;", "ADD", ""),
        ("net.Net/net.make.<locals>.Block_long_name;", "ADD", "long_name"),
        ("MobilenetV1/Conv2d_0/Relu6", "CONV_2D", None),
        ("", "CONV_2D", None),
    ],
)
def test_module_paths_come_from_tensor_names(name, op_type, module):
    assert module_of(*named(name, op_type)) == module


def test_partitions_of_the_timed_and_the_profiled_copy_agree():
    model = TFLiteRuntime().load(tflite_artifact(TINY), settings())
    inputs, outputs = graph_ports(model.file)
    with LiteRtModel(TINY, inputs, outputs, threads=1) as compiled:
        _, events = compiled.profiled_run()
    stayed = {row.node for row in events if row.kind == 2}
    taken = {index for partition in delegated_ops(model.interpreter, model.file) for index in partition}
    assert stayed == {op.index for op in model.file.ops} - taken
