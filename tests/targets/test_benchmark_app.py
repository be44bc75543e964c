"""Reports of OpenVINO's benchmark_app: captured (see fixtures/benchmark_app/README.md), whole and damaged."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.errors import UnknownLayout
from targets.profiles.benchmark_app import parse_counters_csv, parse_counters_json, parse_statistics

FIXTURES = Path(__file__).parent / "fixtures" / "benchmark_app"
FILES = {
    "statistics": ("openvino-2026.4.1-report.json", parse_statistics),
    "json": ("openvino-2026.4.1-detailed.json", parse_counters_json),
    "csv": ("openvino-2026.4.1-average.csv", parse_counters_csv),
}
TEXTS = {kind: (FIXTURES / name).read_text(encoding="utf-8") for kind, (name, _) in FILES.items()}


def test_the_captured_statistics_are_read():
    found = parse_statistics(TEXTS["statistics"])
    told = json.loads(TEXTS["statistics"])["execution_results"]
    assert f"{found.median_ms:.2f}" == told["latency (ms)"]
    assert f"{found.mean_ms:.2f}" == told["avg latency"]
    assert str(found.iterations) == told["total number of iterations"]
    assert found.options["-infer_precision"] == "CPU:f32"
    assert found.setup["precision"] == "UNSPECIFIED"  # why the report alone does not tell what was computed in


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_the_captured_counters_are_read(kind):
    rows = FILES[kind][1](TEXTS[kind])
    assert [row.name for row in rows if row.node_type == "Convolution"] == [f"/block{i}/Conv" for i in range(3)]
    assert all(row.real_ms == 0 for row in rows if not row.executed)
    assert sum(row.executed for row in rows) == 5


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('"avg latency"', '"average latency"', "other keys"),
        ('"throughput": "', '"throughput": "9', "throughput is not"),
        ('"total number of iterations": "', '"total number of iterations": "9', "throughput is not|not the length"),
        ('"min latency": "', '"min latency": "9', "out of order"),
        ('"max latency": "', '"max latency": "0.00', "no figure"),
        ('"cmd_options"', '"options"', "other sections"),
    ],
)
def test_statistics_that_contradict_themselves_are_refused(old, new, place):
    assert old in TEXTS["statistics"]
    with pytest.raises(UnknownLayout, match=place):
        parse_statistics(TEXTS["statistics"].replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("realTime (ms)", "realTime (us)", "csv:1"),
        ("/block1/Conv;Status.EXECUTED", "/block1/Conv;EXECUTED", "csv:6.*unknown status"),
        ("brgconv_avx2_f32;0.1", "brgconv_avx2_f32;-0.1", "csv:4"),
        ("brgconv_avx2_f32;0.1", "brgconv_avx2_f32;0.9", "not the sum"),
        ("/block1/Conv;", "/block0/Conv;", "share a name"),
        ("\nTotal;", "\nSum;", "csv"),
        ("undef;0.000;", "undef;0.010;", "did not run"),
    ],
)
def test_counters_that_contradict_themselves_are_refused(old, new, place):
    assert old in TEXTS["csv"]
    with pytest.raises(UnknownLayout, match=place):
        parse_counters_csv(TEXTS["csv"].replace(old, new, 1))


def test_average_counters_as_json_hold_one_node_and_are_refused():
    one = json.loads(TEXTS["json"])["detailed_performance"][0]
    with pytest.raises(UnknownLayout, match="no report of detailed counters"):
        parse_counters_json(json.dumps({"report_type": "average", "avg_performance": one}))


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(["json", "csv"]), st.data())
def test_damaged_counters_are_read_right_or_refused(kind, data):
    parse, text = FILES[kind][1], TEXTS[kind]
    true = [row.real_ms for row in parse(text)]
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(text) - 1))
        width = data.draw(st.sampled_from([0, 1, 1, 5, 60]))
        text = (
            text[:at] + data.draw(st.text(st.sampled_from('0123456789.;-"{}[],:\n'), max_size=3)) + text[at + width :]
        )
    try:
        found = [row.real_ms for row in parse(text)]
    except UnknownLayout:
        return
    assert sorted(found) == sorted(true) or sum(found) == pytest.approx(sum(true), abs=0.0005)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.integers(0, 4000))
def test_a_cut_off_report_is_refused(kind, length):
    text = TEXTS[kind].rstrip()
    end = text.rindex("\n") if kind == "csv" else len(text) - 1
    with pytest.raises(UnknownLayout):
        FILES[kind][1](text[: min(length, end)])
