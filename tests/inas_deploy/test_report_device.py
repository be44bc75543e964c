"""What reports tell of phones and boards."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from inas_deploy.report import device
from inas_deploy.report.html import to_html
from inas_deploy.report.markdown import to_markdown
from inas_deploy.report.terminal import bench_table
from targets.records import DeviceReading
from tests.inas_deploy.sample_run import real_run


def with_readings(temperatures_c, **more):
    run = real_run()
    phases = ["before", *["during"] * (len(temperatures_c) - 2), "after"]
    readings = tuple(
        DeviceReading(
            at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=5 * at),
            phase=phase,
            temperatures_c={"cpu": value, "gpu": value - 3},
            **more,
        )
        for at, (phase, value) in enumerate(zip(phases, temperatures_c, strict=True))
    )
    first = run.measurements[0]
    session = first.sessions[0].model_copy(
        update={"readings": readings, "device": {"model": "Some <b>phone</b>"}, "energy_mj": 12.5}
    )
    changed = first.model_copy(update={"sessions": (session, *first.sessions[1:])})
    return run.model_copy(update={"measurements": (changed, *run.measurements[1:])})


def test_the_page_tells_the_state_of_a_device():
    run = with_readings([30.0, 35.0, 42.0, 41.0], battery_percent=81.0, charging=True, unknown=("no clocks told",))
    measurement = run.measurements[0]
    rows = device.reading_rows(measurement)
    assert [row[1:3] for row in rows] == [("before", "30.0"), ("during", "42.0"), ("after", "41.0")]
    assert "81 %, charging" in rows[0]
    assert device.remarks(measurement)[0] == "No clocks told."
    assert "12.50 mJ" in device.remarks(measurement)[1]
    page = to_html(run)
    assert "from 30.0 to 41.0 degrees Celsius" in page
    assert "Some &lt;b&gt;phone&lt;/b&gt;" in page and "<b>phone" not in page


@pytest.mark.parametrize("temperatures_c", [[30.0, 31.0], [30.0, 30.5, 31.0]])
def test_a_trace_needs_three_readings(temperatures_c):
    trace = device.temperature_trace(with_readings(temperatures_c).measurements[0], "t")
    assert (trace is None) == (len(temperatures_c) < 3)


def test_a_sustained_run_tells_its_course_on_every_medium():
    run = with_readings([30.0, 35.0, 42.0, 41.0])
    first = run.measurements[0]
    samples = (10_000_000,) * 100 + (12_000_000,) * 100
    session = first.sessions[0].model_copy(update={"samples_ns": samples})
    settings = first.variant.settings.model_copy(update={"mode": "sustained"})
    hot = first.model_copy(
        update={"sessions": (session,), "variant": first.variant.model_copy(update={"settings": settings})}
    )
    assert device.sustained_notes(first) == []
    course, alone = device.sustained_notes(hot)
    assert course == (
        "Sustained: temperature 30.0 to 41.0 °C (highest 42.0) over 2.2 s; "
        "the last 0.4 s took +20.0 % against the first (median)."
    )
    assert alone.startswith("One session: ")
    cold = hot.model_copy(update={"sessions": (session.model_copy(update={"readings": ()}),)})
    assert "tells no temperature" in device.sustained_notes(cold)[0]
    run = run.model_copy(update={"measurements": (hot,)})
    console = Console(width=200, file=io.StringIO())
    console.print(bench_table(run))
    for shown in (console.file.getvalue(), to_markdown(run), to_html(run)):
        assert "30.0 to 41.0 °C" in shown and "One session: " in shown


def test_this_host_has_no_device_section():
    assert ">Device</h3>" not in to_html(real_run())
