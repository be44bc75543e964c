"""What a Jetson's tools print: captured layouts of two generations, and damaged copies that give no figure.

The lines are composed after NVIDIA's documentation of tegrastats; none was captured on a device of ours.
"""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.drivers.agent_answer import RawReading, SampledLines
from targets.drivers.agent_readings import input_power_mw, read_readings
from targets.errors import UnknownLayout
from targets.jetson import (
    energy_mj,
    mean_input_mw,
    parse_clocks_locked,
    parse_power_mode,
    parse_tegrastats,
)

NANO = (
    "RAM 1903/3964MB (lfb 3x4MB) SWAP 0/1982MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [12%@1479,5%@1479,off,off] "
    "EMC_FREQ 0%@1600 GR3D_FREQ 99%@921 APE 25 PLL@34C CPU@37.5C PMIC@100C GPU@36C AO@43C thermal@36.75C "
    "POM_5V_IN 2500/2300 POM_5V_GPU 120/100 POM_5V_CPU 400/350"
)
ORIN = (
    "11-20-2026 10:00:00 RAM 3163/7471MB (lfb 4x4MB) SWAP 0/3735MB (cached 0MB) CPU [0%@729,1%@729,off,off,0%@729,"
    "0%@729] EMC_FREQ 0%@2133 GR3D_FREQ 47%@[305] NVENC off NVDEC off APE 200 cpu@48.1C soc2@46.9C tj@48.1C "
    "cv0@-256C gpu@47.5C VDD_IN 4985mW/4970mW VDD_CPU_GPU_CV 770mW/770mW VDD_SOC 1530mW/1530mW"
)
AGX = ORIN.replace("VDD_IN 4985mW/4970mW ", "").replace("VDD_SOC 1530mW/1530mW", "VIN_SYS_5V0 2000mW/2000mW")
WHEN = datetime(2026, 1, 1, tzinfo=UTC)
SHOWN = """SOC family:tegra210  Machine:NVIDIA Jetson Nano Developer Kit
Online CPUs: 0-3
cpu0: Online=1 Governor=schedutil MinFreq=1479000 MaxFreq=1479000 CurrentFreq=1479000 IdleStates: WFI=0 c7=0
cpu1: Online=0 Governor=schedutil MinFreq=102000 MaxFreq=1479000 CurrentFreq=1479000 IdleStates: WFI=0 c7=0
GPU MinFreq=921600000 MaxFreq=921600000 CurrentFreq=921600000
EMC MinFreq=204000000 MaxFreq=1600000000 CurrentFreq=1600000000 FreqOverride=1
Fan: PWM=255
NV Power Mode: MAXN
"""


def test_the_layout_of_jetpack_4():
    line = parse_tegrastats(NANO)
    assert line.power_mw == {"POM_5V_IN": 2500.0, "POM_5V_GPU": 120.0, "POM_5V_CPU": 400.0}
    assert (line.gpu_percent, line.gpu_mhz) == (99, 921.0)
    assert line.temperatures_c["thermal"] == 36.75 and line.temperatures_c["CPU"] == 37.5


def test_the_layout_of_jetpack_5_and_6():
    line = parse_tegrastats(ORIN)
    assert line.power_mw == {"VDD_IN": 4985.0, "VDD_CPU_GPU_CV": 770.0, "VDD_SOC": 1530.0}
    assert (line.gpu_percent, line.gpu_mhz) == (47, 305.0)
    assert line.temperatures_c == {"cpu": 48.1, "soc2": 46.9, "tj": 48.1, "gpu": 47.5}  # cv0 is switched off


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("POM_5V_IN 2500/2300", "POM_5V_IN 2.5W/2.3W"),
        ("POM_5V_IN 2500/2300", "POM_5V_IN 2500mW/2300"),
        ("POM_5V_IN 2500/2300", "POM_5V_IN -2500/2300"),
        ("POM_5V_IN 2500/2300", "POM_5V_IN"),
        ("CPU@37.5C", "CPU@9937.5C"),
        ("CPU@37.5C", "CPU@37,5C"),
        ("GR3D_FREQ 99%@921", "GR3D_FREQ 999%@921"),
        ("GR3D_FREQ 99%@921", "GR3D_FREQ off"),
        ("RAM 1903/3964MB", "RAM lots"),
        (NANO, "tegrastats: command not found"),
        (NANO, ""),
    ],
)
def test_a_changed_line_gives_no_figure_and_is_quoted(old, new):
    with pytest.raises(UnknownLayout) as caught:
        parse_tegrastats(NANO.replace(old, new))
    assert "tegrastats" in str(caught.value) and str(caught.value).isprintable()


@given(st.sampled_from([NANO, ORIN]), st.integers(0, 400), st.characters())
def test_one_changed_character_never_invents_power(line, place, character):
    place %= len(line)
    changed = line[:place] + character + line[place + 1 :]
    try:
        power = parse_tegrastats(changed).power_mw
    except UnknownLayout:
        return
    before = parse_tegrastats(line).power_mw
    wrong = {rail: mw for rail, mw in power.items() if before.get(rail) != mw}
    # A digit read as another digit is all that can go unseen, and a rail whose name changed.
    assert all(rail not in before or len(str(int(mw))) <= len(str(int(before[rail]))) for rail, mw in wrong.items())


