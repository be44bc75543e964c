"""Op profiles of benchmark_model: CSV and text sections, partitions, placement, and the join to the model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.errors import FailureKind, SessionFailed, UnknownLayout
from targets.phone.op_profile import Runs, profile_of, tables_of
from targets.phone.partitions import parts_of
from targets.phone.placement import delegate_words, graph_nodes, placement_of
from targets.phone.remote_run import ToolAnswer
from targets.profiles.benchmark_model_csv import parse_op_csv
from targets.profiles.benchmark_model_delegates import DelegateReport, parse_delegates
from targets.profiles.benchmark_model_text import OpRow
from targets.records import RunSettings
from targets.tflite_files import inspect_tflite
from tests.targets.phone_output import table

TINY = inspect_tflite(Path(__file__).parent / "fixtures" / "tflite" / "tiny.tflite")
REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs:"
CPU = RunSettings(runtime="tflite")
SPLIT = 5  # the PADV2 that XNNPACK leaves to the builtin kernels


def outputs(index):
    return ", ".join(TINY.tensors[tensor].name for tensor in TINY.ops[index].outputs)


def graph_rows():
    """The tiny network as a phone runs it: a partition, PADV2, a partition."""
    last = len(TINY.ops) - 1
    return [
        ("TfLiteXNNPackDelegate", 800.0, 1, f"[{outputs(SPLIT - 1)}]:{last + 1}"),
        ("PADV2", 400.0, 1, f"[{outputs(SPLIT)}]:{SPLIT}"),
        ("TfLiteXNNPackDelegate", 800.0, 1, f"[{outputs(last)}]:{last + 2}"),
    ]


ACT = ["Clamp (NC)", "Multiply (ND)", "Clamp (NC)", "Multiply (ND)", "Subtract (ND)"]
CONV = "Convolution (NHWC, F32) IGEMM"
PARTS = [
    [CONV, *ACT],
    ["Max Pooling (NHWC, F32)", CONV, *ACT, CONV, *ACT, "Fully Connected (NC, F32) GEMM", "Resize Bilinear (NHWC)",
     "Sigmoid (NC)"],
]  # fmt: skip
INSIDE = [
    ("DelegateOpInvoke", 20.5 + at, 1, f"Delegate/{tag}:{at}")
    for partition in PARTS
    for at, tag in enumerate(partition)
]


def text_of(**layout):
    return table(REGULAR, graph_rows(), **layout) + table("Delegate internal: ", INSIDE, **layout)


LAYOUTS = [{"csv": True}, {"csv": True, "start": True}, {}, {"start": True}]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_layout_gives_the_same_rows(layout):
    text = text_of(**layout)
    answer = ToolAnswer(0, "" if layout.get("csv") else text, "", text if layout.get("csv") else "")
    tables = tables_of(answer)
    assert [row.avg_ms for row in tables.graph.rows] == [0.8, 0.4, 0.8]
    assert [row.name for row in tables.inside] == [name for *_, name in INSIDE]


def test_types_and_names_with_commas_survive_the_csv():
    rows = [("CONV_2D/Convolution (NHWC, F32) IGEMM", 10.5, 1, "[a, b]:3"), ("ADD", 5.0, 2, "[c]:4")]
    (read,) = parse_op_csv(table(REGULAR, rows, csv=True))
    assert read.rows[0].op_type == "CONV_2D/Convolution (NHWC, F32) IGEMM"
    assert read.rows[0].name == "[a, b]:3"
    assert (read.rows[1].times_called, read.total_ms) == (2, 0.0205)


@given(st.data())
def test_a_damaged_csv_is_read_right_or_refused(data):
    text = text_of(csv=True)
    true = [row.avg_ms for part in parse_op_csv(text) for row in part.rows]
    lines = text.split("\n")
    body = [at for at, line in enumerate(lines) if "%, " in line]
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.sampled_from(body) if data.draw(st.booleans()) else st.integers(0, len(lines) - 1))
        how = data.draw(st.sampled_from(["delete", "double", "digits", "cut"]))
        groups = list(re.finditer(r"\d+", lines[at]))
        if how == "digits" and groups:
            group = data.draw(st.sampled_from(groups))
            new = data.draw(st.text("0123456789", max_size=4))
            lines[at] = lines[at][: group.start()] + new + lines[at][group.end() :]
        elif how == "cut":
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
        elif how == "double":
            lines[at] = f"{lines[at]}\n{lines[at]}"
        elif how == "delete":
            lines[at] = "\0"
    damaged = "\n".join(line for line in "\n".join(lines).split("\n") if line != "\0")
    try:
        read = [row.avg_ms for part in parse_op_csv(damaged) for row in part.rows]
    except UnknownLayout:
        return
    # A section whose title line is gone is not found; those that are found are right.
    assert read in (true, true[:3], true[3:]) or read == pytest.approx(true, rel=2e-5)


def test_delegate_nodes_get_the_operators_between_them():
    rows = tables_of(ToolAnswer(0, text_of(), "", "")).graph.rows
    nodes = graph_nodes(rows, TINY)
    assert [node.delegated for node in nodes] == [True, False, True]
    assert nodes[0].replaced == tuple(range(SPLIT))
    assert nodes[2].replaced == tuple(range(SPLIT + 1, len(TINY.ops)))
    assert placement_of(nodes, CPU, TINY) == {"xnnpack": len(TINY.ops) - 1, "cpu fallback": 1}


def test_the_profile_names_modules_and_fallback():
    profile = profile_of(tables_of(ToolAnswer(0, text_of(), "", "")), Runs(10, 2000.0, 2100.0), TINY, CPU)
    assert profile.ops[0].module == "stem.conv"
    assert [op.op_type for op in profile.ops[5:9]] == [
        "Subtract (ND)", "PADV2", "Max Pooling (NHWC, F32)", "Convolution (NHWC, F32)",
    ]  # fmt: skip
    assert profile.attributed_share == pytest.approx(1.0)
    assert sum(op.latency_us for op in profile.ops) == pytest.approx(2000.0)
    assert any("left 1 operators to the builtin CPU kernels: 1 PADV2" in note for note in profile.notes)


def test_a_delegate_that_tells_nothing_is_one_operation():
    text = table(REGULAR, [("TfLiteGpuDelegateV2", 900.0, 1, f"[{outputs(len(TINY.ops) - 1)}]:{len(TINY.ops)}")])
    gpu = RunSettings(runtime="tflite", accelerator="gpu")
    profile = profile_of(tables_of(ToolAnswer(0, text, "", "")), Runs(10, 900.0, 900.0), TINY, gpu)
    (op,) = profile.ops
    assert (op.kernel, len(op.source_nodes), op.module) == ("delegate", len(TINY.ops), None)


def row(name, calls=1):
    return OpRow("DelegateOpInvoke", None, 0.1, 0.1, 1.0, calls, name)


def test_operators_that_share_a_row_are_told_apart():
    # Second partition: Conv:0 is new, Clamp:1 was added to the first one's row, Add:2 is new.
    rows = [
        row("Delegate/Pad (X32):0"),
        row("Delegate/Clamp:1", 2),
        row("Delegate/Conv (F32):0"),
        row("Delegate/Add:2"),
    ]
    first, second = parts_of(rows, 2)
    assert [part.tag for part in first] == ["Pad (X32)", "Clamp"]
    assert [part.tag for part in second] == ["Conv (F32)", "Clamp", "Add"]


def test_a_partition_that_was_all_seen_before_is_found():
    parts = parts_of([row("Delegate/Conv:0", 2), row("Delegate/Add:1", 1)], 2)
    assert [[part.tag for part in partition] for partition in parts] == [["Conv", "Add"], ["Conv"]]


@pytest.mark.parametrize(
    ("rows", "partitions"),
    [
        ([row("Delegate/Conv:0"), row("Delegate/Add:2")], 1),
        ([row("Delegate/Conv:0"), row("Delegate/Add:0")], 1),
        ([row("Conv:0")], 1),
        ([row("Delegate/Conv:0", 3)], 2),
        ([row("Delegate/Conv:0")], 0),
    ],
    ids=["gap", "more partitions than nodes", "no delegate's name", "left over", "no node"],
)
def test_rows_that_allow_no_answer_give_none(rows, partitions):
    assert parts_of(rows, partitions) is None


def test_an_accelerator_that_was_not_applied_is_no_figure():
    report = parse_delegates("GPU acceleration is unsupported on this platform.")
    with pytest.raises(SessionFailed, match=r"GPU delegate was not applied.*unsupported on this platform") as caught:
        delegate_words(report, RunSettings(runtime="tflite", accelerator="gpu"), "xnnpack")
    assert caught.value.kind is FailureKind.TOOL_ERROR
    with pytest.raises(SessionFailed, match="does not say"):
        delegate_words(DelegateReport(), CPU, "xnnpack")
