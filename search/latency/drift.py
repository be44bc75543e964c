"""Taking off what slowed the whole device while one network was measured: slow drift, and the state of one process.

Two things move all of a network's blocks together. The machine drifts (heat, clock, other load): the reference
network, measured again and again, shows it. And a process has a state of its own (where its memory lies, what else
ran just then): blocks that several networks share show it, because each network is then compared with many others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

_BANDWIDTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
_ROUNDS = 20
_PRIOR = 0.2


def smoothed_drift(at_s: Floats, reference_us: Floats, wanted_s: Floats) -> Floats:
    """Factor by which the device was slower than usual at given times.

    A Gaussian kernel over the logarithms of the reference's latencies; its width, in typical distances between two
    references, is the one that predicts left-out references best. No drift (a factor of 1 throughout) is taken
    unless a width predicts them better than their mean does.

    Args:
        at_s: Times of the reference, seconds, (R,).
        reference_us: Its latencies, (R,).
        wanted_s: Times wanted, (N,).

    Returns:
        Factors around 1, (N,).
    """
    logs = np.log(reference_us)
    if len(logs) < 4:
        return np.ones(len(wanted_s))
    logs = logs - np.median(logs)
    step = float(np.median(np.diff(np.sort(at_s)))) or 1.0

    def left_out_error(width: float) -> float:
        weights = _kernel(at_s, at_s, width * step)
        np.fill_diagonal(weights, 0.0)
        return float(np.mean(np.abs(_mean(weights, logs) - logs)))

    none = float(np.mean(np.abs(logs - (logs.sum() - logs) / (len(logs) - 1))))
    errors = [left_out_error(width) for width in _BANDWIDTHS]
    if min(errors) >= none:
        return np.ones(len(wanted_s))
    width = _BANDWIDTHS[int(np.argmin(errors))] * step
    return np.exp(_mean(_kernel(wanted_s, at_s, width), logs))


def network_effects(networks: Ints, keys: Ints, latency_us: Floats) -> Floats:
    """Factor by which each network's process was slower than the others that ran the same blocks.

    A robust two-way fit, ``log latency = block + network``: weighted medians in turn (median polish, J. W. Tukey,
    "Exploratory Data Analysis", 1977). A block that only one network has says nothing of the network. Large blocks
    weigh more, because short ones are noisier; a factor of 1 has a say too, that of a fifth of the network's time.

    Args:
        networks: Number of the network of each observation, (N,).
        keys: Number of its block, (N,).
        latency_us: Its latency, positive, (N,).

    Returns:
        Factors by network, (networks,).
    """
    count = int(networks.max(initial=-1)) + 1
    effects = np.zeros(count)
    logs = np.log(latency_us)
    prior_us = _PRIOR * np.bincount(networks, latency_us, minlength=count)
    pairs = np.unique(np.stack([keys, networks]), axis=1)
    shared = np.bincount(pairs[0], minlength=int(keys.max(initial=-1)) + 1) > 1
    use = np.flatnonzero(shared[keys])
    logs, keys, networks = logs[use], keys[use], networks[use]
    owners = np.concatenate([networks, np.arange(count)])
    weights = np.concatenate([latency_us[use], prior_us])
    for _ in range(_ROUNDS if len(use) else 0):
        block = _medians(keys, logs - effects[networks], np.ones(len(logs)))
        effects = _medians(owners, np.concatenate([logs - block[keys], np.zeros(count)]), weights)
    return np.asarray(np.exp(effects))


def _medians(groups: Ints, values: Floats, weights: Floats) -> Floats:
    """Weighted median by group, NaN for a group without values."""
    order = np.lexsort((values, groups))
    found = np.full(int(groups.max()) + 1, np.nan)
    for part in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        cumulative = np.cumsum(weights[part])
        middle = cumulative[-1] / 2
        low = values[part[int(np.searchsorted(cumulative, middle, side="left"))]]
        high = values[part[min(len(part) - 1, int(np.searchsorted(cumulative, middle, side="right")))]]
        found[groups[part[0]]] = (low + high) / 2
    return found


def _kernel(wanted_s: Floats, at_s: Floats, width_s: float) -> Floats:
    distance = (wanted_s[:, None] - at_s[None, :]) / width_s
    nearest = np.abs(distance).min(axis=1, keepdims=True)  # far outside, the nearest reference still counts
    return np.asarray(np.exp(-0.5 * (distance**2 - nearest**2)))


def _mean(weights: Floats, values: Floats) -> Floats:
    return np.asarray(weights @ values / np.maximum(weights.sum(axis=1), 1e-300))


def relative_spread(values: Sequence[float]) -> float | None:
    """Standard deviation of the logarithms; ``None`` for fewer than two values."""
    return float(np.std(np.log(values), ddof=1)) if len(values) > 1 else None