def test_energy_needs_the_rail_that_feeds_the_board():
    lines = [parse_tegrastats(ORIN), parse_tegrastats(ORIN.replace("4985mW", "5015mW"))]
    assert mean_input_mw(lines) == 5000.0
    assert energy_mj(5000.0, 20.0) == 100.0
    assert mean_input_mw(lines[:1]) is None  # one alone may be from before the load
    assert mean_input_mw([parse_tegrastats(AGX)] * 2) is None
    assert energy_mj(None, 20.0) is None


def test_the_power_mode_and_the_clocks():
    assert parse_power_mode("NV Fan Mode:quiet\nNV Power Mode: MAXN\n0\n") == "MAXN"
    assert parse_power_mode("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_15W_6CORE\n2\n") == "MODE_15W_6CORE"
    assert parse_clocks_locked(SHOWN) is True
    assert parse_clocks_locked(SHOWN.replace("GPU MinFreq=921600000", "GPU MinFreq=76800000")) is False
    for text in ("", "Error: this needs root", "cpu0: Online=1 MinFreq=fast MaxFreq=fast"):
        with pytest.raises(UnknownLayout):
            parse_clocks_locked(text)
    for text in ("", "NV Power Mode:\n", "NV Power Mode: A\nNV Power Mode: B\n"):
        with pytest.raises(UnknownLayout):
            parse_power_mode(text)


def raw(**more):
    return RawReading(at=WHEN, phase=more.pop("phase", "before"), **more)


def sampled(*lines, tool="tegrastats"):
    return raw(phase="during", sampled=SampledLines(tool=tool, interval_ms=250, took_s=1.0, lines=lines))


def test_a_reading_from_the_kernels_files():
    files = {
        "/sys/class/thermal/thermal_zone0/type": "CPU-therm",
        "/sys/class/thermal/thermal_zone0/temp": "41500",
        "/sys/class/thermal/thermal_zone1/type": "CPU-therm",
        "/sys/class/thermal/thermal_zone1/temp": "42000",
        "/sys/class/thermal/thermal_zone2/type": "bad",
        "/sys/class/thermal/thermal_zone2/temp": "999999",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1479000",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
        "/sys/class/devfreq/57000000.gpu/cur_freq": "921600000",
        "/sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0": "POM_5V_IN",
        "/sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input": "2480",
    }
    reading = read_readings([raw(files=files)])[0]
    assert reading.temperatures_c == {"CPU-therm": 41.5, "CPU-therm-1": 42.0}
    assert reading.clocks_mhz == {"cpu0": 1479.0, "gpu": 921.6}
    assert reading.power_mw == {"POM_5V_IN": 2480.0}
    assert reading.clocks_locked is True
    assert reading.unknown == ("thermal zone bad reads '999999'.",)


def test_tools_that_print_something_else_are_said_to_be_unknown():
    reading = read_readings([raw(tools={"nvpmodel": "\x1b[31mno", "jetson_clocks": SHOWN, "nvidia-smi": "N/A"})])[0]
    assert reading.power_mode is None and reading.clocks_locked is True
    assert len(reading.unknown) == 2 and all(sentence.isprintable() for sentence in reading.unknown)


def test_samples_of_a_session():
    reading = read_readings([sampled(NANO, NANO.replace("2500/", "2700/").replace("GPU@36C", "GPU@40C"))])[0]
    assert reading.power_mw["POM_5V_IN"] == 2600.0
    assert reading.temperatures_c["GPU"] == 40.0
    assert reading.clocks_mhz == {"gpu": 921.0}
    assert input_power_mw([sampled(NANO, NANO, NANO)], seconds=0.5) == 2500.0
    broken = sampled(NANO, "garbage")
    assert input_power_mw([broken], seconds=0.5) is None
    assert "garbage" in read_readings([broken])[0].unknown[0]
    assert read_readings([sampled()])[0].unknown == ("tegrastats printed nothing meanwhile.",)


def test_a_desktop_gpu():
    line = "54, 1404, 5705, 98.31, P2, Enabled, 0x0000000000000000"
    reading = read_readings([raw(tools={"nvidia-smi": line + "\n"})])[0]
    assert reading.temperatures_c == {"gpu": 54.0}
    assert reading.clocks_mhz == {"gpu": 1404.0, "gpu-memory": 5705.0}
    assert reading.power_mw == {"gpu": 98310.0} and reading.power_mode == "P2"
    assert read_readings([raw(tools={"nvidia-smi": "54, [N/A], [N/A], [N/A], P2, Enabled, x"})])[0].power_mw == {}
    assert input_power_mw([sampled(line, line, tool="nvidia-smi")], seconds=1) is None  # the GPU's, not the machine's
