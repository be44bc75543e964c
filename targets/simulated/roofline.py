"""Times of a network on a chip that is not there: the roofline model, with noise, clock ramp and heat.

An operation takes the longer of computing at the unit's peak and moving its bytes, plus the cost of its start
(S. Williams, A. Waterman, D. Patterson, "Roofline", 2009). A fixed share of either peak is taken to be reachable. The
outcome ranks networks roughly as the device would; it is no measurement and is never shown as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from targets.device_profiles import ComputeUnit
from targets.records import Precision
from targets.simulated.workload import Work, Workload

MODEL = "roofline 1"
"""Name and version of this model, as it stands in every record."""

_COMPUTE_SHARE, _MEMORY_SHARE = 0.45, 0.65  # of the peaks; assumptions, the same for every device
_BYTES = {Precision.FP32: 4, Precision.FP16: 2, Precision.BF16: 2, Precision.INT8: 1}
_SESSION_SPREAD, _SAMPLE_SPREAD = 0.008, 0.01  # standard deviations of the logarithm
_SPIKE_CHANCE, _SPIKE_SHARE = 0.01, 0.25
_RAMP_FROM, _RAMP_S = 0.45, 0.06
_AMBIENT_C, _HOT_C, _THROTTLE_C, _WARMING_S = 30.0, 85.0, 70.0, 40.0
_READ_EVERY_S, _READINGS = 0.5, 60  # as a real device is read; at most so many in a session
_THROTTLED = 0.35  # how much of the clock is lost at the hot end


def op_times_us(workload: Workload, unit: ComputeUnit, precision: Precision, threads: int) -> list[float]:
    """Time of every operation at full clock, microseconds.

    Args:
        workload: The operations.
        unit: The part that runs them.
        precision: Numeric type.
        threads: Threads; more than the unit has cores gain nothing.
    """
    cores = min(threads, unit.cores)
    peak = unit.peak_gflops.get(precision, unit.peak_gflops[Precision.FP32]) * cores**0.9
    return [_time_us(work, peak, unit, _BYTES[precision]) for work in workload.works]


def _time_us(work: Work, peak_gflops: float, unit: ComputeUnit, bytes_each: int) -> float:
    operations = 2 * work.macs if work.macs else work.computed
    computing = operations / (peak_gflops * 1e3 * _COMPUTE_SHARE)
    moving = work.elements * bytes_each / (unit.bandwidth_gb_s * 1e3 * _MEMORY_SHARE)
    return max(computing, moving) + unit.launch_us


@dataclass(frozen=True)
class SimulatedTimes:
    """A session that never ran.

    Attributes:
        warmup_ns: Inferences while the clock rises.
        samples_ns: The timed ones.
        timed_s: Sum of the timed ones, seconds.
        temperature_c: At the start and at the end.
        clock_share: Of the highest clock, at the start of the timed part and at its end.
        course: Moments of the timed part: seconds since its start, temperature, share of the highest clock.
    """

    warmup_ns: tuple[int, ...]
    samples_ns: tuple[int, ...]
    timed_s: float
    temperature_c: tuple[float, float]
    clock_share: tuple[float, float]
    course: tuple[tuple[float, float, float], ...]


def simulate(inference_us: float, *, seconds: float, min_runs: int, seed: int) -> SimulatedTimes:
    """Draw the inferences of one session.

    Args:
        inference_us: One inference at full clock.
        seconds: Length of the timed part.
        min_runs: Fewest timed inferences.
        seed: The same seed gives the same session.
    """
    draw = np.random.default_rng(seed)
    base_us = inference_us * math.exp(draw.normal(0.0, _SESSION_SPREAD))
    start_c = _AMBIENT_C + abs(draw.normal(0.0, 1.0))
    warmup_runs = int(min(5_000, max(10, 0.3e6 / base_us)))
    timed_runs = int(min(20_000, max(min_runs, seconds * 1e6 / base_us)))
    runs = warmup_runs + timed_runs
    at_s = np.arange(runs) * (base_us / 1e6)
    ramp = 1 - (1 - _RAMP_FROM) * np.exp(-at_s / _RAMP_S)
    temperature = _HOT_C + (start_c - _HOT_C) * np.exp(-at_s / _WARMING_S)
    heat = np.clip((temperature - _THROTTLE_C) / (_HOT_C - _THROTTLE_C), 0.0, 1.0)
    clock = ramp * (1 - _THROTTLED * heat)
    noise = np.exp(draw.normal(0.0, _SAMPLE_SPREAD, runs))
    spikes = 1 + _SPIKE_SHARE * draw.random(runs) * (draw.random(runs) < _SPIKE_CHANCE)
    taken_ns = np.maximum(1, base_us * 1e3 * noise * spikes / clock).astype(np.int64)
    samples = tuple(int(ns) for ns in taken_ns[warmup_runs:])
    passed_s = np.cumsum(taken_ns[warmup_runs:]) / 1e9
    read = np.unique(np.linspace(0, timed_runs - 1, min(_READINGS, int(passed_s[-1] / _READ_EVERY_S)) + 2).astype(int))
    return SimulatedTimes(
        warmup_ns=tuple(int(ns) for ns in taken_ns[:warmup_runs]),
        samples_ns=samples,
        timed_s=sum(samples) / 1e9,
        temperature_c=(float(temperature[0]), float(temperature[-1])),
        clock_share=(float(clock[warmup_runs]), float(clock[-1])),
        course=tuple(
            (float(passed_s[n]), float(temperature[warmup_runs + n]), float(clock[warmup_runs + n])) for n in read[1:-1]
        ),
    )
