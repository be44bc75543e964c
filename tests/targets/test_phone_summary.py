"""Timings and delegate lines of benchmark_model: three layouts, and damaged copies that must not give other figures."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.errors import UnknownLayout
from targets.profiles.benchmark_model_delegates import Applied, parse_delegates
from targets.profiles.benchmark_model_summary import parse_summary
from tests.targets.phone_output import summary

LAYOUTS = {
    "oldest": summary(oldest=True),
    "old": summary(),
    "prefixed": summary(prefix="INFO: "),
    "percentiles": summary(prefix="INFO: ", percentiles=True),
}


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_gives_the_same_figures(text):
    read = parse_summary(text)
    assert (read.init_us, read.warmup.first_us, read.regular.count) == (12345, 4611, 242)
    assert (read.regular.min_us, read.regular.avg_us, read.regular.max_us) == (4081, 4153.71, 4402)
    assert read.parameters["Num threads"] == "1"
    assert read.memory_mb == 9.25
    assert (read.samples().p5_ms is not None) == ("p5=" in text)


def test_percentiles_become_milliseconds():
    samples = parse_summary(LAYOUTS["percentiles"]).samples()
    assert (samples.p5_ms, samples.p50_ms, samples.p95_ms) == (4.098, 4.148, 4.29)


@pytest.mark.parametrize(
    ("line", "count"), [("count=1 curr=4171", 1), ("count=10 curr=4171(all same)", 10)], ids=["one", "all same"]
)
def test_runs_without_spread_are_read(line, count):
    text = re.sub(r"count=241.*", line, LAYOUTS["old"])
    text = text.replace("Warmup (avg): 4171.25", "Warmup (avg): 4171").replace(
        "First inference: 4611", "First inference: 4171"
    )
    text = text.replace("at least 10 iterations", f"at least {count} iterations", 1)
    assert parse_summary(text).warmup.count == count


@pytest.mark.parametrize(
    ("old", "new", "quoted"),
    [
        ("avg=4153.71", "avg=4513.71", "contradicts"),
        ("Inference (avg): 4153.71", "Inference (avg): 4135.71", "line 20 contradicts"),
        ("First inference: 4611", "First inference: 4161", "contradicts a first inference"),
        ("Initialized session in 12.345ms", "Initialized session in 123.45ms", "contradicts an init"),
        ("count=242", "count=2420", "contradicts"),
        ("count=242", "count=9", "contradicts"),
        ("min=4081", "min=4801", "line 18 contradicts itself"),
        ("std=40", "std=400", "line 18 contradicts itself"),
        ("std=40", "std=40ms", "line 18 has an unknown layout"),
        ("Inference timings in us", "Inference timings in ms", "0 lines begin with 'Inference timings in us'"),
    ],
)
def test_a_figure_that_contradicts_another_is_refused_with_its_line(old, new, quoted):
    with pytest.raises(UnknownLayout, match=re.escape(quoted)):
        parse_summary(LAYOUTS["old"].replace(old, new))


def test_percentiles_out_of_order_are_refused():
    with pytest.raises(UnknownLayout, match="contradicts itself"):
        parse_summary(LAYOUTS["percentiles"].replace("p5=4098 median=4148", "p5=4198 median=4148"))


def told_twice(read):
    """The figures that the output holds more than once."""
    return read.init_us, read.warmup.first_us, read.warmup.avg_us, read.regular.avg_us


@given(st.sampled_from(sorted(LAYOUTS)), st.data())
def test_a_damaged_output_is_refused_or_read_right(layout, data):
    lines = LAYOUTS[layout].split("\n")
    true = parse_summary(LAYOUTS[layout])
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(lines) - 1))
        how = data.draw(st.sampled_from(["delete", "double", "digits", "swap", "cut"]))
        line = lines[at]
        groups = list(re.finditer(r"\d+", line))
        if how == "delete":
            del lines[at]
        elif how == "double":
            lines.insert(at, line)
        elif how == "digits" and groups:
            group = data.draw(st.sampled_from(groups))
            lines[at] = line[: group.start()] + data.draw(st.text("0123456789", max_size=5)) + line[group.end() :]
        elif how == "swap":
            other = data.draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        elif how == "cut":
            lines[at] = line[: data.draw(st.integers(0, len(line)))]
        if not lines:
            break
    try:
        read = parse_summary("\n".join(lines))
    except UnknownLayout:
        return
    # The oldest layout tells the first inference once.
    same = slice(None) if layout != "oldest" else slice(2, None)
    assert told_twice(read)[same] == told_twice(true)[same]
    assert read.regular.min_us <= read.regular.avg_us <= read.regular.max_us


@given(st.text(max_size=300))
def test_any_text_is_refused(text):
    with pytest.raises(UnknownLayout):
        parse_summary(text)


@pytest.mark.parametrize(
    ("line", "applied"),
    [
        ("Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.",
         Applied("GPU", "completely", 1)),
        ("Explicitly applied NNAPI delegate, and the model graph will be partially executed by the delegate w/ 44 "
         "delegate kernels.", Applied("NNAPI", "partially", 44)),
        ("Though XNNPACK delegate is explicitly applied, the model graph will not be executed by the delegate.",
         Applied("XNNPACK", "nothing", 0)),
    ],
)  # fmt: skip
def test_delegate_lines_are_read(line, applied):
    assert parse_delegates(f"INFO: {line}\n").applied == (applied,)


def test_replaced_nodes_and_refusals_are_read():
    report = parse_delegates(
        "VERBOSE: Replacing 50 out of 52 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 3 partitions for "
        "subgraph 0 (main).\nWARN: GPU acceleration is unsupported on this platform.\n"
    )
    assert (report.replaced[0].nodes, report.replaced[0].total) == (50, 52)
    assert report.refused == "GPU acceleration is unsupported on this platform."


@pytest.mark.parametrize(
    "line",
    [
        "Explicitly applied GPU delegate, and the model graph will be mostly executed by the delegate.",
        "Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate.",
        "Replacing 60 out of 52 node(s) with delegate (X) node, yielding 3 partitions for the whole graph.",
        "Replacing 6 of 52 node(s) with delegate X.",
    ],
)
def test_unknown_delegate_lines_are_refused(line):
    with pytest.raises(UnknownLayout, match="line 1"):
        parse_delegates(line)
