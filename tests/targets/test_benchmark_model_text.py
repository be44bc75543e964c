"""Op tables of LiteRT's profile summary (captured) and of benchmark_model (the captured rows in its layouts)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.errors import UnknownLayout
from targets.profiles.benchmark_model_text import OpTable, parse_op_tables

FIXTURES = Path(__file__).parent / "fixtures" / "tflite"
MODES = ("delegate", "builtin")
CAPTURED = {mode: (FIXTURES / f"litert-2.3.0-summary-{mode}.txt").read_text(encoding="utf-8") for mode in MODES}


def with_tabs(text: str, *, start: bool) -> str:
    """The captured table as benchmark_model lays it out: parted by tabs, with or without the start column."""
    lines = []
    for line in text.splitlines():
        if re.match(r"\s+\[node type\]", line):
            names = re.findall(r"\[[^\]]*\]", line)
            lines.append("\t" + "\t".join(name.rjust(12) for name in (names if start else [names[0], *names[2:]])))
        elif found := re.fullmatch(r"\s*(\S.*?)((?:\s+[0-9.]+%?){7})\s+(\S+)", line):
            cells = found[2].split()
            cells = cells if start else cells[1:]
            lines.append("\t" + "\t".join([found[1].rjust(40), *(cell.rjust(9) for cell in cells), found[3]]))
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


LAYOUTS = {
    **CAPTURED,
    **{f"{mode}, tabs": with_tabs(CAPTURED[mode], start=True) for mode in MODES},
    **{f"{mode}, tabs, no start": with_tabs(CAPTURED[mode], start=False) for mode in MODES},
}


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_rows_add_up_to_the_total_the_tool_prints(text):
    (table,) = parse_op_tables(text)
    assert sum(row.avg_ms for row in table.rows) == pytest.approx(table.total_ms, abs=0.0006 * len(table.rows))
    assert sum(row.percent for row in table.rows) == pytest.approx(100, abs=0.001 * len(table.rows))


def test_types_keep_their_blanks_and_commas():
    (table,) = parse_op_tables(CAPTURED["delegate"])
    assert table.rows[0].op_type == "Delegate/Convolution (NHWC, F32) IGEMM"
    assert table.rows[0].name == "[Delegate]:0"
    assert "PADV2" in {row.op_type for row in table.rows}


def test_the_layouts_hold_the_same_rows():
    def figures(table: OpTable):
        return [(row.op_type, row.first_ms, row.avg_ms, row.percent, row.times_called, row.name) for row in table.rows]

    for mode in MODES:
        (spaced,) = parse_op_tables(CAPTURED[mode])
        (tabbed,) = parse_op_tables(LAYOUTS[f"{mode}, tabs"])
        (startless,) = parse_op_tables(LAYOUTS[f"{mode}, tabs, no start"])
        assert spaced.rows == tabbed.rows
        assert figures(spaced) == figures(startless)
        assert all(row.start_ms is None for row in startless.rows)


def test_the_row_other_tools_misread_is_read():
    # 4.265 ms at 0.107 % of the total: a parser by character position reads 0.10 ms here.
    text = (
        "============================== Run Order ==============================\n"
        "\t [node type]\t [first]\t [avg ms]\t [%]\t [cdf%]\t [mem KB]\t[times called]\t[Name]\n"
        "\t CONV_2D\t 4.269\t 4.265\t  0.107%\t  0.107%\t 0.000\t 1\t[net/Conv2d_0/Relu6]:0\n"
        "\t Convolution (NHWC, F32) IGEMM\t 3990.0\t 3981.728\t 99.893%\t100.000%\t 0.000\t 1\t[net/Conv2d_1]:1\n"
        "\nTimings (microseconds): count=50 first=1 curr=3985990 min=1 max=2 avg=3.985993e+06 std=1\n2 nodes observed\n"
    )
    (table,) = parse_op_tables(text)
    assert [row.avg_ms for row in table.rows] == [4.265, 3981.728]


def test_sections_keep_their_titles():
    text = f"Profiling Info for Benchmark Initialization:\n{CAPTURED['builtin']}\nRegular Runs:\n{CAPTURED['delegate']}"
    assert [table.title for table in parse_op_tables(text)] == [
        "Profiling Info for Benchmark Initialization",
        "Regular Runs",
    ]


@pytest.mark.parametrize(
    ("old", "new", "quoted"),
    [
        ("Run Order", "Order of Runs", "no 'Run Order' table"),
        ("[avg ms]", "[avg us]", r"\[avg us\]"),
        ("   [first]", "", "no known table header"),
        ("nodes observed", "nodes", "its end tells"),
        ("Timings (microseconds)", "Timings (ms)", "no 'Timings"),
    ],
)
def test_unknown_layouts_are_refused_with_the_line(old, new, quoted):
    with pytest.raises(UnknownLayout, match=quoted):
        parse_op_tables(CAPTURED["builtin"].replace(old, new, 1))


@pytest.mark.parametrize("text", ["", "\n\n", "Segmentation fault", "\0" * 50])
def test_output_without_a_table_is_refused(text):
    with pytest.raises(UnknownLayout):
        parse_op_tables(text)


@given(st.sampled_from(sorted(LAYOUTS)), st.data())
def test_a_damaged_table_is_read_right_or_refused(layout, data):
    text = LAYOUTS[layout]
    true = [row.avg_ms for row in parse_op_tables(text)[0].rows]
    end = text.index("Timings")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, min(end, len(text) - 1)))
        width = data.draw(st.sampled_from([0, 1, 1, 1, 5, 40]))
        new = data.draw(st.text(st.sampled_from("0123456789.% \t\n-e,[]:()A"), max_size=3))
        text = text[:at] + new + text[at + width :]
    try:
        tables = parse_op_tables(text)
    except UnknownLayout:
        return
    read = [row.avg_ms for row in tables[0].rows]
    assert len(read) == len(true)
    # Figures are printed to a microsecond: a change within rounding cannot be told from the truth.
    assert all(abs(a - b) <= 0.0021 for a, b in zip(read, true, strict=True))


@given(st.integers(0, 5000))
def test_a_cut_off_output_is_refused(length):
    text = CAPTURED["delegate"]
    cut = text[: min(length, text.index("nodes observed"))]
    with pytest.raises(UnknownLayout):
        parse_op_tables(cut)
