"""State of a phone, its cooling down, and what heat does to a verdict; the files are the virtual phone's own."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import pytest

from targets.errors import DeviceUnavailable, SessionFailed
from targets.heat import heat_findings, hottest_c
from targets.inventory import Device
from targets.phone.cooling import cool_down
from targets.phone.state import parse_state, read_state
from targets.records import DeviceReading
from targets.transports.local import LocalTransport
from targets.verdict import judge
from targets.virtual.phone_files import write_phone_files
from tests.targets.making import measurement, session

AT = datetime(2026, 1, 1, tzinfo=UTC)
PHONE = Device(name="phone", transport="adb", serial="X", cool_down_s=60.0)


@pytest.fixture
def root(tmp_path):
    write_phone_files(tmp_path, sys.executable)
    return tmp_path


def state(root, **options):
    return read_state(LocalTransport(), "before", root=str(root), **options)


def test_the_whole_state_comes_in_one_round_trip(root):
    reading = state(root)
    assert reading.temperatures_c == {
        "cpu-0-virtual": 36.0, "gpu-virtual": 35.0, "skin-virtual": 31.0, "battery": 30.0,
    }  # fmt: skip
    assert (reading.battery_percent, reading.charging, reading.screen_on) == (85.0, False, False)
    assert (reading.thermal_status, reading.clocks_locked) == ("none", False)
    assert reading.clocks_mhz["cpu0"] == reading.clocks_mhz["cpu0 limit"] == 2000.0


def test_changes_are_seen(root):
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("71500\n")
    (root / "sys/class/power_supply/battery/status").write_text("Charging\n")
    (root / "system/etc/virtual_thermal_status").write_text("3\n")
    (root / "system/etc/virtual_wakefulness").write_text("Awake\n")
    for governor in root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"):
        governor.write_text("performance\n")
    reading = state(root)
    assert hottest_c(reading) == 71.5
    assert (reading.charging, reading.screen_on, reading.thermal_status) == (True, True, "severe")
    assert reading.clocks_locked is True


def test_what_a_phone_hides_is_said(tmp_path):
    # No dumpsys, no zones, no clocks: a bare folder.
    reading = state(tmp_path, gpu=True)
    told = " ".join(reading.unknown)
    for part in ("the charge", "thermal zones", "thermal status", "frequency governors", "GPU's clock"):
        assert part in told
    assert (reading.battery_percent, reading.clocks_locked) == (None, None)


def test_an_unrooted_phone_says_what_was_not_controlled():
    text = "@@date\n1767225600\n@@user\n2000\n@@battery\n@@zones\n@@cores\n@@gpu\n@@end\n"
    assert "not rooted" in parse_state(text, "before").unknown[0]
    assert parse_state(text, "before").at == AT


def test_units_of_vendors_and_dead_sensors():
    zones = (
        "35500 thermal_zone0 cpu\n412 thermal_zone1 soc\n38 thermal_zone2 npu\n0 thermal_zone3 dead\n-274000 z4 off\n"
    )
    text = f"@@user\n0\n@@zones\n{zones}x y\n@@gpu\n585000000\n@@end\n"
    reading = parse_state(text, "during", gpu=True)
    assert reading.temperatures_c == {"cpu": 35.5, "soc": 41.2, "npu": 38.0}
    assert reading.clocks_mhz == {"gpu": 585.0}


def test_hostile_and_cut_off_answers():
    reading = parse_state("@@user\n0\n@@zones\n40000 z \x1b[2Jevil\n@@battery\nlevel: 9999\n@@end\n", "before")
    assert list(reading.temperatures_c) == ["\\x1b[2Jevil"]
    assert reading.battery_percent is None
    with pytest.raises(SessionFailed, match="cut off"):
        parse_state("@@user\n0\n@@zo", "before")


class Warm:
    """A phone that cools by a step with each reading, and its clock."""

    def __init__(self, start, step=1.0, percent=80.0):
        self.now_c, self.step, self.percent, self.time_s, self.said = start, step, percent, 0.0, []

    def read(self):
        reading = DeviceReading(at=AT, phase="before", temperatures_c={"cpu": self.now_c}, battery_percent=self.percent)
        self.now_c -= self.step
        return reading

    def cool(self, first_c=None, **keys):
        def sleep(seconds):
            self.time_s += seconds

        device = PHONE.model_copy(update=keys)
        return cool_down(device, self.read, first_c, on_wait=self.said.append, sleep=sleep, clock=lambda: self.time_s)


def test_the_first_session_sets_the_temperature_and_later_ones_wait_for_it():
    assert hottest_c(Warm(45.0).cool()) == 45.0
    phone = Warm(45.0)
    assert hottest_c(phone.cool(first_c=38.0)) == 40.0
    assert phone.time_s == 25.0
    assert "45 °C, waiting for 40 °C" in phone.said[0]


def test_the_wait_has_a_deadline():
    phone = Warm(45.0, step=0.0)
    assert hottest_c(phone.cool(first_c=30.0)) == 45.0  # goes on; the verdict says so
    assert phone.time_s == 60.0
    with pytest.raises(DeviceUnavailable, match="still at 45 °C after 60 s"):
        Warm(45.0, step=0.0).cool(start_below_c=40.0)


def test_a_low_battery_is_refused():
    with pytest.raises(DeviceUnavailable, match="has 20 % charge and measuring needs 30 %"):
        Warm(30.0, percent=20.0).cool()


def hot(index, *celsius, status=None, limits=(2000.0, 2000.0), mode="burst"):
    readings = tuple(
        DeviceReading(
            at=AT, phase="before", temperatures_c={"cpu": value}, thermal_status=status,
            clocks_mhz={"cpu0 limit": limits[min(at, len(limits) - 1)], "cpu0 top": 2000.0},
        )
        for at, value in enumerate(celsius)
    )  # fmt: skip
    one = session(index)
    settings = one.settings.model_copy(update={"mode": mode})
    return one.model_copy(update={"readings": readings, "settings": settings})


@pytest.mark.parametrize(
    ("sessions", "words"),
    [
        ([hot(0, 35, 36, status="moderate")], "thermal status was moderate in session 0"),
        ([hot(0, 35, 36, limits=(2000.0, 1400.0))], "held cpu0 to 1400 of 2000 MHz"),
        ([hot(0, 35, 36, limits=(1400.0,))], "held cpu0 to 1400 of 2000 MHz"),
        ([hot(0, 35, 49)], "rose from 35 to 49 °C"),
        ([hot(0, 35, 36), hot(1, 43, 44)], "temperatures from 35 to 43 °C"),
    ],
    ids=["status", "limit fell", "limit low", "rise", "starts"],
)
def test_heat_makes_a_figure_weak(sessions, words):
    assert words in heat_findings(sessions)[0][0]
    verdict = judge(sessions, measurement([10.0] * 3).stats)
    assert verdict.status == "weak"
    assert any(words in reason for reason in verdict.reasons)


def test_cool_sessions_and_the_heat_of_sustained_ones_are_no_finding():
    assert heat_findings([hot(0, 35, 37), hot(1, 36, 38)]) == []
    assert heat_findings([hot(0, 35, 60, mode="sustained")]) == []
    assert heat_findings([session(0)]) == []
