"""What is read beside the samples of a session: the host, the state of a device, a tool's own summary."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from targets.frozen import Frozen


class HostSnapshot(Frozen):
    """What else the host did while a session was timed.

    Attributes:
        other_cpu_share: CPU time of other processes, as a share of one core (1.0 = one core busy);
            absent where the host hides it, like every optional figure below.
        steal_share: CPU time taken by the hypervisor, as a share of one core.
        cpu_pressure_share: Share of the time in which some task waited for a CPU.
        load_1min: Load average at the end.
        involuntary_switches: Times the session lost its core.
        clock_mhz_before: Clock of the first core before.
        clock_mhz_after: The same, after.
        temperature_c: Hottest thermal zone at the end.
    """

    other_cpu_share: float | None = None
    steal_share: float | None = None
    cpu_pressure_share: float | None = None
    load_1min: float | None = None
    involuntary_switches: int | None = None
    clock_mhz_before: float | None = None
    clock_mhz_after: float | None = None
    temperature_c: float | None = None


class DeviceReading(Frozen):
    """State of a device at one moment; what it does not tell is absent or empty.

    Attributes:
        at: When, by the device's clock where it has one, UTC.
        phase: ``before``, ``during`` or ``after`` the timed part.
        temperatures_c: Thermal zones by name, degrees Celsius.
        clocks_mhz: Clocks by part (``cpu0``, ``gpu``, ...).
        governors: Frequency governors by part.
        power_mw: Power by rail, milliwatts.
        battery_percent: Charge.
        charging: Whether it is being charged.
        screen_on: Whether the screen is lit.
        thermal_status: The system's own word, from ``none`` to ``shutdown`` on Android.
        power_mode: Power mode by name (Jetson's ``nvpmodel``).
        clocks_locked: Whether clocks are held (``jetson_clocks``, locked GPU clocks, performance governor).
        unknown: What could not be read or controlled, one sentence each.
    """

    at: AwareDatetime
    phase: Literal["before", "during", "after"]
    temperatures_c: dict[str, float] = Field(default_factory=dict)
    clocks_mhz: dict[str, float] = Field(default_factory=dict)
    governors: dict[str, str] = Field(default_factory=dict)
    power_mw: dict[str, float] = Field(default_factory=dict)
    battery_percent: float | None = None
    charging: bool | None = None
    screen_on: bool | None = None
    thermal_status: str | None = None
    power_mode: str | None = None
    clocks_locked: bool | None = None
    unknown: tuple[str, ...] = ()


class SampleSummary(Frozen):
    """What a tool tells of its timed inferences where it tells no single ones; milliseconds.

    Attributes:
        count: Timed inferences.
        mean_ms: Mean.
        min_ms: Fastest.
        max_ms: Slowest.
        std_ms: Standard deviation.
        p5_ms: 5th percentile; older tools tell no percentiles.
        p50_ms: Median.
        p95_ms: 95th percentile.
    """

    count: Annotated[int, Field(ge=1)]
    mean_ms: Annotated[float, Field(gt=0)]
    min_ms: Annotated[float, Field(gt=0)]
    max_ms: Annotated[float, Field(gt=0)]
    std_ms: Annotated[float, Field(ge=0)] | None = None
    p5_ms: Annotated[float, Field(gt=0)] | None = None
    p50_ms: Annotated[float, Field(gt=0)] | None = None
    p95_ms: Annotated[float, Field(gt=0)] | None = None
