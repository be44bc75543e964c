"""Files of trtexec: constructed to the documented layouts (see fixtures/trtexec/README.md), whole and damaged."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.errors import UnknownLayout, UsageError
from targets.tensorrt.layers import nodes_of_metadata, parse_layers
from targets.tensorrt.log import parse_log
from targets.tensorrt.profile import parse_profile
from targets.tensorrt.times import parse_times
from targets.tensorrt.versions import known_version, version_of_banner
from tests.targets.trtexec_files import FIXTURES, GPU, PROFILED, TIMED, VERSIONS, WARM_UP

PARSERS = {"times": parse_times, "profile": parse_profile, "layers": parse_layers}


def fixture(version, kind):
    suffix = "log" if kind == "run_log" else "json"
    return (FIXTURES / f"constructed-{version}-{kind}.{suffix}").read_text(encoding="utf-8")


def figures(kind, parsed):
    """The numbers that a parser hands on."""
    if kind == "times":
        return [(row.compute_ms, row.latency_ms, row.h2d_ms, row.d2h_ms) for row in parsed]
    if kind == "profile":
        return [(float(parsed.count), layer.total_ms, layer.average_ms, layer.percentage) for layer in parsed.layers]
    return []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_constructed_files_are_read(version):
    rows = parse_times(fixture(version, "times"))
    assert len(rows) == (WARM_UP + TIMED if version.startswith("8.2") else TIMED)
    assert all(row.latency_ms == row.compute_ms > 0 for row in rows)
    profile = parse_profile(fixture(version, "profile"))
    assert profile.count == PROFILED
    assert profile.sum_ms == pytest.approx(1.53, rel=1e-4)
    layers = parse_layers(fixture(version, "layers"))
    assert {time.name for time in profile.layers} == {layer.name for layer in layers}
    if not version.startswith("8.2"):
        assert layers[1].onnx_nodes == ("/block0/Conv", "/block0/Relu")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_log_tells_what_ran(version):
    log = parse_log(fixture(version, "run_log"))
    assert str(log.version) == version
    assert log.passed is True
    assert (log.warm_up_count, log.timed_count) == (WARM_UP, TIMED)
    assert log.told["gpu"] == GPU
    assert log.told["streams"] == "1"
    assert log.load_ms == pytest.approx(21.3)
    assert log.unstable_percent == 3.25
    assert not log.enqueue_bound


def test_a_log_without_a_banner_a_cut_one_and_a_failed_one():
    text = fixture("8.2.1", "run_log")
    with pytest.raises(UnknownLayout, match="bash: trtexec"):
        parse_log("bash: trtexec: command not found\n")
    assert parse_log(text[: text.index("&&&& PASSED")]).passed is None
    assert parse_log(text.replace("PASSED", "FAILED")).passed is False
    with pytest.raises(UnknownLayout, match="for one figure"):
        parse_log(text + "Timing trace has 9 queries over 1 s\n")


def test_terminal_escapes_of_a_device_are_not_passed_on():
    log = parse_log(fixture("8.2.1", "run_log").replace(GPU, "\x1b]0;owned\x07 GPU"))
    assert log.told["gpu"].isprintable()


@pytest.mark.parametrize(("text", "version"), [("8201", "8.2.1"), ("8412", "8.4.12"), ("101300", "10.13.0")])
def test_versions_of_banners(text, version):
    assert str(version_of_banner(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{text}] # trtexec --help")) == version


@pytest.mark.parametrize("text", ["7.1", "8.0.3", "9.2", "12.0", "eight", "8", "8.2; rm -rf x"])
def test_versions_whose_flags_nobody_knows_are_refused(text):
    with pytest.raises(UsageError):
        known_version(text)


def test_layers_by_name_only():
    layers = parse_layers(json.dumps({"Layers": ["a + b", "c"], "Bindings": ["x"]}))
    assert [layer.name for layer in layers] == ["a + b", "c"]
    assert {layer.layer_type for layer in layers} == {""}


def test_metadata_is_split_at_its_separators():
    assert nodes_of_metadata("[ONNX Layer: a]\x1e[ONNX Layer: b[0]]\x1f[Other: c]\x1f[ONNX Layer: a]") == ("a", "b[0]")
    assert nodes_of_metadata("[ONNX Layer: a][ONNX Layer: b]") == ("a", "b")
    assert nodes_of_metadata("anything") == ()


def changed(version, kind, change):
    rows = json.loads(fixture(version, kind), strict=False)
    change(rows)
    return json.dumps(rows)


@pytest.mark.parametrize(
    ("kind", "change", "place"),
    [
        ("times", lambda rows: rows[5].update(computeMs=-1.5), r"times.json\[5\]"),
        ("times", lambda rows: rows[5].update(computeMs=15.1), r"times.json\[5\]"),
        ("times", lambda rows: rows[5].update(latencyMs=9.0), r"times.json\[5\].*sum"),
        ("times", lambda rows: rows[5].update(computeMs="1.5"), r"times.json\[5\]"),
        ("times", lambda rows: rows[5].update(computeMs=True), r"times.json\[5\]"),
        ("times", lambda rows: rows[5].pop("d2hMs"), r"times.json\[5\]"),
        ("times", lambda rows: rows[5].update(extra=1), r"times.json\[5\]"),
        ("times", lambda rows: rows[5].update(endComputeMs=0), r"times.json\[5\]"),
        ("times", lambda rows: rows.reverse(), r"times.json\[1\].*starts before"),
        ("times", lambda rows: rows.clear(), "no list of iterations"),
        ("profile", lambda rows: rows.pop(0), r"profile.json\[0\]"),
        ("profile", lambda rows: rows[0].update(count=79), r"profile.json\[1\].*averageMs"),
        ("profile", lambda rows: rows[2].update(timeMs=1.0), r"profile.json\[2\]"),
        ("profile", lambda rows: rows.pop(), "percentage"),
        ("profile", lambda rows: rows[3].update(name=""), r"profile.json\[3\]"),
        ("layers", lambda rows: rows["Layers"][1].pop("Name"), r"Layers\[1\]"),
        ("layers", lambda rows: rows["Layers"].append("text"), "another kind"),
        ("layers", lambda rows: rows.update(Engines=[]), "other keys"),
        ("layers", lambda rows: rows["Layers"][2].update(Metadata=7), r"Layers\[2\]"),
    ],
)
def test_a_contradiction_is_refused_with_its_place(kind, change, place):
    with pytest.raises(UnknownLayout, match=place):
        PARSERS[kind](changed("10.13.0", kind, change))


@pytest.mark.parametrize("text", ["", "[", "null", "[NaN]", "<html>", '[{"count":1,"count":2}]', "[" * 100_000, "\0"])
@pytest.mark.parametrize("kind", PARSERS)
def test_what_is_no_such_file_is_refused(kind, text):
    with pytest.raises(UnknownLayout):
        PARSERS[kind](text)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(VERSIONS)), st.sampled_from(["times", "profile"]), st.data())
def test_a_damaged_file_is_read_right_or_refused_with_a_place(version, kind, data):
    text = fixture(version, kind)
    true = figures(kind, PARSERS[kind](text))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        width = data.draw(st.sampled_from([0, 1, 1, 1, 5, 60]))
        text = (
            text[:at]
            + data.draw(st.text(st.sampled_from('0123456789.eE-+"{}[]:, \n'), max_size=3))
            + text[at + width :]
        )
    try:
        found = figures(kind, PARSERS[kind](text))
    except UnknownLayout as error:
        assert re.search(r"(times|profile)\.json", str(error))
        return
    assert len(found) == len(true)
    # Six digits are printed: a change within rounding cannot be told from the truth.
    pairs = [pair for row in zip(found, true, strict=True) for pair in zip(*row, strict=True)]
    assert all(a == pytest.approx(b, rel=2e-4, abs=1e-7) for a, b in pairs)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(VERSIONS)), st.sampled_from(["times", "profile", "layers"]), st.integers(0, 3000))
def test_a_cut_off_file_is_refused(version, kind, length):
    text = fixture(version, kind).rstrip()
    with pytest.raises(UnknownLayout, match=rf"{kind}\.json"):
        PARSERS[kind](text[: min(length, len(text) - 1)])
