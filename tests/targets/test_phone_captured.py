"""What a real benchmark_model printed, whole and damaged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.errors import InvalidModel, SessionFailed, UnknownLayout
from targets.phone.flags import pace_of, tool_flags
from targets.phone.op_profile import Runs, profile_of, tables_of
from targets.phone.outcome import figures_of
from targets.phone.remote_run import ToolAnswer
from targets.profiles.benchmark_model_csv import parse_op_csv
from targets.profiles.benchmark_model_summary import parse_summary
from targets.profiles.benchmark_model_text import parse_op_tables
from targets.records import RunSettings
from targets.tflite_files import inspect_tflite

FIXTURES = Path(__file__).parent / "fixtures"
TEXT, CSV, BROKEN, UNKNOWN = (
    (FIXTURES / "benchmark_model" / f"tensorflow-2.14.1-{name}").read_text(encoding="utf-8")
    for name in ("text.txt", "ops.csv", "broken-model.txt", "unknown-flag.txt")
)
TINY = inspect_tflite(FIXTURES / "tflite" / "tiny.tflite")
BUILTIN = RunSettings(runtime="tflite", options={"delegate": "none"})


def test_the_timings():
    read = parse_summary(TEXT)
    assert (read.init_us, read.warmup.first_us) == (723, 405)
    assert (read.regular.count, read.regular.min_us, read.regular.avg_us) == (1485, 31, 92.9279)
    assert parse_summary(UNKNOWN).unconsumed == ("--use_gpu=true",)


def test_text_and_csv_hold_every_operator_of_the_model():
    for answer in (ToolAnswer(0, TEXT, "", ""), ToolAnswer(0, "", "", CSV)):
        tables = tables_of(answer)
        assert [row.op_type for row in tables.graph.rows] == [op.op_type for op in TINY.ops]
        profile = profile_of(tables, Runs(10, 90.0, 90.0), TINY, BUILTIN)
        assert profile.attributed_share == pytest.approx(1.0)
        assert profile.ops[5].module == "pool"
        assert profile.placement == {}


def figures(text, code, settings=BUILTIN):
    pace = pace_of(0.2, 10)
    flags = tool_flags("tiny.tflite", settings, pace)
    return figures_of(ToolAnswer(code, text, "", ""), settings, flags, pace, delegate="none", label="session 0")


def test_a_truncated_model_and_an_unknown_flag():
    with pytest.raises(InvalidModel, match="not a valid Flatbuffer"):
        figures(BROKEN, 1)
    with pytest.raises(SessionFailed, match="does not know --use_gpu=true"):
        figures(UNKNOWN, 0, RunSettings(runtime="tflite", accelerator="gpu"))


READERS = {
    "summary": (TEXT, lambda text: parse_summary(text).regular.avg_us),
    "text": (TEXT, lambda text: [row.avg_ms for table in parse_op_tables(text) for row in table.rows]),
    "csv": (CSV, lambda text: [row.avg_ms for table in parse_op_csv(text) for row in table.rows]),
}


@given(st.sampled_from(sorted(READERS)), st.data())
def test_a_damaged_line_never_gives_another_figure(name, data):
    text, read = READERS[name]
    true = read(text)
    lines = text.split("\n")
    at = data.draw(st.integers(0, len(lines) - 1))
    how = data.draw(st.sampled_from(["delete", "double", "digits"]))
    groups = list(re.finditer(r"\d+", lines[at]))
    if how == "delete":
        del lines[at]
    elif how == "double":
        lines.insert(at, lines[at])
    elif groups:
        group = data.draw(st.sampled_from(groups))
        lines[at] = lines[at][: group.start()] + data.draw(st.text("0123456789", max_size=4)) + lines[at][group.end() :]
    try:
        now = read("\n".join(lines))
    except UnknownLayout as error:
        assert re.search(r"line|section|output|CSV", str(error))
        return
    # Text shows microseconds: a change within rounding cannot be told from the truth. A section may be lost whole.
    tolerance = 0.0021 if name == "text" else 2e-4
    if isinstance(now, list):
        assert any(
            len(now) == len(part) and all(abs(a - b) <= tolerance for a, b in zip(now, part, strict=True))
            for part in (true, true[:1], true[1:])
        )
    else:
        assert now == true
